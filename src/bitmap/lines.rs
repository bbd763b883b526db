//! [`Lines`]: what the summary names, taken some lines ahead.

use core::marker::PhantomData;

use super::access::Access;
use super::{View, WORD_BITS};
use crate::prefetch::PREFETCHES;
use crate::sync::{AtomicUsize, Ordering::Relaxed};

/// Lines on their way to the caches while one is visited. Where nothing prefetches there is no point
/// in more than a few; Miri has as many as a host, to see that none is lost.
const AHEAD: usize = if PREFETCHES || cfg!(miri) { 32 } else { 2 };

/// The lines that the summary names, lowest first.
///
/// A line is taken [`AHEAD`] of its turn, and prefetched. If the access takes, then dropping this
/// early gives the lines that were not yielded back to the summary; their leaves were not touched.
pub(crate) struct Lines<'a, A: Access> {
    view: View<'a>,
    /// Summary words that were not looked at yet, and the number of the first.
    summary: &'a [AtomicUsize],
    next_summary: usize,
    /// Lines of the summary word before it, as bits of it: neither ahead nor yielded yet.
    named: usize,
    /// A ring: the lines from `yielded` up to `taken`, each modulo its size.
    ahead: [usize; AHEAD],
    yielded: usize,
    taken: usize,
    access: PhantomData<A>,
}

impl<'a, A: Access> Lines<'a, A> {
    pub(crate) fn new(view: View<'a>) -> Self {
        Self {
            view,
            summary: view.summary(),
            next_summary: 0,
            named: 0,
            ahead: [0; AHEAD],
            yielded: 0,
            taken: 0,
            access: PhantomData,
        }
    }

    fn skip(&mut self, words: usize, rest: &'a [AtomicUsize]) {
        self.next_summary += words;
        self.summary = rest;
    }

    /// The lowest line that is neither ahead nor yielded.
    fn take(&mut self) -> Option<usize> {
        while self.named == 0 {
            let (word, rest) = self.summary.split_first()?;
            self.skip(1, rest);
            // A look, which keeps a clean summary shared with the markers. Relaxed: the summary bit
            // of a mark that returned before the drain began is older than the look, whatever its
            // order. What else is missed is for the next drain.
            if word.load(Relaxed) != 0 {
                // Before any look at the leaves, in the one order of SeqCst: a marker that skips the
                // summary after it has a leaf bit that is older than it.
                self.named = A::take(word);
            } else {
                while let Some((group, rest)) = self.summary.split_first_chunk::<8>()
                    && group.iter().fold(0, |any, word| any | word.load(Relaxed)) == 0
                {
                    self.skip(8, rest);
                }
            }
        }
        let bit = self.named.trailing_zeros() as usize;
        self.named &= self.named - 1;
        Some((self.next_summary - 1) * WORD_BITS + bit)
    }
}

impl<A: Access> Iterator for Lines<'_, A> {
    type Item = usize;

    // Not inlined, to leave the registers to what is done with each line.
    #[inline(never)]
    fn next(&mut self) -> Option<usize> {
        while self.taken - self.yielded < AHEAD
            && let Some(line) = self.take()
        {
            self.view.prefetch::<A>(line);
            self.ahead[self.taken % AHEAD] = line;
            self.taken += 1;
        }
        if self.yielded == self.taken {
            return None;
        }
        let line = self.ahead[self.yielded % AHEAD];
        self.yielded += 1;
        Some(line)
    }
}

impl<A: Access> Drop for Lines<'_, A> {
    fn drop(&mut self) {
        if A::TAKES {
            self.summary = &[];
            let view = self.view;
            self.for_each(|line| view.announce_line(line));
        }
    }
}
