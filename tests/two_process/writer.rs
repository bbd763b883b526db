//! The process that writes.

use std::env;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use pugmark::SlotBinding;
use pugmark::slots::{WORD, Words, seqlock};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::shared_memory::SharedMemory;
use crate::stamp::{STRIDE, Stamp};

/// What a writer does once it has written every slot.
#[derive(Clone, Copy)]
pub enum Task {
    /// It writes them all again and again, as fast as it can.
    Write,
    /// It writes half a value, and hangs.
    HalfAValue,
    /// It writes a value, and hangs before the hint.
    ValueWithoutHint,
}

const TASKS: [Task; 3] = [Task::Write, Task::HalfAValue, Task::ValueWithoutHint];

/// The slots that are written: in two chunks.
pub const SLOTS: [usize; 4] = [0, 1, 63, 64];

/// What both processes find at the start of the memory; the arena is behind it.
#[repr(C)]
pub struct Shared {
    /// Where the owner's process has the memory, in which these addresses are.
    pub start: usize,
    pub slots: [SlotBinding; SLOTS.len()],
    pub stage: AtomicU32,
}

/// Every slot is written.
pub const WRITTEN: u32 = 1;
/// The owner has read everything, hints and all.
pub const READ: u32 = 2;
/// The writer is where its task hangs.
pub const HANGING: u32 = 3;

/// The environment variable with the memory's path, the writer's number and the task's.
pub const VARIABLE: &str = "PUGMARK_TWO_PROCESS";

pub fn variable(memory: &SharedMemory, writer: u64, task: Task) -> String {
    format!("{} {writer} {}", memory.path(), task as usize)
}

pub fn run() {
    let words = env::var(VARIABLE).expect("started by a test");
    let words: Vec<&str> = words.split(' ').collect();
    let writer: u64 = words[1].parse().expect("a number");
    let task = TASKS[words[2].parse::<usize>().expect("a number")];
    // A test that is itself killed takes us along.
    set_parent_process_death_signal(Some(Signal::KILL)).expect("a signal");

    let mut memory = SharedMemory::open(words[0]);
    // SAFETY: the owner wrote it before it started us, and of it only `stage` changes.
    let start = unsafe { memory.start().cast::<Shared>().as_ref() }.start;
    if memory.start().addr().get() == start {
        // By chance: then elsewhere, as long as this one is there.
        memory = memory.map_again();
    }
    // SAFETY: as above.
    let shared = unsafe { memory.start().cast::<Shared>().as_ref() };
    let slots = shared.slots.map(|slot| SlotBinding {
        version: memory.here(slot.version, start),
        payload: memory.here(slot.payload, start),
        hint: memory.here(slot.hint, start),
        chunk_hint: memory.here(slot.chunk_hint, start),
        ..slot
    });

    let write_all = |number| {
        for slot in &slots {
            let value = Stamp { writer, number }.value(slot.index());
            // SAFETY: the arena is there, and every writer before us is dead.
            unsafe { slot.write(&value) }.expect("the stride");
        }
    };
    write_all(1);
    if let Task::Write = task {
        for number in 2.. {
            write_all(number);
        }
    }
    shared.stage.store(WRITTEN, Ordering::Release);
    while shared.stage.load(Ordering::Acquire) != READ {
        std::thread::yield_now();
    }
    let value = Stamp { writer, number: 2 }.value(slots[0].index());
    match task {
        Task::ValueWithoutHint => write_without_hint(slots[0], &value),
        _ => write_half(slots[0], &value),
    }
    shared.stage.store(HANGING, Ordering::Release);
    loop {
        std::thread::park();
    }
}

fn write_half(slot: SlotBinding, value: &[u8; STRIDE]) {
    // SAFETY: the arena is there; its versions and payloads are atomics.
    unsafe {
        seqlock::begin(pugmark::AtomicU32::from_ptr(slot.version));
        let words = value.as_chunks::<WORD>().0;
        for (index, word) in words[..words.len() / 2].iter().enumerate() {
            let there = AtomicUsize::from_ptr(slot.payload.cast::<usize>().add(index));
            there.store(usize::from_ne_bytes(*word), Ordering::Relaxed);
        }
    }
}

fn write_without_hint(slot: SlotBinding, value: &[u8; STRIDE]) {
    // SAFETY: as above.
    let (version, payload) = unsafe {
        let version = pugmark::AtomicU32::from_ptr(slot.version);
        (version, Words::from_raw(slot.payload, slot.stride))
    };
    seqlock::write(version, payload, value).expect("the stride");
}
