//! The arena, its writers, and both who read it into the one mirror.

use std::cell::UnsafeCell;
use std::rc::Rc;

use bytemuck::cast_slice_mut;
use fastrand::Rng;
use pugmark::slots::{Borrowed, CHUNK_SLOTS, Reader, Seen, UNSEEN, mirror_words};
use pugmark::{BorrowedArena, SlotBinding, SlotWriter};

use super::SLOTS;
use super::known::{self, Addresses};
use crate::harness::{Turn, time};
use crate::random::rng;

pub type Value = [u64; 8];
pub const STRIDE: usize = size_of::<Value>();

/// A mirror that two keep. None of them borrows it between its turns.
#[derive(Clone)]
struct Mirror(Rc<UnsafeCell<Box<[usize]>>>);

impl AsRef<[usize]> for Mirror {
    fn as_ref(&self) -> &[usize] {
        // SAFETY: nobody has it mutably: see `Mirror`.
        unsafe { &*self.0.get() }
    }
}

impl AsMut<[usize]> for Mirror {
    fn as_mut(&mut self) -> &mut [usize] {
        // SAFETY: nobody else has it: see `Mirror`.
        unsafe { &mut *self.0.get() }
    }
}

pub struct World<'a> {
    addresses: Addresses,
    writers: Vec<SlotWriter<'a>>,
    reader: Reader<'a, Borrowed<'a>, Box<[Seen]>, Mirror>,
    mirror: Mirror,
    /// The limit's own.
    known: Box<[u32]>,
    rng: Rng,
    draw: fn(&mut Rng) -> Vec<usize>,
    /// Those written since the last descend, ascending.
    written: Vec<usize>,
    turns: u64,
}

impl<'a> World<'a> {
    pub fn new(
        arena: &'a BorrowedArena<'a>,
        start: *mut u8,
        draw: fn(&mut Rng) -> Vec<usize>,
    ) -> Self {
        let mut owner = arena.owner().expect("nobody else has it");
        let allocate = |_| owner.allocate().expect("there is room").into_binding();
        let bindings: Vec<SlotBinding> = (0..SLOTS).map(allocate).collect();
        // SAFETY: nobody writes by the bindings.
        let writer = |slot| unsafe { owner.recover(slot) }.expect("it is allocated");
        let writers = (0..SLOTS).map(writer).collect();
        let mirror = vec![0; mirror_words(SLOTS, STRIDE)].into_boxed_slice();
        let mirror = Mirror(Rc::new(UnsafeCell::new(mirror)));
        let seen = vec![Seen::ZERO; SLOTS / CHUNK_SLOTS].into_boxed_slice();
        let mut world = Self {
            addresses: Addresses::new(start, &bindings),
            writers,
            reader: Reader::new(arena, seen, mirror.clone()).expect("nobody else has it"),
            mirror,
            known: vec![UNSEEN; SLOTS].into_boxed_slice(),
            rng: rng(),
            draw,
            written: Vec::new(),
            turns: 0,
        };
        world.written = (0..SLOTS).collect();
        world.write();
        world
    }

    /// pugmark's turn.
    pub fn descend(&mut self) -> Turn {
        self.write_others();
        let mut given = 0;
        let (turn, descent) = time(self.written.len(), || {
            self.reader.descend(|_, bytes| given += bytes.len())
        });
        assert_eq!(descent.updated, self.written.len());
        assert_eq!(given, self.written.len() * STRIDE);
        self.check();
        turn
    }

    /// The limit's turn.
    pub fn known(&mut self) -> Turn {
        self.write_others();
        let (mirror, _) = cast_slice_mut(self.mirror.as_mut()).split_at_mut(SLOTS);
        let (addresses, written) = (&self.addresses, &self.written);
        let seen = &mut self.known;
        // SAFETY: of the arena that the reader borrows.
        let (turn, whole) = time(written.len(), || unsafe {
            known::copy(addresses, written, seen, mirror)
        });
        assert_eq!(whole, written.len());
        self.check();
        turn
    }

    /// Draws other slots and writes them, when all before are in the mirror.
    fn write_others(&mut self) {
        self.reader.descend(|_, _| {});
        self.written = (self.draw)(&mut self.rng);
        self.write();
    }

    fn write(&mut self) {
        self.turns += 1;
        for slot in &self.written {
            let written = self.writers[*slot].write_value(&value(*slot, self.turns));
            debug_assert!(written.is_ok());
        }
    }

    fn check(&self) {
        let mirror: &[Value] = bytemuck::cast_slice(&self.mirror.as_ref()[..SLOTS * 8]);
        let mut written = self.written.iter();
        assert!(written.all(|slot| mirror[*slot] == value(*slot, self.turns)));
    }
}

/// What is written to a slot in this turn.
fn value(slot: usize, turn: u64) -> Value {
    std::array::from_fn(|i| turn << 32 | (slot * 8 + i) as u64)
}
