//! Which memory a chain is of.

use core::fmt;
use core::ops::Range;

use ::std::vec::Vec;

use super::format::MAX_CELL;
use super::info::FileInfo;
use crate::pages::{BlockState, TrackedRegion};
use crate::sync::AtomicUsize;

/// A region of guest memory, as a file names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct RegionLayout {
    /// Guest physical address of its first byte.
    pub base: u64,
    /// Its size, in bytes.
    pub size: u64,
    /// Bytes in a page of it.
    pub page_size: u64,
}

impl RegionLayout {
    /// Its addresses.
    pub const fn range(&self) -> Range<u64> {
        self.base..self.base + self.size
    }

    /// Bytes in a cell, what runs are multiples of: a page, or a part of a large one.
    pub(super) fn cell(&self) -> u64 {
        self.page_size.min(MAX_CELL)
    }

    fn is_sound(&self) -> bool {
        self.size != 0
            && self.page_size.is_power_of_two()
            && self.base.is_multiple_of(self.page_size)
            && self.base.checked_add(self.size).is_some()
    }
}

impl fmt::Display for RegionLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = self.range();
        write!(f, "{start:#x}..{end:#x}, pages of {}", self.page_size)
    }
}

/// All regions, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Layout(Vec<RegionLayout>);

impl Layout {
    /// `None` where the regions are none that a tracker can have.
    pub fn new(regions: Vec<RegionLayout>) -> Option<Self> {
        let are_apart = |pair: &[RegionLayout]| pair[0].range().end <= pair[1].base;
        // In this order: what is not sound may have no end.
        let sound = regions.iter().all(RegionLayout::is_sound) && regions.windows(2).all(are_apart);
        sound.then_some(Self(regions))
    }

    pub fn of<W: AsRef<[AtomicUsize]>, B: AsRef<[BlockState]>>(
        regions: &[TrackedRegion<W, B>],
    ) -> Self {
        let regions = regions.iter().map(|region| RegionLayout {
            base: region.base(),
            size: region.size(),
            page_size: region.geometry().page_size(),
        });
        Self(regions.collect())
    }

    pub fn from(file: &FileInfo) -> Self {
        Self(file.regions.clone())
    }

    pub fn regions(&self) -> &[RegionLayout] {
        &self.0
    }

    /// The region of a run, by its index; `None` unless it is whole cells of one.
    pub fn region_of(&self, run: &Range<u64>) -> Option<usize> {
        let after = self.0.partition_point(|region| region.base <= run.start);
        let index = after.checked_sub(1)?;
        let region = &self.0[index];
        let whole = |address: u64| (address - region.base).is_multiple_of(region.cell());
        let end = region.range().end;
        let fits = run.start < run.end
            && run.end <= end
            && whole(run.start)
            && (whole(run.end) || run.end == end);
        fits.then_some(index)
    }
}
