//! [`SwapBitmap`]: a bitmap that is exchanged while devices mark.

use core::fmt;

use alloc::sync::Arc;

use arc_swap::ArcSwapOption;
use vm_memory::bitmap::{Bitmap, NewBitmap, RefSlice, WithBitmapSlice};

/// A bitmap that can be put in, taken out and exchanged at run time. Without one nothing is tracked,
/// and so it begins.
///
/// A mark takes no lock, and neither waits for an exchange nor makes one wait. What vhost-user's
/// `SET_LOG_BASE` needs, and a tracker that is made after the memory is.
pub struct SwapBitmap<B> {
    current: ArcSwapOption<B>,
}

impl<B> SwapBitmap<B> {
    /// Without a bitmap.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            current: ArcSwapOption::const_empty(),
        }
    }

    /// Puts `bitmap` in, or takes the present one out; returns that one.
    ///
    /// Marks that begin after this returns are in the new one. One that began before may still come
    /// to the old one, until [`Arc::get_mut`] says that nobody else has it: drain it then, or once
    /// more. (`Arc::strong_count` says so too, but does not make what others wrote visible here.)
    pub fn replace(&self, bitmap: Option<Arc<B>>) -> Option<Arc<B>> {
        self.current.swap(bitmap)
    }

    /// The present one.
    pub fn current(&self) -> Option<Arc<B>> {
        self.current.load_full()
    }
}

impl<B> Default for SwapBitmap<B> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<B> From<Arc<B>> for SwapBitmap<B> {
    fn from(bitmap: Arc<B>) -> Self {
        Self {
            current: ArcSwapOption::new(Some(bitmap)),
        }
    }
}

impl<B: fmt::Debug> fmt::Debug for SwapBitmap<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwapBitmap")
            .field("current", &self.current())
            .finish()
    }
}

impl<'a, B: Bitmap + 'static> WithBitmapSlice<'a> for SwapBitmap<B> {
    type S = RefSlice<'a, Self>;
}

impl<B: Bitmap + 'static> Bitmap for SwapBitmap<B> {
    #[inline]
    fn mark_dirty(&self, offset: usize, len: usize) {
        if let Some(bitmap) = &*self.current.load() {
            bitmap.mark_dirty(offset, len);
        }
    }

    fn dirty_at(&self, offset: usize) -> bool {
        let current = self.current.load();
        current
            .as_ref()
            .is_some_and(|bitmap| bitmap.dirty_at(offset))
    }

    fn slice_at(&self, offset: usize) -> RefSlice<'_, Self> {
        RefSlice::new(self, offset)
    }
}

impl<B: Bitmap + 'static> NewBitmap for SwapBitmap<B> {
    /// Without a bitmap, whatever the length.
    fn with_len(_: usize) -> Self {
        Self::empty()
    }
}
