//! What a coarse write fault marks: the line of a block.

use super::view::{View, announce, is_announced};
use super::{LINE_BITS, LINE_WORDS, WORD_BITS};
use crate::sync::{Ordering::SeqCst, fence_after_fill, fill};

impl View<'_> {
    /// Marks all bits of `line`, which the bitmap has whole; whether its bit `bit` was clear. `None`
    /// where the storage has no such line.
    #[inline]
    pub(crate) fn mark_line(self, line: usize, bit: usize) -> Option<bool> {
        debug_assert!(line < self.bits / LINE_BITS);
        let leaves = self.words.get(line * LINE_WORDS..)?;
        let leaves = leaves.first_chunk::<LINE_WORDS>()?;
        let summary = self.summary_of(line)?;
        let leaf = &leaves[bit / WORD_BITS % LINE_WORDS];
        let was_clear = leaf.load(SeqCst) & 1 << (bit % WORD_BITS) == 0;
        let line = 1 << (line % WORD_BITS);
        if is_announced(summary, line) {
            let [words @ .., last] = leaves;
            fill(words);
            last.swap(usize::MAX, SeqCst);
            fence_after_fill();
            announce(summary, line);
        } else {
            // The leaves before the summary: it is released with them, and nothing comes after.
            fill(leaves);
            summary.fetch_or(line, SeqCst);
        }
        Some(was_clear)
    }
}
