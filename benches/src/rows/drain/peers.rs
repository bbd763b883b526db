//! How the others take their dirty pages.

use std::ops::Range;
use std::sync::atomic::Ordering::SeqCst;

use hibitset::{AtomicBitSet, DrainableBitSet};
use sux::bits::{AtomicBitVec, BitVec};
use sux::traits::{AtomicBitVecOps, BitVecOps, BitVecOpsMut};
use vm_memory::bitmap::AtomicBitmap;

use super::super::mark::{self, PAGE_SIZE};
use super::{PAGES, Sum};
use crate::improved::Improved;

pub fn vm_memory() -> AtomicBitmap {
    AtomicBitmap::new(PAGES * PAGE_SIZE.get(), PAGE_SIZE)
}

pub fn mark(bits: &AtomicBitmap, pages: Range<usize>) {
    pages.for_each(|page| bits.set_bit(page));
}

/// vm-memory takes a copy of all bits, in which one then looks for those that are set.
pub fn drain(bits: &mut AtomicBitmap, sum: &mut Sum) {
    tell(bits.get_and_reset(), sum);
}

pub fn drain_copy(bits: &mut Improved, sum: &mut Sum) {
    tell(bits.get_and_reset(), sum);
}

fn tell(copy: Vec<u64>, sum: &mut Sum) {
    for (word, bits) in copy.into_iter().enumerate() {
        sum.word(word, bits);
    }
}

pub fn drain_words(bits: &mut Improved, sum: &mut Sum) {
    bits.drain(|word, bits| sum.word(word, bits));
}

/// One of its sets has room for 64 GiB.
pub struct Hibitset(Vec<AtomicBitSet>);

impl Hibitset {
    pub fn new() -> Self {
        Self(
            (0..PAGES / mark::PAGES)
                .map(|_| AtomicBitSet::new())
                .collect(),
        )
    }

    pub fn mark(&self, pages: Range<usize>) {
        for page in pages {
            self.0[page / mark::PAGES].add_atomic((page % mark::PAGES) as u32);
        }
    }

    pub fn drain(&mut self, sum: &mut Sum) {
        for (number, set) in self.0.iter_mut().enumerate() {
            for page in set.drain() {
                sum.page(number * mark::PAGES + page as usize);
            }
        }
    }
}

/// Bits that are either shared or alone: to take them is to look for them as one's own, and clear all.
pub struct Sux(AtomicBitVec);

impl Sux {
    pub fn new() -> Self {
        Self(AtomicBitVec::new(PAGES))
    }

    pub fn mark(&self, pages: Range<usize>) {
        pages.for_each(|page| self.0.set(page, true, SeqCst));
    }

    pub fn drain(&mut self, sum: &mut Sum) {
        let mut alone: BitVec<&mut [usize]> = AtomicBitVec::<&mut [_]>::from(&mut self.0).into();
        alone.iter_ones().for_each(|page| sum.page(page));
        alone.reset();
    }
}
