//! Taking marks out, such that what was taken and not delivered goes back.

use core::iter::FusedIterator;
use core::ops::Range;

use super::{LINE_WORDS, Run, Runs, View, WORD_BITS};
use crate::sync::{AtomicUsize, Ordering::SeqCst};

/// Clears the bitmap a leaf word at a time, and yields what was marked, lowest first.
///
/// It swaps one summary word at a time, visits the lines that it named, and goes on. When dropped
/// early, it gives the lines it did not visit back to the summary; their leaves it never touched.
pub(crate) struct DrainWords<'a> {
    view: View<'a>,
    summary: &'a [AtomicUsize],
    /// The summary word to look at next.
    next_summary: usize,
    /// Lines taken from the summary word before it and not visited yet, as bits of it.
    lines: usize,
    /// Leaf words of the current line that were not looked at yet.
    leaves: Range<usize>,
}

impl<'a> DrainWords<'a> {
    pub(crate) fn new(view: View<'a>) -> Self {
        Self {
            view,
            summary: view.summary(),
            next_summary: 0,
            lines: 0,
            leaves: 0..0,
        }
    }

    /// Takes the lines of the next summary word that has any.
    fn next_lines(&mut self) -> Option<()> {
        loop {
            let summary = self.summary.get(self.next_summary)?;
            self.next_summary += 1;
            // The look keeps a clean summary shared with the markers. The swap comes before any
            // look at the leaves in the one order of SeqCst: a marker that skips the summary after
            // it has a leaf bit that is older than it.
            if summary.load(SeqCst) != 0 {
                self.lines = summary.swap(0, SeqCst);
                return Some(());
            }
        }
    }

    fn take_leaf(&self, word: usize) -> Option<(usize, usize)> {
        let leaf = self.view.words.get(word)?;
        // Look before the swap: a line has several words and most are clean. A bit set after the
        // look belongs to a mark that had not returned, or whose summary bit is set again.
        if leaf.load(SeqCst) == 0 {
            return None;
        }
        // The swap takes each bit for one drainer alone, and its acquire side brings along what
        // the marker wrote before.
        let bits = leaf.swap(0, SeqCst) & self.view.valid(word);
        (bits != 0).then_some((word, bits))
    }
}

impl Iterator for DrainWords<'_> {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            while let Some(word) = self.leaves.next() {
                if let Some(taken) = self.take_leaf(word) {
                    return Some(taken);
                }
            }
            while self.lines == 0 {
                self.next_lines()?;
            }
            let bit = self.lines.trailing_zeros() as usize;
            self.lines &= self.lines - 1;
            let line = (self.next_summary - 1) * WORD_BITS + bit;
            self.leaves = self.view.words_of(line);
        }
    }
}

impl FusedIterator for DrainWords<'_> {}

impl Drop for DrainWords<'_> {
    fn drop(&mut self) {
        let current = (!self.leaves.is_empty()).then_some(self.leaves.start / LINE_WORDS);
        if let Some(line) = current {
            self.lines |= 1 << (line % WORD_BITS);
        }
        if self.lines != 0
            && let Some(summary) = self.summary.get(self.next_summary - 1)
        {
            summary.fetch_or(self.lines, SeqCst);
        }
    }
}

/// Clears the bitmap run by run. When dropped early, what it did not yield stays marked.
pub(crate) struct DrainRuns<'a> {
    view: View<'a>,
    runs: Runs<DrainWords<'a>>,
}

impl<'a> DrainRuns<'a> {
    pub(crate) fn new(view: View<'a>) -> Self {
        Self {
            view,
            runs: Runs::new(DrainWords::new(view)),
        }
    }
}

impl Iterator for DrainRuns<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        self.runs.next()
    }
}

impl Drop for DrainRuns<'_> {
    fn drop(&mut self) {
        let (word, bits) = self.runs.unreported();
        if bits != 0 {
            self.view.mark_word(word, bits);
        }
    }
}

/// Marks the bits of a leaf word again when dropped: while a sink holds them, and may unwind.
pub(super) struct PutBackWord<'a> {
    pub(super) view: View<'a>,
    pub(super) word: usize,
    pub(super) bits: usize,
}

impl Drop for PutBackWord<'_> {
    fn drop(&mut self) {
        self.view.mark_word(self.word, self.bits);
    }
}

/// The same for a run: while a sink holds it, and may refuse it or unwind.
pub(super) struct PutBack<'a> {
    pub(super) view: View<'a>,
    pub(super) run: Run,
}

impl Drop for PutBack<'_> {
    fn drop(&mut self) {
        let marked = self.view.mark_range(self.run.range());
        debug_assert!(marked.is_ok(), "the run came out of this bitmap");
    }
}
