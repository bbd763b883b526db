//! vm-memory's bitmap with what is proposed for it, so that pugmark is held against more than what
//! will be gone. The ideas are those of open pull requests of rust-vmm; the code is ours.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const BITS: usize = u64::BITS as usize;

/// One bit a page, and no summary.
pub struct Improved {
    words: Box<[AtomicU64]>,
}

impl Improved {
    pub fn new(pages: usize) -> Self {
        let words = pages.div_ceil(BITS);
        Self {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Idea 1, "batch range updates": `set_addr_range` sets the pages of a word by one
    /// read-modify-write with a mask, and not by one for each page.
    pub fn set_range(&self, pages: Range<usize>) {
        let mut first = pages.start;
        while first < pages.end {
            let end = pages.end.min((first / BITS + 1) * BITS);
            let mask = u64::MAX >> (BITS - (end - first)) << (first % BITS);
            self.words[first / BITS].fetch_or(mask, SeqCst);
            first = end;
        }
    }

    pub fn set_word(&self, number: usize, bits: u64) {
        self.words[number].fetch_or(bits, SeqCst);
    }

    pub fn is_clean(&self, page: usize) -> bool {
        self.words[page / BITS].load(SeqCst) >> (page % BITS) & 1 == 0
    }

    /// Idea 2, "skip clean words": `get_and_reset` looks at a word, and writes to it only where it
    /// is dirty. It still makes a copy of all bits.
    pub fn get_and_reset(&self) -> Vec<u64> {
        self.words.iter().map(take).collect()
    }

    /// The same without the copy, which is more than is proposed: each dirty word and its number.
    pub fn drain(&self, mut each: impl FnMut(usize, u64)) {
        for (number, word) in self.words.iter().enumerate() {
            let bits = take(word);
            if bits != 0 {
                each(number, bits);
            }
        }
    }
}

/// Looks, then swaps.
#[inline]
fn take(word: &AtomicU64) -> u64 {
    match word.load(SeqCst) {
        0 => 0,
        _ => word.swap(0, SeqCst),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_set_and_taken() {
        let bits = Improved::new(200);
        bits.set_range(3..3);
        bits.set_range(62..130);
        bits.set_range(199..200);
        let expected = [0b11 << 62, u64::MAX, 0b11, 1 << 7];
        let mut drained = [0; 4];
        assert_eq!(bits.words[1].load(SeqCst), u64::MAX);
        bits.drain(|number, bits| drained[number] = bits);
        assert_eq!(drained, expected);
        bits.set_range(62..130);
        assert_eq!(bits.get_and_reset(), [0b11 << 62, u64::MAX, 0b11, 0]);
        assert_eq!(bits.get_and_reset(), [0; 4]);
    }
}
