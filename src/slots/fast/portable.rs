//! Neighbours, one by one.

use super::{HINTS, written_one_by_one};
use crate::slots::chunk::LINE_SLOTS;
use crate::slots::hints::Hints;
use crate::slots::words::{BLOCK, WORD};
use crate::sync::{AtomicU32, AtomicUsize, Ordering::Relaxed};

/// Stores a block of words.
#[inline]
pub(in crate::slots) fn store(words: &[AtomicUsize; BLOCK], bytes: &[u8; BLOCK * WORD]) {
    let (bytes, _) = bytes.as_chunks::<WORD>();
    // Relaxed: the version's fences order the payload as a whole.
    for (word, bytes) in words.iter().zip(bytes) {
        word.store(usize::from_ne_bytes(*bytes), Relaxed);
    }
}

/// Which of the hints are [written](Hints::written): a bit each.
#[inline]
pub(super) fn written(hints: &[Hints; HINTS]) -> u32 {
    written_one_by_one(hints)
}

/// Which of the versions are not those seen: a bit each.
#[inline]
pub(in crate::slots) fn differing(
    versions: &[AtomicU32; LINE_SLOTS],
    seen: &[u32; LINE_SLOTS],
) -> u32 {
    let pairs = versions.iter().zip(seen).enumerate();
    pairs.fold(0, |mask, (slot, (version, seen))| {
        mask | u32::from(version.load(Relaxed) != *seen) << slot
    })
}
