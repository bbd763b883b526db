//! A slot of an arena, written with the hint for its reader and without.

use std::cell::RefCell;
use std::hint::black_box;

use bytemuck::bytes_of;
use pugmark::slots::{Growing, Reader, Seen, Words, seqlock};
use pugmark::{AtomicU32, BoxedArena, SlotBinding, SlotWriter};

use super::Row;
use super::slot_write::{LAST, Value, WRITES, writes};
use crate::harness::{Bench, Measured, Turn, limit, us};
use crate::random;

pub const ONE: Row = Row {
    name: "slot-hint-one",
    work: "write a slot of 64 bytes with its hint, the same one",
    unit: "write",
    measure: |bench| measure(bench, 1),
    note: None,
};

pub const MANY: Row = Row {
    name: "slot-hint-many",
    work: "write a slot of 64 bytes with its hint, any of 4,096",
    unit: "write",
    measure: |bench| measure(bench, 4096),
    note: None,
};

fn measure(bench: &Bench, slots: usize) -> Measured {
    let arena = BoxedArena::boxed(slots, size_of::<Value>()).expect("there is memory");
    let slots = RefCell::new(Slots::new(&arena, slots));
    bench.rounds([
        limit("without its hint", || {
            slots.borrow_mut().turn(|(_, binding), value| {
                without_hint(binding, value);
            })
        })
        .at_most(1.5),
        us(|| {
            slots.borrow_mut().turn(|(writer, _), value| {
                let written = writer.write(bytes_of(value));
                debug_assert!(written.is_ok());
            })
        }),
    ])
}

/// What [`SlotWriter::write`] does, but for the hint, in the same memory.
#[inline]
fn without_hint(binding: &SlotBinding, value: &Value) {
    // SAFETY: the addresses are of a slot that is allocated, and nobody writes it meanwhile.
    let (version, payload) = unsafe {
        (
            AtomicU32::from_ptr(binding.version),
            Words::from_raw(binding.payload, binding.stride),
        )
    };
    let written = seqlock::write(version, payload, bytes_of(value));
    debug_assert!(written.is_ok());
}

/// Some slots, each with both ways to write it, and which is written when.
struct Slots<'a> {
    writers: Vec<(SlotWriter<'a>, SlotBinding)>,
    reader: Reader<'a, Growing, Box<[Seen]>, Box<[usize]>>,
    order: Vec<usize>,
}

impl<'a> Slots<'a> {
    fn new(arena: &'a BoxedArena, slots: usize) -> Self {
        let mut owner = arena.owner().expect("nobody else has it");
        let mut writers = Vec::new();
        for index in 0..slots {
            let binding = owner.allocate().expect("there is room").into_binding();
            // SAFETY: the two are used in turns.
            let writer = unsafe { owner.recover(index) }.expect("it is allocated");
            writers.push((writer, binding));
        }
        let mut rng = random::rng();
        Self {
            writers,
            reader: arena.boxed_reader().expect("nobody else has it"),
            order: (0..WRITES).map(|_| rng.usize(..slots)).collect(),
        }
    }

    #[inline(always)]
    fn turn(&mut self, mut write: impl FnMut(&mut (SlotWriter<'a>, SlotBinding), &Value)) -> Turn {
        let writers = black_box(&mut *self.writers);
        let turn = writes(|time, value| write(&mut writers[self.order[time]], value));
        // What has no hint is found all the same.
        self.reader.rescan();
        let descent = self.reader.descend(|_, _| {});
        let last = self.writers[self.order[WRITES - 1]].0.id();
        assert!(descent.updated > 0 && self.reader.value_as(last) == Some(LAST));
        turn
    }
}
