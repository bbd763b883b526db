//! 1 TiB of 4 KiB pages, drained: 32 MiB of bits.
//!
//! Whoever drains tells each dirty page, alone or in a run, to a sink that adds up their numbers.

mod limits;

use std::ops::Range;
use std::time::Duration;

use pugmark::{AtomicUsize, DirtyBitmap};
use vm_memory::bitmap::AtomicBitmap;

use super::Row;
use super::mark::PAGE_SIZE;
use crate::harness::{Bench, Measured, Turn, limit, peer, repeat, time, us};
use crate::random::{rng, runs, scattered};

pub const NOTHING: Row = Row {
    name: "drain-nothing",
    work: "drain 1 TiB of 4 KiB pages, nothing dirty",
    unit: "drain",
    measure: nothing,
    note: None,
};

pub const SCATTERED: Row = Row {
    name: "drain-scattered-0.01",
    work: "drain 1 TiB of 4 KiB pages, 0.01 % dirty, anywhere",
    unit: "drain",
    measure: few,
    note: None,
};

pub const RUNS: Row = Row {
    name: "drain-runs-1",
    work: "drain 1 TiB of 4 KiB pages, 1 % dirty, in runs of 64",
    unit: "drain",
    measure: in_runs,
    note: None,
};

pub const ALL: Row = Row {
    name: "drain-all",
    work: "drain 1 TiB of 4 KiB pages, all dirty",
    unit: "drain",
    measure: all,
    note: None,
};

/// 1 TiB of 4 KiB pages.
const PAGES: usize = 1 << 28;

/// How many pages, and their numbers added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    pages: usize,
    numbers: usize,
}

impl Sum {
    fn of(dirty: &[Range<usize>]) -> Self {
        let mut sum = Self::default();
        for range in dirty {
            sum.run(range.start, range.len());
        }
        sum
    }

    #[inline]
    fn page(&mut self, page: usize) {
        self.pages += 1;
        self.numbers += page;
    }

    #[inline]
    fn run(&mut self, start: usize, len: usize) {
        self.pages += len;
        self.numbers += len * start + len * (len - 1) / 2;
    }
}

fn nothing(bench: &Bench) -> Measured {
    let bitmap = DirtyBitmap::boxed(PAGES);
    bench.rounds([
        limit("5 µs", || Turn::fixed(Duration::from_micros(5))).at_most(1.0),
        us(|| {
            repeat(128, |_| {
                bitmap.drain_bits(|page| panic!("page {page} is clean"))
            })
        }),
    ])
}

fn few(bench: &Bench) -> Measured {
    let draw: Draw = |rng| {
        let pages = scattered(rng, PAGES / 10_000, PAGES).into_iter();
        pages.map(|page| page..page + 1).collect()
    };
    let mut known = limits::Leaves::new(draw);
    let mut ours = Ours::new(draw);
    let mut theirs = Theirs::new(draw);
    bench.rounds([
        limit("lines known", || known.take_lines()).at_most(1.4),
        us(|| ours.turn(|bitmap, sum| bitmap.drain_bits(|page| sum.page(page)))),
        peer("vm-memory", || theirs.turn()).at_least(40.0),
    ])
}

fn in_runs(bench: &Bench) -> Measured {
    let draw: Draw = |rng| runs(rng, PAGES / 100, 64, PAGES);
    let mut wide = limits::Leaves::new(draw);
    let mut ours = Ours::new(draw);
    let mut theirs = Theirs::new(draw);
    bench.rounds([
        limit("one wide read", || wide.read()).at_most(1.25),
        us(|| ours.turn(|bitmap, sum| bitmap.drain_runs(|run| sum.run(run.start, run.len)))),
        peer("vm-memory", || theirs.turn()).at_least(30.0),
    ])
}

fn all(bench: &Bench) -> Measured {
    #[expect(clippy::single_range_in_vec_init, reason = "one run, of all pages")]
    let draw: Draw = |_| vec![0..PAGES];
    let mut swapped = limits::Leaves::new(draw);
    let mut ours = Ours::new(draw);
    // vm-memory is not among them: to mark all pages it takes seconds, for each turn.
    bench.rounds([
        limit("swap every word", || swapped.swap_all()).at_most(1.25),
        us(|| ours.turn(|bitmap, sum| bitmap.drain_runs(|run| sum.run(run.start, run.len)))),
    ])
}

/// Draws the dirty pages of a turn.
type Draw = fn(&mut fastrand::Rng) -> Vec<Range<usize>>;

struct Ours {
    bitmap: DirtyBitmap<Box<[AtomicUsize]>>,
    rng: fastrand::Rng,
    draw: Draw,
}

impl Ours {
    fn new(draw: Draw) -> Self {
        Self {
            bitmap: DirtyBitmap::boxed(PAGES),
            rng: rng(),
            draw,
        }
    }

    fn turn(&mut self, drain: impl FnOnce(&DirtyBitmap<Box<[AtomicUsize]>>, &mut Sum)) -> Turn {
        let dirty = (self.draw)(&mut self.rng);
        for range in &dirty {
            let marked = self.bitmap.mark_range(range.clone());
            debug_assert!(marked.is_ok());
        }
        let mut sum = Sum::default();
        let (turn, ()) = time(1, || drain(&self.bitmap, &mut sum));
        assert_eq!(sum, Sum::of(&dirty));
        assert!(self.bitmap.is_clean());
        turn
    }
}

/// vm-memory takes a copy of all bits, in which one then looks for those that are set.
struct Theirs {
    bitmap: AtomicBitmap,
    rng: fastrand::Rng,
    draw: Draw,
}

impl Theirs {
    fn new(draw: Draw) -> Self {
        Self {
            bitmap: AtomicBitmap::new(PAGES * PAGE_SIZE.get(), PAGE_SIZE),
            rng: rng(),
            draw,
        }
    }

    fn turn(&mut self) -> Turn {
        let dirty = (self.draw)(&mut self.rng);
        for range in &dirty {
            range.clone().for_each(|page| self.bitmap.set_bit(page));
        }
        let (turn, sum) = time(1, || {
            let mut sum = Sum::default();
            for (word, mut bits) in self.bitmap.get_and_reset().into_iter().enumerate() {
                while bits != 0 {
                    sum.page(word * 64 + bits.trailing_zeros() as usize);
                    bits &= bits - 1;
                }
            }
            sum
        });
        assert_eq!(sum, Sum::of(&dirty));
        turn
    }
}
