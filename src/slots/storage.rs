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

use super::chunk::{CHUNK_SLOTS, Chunk, LINES};
use super::hints::Hints;
use super::words::WORD;
use crate::sync::AtomicUsize;

/// Where an arena's chunks are: [`Inline`], [`Borrowed`] or [`Growing`].
///
/// Sealed: an arena's promises rest on what a storage gives.
pub trait Storage: private::Sealed {
    /// Bytes in a slot.
    #[doc(hidden)]
    fn stride(&self) -> usize;

    /// The hints of each line of each chunk that there can be.
    #[doc(hidden)]
    fn hints(&self) -> &[Hints];

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
    hints: [[Hints; LINES]; CHUNKS],
}

impl<const CHUNKS: usize, const WORDS: usize> Inline<CHUNKS, WORDS> {
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Self {
            chunks: [const { Chunk::empty() }; CHUNKS],
            hints: [const { [const { Hints::new() }; LINES] }; CHUNKS],
        }
    }

    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self {
            chunks: core::array::from_fn(|_| Chunk::empty()),
            hints: core::array::from_fn(|_| core::array::from_fn(|_| Hints::new())),
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
    fn hints(&self) -> &[Hints] {
        self.hints.as_flattened()
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
