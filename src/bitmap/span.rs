//! What a coarse write fault marks: a block around one page.

use core::ops::Range;

use super::view::{View, announce};
use super::{LINE_BITS, LINE_WORDS, WORD_BITS};
use crate::sync::{AtomicUsize, Ordering::SeqCst};

impl<'a> View<'a> {
    /// Marks `bits`, which the bitmap has and of which `bit` is one, if they are a line, whole; whether
    /// `bit` was clear. Else `None`, and nothing is marked: see [`mark_range`](Self::mark_range).
    #[inline]
    pub(crate) fn mark_line(self, bits: Range<usize>, bit: usize) -> Option<bool> {
        let (leaves, summary) = self.whole_line(&bits)?;
        let leaf = &leaves[bit / WORD_BITS % LINE_WORDS];
        let was_clear = leaf.load(SeqCst) & 1 << (bit % WORD_BITS) == 0;
        for leaf in leaves {
            // SeqCst, and a read-modify-write, for the same reasons as `mark`. As every bit is set,
            // what was there need not be kept: a swap, which has one step less than a `fetch_or`
            // where a machine makes a loop of it.
            leaf.swap(usize::MAX, SeqCst);
        }
        announce(summary, 1 << (bits.start / LINE_BITS % WORD_BITS));
        Some(was_clear)
    }

    /// The leaves and the summary word of `bits`, if they are one line, whole.
    #[inline]
    fn whole_line(
        self,
        bits: &Range<usize>,
    ) -> Option<(&'a [AtomicUsize; LINE_WORDS], &'a AtomicUsize)> {
        debug_assert!(bits.start < bits.end && bits.end <= self.bits);
        let is_line = bits.start.is_multiple_of(LINE_BITS) && bits.end - bits.start == LINE_BITS;
        if !is_line {
            return None;
        }
        let leaves = self.words.get(bits.start / WORD_BITS..)?.first_chunk()?;
        Some((leaves, self.summary_of(bits.start / LINE_BITS)?))
    }
}
