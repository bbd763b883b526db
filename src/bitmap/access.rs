//! How a walk over the marked words reads each: three ways, one walk.

use crate::sync::{
    AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};

pub(crate) trait Access {
    /// Whether what was read is gone from the word, and is owed until it is delivered.
    const TAKES: bool;

    fn take(word: &AtomicUsize) -> usize;
}

/// Looks, and leaves everything as it is.
pub(crate) struct Look;

impl Access for Look {
    const TAKES: bool = false;

    #[inline]
    fn take(word: &AtomicUsize) -> usize {
        word.load(SeqCst)
    }
}

/// Takes each bit for one drainer alone, beside markers and other drainers.
pub(crate) struct Shared;

impl Access for Shared {
    const TAKES: bool = true;

    #[inline]
    fn take(word: &AtomicUsize) -> usize {
        // On a leaf its acquire side brings along what the marker wrote before; on the summary it is
        // the step that the looks at the leaves come after.
        word.swap(0, SeqCst)
    }
}

/// Takes what nobody else can reach meanwhile: without a locked instruction.
pub(crate) struct Alone;

impl Access for Alone {
    const TAKES: bool = true;

    #[inline]
    fn take(word: &AtomicUsize) -> usize {
        // Two steps, and no order: see `Exclusive`.
        let bits = word.load(Relaxed);
        word.store(0, Relaxed);
        bits
    }
}
