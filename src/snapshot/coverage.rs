//! Which memory was dealt with already.

use core::ops::Range;

use ::std::vec::Vec;

use super::layout::{Layout, RegionLayout};
use crate::bitmap::{BoxedWords, DirtyBitmap};

/// A bit for each cell of the layout.
#[derive(Debug)]
pub(super) struct Coverage(Vec<(RegionLayout, DirtyBitmap<BoxedWords>)>);

impl Coverage {
    /// `None` where memory of that size would have more pages than a bitmap has bits.
    pub fn new(layout: &Layout) -> Option<Self> {
        let regions = layout.regions().iter().map(|region| {
            let cells = usize::try_from(region.size.div_ceil(region.cell())).ok()?;
            (cells <= crate::bitmap::MAX_BITS).then(|| (*region, DirtyBitmap::boxed(cells)))
        });
        regions.collect::<Option<_>>().map(Self)
    }

    /// Covers `run`, which lies in the region of that index.
    pub fn cover(&mut self, region: usize, run: Range<u64>) {
        let (region, bits) = &self.0[region];
        let covered = bits.mark_range(cells(region, &run));
        debug_assert!(covered.is_ok(), "the bitmap has a bit a cell");
    }

    /// The parts of `run`, which lies in the region of that index, that are not covered, maximal
    /// and ascending.
    pub fn uncovered(&self, region: usize, run: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let (region, bits) = &self.0[region];
        let address = |cell: usize| region.base + cell as u64 * region.cell();
        let mut cells = cells(region, &run);
        let end = run.end;
        core::iter::from_fn(move || {
            let is_covered = |&cell: &usize| bits.is_marked(cell) == Ok(true);
            let first = cells.find(|cell| !is_covered(cell))?;
            let after = cells.find(is_covered).map_or(end, address);
            Some(address(first)..after)
        })
    }

    /// The first part of all memory that is not covered.
    pub fn first_gap(&self) -> Option<Range<u64>> {
        let regions = self.0.iter().enumerate();
        let mut partly = regions.filter(|(_, (_, bits))| bits.count() != bits.len());
        partly.find_map(|(index, (region, _))| self.uncovered(index, region.range()).next())
    }
}

fn cells(region: &RegionLayout, run: &Range<u64>) -> Range<usize> {
    // A region has no more cells than a bitmap has bits, see `new`: they fit a usize.
    let cell = |offset: u64| offset as usize;
    let first = cell((run.start - region.base) / region.cell());
    first..cell((run.end - region.base).div_ceil(region.cell()))
}
