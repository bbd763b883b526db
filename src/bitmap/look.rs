//! Which words of a line are marked: the look before the swap.
//!
//! A line has several words, and most are clean. The look is SeqCst, as it decides what a drain
//! leaves: a bit set after it belongs to a mark that had not returned, or whose summary bit is set
//! again.

use super::LINE_WORDS;
use crate::sync::{AtomicUsize, Ordering::SeqCst};

// Kernels are built without SSE: they get the loads one by one. So does Arm, where a SeqCst load is
// an instruction of its own, which no vector has.
#[cfg(all(
    target_arch = "x86_64",
    target_pointer_width = "64",
    target_feature = "sse2",
    not(any(miri, loom))
))]
#[path = "look/sse2.rs"]
mod line;
#[cfg(not(all(
    target_arch = "x86_64",
    target_pointer_width = "64",
    target_feature = "sse2",
    not(any(miri, loom))
)))]
#[path = "look/portable.rs"]
mod line;

/// Which of the words of a line are not zero: a bit each. The last line may be a short one.
#[inline]
pub(super) fn marked(words: &[AtomicUsize]) -> usize {
    match words.try_into() {
        Ok(line) => line::marked(line),
        Err(_) => one_by_one(words),
    }
}

fn one_by_one(words: &[AtomicUsize]) -> usize {
    let words = words.iter().enumerate();
    words.fold(0, |marked, (index, word)| {
        marked | usize::from(word.load(SeqCst) != 0) << index
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The lowest and the highest bit of each word, alone, and all words in any company.
    #[test]
    fn a_whole_line_is_looked_at_as_its_words_are() {
        let words = [const { AtomicUsize::new(0) }; LINE_WORDS + 1];
        let step = if cfg!(miri) { 37 } else { 1 };
        for bits in [
            1,
            1 << (usize::BITS / 2),
            1 << (usize::BITS - 1),
            usize::MAX,
        ] {
            for marked_words in (0..1_usize << LINE_WORDS).step_by(step) {
                // Where a line begins within its memory makes no difference.
                for first in [0, 1] {
                    let line = &words[first..][..LINE_WORDS];
                    for (index, word) in line.iter().enumerate() {
                        word.store(bits * (marked_words >> index & 1), SeqCst);
                    }
                    assert_eq!(marked(line), marked_words);
                    assert_eq!(one_by_one(line), marked_words);
                }
            }
        }
    }

    #[test]
    fn a_short_line_has_its_words_only() {
        let words = [const { AtomicUsize::new(1) }; LINE_WORDS];
        for len in 0..LINE_WORDS {
            assert_eq!(marked(&words[..len]), (1 << len) - 1);
        }
    }
}
