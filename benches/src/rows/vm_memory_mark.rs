//! What a rust-vmm device pays for a mark: through the trait of `vm-memory`, the crate's own bitmap
//! against ours. All pages are clean.

use std::hint::black_box;

use pugmark::host::vm_memory::PugmarkBitmap;
use vm_memory::bitmap::{AtomicBitmap, Bitmap};

use super::Row;
use super::mark::{PAGE_SIZE, PAGES, any_pages};
use crate::harness::{Bench, Contender, Measured, Turn, limit, peer, repeat, us};
use crate::random::{rng, scattered};

pub const PAGE: Row = Row {
    name: "vm-memory-mark-1",
    work: "mark a clean page of 64 GiB as vm-memory's Bitmap",
    unit: "mark",
    measure: |bench| {
        measure(bench, &any_pages(), 1, |turn| {
            limit(THEIRS, turn).at_most(1.05)
        })
    },
    note: None,
};

pub const PAGES_64: Row = Row {
    name: "vm-memory-mark-64",
    work: "mark 64 clean pages of 64 GiB as vm-memory's Bitmap, half of all",
    unit: "64 pages",
    measure: |bench| {
        let mut rng = rng();
        let firsts = scattered(&mut rng, PAGES / 64 / 2, PAGES / 64);
        many(bench, firsts.iter().map(|first| first * 64).collect(), 64)
    },
    note: AGAINST_64,
};

pub const FIRST_64: Row = Row {
    name: "vm-memory-mark-64-first",
    work: "mark 64 clean pages of 64 GiB as vm-memory's Bitmap, the first ones of their 2 MiB",
    unit: "64 pages",
    measure: |bench| {
        let mut rng = rng();
        let blocks = scattered(&mut rng, MARKS, BLOCKS);
        let first = |block| block * 512 + rng.usize(..8) * 64;
        many(bench, blocks.into_iter().map(first).collect(), 64)
    },
    note: AGAINST_64,
};

pub const PAGES_512: Row = Row {
    name: "vm-memory-mark-512",
    work: "mark 512 clean pages of 64 GiB as vm-memory's Bitmap",
    unit: "512 pages",
    measure: |bench| {
        let blocks = scattered(&mut rng(), MARKS, BLOCKS);
        many(bench, blocks.iter().map(|block| block * 512).collect(), 512)
    },
    note: None,
};

const AGAINST_64: Option<&str> = Some(
    "one locked instruction against 64: 32 times where the word is in the first cache and the machine is idle. \
     On a Zen 4 a locked instruction takes 2 ns, and a word that has to come from a cache further away counts \
     for more than where the goal was set: a fetch_or of it alone would be 34 times faster than vm-memory",
);

const THEIRS: &str = "AtomicBitmap";
const MARKS: usize = 4096;

/// Of 512 pages: what a bit of our summary covers.
const BLOCKS: usize = PAGES / 512;

fn many(bench: &Bench, mut firsts: Vec<usize>, span: usize) -> Measured {
    rng().shuffle(&mut firsts);
    measure(bench, &firsts, span, |turn| {
        peer(THEIRS, turn).at_least(30.0)
    })
}

type Turns<'a> = Box<dyn FnMut() -> Turn + 'a>;

/// Marks `span` pages from each of `firsts` on; `their` makes a limit or a peer of the other.
fn measure(
    bench: &Bench,
    firsts: &[usize],
    span: usize,
    their: fn(Turns<'_>) -> Contender<'_>,
) -> Measured {
    let page = PAGE_SIZE.get();
    let ours = &PugmarkBitmap::new(PAGES * page, page).expect("a power of two");
    let theirs = &AtomicBitmap::new(PAGES * page, PAGE_SIZE);
    // Each page, and of one page only a part.
    let bytes = if span == 1 { 1 } else { span * page };
    let turn_of_theirs: Turns<'_> = Box::new(|| {
        look(theirs, firsts);
        let turn = mark(theirs, firsts, bytes);
        let mut pages = firsts.iter().flat_map(|first| *first..first + span);
        assert!(pages.all(|page| theirs.is_bit_set(page)));
        let all = firsts.iter().map(|first| first * page);
        all.for_each(|start| theirs.reset_addr_range(start, span * page));
        turn
    });
    bench.rounds([
        their(turn_of_theirs),
        us(|| {
            look(ours, firsts);
            let turn = mark(ours, firsts, bytes);
            let mut pages = firsts.iter().flat_map(|first| *first..first + span);
            assert!(pages.all(|page| ours.bits().is_marked(page) == Ok(true)));
            assert_eq!(ours.bits().count(), firsts.len() * span);
            ours.bits().clear();
            turn
        }),
    ])
}

/// That the pages are clean. It also brings the bitmap into the caches: with two who take turns each
/// would come after itself every other time, and find its own there.
fn look(bitmap: &impl Bitmap, firsts: &[usize]) {
    let mut offsets = firsts.iter().map(|first| first * PAGE_SIZE.get());
    assert!(!offsets.any(|offset| bitmap.dirty_at(offset)));
}

fn mark(bitmap: &impl Bitmap, firsts: &[usize], bytes: usize) -> Turn {
    let (bitmap, bytes) = (black_box(bitmap), black_box(bytes));
    repeat(firsts.len(), |time| {
        bitmap.mark_dirty(firsts[time] * PAGE_SIZE.get(), bytes);
    })
}
