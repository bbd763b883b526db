//! [`SharedBitmap`]: a bitmap that several hold.

use core::ops::Deref;

use alloc::sync::Arc;

use vm_memory::bitmap::{BS, Bitmap, NewBitmap, WithBitmapSlice};

use super::PugmarkBitmap;

/// An [`Arc`] of a bitmap, as a bitmap: one clone for vm-memory's region, another for whoever drains.
#[derive(Debug, Default)]
pub struct SharedBitmap<B = PugmarkBitmap>(Arc<B>);

impl<B> SharedBitmap<B> {
    /// The `Arc` itself.
    pub const fn as_arc(&self) -> &Arc<B> {
        &self.0
    }
}

impl<B> From<Arc<B>> for SharedBitmap<B> {
    fn from(bitmap: Arc<B>) -> Self {
        Self(bitmap)
    }
}

impl<B> Clone for SharedBitmap<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B> Deref for SharedBitmap<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.0
    }
}

impl<'a, B: WithBitmapSlice<'a>> WithBitmapSlice<'a> for SharedBitmap<B> {
    type S = B::S;
}

impl<B: Bitmap> Bitmap for SharedBitmap<B> {
    #[inline]
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.0.mark_dirty(offset, len);
    }

    fn dirty_at(&self, offset: usize) -> bool {
        self.0.dirty_at(offset)
    }

    fn slice_at(&self, offset: usize) -> BS<'_, B> {
        self.0.slice_at(offset)
    }
}

impl<B: NewBitmap> NewBitmap for SharedBitmap<B> {
    fn with_len(len: usize) -> Self {
        Self(Arc::new(B::with_len(len)))
    }
}
