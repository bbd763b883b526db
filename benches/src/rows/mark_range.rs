//! Blocks of 512 pages, clean ones: what a coarse fault opens, or a DMA of 2 MiB writes.

use std::hint::black_box;
use std::sync::atomic::Ordering::SeqCst;

use pugmark::{AtomicUsize, DirtyBitmap};
use vm_memory::bitmap::AtomicBitmap;

use super::Row;
use super::mark::PAGE_SIZE;
use crate::harness::{Bench, Measured, limit, peer, repeat, us};
use crate::improved::Improved;
use crate::random::{rng, scattered};

pub const PAGES_512: Row = Row {
    name: "mark-512-pages",
    work: "mark 512 pages of 64 GiB that are clean",
    unit: "512 pages",
    measure,
    note: None,
};

const BLOCKS: usize = 1 << 15;
const PAGES: usize = BLOCKS * 512;
const MARKS: usize = 4096;

fn measure(bench: &Bench) -> Measured {
    let mut rng = rng();
    let mut blocks = scattered(&mut rng, MARKS, BLOCKS);
    rng.shuffle(&mut blocks);
    let blocks = &blocks[..];

    let words: Vec<AtomicUsize> = (0..PAGES / 64).map(|_| AtomicUsize::new(0)).collect();
    let bitmap = &DirtyBitmap::boxed(PAGES);
    let theirs = &AtomicBitmap::new(PAGES * PAGE_SIZE.get(), PAGE_SIZE);
    let improved = &Improved::new(PAGES);
    let bytes = 512 * PAGE_SIZE.get();
    bench.rounds([
        limit("a fetch_or a word", || {
            look(blocks, |page| words[page / 64].load(SeqCst) == 0);
            let words = black_box(&words[..]);
            let turn = repeat(MARKS, |time| {
                for word in &words[blocks[time] * 8..][..8] {
                    word.fetch_or(usize::MAX, SeqCst);
                }
            });
            for word in blocks.iter().flat_map(|block| &words[block * 8..][..8]) {
                assert_eq!(word.swap(0, SeqCst), usize::MAX);
            }
            turn
        })
        .at_most(1.1),
        us(|| {
            look(blocks, |page| bitmap.is_marked(page) == Ok(false));
            let bitmap = black_box(bitmap);
            let turn = repeat(MARKS, |time| {
                let first = blocks[time] * 512;
                assert!(bitmap.mark_range(first..first + 512).is_ok());
            });
            assert_eq!(bitmap.count(), MARKS * 512);
            bitmap.clear();
            turn
        }),
        peer("vm-memory", || {
            look(blocks, |page| !theirs.is_bit_set(page));
            let theirs = black_box(theirs);
            let turn = repeat(MARKS, |time| {
                theirs.set_addr_range(blocks[time] * bytes, bytes)
            });
            let mut pages = blocks
                .iter()
                .flat_map(|block| block * 512..(block + 1) * 512);
            assert!(pages.all(|page| theirs.is_bit_set(page)));
            blocks
                .iter()
                .for_each(|block| theirs.reset_addr_range(block * bytes, bytes));
            turn
        })
        .at_least(70.0),
        peer("vm-memory, a word at a time", || {
            look(blocks, |page| improved.is_clean(page));
            let improved = black_box(improved);
            let turn = repeat(MARKS, |time| {
                let first = blocks[time] * 512;
                improved.set_range(first..first + 512);
            });
            let mut marked = 0;
            improved.drain(|_, bits| marked += bits.count_ones() as usize);
            assert_eq!(marked, MARKS * 512);
            turn
        }),
    ])
}

/// That pages of all words of the blocks are clean. It also brings those into the caches: whose turn comes
/// after a long one would find less of its own there than whose comes after a short one.
fn look(blocks: &[usize], is_clean: impl Fn(usize) -> bool) {
    let pages = |block: &usize| (block * 512..(block + 1) * 512).step_by(64);
    assert!(blocks.iter().flat_map(pages).all(is_clean));
}
