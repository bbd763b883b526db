//! [`TrackerBitmap`]: what devices write, told to a tracker.

use core::fmt;
use core::ops::Range;

use alloc::sync::Arc;

use vm_memory::bitmap::{Bitmap, RefSlice, WithBitmapSlice};

use crate::{RegionSet, WriteTracker};

/// A [`WriteTracker`], whatever its host and its regions.
pub trait MarkWritten: Send + Sync {
    /// See [`WriteTracker::mark_written`]; what is in no region is ignored.
    fn mark_written(&self, ipas: Range<u64>);

    /// Whether the page at `ipa` is marked, now.
    fn is_marked(&self, ipa: u64) -> bool;
}

impl<P: Send + Sync, R> MarkWritten for WriteTracker<P, R>
where
    R: RegionSet<Words: Send + Sync, Blocks: Send + Sync> + Send + Sync,
{
    fn mark_written(&self, ipas: Range<u64>) {
        let _ = self.mark_written(ipas);
    }

    fn is_marked(&self, ipa: u64) -> bool {
        let mut regions = self.regions().iter();
        let region = regions.find(|region| region.page_range().contains(&ipa));
        region.is_some_and(|region| {
            let page = (ipa - region.base()) / region.geometry().page_size();
            region.dirty().is_marked(page as usize) == Ok(true)
        })
    }
}

/// One vm-memory region of a guest whose pages a [`WriteTracker`] tracks: what a device writes through
/// vm-memory is marked there, after it is written.
///
/// vm-memory's regions are often made before the tracker. Then they hold a
/// [`SwapBitmap<TrackerBitmap>`](super::SwapBitmap), and get this one when there is one.
#[derive(Clone)]
pub struct TrackerBitmap {
    tracker: Arc<dyn MarkWritten>,
    base: u64,
    len: usize,
}

impl TrackerBitmap {
    /// For the region of `len` bytes at guest physical address `base`. What a device marks past its
    /// end is ignored.
    #[must_use]
    pub fn new(tracker: Arc<dyn MarkWritten>, base: u64, len: usize) -> Self {
        Self { tracker, base, len }
    }
}

impl fmt::Debug for TrackerBitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackerBitmap")
            .field("base", &self.base)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl<'a> WithBitmapSlice<'a> for TrackerBitmap {
    type S = RefSlice<'a, Self>;
}

impl Bitmap for TrackerBitmap {
    fn mark_dirty(&self, offset: usize, len: usize) {
        let end = offset.saturating_add(len).min(self.len);
        if offset < end {
            let address = |offset: usize| self.base.saturating_add(offset as u64);
            self.tracker.mark_written(address(offset)..address(end));
        }
    }

    fn dirty_at(&self, offset: usize) -> bool {
        let ipa = self.base.checked_add(offset as u64);
        offset < self.len && ipa.is_some_and(|ipa| self.tracker.is_marked(ipa))
    }

    fn slice_at(&self, offset: usize) -> RefSlice<'_, Self> {
        RefSlice::new(self, offset)
    }
}
