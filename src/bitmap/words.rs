//! [`Words`]: the walk over the marked leaf words.

use core::iter::FusedIterator;
use core::marker::PhantomData;

use super::access::Access;
use super::look::marked;
use super::{LINE_WORDS, View};
use crate::sync::AtomicUsize;

/// Leaf words with marked bits and their numbers, lowest first.
///
/// If the access takes, then dropping this early leaves marked what was not yielded.
pub(crate) struct Words<'a, A: Access, L> {
    view: View<'a>,
    /// The [`Lines`](super::Lines). A loop borrows them from outside, so that what is left here fits
    /// into registers.
    lines: L,
    /// The line that is visited, and its words.
    line: usize,
    leaves: &'a [AtomicUsize],
    /// Those that are marked and were not yielded yet, a bit each.
    marked: usize,
    access: PhantomData<A>,
}

impl<'a, A: Access, L: Iterator<Item = usize>> Words<'a, A, L> {
    #[inline]
    pub(crate) fn new(view: View<'a>, lines: L) -> Self {
        Self {
            view,
            lines,
            line: 0,
            leaves: &[],
            marked: 0,
            access: PhantomData,
        }
    }
}

impl<A: Access, L: Iterator<Item = usize>> Iterator for Words<'_, A, L> {
    type Item = (usize, usize);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            while self.marked == 0 {
                self.line = self.lines.next()?;
                self.leaves = self.view.line(self.line);
                self.marked = marked(self.leaves);
            }
            let index = self.marked.trailing_zeros() as usize;
            self.marked &= self.marked - 1;
            let word = self.line * LINE_WORDS + index;
            let bits = A::take(self.leaves.get(index)?) & self.view.valid(word);
            // Another drainer may have been quicker.
            if bits != 0 {
                return Some((word, bits));
            }
        }
    }
}

impl<A: Access, L: Iterator<Item = usize>> FusedIterator for Words<'_, A, L> {}

impl<A: Access, L> Drop for Words<'_, A, L> {
    #[inline]
    fn drop(&mut self) {
        if A::TAKES && self.marked != 0 {
            self.view.announce_line(self.line);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::bitmap::access::Shared;
    use crate::bitmap::{DirtyBitmap, LINE_BITS, Lines, WORD_BITS, words_for};

    /// Whoever keeps what it was given, and wants no more, loses nothing of the same line either.
    #[test]
    fn dropped_within_a_line_it_leaves_the_rest_of_it_to_the_next() {
        const BITS: usize = 3 * LINE_BITS;
        let bitmap = DirtyBitmap::<[AtomicUsize; words_for(BITS)]>::new(BITS);
        let marked = [0, WORD_BITS, WORD_BITS + 1, LINE_BITS, 2 * LINE_BITS];
        for bit in marked {
            assert_eq!(bitmap.mark(bit), Ok(true));
        }
        let view = bitmap.view();
        let mut words = Words::<Shared, _>::new(view, Lines::<Shared>::new(view));
        assert_eq!(words.next(), Some((0, 1)));
        drop(words);
        let mut rest = marked[1..].iter();
        bitmap.drain_bits(|bit| assert_eq!(Some(&bit), rest.next()));
        assert_eq!(rest.next(), None);
    }
}
