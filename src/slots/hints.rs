//! What is left for the reader: a byte for each slot, and two for each chunk.

use super::chunk::CHUNK_SLOTS;
use crate::sync::HintByte;

/// A byte for each slot of a chunk: it was written, or freed.
pub type SlotHints = [HintByte; CHUNK_SLOTS];

/// What is left for the reader about a chunk.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ChunkHints {
    /// A slot's hint is set.
    pub(super) written: HintByte,
    /// A slot has another generation: set by the owner.
    pub(super) reused: HintByte,
}

impl ChunkHints {
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Self {
            written: HintByte::new(),
            reused: HintByte::new(),
        }
    }

    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self::default()
    }
}

/// Where the writer of a slot leaves its hint.
#[derive(Debug, Clone, Copy)]
pub struct Hint<'a> {
    pub(super) slot: &'a HintByte,
    pub(super) chunk: &'a HintByte,
}

impl Hint<'_> {
    /// Says that the slot has another version, which comes before this.
    ///
    /// The slot's byte first: a reader that takes the chunk's finds it.
    #[inline]
    pub(super) fn leave(self) {
        self.slot.set();
        self.chunk.set();
    }
}
