//! [`Storage`]: where an arena's chunks are. None of them ever moves.

#[cfg(not(loom))]
mod borrowed;
#[cfg(all(feature = "alloc", not(loom)))]
mod growing;

use core::fmt;

#[cfg(not(loom))]
pub use borrowed::{Borrowed, bytes_for};
#[cfg(all(feature = "alloc", not(loom)))]
pub use growing::Growing;

use super::chunk::{CHUNK_SLOTS, Chunk};
use super::hints::{ChunkHints, Hint, SlotHints};
use super::words::WORD;
use crate::sync::{AtomicUsize, HintByte};

/// Where an arena's chunks are: [`Inline`], [`Borrowed`] or [`Growing`].
///
/// Sealed: an arena's promises rest on what a storage gives.
pub trait Storage: private::Sealed {
    /// Bytes in a slot.
    #[doc(hidden)]
    fn stride(&self) -> usize;

    /// The hints of the slots of each chunk that there can be.
    #[doc(hidden)]
    fn slot_hints(&self) -> &[SlotHints];

    /// The hints of each chunk that there can be: as many.
    #[doc(hidden)]
    fn hints(&self) -> &[ChunkHints];

    /// Where the writer of a slot leaves its hint.
    #[doc(hidden)]
    #[inline]
    fn hint(&self, chunk: usize, slot: usize) -> Option<Hint<'_>> {
        Some(Hint {
            slot: self.slot_hints().get(chunk)?.get(slot)?,
            chunk: &self.hints().get(chunk)?.written,
        })
    }

    /// The chunk, if it is there.
    #[doc(hidden)]
    fn chunk(&self, chunk: usize) -> Option<&Chunk>;

    /// The chunk, made first if it is not there and can be.
    #[doc(hidden)]
    fn grow(&self, chunk: usize) -> Option<&Chunk> {
        self.chunk(chunk)
    }
}

pub(super) mod private {
    #[doc(hidden)]
    pub trait Sealed {}
}

/// Chunks inside the arena itself.
pub struct Inline<const CHUNKS: usize, const WORDS: usize> {
    chunks: [Chunk<[AtomicUsize; WORDS]>; CHUNKS],
    slot_hints: [SlotHints; CHUNKS],
    hints: [ChunkHints; CHUNKS],
}

impl<const CHUNKS: usize, const WORDS: usize> Inline<CHUNKS, WORDS> {
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Self {
            chunks: [const { Chunk::empty() }; CHUNKS],
            slot_hints: [const { [const { HintByte::new() }; CHUNK_SLOTS] }; CHUNKS],
            hints: [const { ChunkHints::new() }; CHUNKS],
        }
    }

    #[cfg(loom)]
    pub(super) fn new() -> Self {
        use core::array::from_fn;
        Self {
            chunks: from_fn(|_| Chunk::empty()),
            slot_hints: from_fn(|_| from_fn(|_| HintByte::new())),
            hints: from_fn(|_| ChunkHints::new()),
        }
    }
}

impl<const CHUNKS: usize, const WORDS: usize> private::Sealed for Inline<CHUNKS, WORDS> {}

impl<const CHUNKS: usize, const WORDS: usize> Storage for Inline<CHUNKS, WORDS> {
    #[inline]
    fn stride(&self) -> usize {
        WORDS / CHUNK_SLOTS * WORD
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
        Some(self.chunks.get(chunk)?)
    }
}

impl<const CHUNKS: usize, const WORDS: usize> fmt::Debug for Inline<CHUNKS, WORDS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inline({CHUNKS} chunks)")
    }
}
