//! [`BoxedWords`]: storage on the heap.

use alloc::boxed::Box;
use core::slice;

use super::LINE_WORDS;
use crate::sync::AtomicUsize;

/// Words on the heap that begin at a cache line, so that a line of leaves lies in one and not in
/// two: a scattered drain waits for memory half as often.
#[derive(Debug)]
pub struct BoxedWords(Box<[Line]>);

#[derive(Debug)]
#[cfg_attr(not(loom), repr(C, align(64)))]
#[cfg_attr(loom, repr(C))]
struct Line([AtomicUsize; LINE_WORDS]);

const _: () = assert!(size_of::<Line>() == LINE_WORDS * size_of::<AtomicUsize>());

impl BoxedWords {
    /// At least `words` words, all zero.
    pub(super) fn new(words: usize) -> Self {
        let line = |_| Line(core::array::from_fn(|_| AtomicUsize::new(0)));
        Self((0..words.div_ceil(LINE_WORDS)).map(line).collect())
    }
}

impl AsRef<[AtomicUsize]> for BoxedWords {
    #[inline]
    fn as_ref(&self) -> &[AtomicUsize] {
        // SAFETY: a line is its words, one after the other, and nothing else, as the assertion above
        // holds: so many lines are so many words.
        unsafe { slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * LINE_WORDS) }
    }
}

impl AsMut<[AtomicUsize]> for BoxedWords {
    fn as_mut(&mut self) -> &mut [AtomicUsize] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * LINE_WORDS) }
    }
}
