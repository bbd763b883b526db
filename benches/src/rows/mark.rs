//! One page after the other, anywhere in 64 GiB, each for the first time.

use std::hint::black_box;
use std::num::NonZeroUsize;

use hibitset::{AtomicBitSet, BitSetLike};
use pugmark::{AtomicUsize, DirtyBitmap};
use std::sync::atomic::Ordering::SeqCst;
use sux::bits::AtomicBitVec;
use sux::traits::AtomicBitVecOps;
use vm_memory::bitmap::AtomicBitmap;

use super::Row;
use crate::harness::{Bench, Measured, limit, peer, repeat, us};
use crate::random::{rng, scattered};

pub const PAGE: Row = Row {
    name: "mark-page",
    work: "mark a clean page of 64 GiB, of a block with dirty ones",
    unit: "mark",
    measure: |bench| measure(bench, &any_pages(), Some(1.2)),
    note: Some(
        "the load of the summary bit may begin only when the locked instruction has ended (the other \
         order loses pages), and the next one waits for it: a few cycles, in which nothing else goes on",
    ),
};

pub const FIRST_PAGE: Row = Row {
    name: "mark-page-first",
    work: "mark a page of 64 GiB, the first one of its 2 MiB",
    unit: "mark",
    measure: |bench| measure(bench, &first_pages(), None),
    note: None,
};

/// 64 GiB of 4 KiB pages: as many as a set of hibitset's has room for.
pub const PAGES: usize = 1 << 24;
pub const PAGE_SIZE: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// A million pages in any order (ascending ones would find their line in the cache). Of thirty of
/// them one is the first of its block.
pub fn any_pages() -> Vec<usize> {
    let mut rng = rng();
    let mut pages = scattered(&mut rng, 1 << 20, PAGES);
    rng.shuffle(&mut pages);
    pages
}

/// A page of each block, in any order.
fn first_pages() -> Vec<usize> {
    let mut rng = rng();
    let page = |block| block * 512 + rng.usize(..512);
    let mut pages: Vec<usize> = (0..PAGES / 512).map(page).collect();
    rng.shuffle(&mut pages);
    pages
}

fn measure(bench: &Bench, pages: &[usize], goal: Option<f64>) -> Measured {
    let words: Vec<AtomicUsize> = (0..PAGES / 64).map(|_| AtomicUsize::new(0)).collect();
    let bitmap = &DirtyBitmap::boxed(PAGES);
    let vm_memory = &AtomicBitmap::new(PAGES * PAGE_SIZE.get(), PAGE_SIZE);
    let mut hibitset = AtomicBitSet::new();
    let mut sux = <AtomicBitVec>::new(PAGES);
    let limit = limit("fetch_or", || {
        let bits = black_box(&words[..]);
        let turn = repeat(pages.len(), |time| {
            let page = pages[time];
            bits[page / 64].fetch_or(1 << (page % 64), SeqCst);
        });
        let taken = pages.iter().map(|page| words[page / 64].swap(0, SeqCst));
        let marked: u32 = taken.map(usize::count_ones).sum();
        assert_eq!(marked as usize, pages.len());
        turn
    });
    bench.rounds([
        limit.with_goal(goal),
        us(|| {
            let bitmap = black_box(bitmap);
            let turn = repeat(pages.len(), |time| {
                assert!(bitmap.mark(pages[time]).is_ok())
            });
            assert_eq!(bitmap.count(), pages.len());
            bitmap.clear();
            turn
        }),
        // By the number of the page, as all others, and not by its address: no division.
        peer("vm-memory", || {
            let theirs = black_box(vm_memory);
            let turn = repeat(pages.len(), |time| theirs.set_bit(pages[time]));
            assert!(pages.iter().all(|page| theirs.is_bit_set(*page)));
            pages.iter().for_each(|page| theirs.reset_bit(*page));
            turn
        }),
        peer("hibitset", || {
            let theirs = black_box(&hibitset);
            let turn = repeat(pages.len(), |time| {
                theirs.add_atomic(pages[time] as u32);
            });
            assert_eq!((&hibitset).iter().count(), pages.len());
            hibitset.clear();
            turn
        }),
        peer("sux", || {
            let theirs = black_box(&sux);
            let turn = repeat(pages.len(), |time| theirs.set(pages[time], true, SeqCst));
            assert_eq!(sux.count_ones(), pages.len());
            sux.reset(SeqCst);
            turn
        }),
    ])
}
