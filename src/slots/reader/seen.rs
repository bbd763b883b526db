use core::fmt;

use crate::slots::chunk::{LINE_SLOTS, LINES, Line};
use crate::slots::fast::differing;
use crate::slots::hints::Hints;
use crate::slots::seqlock::UNSEEN;
use crate::sync::Ordering::Relaxed;

/// What a reader saw of a chunk.
///
/// A descend looks at the versions only, a cache line of them for each line of slots; so these are
/// aligned, and next to each other.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Seen {
    /// Of the values in the mirror; odd where there is none.
    pub(super) versions: [[u32; LINE_SLOTS]; LINES],
    /// As of the last time that the owner's hint was taken.
    pub(super) generations: [[u32; LINE_SLOTS]; LINES],
}

/// A line of [`Seen`].
pub(super) struct SeenLine<'s> {
    pub(super) versions: &'s mut [u32; LINE_SLOTS],
    generations: &'s mut [u32; LINE_SLOTS],
}

impl Seen {
    /// To fill a reader's storage with, which sets it up itself.
    pub const ZERO: Self = Self {
        versions: [[0; LINE_SLOTS]; LINES],
        generations: [[0; LINE_SLOTS]; LINES],
    };

    #[inline]
    pub(super) fn line(&mut self, line: usize) -> SeenLine<'_> {
        SeenLine {
            versions: &mut self.versions[line],
            generations: &mut self.generations[line],
        }
    }
}

/// Whether the mirror has a value, of the generation seen, if the version seen is this one.
#[inline]
pub(super) fn has_value(version: u32) -> bool {
    version.is_multiple_of(2)
}

impl SeenLine<'_> {
    /// Takes the owner's hint: where the generation is another, the mirror's value is of a use that
    /// is over.
    #[cold]
    pub(super) fn renew(&mut self, line: &Line, hints: &Hints) {
        // Before the generations are loaded, all of them: a later one hints again.
        hints.reused.take();
        for (slot, generation) in line.generations.iter().enumerate() {
            // Relaxed: after the hint's acquire, and so not older than the hint.
            let generation = generation.load(Relaxed);
            if generation != self.generations[slot] {
                self.generations[slot] = generation;
                self.versions[slot] = UNSEEN;
            }
        }
    }

    /// The slots whose version is not the one seen: a bit each.
    #[inline]
    pub(super) fn changed(&self, line: &Line) -> u32 {
        // Relaxed, one by one: it only says where to look. It comes after the hint's acquire, and so
        // misses nothing that was hinted.
        differing(&line.versions, self.versions)
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen").finish_non_exhaustive()
    }
}
