//! Writers at full speed, values that carry their own checksum, and no torn one accepted.
//!
//! A release build makes more than 100 million writes, which takes seconds:
//!
//! ```text
//! cargo test --release --test slots_stress -- --nocapture
//! ```
#![cfg(not(any(miri, loom)))]

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use pugmark::slots::{Inline, Read, Reader, Seen, SlotWriter, UNSEEN, chunk_words, mirror_words};
use pugmark::{Slot, StaticArena};

/// What all tests here write together, about.
const WRITES: u64 = if cfg!(debug_assertions) {
    3_000_000
} else {
    110_000_000
};

/// The last word is a checksum of the others, which follow from the first.
fn value<const N: usize>(n: u64) -> [u64; N] {
    let mut value = core::array::from_fn(|i| (n + i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    value[N - 1] = checksum(&value);
    value
}

/// Zero of zeros: what a slot has that was never written.
fn checksum<const N: usize>(value: &[u64; N]) -> u64 {
    let words = value[..N - 1].iter();
    words.fold(0, |sum, word| (sum ^ word).rotate_left(7))
}

fn check<const N: usize>(value: &[u64; N]) {
    let sum = checksum(value);
    assert!(value[N - 1] == sum, "torn value accepted: {value:x?}");
}

/// Sets it when dropped: by a panic too, so that nobody waits for a reader that failed.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn one_slot<const N: usize>(writes: u64)
where
    [u64; N]: bytemuck::Pod,
{
    let slot = Slot::new(value::<N>(0));
    let done = AtomicBool::new(false);
    let start = Instant::now();
    let (mut updated, mut torn) = (0_u64, 0_u64);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _done = Done(&done);
            let mut writer = slot.writer().unwrap();
            (1..=writes).for_each(|n| writer.write(&value(n)));
        });
        let (mut seen, mut into) = (UNSEEN, [0; N]);
        while !done.load(Relaxed) {
            match slot.read_if_changed(&mut seen, &mut into) {
                Read::Updated { .. } => {
                    check(&into);
                    updated += 1;
                }
                Read::Torn => torn += 1,
                Read::Unchanged => {}
            }
            if slot.read_into_fast(&mut into) {
                check(&into);
            }
        }
    });
    assert_eq!(slot.read(), Some(value(writes)));
    assert!(updated > 0, "the reader saw nothing of {writes} writes");
    let seconds = start.elapsed().as_secs_f64();
    println!("{N} words: {writes} writes, {updated} read, {torn} torn, {seconds:.1} s");
}

#[test]
fn one_slot_of_a_line() {
    one_slot::<8>(WRITES / 2);
}

#[test]
fn one_slot_of_many_words() {
    one_slot::<100>(WRITES / 50);
}

const SLOTS: usize = 512;

/// Two writers, whose slots lie between each other's, and a reader that descends all the time.
fn arena<const N: usize, const WORDS: usize>(writes: u64)
where
    [u64; N]: bytemuck::Pod,
{
    let arena = Box::new(StaticArena::<{ SLOTS / 64 }, WORDS>::new());
    assert_eq!(arena.stride(), N * 8);
    let mut owner = arena.owner().unwrap();
    let writers = (0..SLOTS).map(|_| owner.allocate().unwrap());
    let (mut even, mut odd): (Vec<SlotWriter<'_>>, Vec<_>) =
        writers.partition(|writer| writer.id().index() % 2 == 0);
    let running = [AtomicBool::new(false), AtomicBool::new(false)];
    let seen = vec![Seen::ZERO; SLOTS / 64];
    let mirror = vec![0; mirror_words(SLOTS, N * 8)];
    let mut reader: Reader<'_, Inline<{ SLOTS / 64 }, WORDS>, _, _> =
        Reader::new(&arena, seen, mirror).unwrap();
    let start = Instant::now();
    let (mut updated, mut torn) = (0, 0);
    let rounds = writes / SLOTS as u64;
    let mut descend = || {
        let descent = reader.descend(|_, bytes| {
            for bytes in bytes.chunks_exact(N * 8) {
                check::<N>(&bytemuck::pod_read_unaligned(bytes));
            }
        });
        // What was torn kept its last value.
        for value in reader.mirror().chunks_exact(N * 8) {
            check::<N>(&bytemuck::pod_read_unaligned(value));
        }
        updated += descent.updated;
        torn += descent.torn;
        descent
    };
    thread::scope(|scope| {
        for (done, writers) in running.iter().zip([&mut even, &mut odd]) {
            scope.spawn(move || {
                let _done = Done(done);
                for round in 1..=rounds {
                    for writer in &mut *writers {
                        writer.write_value(&value::<N>(round)).unwrap();
                    }
                }
            });
        }
        while !running.iter().all(|done| done.load(Relaxed)) {
            descend();
        }
    });
    // Every hint was kept: one more, and all have their last value.
    assert_eq!(descend().torn, 0);
    for writer in even.iter().chain(&odd) {
        let last = reader.value_as::<[u64; N]>(writer.id());
        assert_eq!(last, Some(value(rounds)), "lost value");
    }
    let seconds = start.elapsed().as_secs_f64();
    let writes = rounds * SLOTS as u64;
    println!("arena, {N} words: {writes} writes, {updated} read, {torn} torn, {seconds:.1} s");
}

#[test]
fn an_arena_of_lines() {
    arena::<8, { chunk_words(64) }>(WRITES / 2);
}

#[test]
fn an_arena_of_many_words() {
    arena::<67, { chunk_words(67 * 8) }>(WRITES / 20);
}
