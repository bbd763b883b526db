use core::fmt;

use crate::slots::chunk::{CHUNK_SLOTS, Chunk};
use crate::slots::hints::ChunkHints;
use crate::slots::seqlock::UNSEEN;
use crate::sync::{HintByte, Ordering::Relaxed};

/// What a reader saw of a chunk.
///
/// A descend looks at the versions only; so these are next to each other, in cache lines of their
/// own.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Seen {
    /// Of the values in the mirror; odd where there is none.
    pub(super) versions: [u32; CHUNK_SLOTS],
    /// As of the last time that the owner's hint was taken.
    pub(super) generations: [u32; CHUNK_SLOTS],
}

impl Seen {
    /// To fill a reader's storage with, which sets it up itself.
    pub const ZERO: Self = Self {
        versions: [0; CHUNK_SLOTS],
        generations: [0; CHUNK_SLOTS],
    };

    /// Takes the owner's hint: where the generation is another, the mirror's value is of a use that
    /// is over.
    #[cold]
    pub(super) fn renew(&mut self, chunk: &Chunk, hints: &ChunkHints) {
        // Before the generations are loaded, all of them: a later one hints again.
        hints.reused.clear();
        HintByte::cleared();
        for (slot, generation) in chunk.generations.iter().enumerate() {
            // Relaxed: after the fence, and so not older than the hint.
            let generation = generation.load(Relaxed);
            if generation != self.generations[slot] {
                self.generations[slot] = generation;
                self.versions[slot] = UNSEEN;
            }
        }
    }
}

/// Whether the mirror has a value, of the generation seen, if the version seen is this one.
#[inline]
pub(super) fn has_value(version: u32) -> bool {
    version.is_multiple_of(2)
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen").finish_non_exhaustive()
    }
}
