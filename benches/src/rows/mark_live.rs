//! Two threads that mark without a pause, each in blocks of its own, while a third one harvests.
//!
//! What is measured is the time that a marker runs, for each mark: what a harvest costs it in cache
//! lines taken away and summary bits to set again. Where a machine has fewer cores than three the
//! harvester also takes turns with the markers; the time that a marker does not run is not in it, and
//! neither is the harvester's own. The limit is the same two markers, and nobody who harvests.
//!
//! A guest marks far less often: each mark is a fault of microseconds. So this is the worst case.

use std::thread;
use std::time::{Duration, Instant};

use pugmark::DirtyBitmap;
use vm_memory::bitmap::AtomicBitmap;

use super::Row;
use super::mark::{PAGE_SIZE, PAGES};
use crate::harness::{Bench, Measured, Turn, limit, peer, repeat, together, us};
use crate::improved::Improved;

pub const HZ_60: Row = Row {
    name: "mark-live-60",
    work: "two threads mark, each in 1 GiB of its own of 64 GiB; 60 harvests a second",
    unit: "mark",
    measure: |bench| measure(bench, Duration::from_secs(1) / 60, Some(1.1)),
    note: None,
};

pub const HZ_1000: Row = Row {
    name: "mark-live-1000",
    work: "two threads mark, each in 1 GiB of its own of 64 GiB; 1,000 harvests a second",
    unit: "mark",
    measure: |bench| measure(bench, Duration::from_millis(1), Some(1.1)),
    note: None,
};

pub const ALWAYS: Row = Row {
    name: "mark-live-always",
    work: "two threads mark, each in 1 GiB of its own of 64 GiB; one harvest after the other",
    unit: "mark",
    measure: |bench| measure(bench, Duration::ZERO, None),
    note: None,
};

const THREADS: usize = 2;
/// Those of a marker: 1 GiB.
const OWN: usize = 1 << 18;
/// To the pages of the next one.
const APART: usize = PAGES / THREADS;

/// The page of a marker's nth mark: any of its own, and all of them after as many marks.
#[inline]
fn page(thread: usize, time: usize) -> usize {
    // An odd number has no factor in common with a power of two.
    thread * APART + time.wrapping_mul(0x9e37_79b1) % OWN
}

fn measure(bench: &Bench, every: Duration, goal: Option<f64>) -> Measured {
    // A tenth of a second and more, which is several harvests.
    let marks = if bench.is_check() { OWN } else { OWN << 7 };
    let bitmap = &DirtyBitmap::boxed(PAGES);
    let vm_memory = &AtomicBitmap::new(PAGES * PAGE_SIZE.get(), PAGE_SIZE);
    let improved = &Improved::new(PAGES);
    // The same code on the same memory: nothing differs but the harvests.
    let ours = |every| {
        let mark = |page| assert!(bitmap.mark(page).is_ok());
        let harvest = |found: &mut Found| bitmap.drain_bits(|page| found.page(page));
        live(marks, every, mark, harvest)
    };
    let every = Some(every);
    bench.rounds([
        limit("nobody harvests", || ours(None)).with_goal(goal),
        us(|| ours(every)),
        peer("vm-memory", || {
            let mark = |page| vm_memory.set_bit(page);
            let harvest = |found: &mut Found| {
                let copy = vm_memory.get_and_reset().into_iter().enumerate();
                copy.for_each(|(word, bits)| found.word(word, bits));
            };
            live(marks, every, mark, harvest)
        }),
        peer("look, then swap", || {
            let mark = |page| improved.set_range(page..page + 1);
            let harvest = |found: &mut Found| improved.drain(|word, bits| found.word(word, bits));
            live(marks, every, mark, harvest)
        }),
    ])
}

/// A turn of the markers, with a harvest each `every`, or with none before they are done.
///
/// No mark is lost, and none is found that was not made.
#[inline(never)]
fn live(
    marks: usize,
    every: Option<Duration>,
    mark: impl Fn(usize) + Sync,
    harvest: impl Fn(&mut Found),
) -> Turn {
    let mut found = Found(vec![0; PAGES / 64]);
    let mark_own = |thread| repeat(marks, |time| mark(page(thread, time)));
    let turn = thread::scope(|scope| {
        let markers = scope.spawn(|| together(THREADS, mark_own).turn);
        if let Some(every) = every {
            let mut next = Instant::now() + every / 2;
            while !markers.is_finished() {
                thread::sleep(next.saturating_duration_since(Instant::now()));
                harvest(&mut found);
                // One who comes late does not catch up.
                next = Instant::now().max(next + every);
            }
        }
        markers.join().expect("no marker panics")
    });
    harvest(&mut found);
    let is_own = |word: usize| word * 64 % APART < OWN;
    let expected = |word| if is_own(word) { u64::MAX } else { 0 };
    let mut words = found.0.iter().enumerate();
    assert!(words.all(|(word, bits)| *bits == expected(word)));
    turn
}

/// A bit for each page that was in a harvest.
struct Found(Vec<u64>);

impl Found {
    #[inline]
    fn page(&mut self, page: usize) {
        self.0[page / 64] |= 1 << (page % 64);
    }

    #[inline]
    fn word(&mut self, word: usize, bits: u64) {
        if bits != 0 {
            self.0[word] |= bits;
        }
    }
}
