//! [`PugmarkBitmap`]: a bitmap of ours for one region of vm-memory.

use core::fmt;

use vm_memory::bitmap::{Bitmap, NewBitmap, RefSlice, WithBitmapSlice};

use crate::DirtyBitmap;
use crate::bitmap::BoxedWords;

/// A [`DirtyBitmap`] of the pages of one vm-memory region, by byte offset.
///
/// It keeps what vm-memory's own `AtomicBitmap` promises: what lies past the end is ignored, a length
/// of zero marks nothing, and a part of a page marks the page.
#[derive(Debug)]
pub struct PugmarkBitmap {
    bits: DirtyBitmap<BoxedWords>,
    page_shift: u32,
}

impl PugmarkBitmap {
    /// A clean bitmap of `len` bytes in pages of `page_size` bytes; the last page may be partial.
    ///
    /// # Errors
    ///
    /// [`PageSizeError`], where the page size is no power of two.
    pub fn new(len: usize, page_size: usize) -> Result<Self, PageSizeError> {
        if !page_size.is_power_of_two() {
            return Err(PageSizeError { page_size });
        }
        Ok(Self::with_shift(len, page_size.trailing_zeros()))
    }

    fn with_shift(len: usize, page_shift: u32) -> Self {
        Self {
            bits: DirtyBitmap::boxed(len.div_ceil(1 << page_shift)),
            page_shift,
        }
    }

    /// The bits, one a page: to drain, to count, to merge into another bitmap.
    pub const fn bits(&self) -> &DirtyBitmap<BoxedWords> {
        &self.bits
    }

    /// Bytes in a page.
    pub const fn page_size(&self) -> usize {
        1 << self.page_shift
    }
}

impl Default for PugmarkBitmap {
    /// A bitmap of no pages.
    fn default() -> Self {
        Self::with_len(0)
    }
}

impl NewBitmap for PugmarkBitmap {
    /// In pages of the host's size.
    fn with_len(len: usize) -> Self {
        Self::with_shift(len, host_page_shift())
    }
}

impl<'a> WithBitmapSlice<'a> for PugmarkBitmap {
    type S = RefSlice<'a, Self>;
}

impl Bitmap for PugmarkBitmap {
    #[inline]
    fn mark_dirty(&self, offset: usize, len: usize) {
        let Some(last) = len.checked_sub(1) else {
            return;
        };
        let first = offset >> self.page_shift;
        // A range that would wrap around ends at the last address there is.
        let last = offset.saturating_add(last) >> self.page_shift;
        if first == last {
            // Out of range is ignored here.
            let _ = self.bits.mark(first);
        } else {
            let end = self.bits.len().min(last.saturating_add(1));
            let _ = self.bits.mark_range(first.min(end)..end);
        }
    }

    fn dirty_at(&self, offset: usize) -> bool {
        self.bits.is_marked(offset >> self.page_shift) == Ok(true)
    }

    fn slice_at(&self, offset: usize) -> RefSlice<'_, Self> {
        RefSlice::new(self, offset)
    }
}

#[cfg(unix)]
fn host_page_shift() -> u32 {
    rustix::param::page_size().trailing_zeros()
}

/// Windows has pages of 4 KiB on each architecture that it runs on.
#[cfg(not(unix))]
fn host_page_shift() -> u32 {
    12
}

/// A page size that is no power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct PageSizeError {
    /// The size given, in bytes.
    pub page_size: usize,
}

impl fmt::Display for PageSizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { page_size } = self;
        write!(f, "a page of {page_size} bytes is no power of two")
    }
}

impl core::error::Error for PageSizeError {}
