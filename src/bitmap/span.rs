//! What a coarse write fault marks: the line of a block.

use super::view::{View, announce};
use super::{LINE_WORDS, WORD_BITS};
use crate::sync::{Ordering::SeqCst, fill};

impl View<'_> {
    /// Marks all bits of `line`, which the bitmap has whole; whether its bit `bit` was clear. `None`
    /// where the storage has no such line.
    #[inline]
    pub(crate) fn mark_line(self, line: usize, bit: usize) -> Option<bool> {
        debug_assert!(line < self.bits / super::LINE_BITS);
        let leaves = self.words.get(line * LINE_WORDS..)?;
        let leaves = leaves.first_chunk::<LINE_WORDS>()?;
        let summary = self.summary_of(line)?;
        let leaf = &leaves[bit / WORD_BITS % LINE_WORDS];
        let was_clear = leaf.load(SeqCst) & 1 << (bit % WORD_BITS) == 0;
        let [words @ .., last] = leaves;
        fill(words, last, usize::MAX);
        announce(summary, 1 << (line % WORD_BITS));
        Some(was_clear)
    }
}
