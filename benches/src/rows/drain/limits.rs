//! What cannot be beaten: bits without a summary, of which all that a drain must find out is known.

use std::ops::Range;
use std::sync::atomic::Ordering::SeqCst;

use pugmark::AtomicUsize;

use super::{Draw, PAGES, Sum};
use crate::harness::{Turn, time};
use crate::prefetch::prefetch;
use crate::random::rng;

const LINE_WORDS: usize = 8;
pub const LINE_PAGES: usize = LINE_WORDS * 64;

/// How many lines ahead the caches are told.
const AHEAD: usize = 16;

pub struct Leaves {
    words: Box<[AtomicUsize]>,
    rng: fastrand::Rng,
    draw: Draw,
}

impl Leaves {
    pub fn new(draw: Draw) -> Self {
        Self {
            words: (0..PAGES / 64).map(|_| AtomicUsize::new(0)).collect(),
            rng: rng(),
            draw,
        }
    }

    /// Makes pages dirty, a word at a time as pugmark does.
    fn mark(&mut self) -> Vec<Range<usize>> {
        let dirty = (self.draw)(&mut self.rng);
        for range in &dirty {
            for word in range.start / 64..range.end.div_ceil(64) {
                let first = range.start.saturating_sub(word * 64);
                let last = (range.end - 1 - word * 64).min(63);
                let bits = usize::MAX << first & usize::MAX >> (63 - last);
                self.words[word].fetch_or(bits, SeqCst);
            }
        }
        dirty
    }

    /// Takes the lines that are dirty, which it knows, and tells each page.
    pub fn take_lines(&mut self) -> Turn {
        let dirty = self.mark();
        let mut lines: Vec<usize> = dirty.iter().map(|range| range.start / LINE_PAGES).collect();
        lines.dedup();
        let (turn, sum) = time(1, || {
            let mut sum = Sum::default();
            take(&self.words, &lines, |word, bits| sum.word(word, bits));
            sum
        });
        assert_eq!(sum, Sum::of(&dirty));
        turn
    }

    /// Reads all bits once, and tells nothing.
    pub fn read(&mut self) -> Turn {
        self.mark();
        let (start, len) = (self.words.as_mut_ptr(), self.words.len());
        // SAFETY: an atomic has the layout of its integer, and `&mut self` says that nobody writes.
        // So these are plain reads, which the compiler makes as wide as it can.
        let plain = unsafe { std::slice::from_raw_parts(start.cast::<usize>(), len) };
        let (turn, sum) = time(1, || add(plain.iter().copied()));
        assert_eq!(sum, self.take_all());
        turn
    }

    /// Swaps every word, all of which are dirty, and tells nothing.
    pub fn swap_all(&mut self) -> Turn {
        self.mark();
        let (turn, sum) = time(1, || self.take_all());
        assert_eq!(sum, 0_usize.wrapping_sub(PAGES / 64));
        turn
    }

    fn take_all(&self) -> usize {
        add(self.words.iter().map(|word| word.swap(0, SeqCst)))
    }
}

/// Takes the lines of which it is known that they are dirty: tells each dirty word and its bits.
#[inline]
pub fn take(words: &[AtomicUsize], lines: &[usize], mut each: impl FnMut(usize, u64)) {
    for (i, &line) in lines.iter().enumerate() {
        if let Some(ahead) = lines.get(i + AHEAD) {
            prefetch(&raw const words[ahead * LINE_WORDS]);
        }
        let leaves = words.iter().enumerate().skip(line * LINE_WORDS);
        for (word, leaf) in leaves.take(LINE_WORDS) {
            if leaf.load(SeqCst) != 0 {
                each(word, leaf.swap(0, SeqCst) as u64);
            }
        }
    }
}

fn add(words: impl Iterator<Item = usize>) -> usize {
    words.fold(0, usize::wrapping_add)
}
