//! Threads beside a reader; what Miri looks for races in. `slots_stress` is the long form.

use std::sync::mpsc::channel;
use std::thread;

use pugmark::StaticArena;
use pugmark::slots::{Reader, Seen, Storage, chunk_words, mirror_words};
use pugmark::{Arena, Slot};

const WRITES: u64 = if cfg!(miri) { 30 } else { 20_000 };

#[test]
fn a_slot_is_read_whole() {
    static SLOT: Slot<[u64; 3]> = Slot::new([0; 3]);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = SLOT.writer().unwrap();
            (1..=WRITES).for_each(|n| writer.write(&[n; 3]));
        });
        let mut last = 0;
        while last < WRITES {
            if let Some(value) = SLOT.read() {
                assert!(value == [value[0]; 3] && value[0] >= last, "{value:?}");
                last = value[0];
            }
            thread::yield_now();
        }
    });
}

/// Slots are allocated, written by other threads, freed and used again, while a reader descends.
fn churn<S: Storage + Sync>(arena: &Arena<S>) {
    let rounds = if cfg!(miri) { 4 } else { 300 };
    thread::scope(|scope| {
        let (to_writer, writers) = channel();
        let (to_owner, done) = channel();
        let mut owner = arena.owner().unwrap();
        scope.spawn(move || {
            for round in 1..=rounds {
                let slots = if cfg!(miri) { 8 } else { 100 };
                for _ in 0..slots {
                    to_writer.send((owner.allocate().unwrap(), round)).unwrap();
                }
                for _ in 0..slots {
                    owner.free(done.recv().unwrap()).unwrap();
                }
            }
        });
        let writing = scope.spawn(move || {
            for (mut writer, round) in writers {
                let id = writer.id();
                let value = [id.index() as u64, u64::from(id.generation()), round];
                writer.write_value(&[0, 0, 0_u64]).unwrap();
                writer.write_value(&value).unwrap();
                to_owner.send(writer).unwrap();
            }
        });
        let seen = vec![Seen::ZERO; arena.capacity() / 64];
        let mirror = vec![0; mirror_words(arena.capacity(), arena.stride())];
        let mut reader = Reader::new(arena, seen, mirror).unwrap();
        while !writing.is_finished() {
            reader.descend(|offset, bytes| {
                for (i, value) in bytes.chunks_exact(24).enumerate() {
                    let value: [u64; 3] = bytemuck::pod_read_unaligned(value);
                    let index = (offset / 24 + i) as u64;
                    let whole = value == [0; 3] || (value[0] == index && value[1] == value[2]);
                    assert!(whole, "{value:?} in slot {index}");
                }
            });
            thread::yield_now();
        }
    });
}

#[test]
fn churn_inside_itself() {
    churn(&StaticArena::<2, { chunk_words(24) }>::new());
}

#[cfg(feature = "alloc")]
#[test]
fn churn_while_it_grows() {
    churn(&pugmark::BoxedArena::boxed(200, 24).unwrap());
}
