//! Runs of neighbouring bits, put together across words.

use super::WORD_BITS;

/// A run of neighbouring bits: `len` of them from `start` on, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Run {
    /// The first bit.
    pub start: usize,
    /// How many bits.
    pub len: usize,
}

impl Run {
    /// The first bit past the run.
    pub const fn end(self) -> usize {
        self.start + self.len
    }

    /// The run as a range of bits.
    pub const fn range(self) -> core::ops::Range<usize> {
        self.start..self.end()
    }
}

/// Maximal runs, out of leaf words that come in ascending order and are not zero.
pub(crate) struct Runs<I> {
    words: I,
    /// The word that the last run ended in.
    word: usize,
    /// What is left of it.
    bits: usize,
}

impl<I: Iterator<Item = (usize, usize)>> Runs<I> {
    pub(crate) fn new(words: I) -> Self {
        Self {
            words,
            word: 0,
            bits: 0,
        }
    }

    /// The part of the current word that no run has reported yet.
    pub(super) fn unreported(&self) -> (usize, usize) {
        (self.word, self.bits)
    }

    /// Takes the lowest run out of the current word, which is not zero.
    #[inline]
    fn take_run(&mut self) -> Run {
        let lowest = self.bits & self.bits.wrapping_neg();
        // The carry goes through the run, and stops in the bit after it; past the top, it is gone, and
        // a word of zeros has `WORD_BITS` of them.
        let carried = self.bits.wrapping_add(lowest);
        let first = self.bits.trailing_zeros();
        let end = carried.trailing_zeros();
        self.bits &= carried;
        Run {
            start: self.word * WORD_BITS + first as usize,
            len: (end - first) as usize,
        }
    }
}

impl<I: Iterator<Item = (usize, usize)>> Iterator for Runs<I> {
    type Item = Run;

    // Always: out of line it returns two words through memory, and who keeps them copies both at once,
    // which waits until both stores are in the cache: a tenth of a harvest of scattered pages.
    #[inline(always)]
    fn next(&mut self) -> Option<Run> {
        if self.bits == 0 {
            (self.word, self.bits) = self.words.next()?;
        }
        let mut run = self.take_run();
        // A run that reaches the top of its word may go on in the next one.
        while run.end().is_multiple_of(WORD_BITS)
            && let Some((word, bits)) = self.words.next()
        {
            let goes_on = word * WORD_BITS == run.end();
            if goes_on && bits == usize::MAX {
                run.len += WORD_BITS;
                continue;
            }
            (self.word, self.bits) = (word, bits);
            if !goes_on || bits & 1 == 0 {
                break;
            }
            run.len += self.take_run().len;
        }
        Some(run)
    }
}
