//! A value of 64 bytes that nobody writes meanwhile, read into the reader's own memory.

use std::hint::black_box;

use arc_swap::ArcSwap;
use crossbeam_utils::atomic::AtomicCell;
use parking_lot::RwLock;
use pugmark::Slot;
use seqlock::SeqLock;
use triple_buffer::triple_buffer;

use super::Row;
use crate::harness::{Bench, Measured, Turn, limit, peer, repeat, us};

pub const BYTES_64: Row = Row {
    name: "slot-read-64",
    work: "read a slot of 64 bytes",
    unit: "read",
    measure,
    note: None,
};

type Value = [u64; 8];

const VALUE: Value = [1, 2, 3, 4, 5, 6, 7, 8];

/// A turn of `read`, into the same memory each time.
#[inline(always)]
fn reads(mut read: impl FnMut(&mut Value)) -> Turn {
    let mut memory = [0; 8];
    let into = black_box(&mut memory);
    let turn = repeat(1 << 16, |_| read(into));
    assert_eq!(*into, VALUE);
    turn
}

fn measure(bench: &Bench) -> Measured {
    let slot = &Slot::new(VALUE);
    let seqlock = &SeqLock::new(VALUE);
    let cell = &AtomicCell::new(VALUE);
    let lock = &RwLock::new(VALUE);
    let swap = &ArcSwap::from_pointee(VALUE);
    let (_input, mut output) = triple_buffer(&VALUE);
    bench.rounds([
        limit("memcpy", || {
            let plain = black_box(&VALUE);
            reads(|into| *into = *plain)
        })
        .at_most(2.0),
        us(|| {
            let slot = black_box(slot);
            reads(|into| assert!(slot.read_into(into)))
        }),
        peer("seqlock", || {
            let seqlock = black_box(seqlock);
            reads(|into| *into = seqlock.read())
        }),
        peer("AtomicCell", || {
            let cell = black_box(cell);
            reads(|into| *into = cell.load())
        }),
        peer("RwLock", || {
            let lock = black_box(lock);
            reads(|into| *into = *lock.read())
        }),
        peer("arc-swap", || {
            let swap = black_box(swap);
            reads(|into| *into = **swap.load())
        }),
        peer("triple_buffer", || {
            let output = black_box(&mut output);
            reads(|into| *into = *output.read())
        }),
    ])
}
