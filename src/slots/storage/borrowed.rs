use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use super::{Storage, private};
use crate::slots::arena::{ArenaError, Shape};
use crate::slots::chunk::{CHUNK_SLOTS, Chunk, HEADER};
use crate::slots::hints::{ChunkHints, SlotHints};
use crate::slots::words::WORD;

/// Chunks in memory that is set aside elsewhere.
pub struct Borrowed<'a> {
    chunks: NonNull<u8>,
    words: usize,
    slot_hints: &'a [SlotHints],
    hints: &'a [ChunkHints],
    chunk: PhantomData<&'a Chunk>,
}

// SAFETY: it stands for `&'a [Chunk]`, and a chunk is nothing but atomics.
unsafe impl Send for Borrowed<'_> {}
// SAFETY: the same.
unsafe impl Sync for Borrowed<'_> {}

/// Bytes of memory that an arena of `slots` slots of `stride` bytes takes, in whole chunks, from a
/// multiple of 64 on. [`usize::MAX`] where that is more than there are.
///
/// Of memory that is aligned to less, as much is skipped at the start.
#[must_use]
pub const fn bytes_for(slots: usize, stride: usize) -> usize {
    match Shape::new(slots, stride) {
        Ok(shape) => shape.bytes(),
        Err(_) => usize::MAX,
    }
}

impl<'a> Borrowed<'a> {
    /// # Safety
    ///
    /// See `Arena::in_memory`.
    pub(in crate::slots) unsafe fn new(
        memory: NonNull<u8>,
        bytes: usize,
        shape: Shape,
    ) -> Result<Self, ArenaError> {
        let skipped = memory.align_offset(align_of::<Chunk<[usize; 0]>>());
        let needed = shape.bytes().saturating_add(skipped);
        if bytes < needed {
            return Err(ArenaError::MemoryTooSmall {
                needed,
                given: bytes,
            });
        }
        // SAFETY: within the memory, by the check above.
        let (chunks, slot_hints, hints) = unsafe {
            let chunks = memory.add(skipped);
            let slot_hints = chunks.add(shape.chunks * shape.chunk_bytes());
            let hints = slot_hints.add(shape.chunks * size_of::<SlotHints>());
            (chunks, slot_hints, hints)
        };
        for chunk in 0..shape.chunks {
            // SAFETY: the header of a chunk that is in the memory, which nobody else has yet.
            unsafe {
                chunks
                    .add(chunk * shape.chunk_bytes())
                    .write_bytes(0, HEADER)
            };
        }
        let (slot_hints, hints) = (slot_hints.cast::<SlotHints>(), hints.cast::<ChunkHints>());
        // SAFETY: the hints follow the chunks, and those of the chunks follow those of the slots, all
        // of them bytes; zeros are hints that are not set.
        let (slot_hints, hints) = unsafe {
            slot_hints.write_bytes(0, shape.chunks);
            hints.write_bytes(0, shape.chunks);
            (
                core::slice::from_raw_parts(slot_hints.as_ptr(), shape.chunks),
                core::slice::from_raw_parts(hints.as_ptr(), shape.chunks),
            )
        };
        Ok(Self {
            chunks,
            words: shape.chunk_words(),
            slot_hints,
            hints,
            chunk: PhantomData,
        })
    }
}

impl private::Sealed for Borrowed<'_> {}

impl Storage for Borrowed<'_> {
    #[inline]
    fn stride(&self) -> usize {
        self.words / CHUNK_SLOTS * WORD
    }

    #[inline]
    fn slot_hints(&self) -> &[SlotHints] {
        self.slot_hints
    }

    #[inline]
    fn hints(&self) -> &[ChunkHints] {
        self.hints
    }

    #[inline]
    fn chunk(&self, chunk: usize) -> Option<&Chunk> {
        if chunk >= self.hints.len() {
            return None;
        }
        // SAFETY: one of the chunks that `new` found room for, each a multiple of 64 bytes long.
        unsafe {
            let start = self.chunks.add(chunk * (HEADER + self.words * WORD));
            Some(Chunk::at(start.as_ptr(), self.words))
        }
    }
}

impl fmt::Debug for Borrowed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Borrowed({} chunks)", self.hints.len())
    }
}
