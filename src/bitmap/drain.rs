//! Drains: what was taken and not accepted goes back.

use core::convert::Infallible;

use super::access::Access;
use super::{Lines, Run, Runs, View, WORD_BITS, Words};

/// Clears the bitmap run by run. When dropped early, what it did not yield stays marked.
pub(crate) struct DrainRuns<'a, A: Access, L: Iterator<Item = usize>> {
    view: View<'a>,
    runs: Runs<Words<'a, A, L>>,
}

impl<'a, A: Access, L: Iterator<Item = usize>> DrainRuns<'a, A, L> {
    #[inline]
    pub(crate) fn new(view: View<'a>, lines: L) -> Self {
        Self {
            view,
            runs: Runs::new(Words::new(view, lines)),
        }
    }
}

impl<A: Access, L: Iterator<Item = usize>> Iterator for DrainRuns<'_, A, L> {
    type Item = Run;

    #[inline]
    fn next(&mut self) -> Option<Run> {
        self.runs.next()
    }
}

impl<A: Access, L: Iterator<Item = usize>> Drop for DrainRuns<'_, A, L> {
    #[inline]
    fn drop(&mut self) {
        let (word, bits) = self.runs.unreported();
        if bits != 0 {
            self.view.mark_word(word, bits);
        }
    }
}

/// Gives each run to `sink`, until it refuses one.
#[inline]
pub(super) fn runs<A: Access, E>(
    view: View<'_>,
    mut sink: impl FnMut(Run) -> Result<(), E>,
) -> Result<(), E> {
    let mut lines = Lines::<A>::new(view);
    for run in DrainRuns::<A, _>::new(view, &mut lines) {
        let refused = PutBack { view, run };
        sink(run)?;
        core::mem::forget(refused);
    }
    Ok(())
}

/// The same, for a sink that refuses none.
#[inline]
pub(super) fn all_runs<A: Access>(view: View<'_>, mut sink: impl FnMut(Run)) {
    let accept = |run| {
        sink(run);
        Ok::<(), Infallible>(())
    };
    let Ok(()) = runs::<A, _>(view, accept);
}

/// Gives each leaf word with marked bits to `sink`.
#[inline]
pub(super) fn words<A: Access>(view: View<'_>, mut sink: impl FnMut(usize, usize)) {
    let mut lines = Lines::<A>::new(view);
    for (word, bits) in Words::<A, _>::new(view, &mut lines) {
        let refused = PutBackWord { view, word, bits };
        sink(word, bits);
        core::mem::forget(refused);
    }
}

/// Gives each bit to `sink`.
#[inline]
pub(super) fn bits<A: Access>(view: View<'_>, mut sink: impl FnMut(usize)) {
    let mut lines = Lines::<A>::new(view);
    for (word, bits) in Words::<A, _>::new(view, &mut lines) {
        let mut refused = PutBackWord { view, word, bits };
        while refused.bits != 0 {
            sink(word * WORD_BITS + refused.bits.trailing_zeros() as usize);
            refused.bits &= refused.bits - 1;
        }
        core::mem::forget(refused);
    }
}

/// Marks the bits of a leaf word again when dropped: while a sink holds them, and may unwind.
struct PutBackWord<'a> {
    view: View<'a>,
    word: usize,
    bits: usize,
}

impl Drop for PutBackWord<'_> {
    fn drop(&mut self) {
        self.view.mark_word(self.word, self.bits);
    }
}

/// The same for a run: while a sink holds it, and may refuse it or unwind.
struct PutBack<'a> {
    view: View<'a>,
    run: Run,
}

impl Drop for PutBack<'_> {
    fn drop(&mut self) {
        let marked = self.view.mark_range(self.run.range());
        debug_assert!(marked.is_ok(), "the run came out of this bitmap");
    }
}
