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
