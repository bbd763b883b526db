//! A million slots of which a part was written: how long until a reader has the new values.
//!
//! The limit knows which slots were written, and copies them into the same mirror by the same
//! protocol, with the next ones already under way to the cache, and remembers their versions. It
//! finds nothing, and puts no ranges together.

mod known;
mod world;

use std::cell::RefCell;
use std::ptr::NonNull;

use fastrand::Rng;
use pugmark::BorrowedArena;
use pugmark::slots::bytes_for;

use super::Row;
use crate::harness::{Bench, Measured, limit, us};
use crate::random::{runs, scattered};
use world::{STRIDE, World};

pub const RUNS_1: Row = Row {
    name: "descend-runs-1",
    work: "descend 1 M slots of 64 bytes, 1 % written, in runs of 64",
    unit: "written slot",
    measure: |bench| measure(bench, |rng| in_runs(rng, SLOTS / 100), Some(1.1)),
    note: Some(
        "the limit looks at no hint; this looks at those of all 16,384 chunks, 32 KiB, and then looks at and \
         clears a byte a written slot, which is the tenth. Tried, without a gain: fences for 512 and for 1,024 \
         slots at once in place of 256; to ask for a line of versions once and not for each of its slots",
    ),
};

pub const RUNS_10: Row = Row {
    name: "descend-runs-10",
    work: "descend 1 M slots of 64 bytes, 10 % written, in runs of 64",
    unit: "written slot",
    measure: |bench| measure(bench, |rng| in_runs(rng, SLOTS / 10), Some(1.1)),
    note: None,
};

pub const SCATTERED_10: Row = Row {
    name: "descend-scattered-10",
    work: "descend 1 M slots of 64 bytes, 10 % written, anywhere",
    unit: "written slot",
    measure: |bench| measure(bench, |rng| scattered(rng, SLOTS / 10, SLOTS), Some(1.5)),
    note: None,
};

pub const SCATTERED_1: Row = Row {
    name: "descend-scattered-1",
    work: "descend 1 M slots of 64 bytes, 1 % written, anywhere",
    unit: "written slot",
    measure: |bench| measure(bench, |rng| scattered(rng, SLOTS / 100, SLOTS), Some(4.0)),
    note: None,
};

pub const SCATTERED_01: Row = Row {
    name: "descend-scattered-0.1",
    work: "descend 1 M slots of 64 bytes, 0.1 % written, anywhere",
    unit: "written slot",
    measure: |bench| measure(bench, |rng| scattered(rng, SLOTS / 1000, SLOTS), None),
    note: None,
};

const SLOTS: usize = 1 << 20;
/// A cache line: where an arena starts.
const ALIGN: usize = 64;

fn in_runs(rng: &mut Rng, count: usize) -> Vec<usize> {
    runs(rng, count, 64, SLOTS).into_iter().flatten().collect()
}

fn measure(bench: &Bench, draw: fn(&mut Rng) -> Vec<usize>, goal: Option<f64>) -> Measured {
    let bytes = bytes_for(SLOTS, STRIDE);
    let mut memory = vec![0_u8; bytes + ALIGN];
    let skip = memory.as_ptr().align_offset(ALIGN);
    let start = NonNull::from(&mut memory[skip..]).cast();
    // SAFETY: it is as large, and from here on only accessed as an arena.
    let arena = unsafe { BorrowedArena::in_memory(start, bytes, SLOTS, STRIDE) };
    let arena = arena.expect("the memory is large enough");
    let world = RefCell::new(World::new(&arena, start.as_ptr(), draw));
    bench.rounds([
        limit("slots known", || world.borrow_mut().known()).with_goal(goal),
        us(|| world.borrow_mut().descend()),
    ])
}
