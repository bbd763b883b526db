use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use alloc::boxed::Box;
use core::fmt;
use core::ptr::{self, NonNull};

use super::{Storage, private};
use crate::slots::arena::Shape;
use crate::slots::chunk::{CHUNK_SLOTS, Chunk};
use crate::slots::hints::{ChunkHints, SlotHints};
use crate::slots::words::WORD;
use crate::sync::{
    AtomicPtr, HintByte,
    Ordering::{Acquire, Release},
};

/// Chunks on the heap, each made when it is first needed, and never moved.
pub struct Growing {
    /// Null where there is no chunk yet.
    chunks: Box<[AtomicPtr<u8>]>,
    /// All of them from the start: a writer has the address of one.
    slot_hints: Box<[SlotHints]>,
    hints: Box<[ChunkHints]>,
    layout: Layout,
    words: usize,
}

impl Growing {
    pub(in crate::slots) fn new(shape: Shape) -> Option<Self> {
        let layout = Layout::from_size_align(shape.chunk_bytes(), align_of::<Chunk<[usize; 0]>>());
        let null = |_| AtomicPtr::new(ptr::null_mut());
        let unset = || [const { HintByte::new() }; CHUNK_SLOTS];
        Some(Self {
            chunks: (0..shape.chunks).map(null).collect(),
            slot_hints: (0..shape.chunks).map(|_| unset()).collect(),
            hints: (0..shape.chunks).map(|_| ChunkHints::new()).collect(),
            layout: layout.ok()?,
            words: shape.chunk_words(),
        })
    }
}

impl private::Sealed for Growing {}

impl Storage for Growing {
    #[inline]
    fn stride(&self) -> usize {
        self.words / CHUNK_SLOTS * WORD
    }

    #[inline]
    fn slot_hints(&self) -> &[SlotHints] {
        &self.slot_hints
    }

    #[inline]
    fn hints(&self) -> &[ChunkHints] {
        &self.hints
    }

    #[inline]
    fn chunk(&self, chunk: usize) -> Option<&Chunk> {
        // Acquire: the chunk's zeros come before it.
        let start = NonNull::new(self.chunks.get(chunk)?.load(Acquire))?;
        // SAFETY: `grow` stored it, of this layout; it lives until `self` is dropped.
        Some(unsafe { Chunk::at(start.as_ptr(), self.words) })
    }

    fn grow(&self, chunk: usize) -> Option<&Chunk> {
        let cell = self.chunks.get(chunk)?;
        if cell.load(Acquire).is_null() {
            // SAFETY: a chunk's header makes its layout larger than nothing.
            let start = NonNull::new(unsafe { alloc_zeroed(self.layout) })?;
            // Only the arena's one owner grows it. Release: the chunk's zeros come before it.
            cell.store(start.as_ptr(), Release);
        }
        self.chunk(chunk)
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        for cell in &mut self.chunks {
            if let Some(start) = NonNull::new(*cell.get_mut()) {
                // SAFETY: `grow` allocated it with this layout, and nothing borrows `self` any more.
                unsafe { dealloc(start.as_ptr(), self.layout) }
            }
        }
    }
}

impl fmt::Debug for Growing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Growing(at most {} chunks)", self.chunks.len())
    }
}
