//! Neighbours, one by one.

use super::{HINTS, RUN, written_one_by_one};
use crate::slots::hints::{ChunkHints, SlotHints};
use crate::slots::words::{BLOCK, WORD};
use crate::sync::{AtomicUsize, HintByte, Ordering::Relaxed};

/// A block of words, in registers where there are as many.
pub(in crate::slots) struct Block([usize; BLOCK]);

impl Block {
    #[inline]
    pub(in crate::slots) fn load(words: &[AtomicUsize; BLOCK]) -> Self {
        // Relaxed: the version's fences order the payload as a whole.
        Self(core::array::from_fn(|i| words[i].load(Relaxed)))
    }

    #[inline]
    pub(in crate::slots) fn store(self, into: &mut [usize; BLOCK]) {
        *into = self.0;
    }
}

/// Stores a block of words.
#[inline]
pub(in crate::slots) fn store(words: &[AtomicUsize; BLOCK], bytes: &[u8; BLOCK * WORD]) {
    let (bytes, _) = bytes.as_chunks::<WORD>();
    // Relaxed: the version's fences order the payload as a whole.
    for (word, bytes) in words.iter().zip(bytes) {
        word.store(usize::from_ne_bytes(*bytes), Relaxed);
    }
}

/// Which of the hints are [written](ChunkHints::written): a bit each.
#[inline]
pub(super) fn written(hints: &[ChunkHints; HINTS]) -> u32 {
    written_one_by_one(hints)
}

/// Which of a chunk's slots have their hint set: a bit each.
#[inline]
pub(in crate::slots) fn set(hints: &SlotHints) -> u64 {
    let bits = hints.iter().enumerate();
    bits.fold(0, |mask, (slot, hint)| {
        mask | u64::from(hint.is_set()) << slot
    })
}

/// Clears the hints. [`HintByte::cleared`] must be called after.
#[inline]
pub(in crate::slots) fn clear(hints: &[HintByte; RUN]) {
    hints.iter().for_each(HintByte::clear);
}
