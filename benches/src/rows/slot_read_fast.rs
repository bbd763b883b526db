//! A value of 4 KiB, read by the copy in assembly into the reader's own memory.

use std::hint::black_box;

use crossbeam_utils::atomic::AtomicCell;
use parking_lot::RwLock;
use pugmark::Slot;
use seqlock::SeqLock;

use super::Row;
use crate::harness::{Bench, Measured, Turn, limit, peer, repeat, us};

pub const KIB_4: Row = Row {
    name: "slot-read-4k",
    work: "read a slot of 4 KiB by the fast copy",
    unit: "read",
    measure,
    note: None,
};

type Value = [u64; 512];

/// A turn of `read`, into the same memory each time.
#[inline(always)]
fn reads(value: &Value, mut read: impl FnMut(&mut Value)) -> Turn {
    let mut memory = Box::new([0; 512]);
    let into = black_box(&mut *memory);
    let turn = repeat(1 << 12, |_| read(into));
    assert_eq!(into, value);
    turn
}

fn measure(bench: &Bench) -> Measured {
    let value: &Value = &std::array::from_fn(|i| i as u64);
    let slot = &*Box::new(Slot::new(*value));
    let seqlock = &*Box::new(SeqLock::new(*value));
    let cell = &*Box::new(AtomicCell::new(*value));
    let lock = &*Box::new(RwLock::new(*value));
    bench.rounds([
        limit("memcpy", || {
            let plain = black_box(value);
            reads(value, |into| *into = *plain)
        })
        .at_most(1.3),
        us(|| {
            let slot = black_box(slot);
            reads(value, |into| assert!(slot.read_into_fast(into)))
        }),
        peer("pugmark, by words", || {
            let slot = black_box(slot);
            reads(value, |into| assert!(slot.read_into(into)))
        }),
        peer("seqlock", || {
            let seqlock = black_box(seqlock);
            reads(value, |into| *into = seqlock.read())
        }),
        peer("AtomicCell", || {
            let cell = black_box(cell);
            reads(value, |into| *into = cell.load())
        }),
        peer("RwLock", || {
            let lock = black_box(lock);
            reads(value, |into| *into = *lock.read())
        }),
    ])
}
