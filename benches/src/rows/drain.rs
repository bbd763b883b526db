//! 1 TiB of 4 KiB pages, drained: 32 MiB of bits.
//!
//! Whoever drains tells each dirty page, alone or in a run, to a sink that adds up their numbers.

pub mod limits;
mod peers;

use std::ops::Range;
use std::time::Duration;

use pugmark::DirtyBitmap;
use pugmark::bitmap::BoxedWords;

use super::Row;
use crate::harness::{Bench, Contender, Measured, Turn, limit, peer, repeat, time, us};
use crate::improved::Improved;
use crate::random::{rng, runs, scattered};
use peers::Hibitset;

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
    note: Some(
        "about as long as to read the bitmap once; how many times longer vm-memory takes to swap each of \
         its words depends on what a locked instruction takes, 7 ns or 13",
    ),
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

type Ours = DirtyBitmap<BoxedWords>;

/// How many pages, and their numbers added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
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
    pub fn page(&mut self, page: usize) {
        self.pages += 1;
        self.numbers += page;
    }

    /// Each page of a word.
    #[inline]
    pub fn word(&mut self, word: usize, mut bits: u64) {
        while bits != 0 {
            self.page(word * 64 + bits.trailing_zeros() as usize);
            bits &= bits - 1;
        }
    }

    #[inline]
    pub fn run(&mut self, start: usize, len: usize) {
        self.pages += len;
        self.numbers += len * start + len * (len - 1) / 2;
    }
}

fn nothing(bench: &Bench) -> Measured {
    const TIMES: usize = 128;
    let bitmap = DirtyBitmap::boxed(PAGES);
    let clean: Draw = |_| Vec::new();
    let mut vm_memory = Turns::new(clean, peers::vm_memory());
    let mut improved = Turns::new(clean, Improved::new(PAGES));
    let mut hibitset = Hibitset::new();
    bench.rounds([
        limit("5 µs", || Turn::fixed(Duration::from_micros(5))).at_most(1.0),
        // Again and again, as an idle guest is drained: what there is of a summary is in the caches.
        us(|| {
            repeat(TIMES, |_| {
                bitmap.drain_bits(|page| panic!("page {page} is clean"))
            })
        }),
        peer("vm-memory", || vm_memory.turn(peers::mark, peers::drain)),
        peer("look, then swap", || {
            improved.turn(|bits, range| bits.set_range(range), peers::drain_words)
        }),
        peer("hibitset, alone", || {
            let mut sum = Sum::default();
            let turn = repeat(TIMES, |_| hibitset.drain(&mut sum));
            assert_eq!(sum, Sum::default());
            turn
        }),
    ])
}

fn few(bench: &Bench) -> Measured {
    let draw: Draw = |rng| {
        let pages = scattered(rng, PAGES / 10_000, PAGES).into_iter();
        pages.map(|page| page..page + 1).collect()
    };
    let mut known = limits::Leaves::new(draw);
    let by_bits = |bitmap: &mut Ours, sum: &mut Sum| bitmap.drain_bits(|page| sum.page(page));
    measure(
        bench,
        draw,
        limit("lines known", || known.take_lines()).at_most(1.4),
        by_bits,
        40.0,
    )
}

fn in_runs(bench: &Bench) -> Measured {
    let draw: Draw = |rng| runs(rng, PAGES / 100, 64, PAGES);
    let mut wide = limits::Leaves::new(draw);
    measure(
        bench,
        draw,
        limit("one wide read", || wide.read()).at_most(1.25),
        by_runs,
        30.0,
    )
}

fn by_runs(bitmap: &mut Ours, sum: &mut Sum) {
    bitmap.drain_runs(|run| sum.run(run.start, run.len));
}

fn all(bench: &Bench) -> Measured {
    #[expect(clippy::single_range_in_vec_init, reason = "one run, of all pages")]
    let draw: Draw = |_| vec![0..PAGES];
    let mut swapped = limits::Leaves::new(draw);
    let mut ours = Turns::new(draw, Ours::boxed(PAGES));
    let mut improved = Turns::new(draw, Improved::new(PAGES));
    // To mark all pages takes vm-memory seconds: it does so once.
    let all_marked = peers::vm_memory();
    peers::mark(&all_marked, 0..PAGES);
    let mut vm_memory = Turns::new(draw, peers::vm_memory());
    bench.rounds([
        limit("swap every word", || swapped.swap_all()).at_most(1.25),
        us(|| ours.turn(mark, by_runs)),
        peer("vm-memory", || {
            vm_memory.bits = all_marked.clone();
            vm_memory.turn(|_, _| {}, peers::drain)
        }),
        peer("look, then swap", || {
            improved.turn(|bits, range| bits.set_range(range), peers::drain_words)
        }),
    ])
}

/// The limit, us, and all who can do the same.
///
/// Those who are `alone` have no way to take bits while somebody sets others: whoever marks must
/// stop for as long as they drain. They are here for what they cost, and could not stand in for us.
fn measure(
    bench: &Bench,
    draw: Draw,
    limit: Contender<'_>,
    drain: fn(&mut Ours, &mut Sum),
    goal: f64,
) -> Measured {
    let mut ours = Turns::new(draw, Ours::boxed(PAGES));
    let mut vm_memory = Turns::new(draw, peers::vm_memory());
    let mut skipping = Turns::new(draw, Improved::new(PAGES));
    let mut looking = Turns::new(draw, Improved::new(PAGES));
    let mut hibitset = Turns::new(draw, Hibitset::new());
    let mut sux = Turns::new(draw, peers::Sux::new());
    bench.rounds([
        limit,
        us(|| ours.turn(mark, drain)),
        peer("vm-memory", || vm_memory.turn(peers::mark, peers::drain)).at_least(goal),
        peer("vm-memory, skipping clean words", || {
            skipping.turn(|bits, range| bits.set_range(range), peers::drain_copy)
        }),
        peer("look, then swap", || {
            looking.turn(|bits, range| bits.set_range(range), peers::drain_words)
        }),
        peer("hibitset, alone", || {
            hibitset.turn(|bits, range| bits.mark(range), Hibitset::drain)
        }),
        peer("sux, alone", || {
            sux.turn(|bits, range| bits.mark(range), peers::Sux::drain)
        }),
    ])
}

fn mark(bitmap: &Ours, pages: Range<usize>) {
    let marked = bitmap.mark_range(pages);
    debug_assert!(marked.is_ok());
}

/// Draws the dirty pages of a turn.
type Draw = fn(&mut fastrand::Rng) -> Vec<Range<usize>>;

/// The turns of one who drains: each makes the same pages dirty first as that of all others.
struct Turns<B> {
    bits: B,
    rng: fastrand::Rng,
    draw: Draw,
}

impl<B> Turns<B> {
    fn new(draw: Draw, bits: B) -> Self {
        let rng = rng();
        Self { bits, rng, draw }
    }

    fn turn(&mut self, mark: fn(&B, Range<usize>), drain: fn(&mut B, &mut Sum)) -> Turn {
        let dirty = (self.draw)(&mut self.rng);
        for range in &dirty {
            mark(&self.bits, range.clone());
        }
        let mut sum = Sum::default();
        let (turn, ()) = time(1, || drain(&mut self.bits, &mut sum));
        assert_eq!(sum, Sum::of(&dirty));
        // Nothing is left.
        drain(&mut self.bits, &mut sum);
        assert_eq!(sum, Sum::of(&dirty));
        turn
    }
}
