//! A value of 64 bytes, published again and again by its one writer.

use std::hint::black_box;
use std::sync::Arc;

use arc_swap::ArcSwap;
use crossbeam_utils::atomic::AtomicCell;
use parking_lot::RwLock;
use pugmark::Slot;
use seqlock::SeqLock;
use triple_buffer::triple_buffer;

use super::Row;
use crate::harness::{Bench, Measured, Turn, limit, peer, repeat, us};

pub const BYTES_64: Row = Row {
    name: "slot-write-64",
    work: "write a slot of 64 bytes",
    unit: "write",
    measure,
    note: Some(
        "ten stores, at close to the speed of memcpy: only wider ones, which Rust has no atomics for, would \
         be faster. A peer's write has one or two locked instructions: the goal was set where each takes \
         7 ns, and on a Zen 4 it takes 2",
    ),
};

pub type Value = [u64; 8];

/// The values that are written in turn. They are all there before, as a caller's is: a value that is
/// put together just before the copy would measure how the copy's loads wait for those stores.
pub const VALUES: [Value; 64] = {
    let mut values = [[0; 8]; 64];
    let mut i = 0;
    while i < values.len() * 8 {
        values[i / 8][i % 8] = i as u64 + 1;
        i += 1;
    }
    values
};

/// Writes in a turn.
pub const WRITES: usize = 1 << 16;
/// What is there after it.
pub const LAST: Value = VALUES[(WRITES - 1) % VALUES.len()];

/// A turn of `write`, which gets each value in turn.
#[inline(always)]
pub fn writes(mut write: impl FnMut(usize, &Value)) -> Turn {
    let values = black_box(&VALUES);
    repeat(WRITES, |time| write(time, &values[time % VALUES.len()]))
}

fn measure(bench: &Bench) -> Measured {
    let mut plain = [0; 8];
    let slot = &Slot::new([0; 8]);
    let seqlock = &SeqLock::new([0; 8]);
    let cell = &AtomicCell::new([0; 8]);
    let lock = &RwLock::new([0; 8]);
    let swap = &ArcSwap::from_pointee([0; 8]);
    let (mut input, mut output) = triple_buffer(&[0; 8]);
    bench.rounds([
        limit("memcpy", || {
            let plain = black_box(&mut plain);
            let turn = writes(|_, value| *plain = *value);
            assert_eq!(*plain, LAST);
            turn
        })
        .at_most(2.0),
        us(|| {
            let slot = black_box(slot);
            let mut writer = slot.writer().expect("nobody else has it");
            let turn = writes(|_, value| writer.write(value));
            assert_eq!(slot.read(), Some(LAST));
            turn
        }),
        peer("seqlock", || {
            let seqlock = black_box(seqlock);
            let turn = writes(|_, value| *seqlock.lock_write() = *value);
            assert_eq!(seqlock.read(), LAST);
            turn
        })
        .at_least(5.0),
        peer("AtomicCell", || {
            let cell = black_box(cell);
            let turn = writes(|_, value| cell.store(*value));
            assert_eq!(cell.load(), LAST);
            turn
        })
        .at_least(5.0),
        peer("RwLock", || {
            let lock = black_box(lock);
            let turn = writes(|_, value| *lock.write() = *value);
            assert_eq!(*lock.read(), LAST);
            turn
        })
        .at_least(5.0),
        peer("arc-swap", || {
            let swap = black_box(swap);
            let turn = writes(|_, value| swap.store(Arc::new(*value)));
            assert_eq!(**swap.load(), LAST);
            turn
        })
        .at_least(5.0),
        // It has one reader, and three places for the value.
        peer("triple_buffer", || {
            let input = black_box(&mut input);
            let turn = writes(|_, value| input.write(*value));
            assert_eq!(*output.read(), LAST);
            turn
        })
        .at_least(5.0),
    ])
}
