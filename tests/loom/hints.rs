//! Hints: a finished write is in a descend that begins later, whoever else writes beside it.

use std::sync::Arc;

use loom::sync::atomic::{
    AtomicU8, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};
use loom::thread;
use pugmark::StaticArena;
use pugmark::slots::{Reader, Seen, WORD, chunk_words, mirror_words};

use crate::arena::with_arena;
use crate::check::{fails, holds};

/// Two slots of one chunk, a word each.
const WORDS: usize = chunk_words(WORD);

type Arena = StaticArena<1, WORDS>;

fn reader(
    arena: &'static Arena,
) -> Reader<'static, pugmark::slots::Inline<1, WORDS>, [Seen; 1], [usize; mirror_words(2, WORD)]> {
    Reader::new(arena, [Seen::ZERO; 1], [0; mirror_words(2, WORD)]).unwrap()
}

/// `writes` writes by each of `writers` threads, to a slot each, beside a descend; after another
/// descend the mirror must have the last values.
fn library(writers: usize, writes: usize) {
    with_arena(|arena: &'static Arena| {
        let mut owner = arena.owner().unwrap();
        let mut reader = reader(arena);
        let threads: Vec<_> = (0..writers)
            .map(|_| {
                let mut writer = owner.allocate().unwrap();
                thread::spawn(move || {
                    (1..=writes).for_each(|value| writer.write_value(&value).unwrap());
                    writer.id()
                })
            })
            .collect();
        let mut updated = reader.descend(|_, _| ()).updated;
        let ids = threads.into_iter().map(|thread| thread.join().unwrap());
        let ids: Vec<_> = ids.collect();
        updated += reader.descend(|_, _| ()).updated;
        for id in ids {
            let value = reader.value_as(id);
            assert!(
                value == Some(writes),
                "lost value: {value:?} of slot {}",
                id.index()
            );
        }
        assert!(updated >= writers && updated <= 2 * writers);
    });
}

#[test]
fn write_beside_descend() {
    holds(|| library(1, 2));
}

#[test]
fn two_writers_beside_descend() {
    holds(|| library(2, 1));
}

/// Two slots of a chunk and their hints, by hand.
struct ByHand {
    versions: [AtomicU32; 2],
    values: [AtomicUsize; 2],
    slots: [AtomicU8; 2],
    chunk: AtomicU8,
    leave: Leave,
    take: Take,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// The slot's hint after the version, the chunk's after that, with a fence before each: as the
    /// library, where nothing but C11 is known of the machine.
    AfterEnd,
    /// The same by release stores alone: as the library, on a multi-copy atomic machine.
    WithoutFences,
    BeforeEnd,
    ChunkFirst,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Take {
    /// The chunk's hint cleared, a fence, the slots' hints that are set cleared, a fence, the versions.
    ClearThenLook,
    NoFenceAfterChunk,
    NoFenceAfterSlots,
    ChunkLast,
    SlotsLast,
    /// Clears the slots' hints that it did not find set as well.
    ClearAll,
}

impl ByHand {
    fn new(leave: Leave, take: Take) -> Self {
        Self {
            versions: [AtomicU32::new(0), AtomicU32::new(0)],
            values: [AtomicUsize::new(0), AtomicUsize::new(0)],
            slots: [AtomicU8::new(0), AtomicU8::new(0)],
            chunk: AtomicU8::new(0),
            leave,
            take,
        }
    }

    fn write(&self, slot: usize, value: usize) {
        let version = &self.versions[slot];
        let odd = version.load(Relaxed) | 1;
        version.store(odd, Relaxed);
        fence(Release);
        self.values[slot].store(value, Relaxed);
        if self.leave == Leave::BeforeEnd {
            self.leave(slot);
        }
        version.store(odd + 1, Release);
        if self.leave != Leave::BeforeEnd {
            self.leave(slot);
        }
    }

    fn leave(&self, slot: usize) {
        let mut hints = [&self.slots[slot], &self.chunk];
        if self.leave == Leave::ChunkFirst {
            hints.reverse();
        }
        for hint in hints {
            if self.leave != Leave::WithoutFences {
                fence(SeqCst);
            }
            hint.store(1, Release);
        }
    }

    /// A torn slot is hinted by its writer alone, so that the order of its hints matters.
    fn descend(&self, seen: &mut [u32; 2], mirror: &mut [usize; 2]) {
        let take = self.take;
        if self.chunk.load(Relaxed) == 0 {
            return;
        }
        if take != Take::ChunkLast {
            self.chunk.store(0, Relaxed);
        }
        if take != Take::NoFenceAfterChunk {
            fence(SeqCst);
        }
        let found = [0, 1].map(|slot| self.slots[slot].load(Relaxed) != 0);
        for slot in 0..2 {
            if take == Take::ClearAll || found[slot] && take != Take::SlotsLast {
                self.slots[slot].store(0, Relaxed);
            }
        }
        if take != Take::NoFenceAfterSlots {
            fence(SeqCst);
        }
        for slot in 0..2 {
            if found[slot] {
                self.read(slot, &mut seen[slot], &mut mirror[slot]);
            }
        }
        for slot in 0..2 {
            if found[slot] && take == Take::SlotsLast {
                self.slots[slot].store(0, Relaxed);
            }
        }
        if take == Take::ChunkLast {
            self.chunk.store(0, Relaxed);
        }
    }

    fn read(&self, slot: usize, seen: &mut u32, mirror: &mut usize) {
        let looked = self.versions[slot].load(Acquire);
        if looked & 1 != 0 || looked == *seen {
            return;
        }
        let value = self.values[slot].load(Relaxed);
        fence(Acquire);
        if self.versions[slot].load(Relaxed) == looked {
            (*seen, *mirror) = (looked, value);
        }
    }
}

/// `writes` writes by each of `writers` threads, to a slot each, beside a descend, and another one
/// after them.
fn by_hand(leave: Leave, take: Take, writers: usize, writes: usize) {
    let slots = Arc::new(ByHand::new(leave, take));
    let (mut seen, mut mirror) = ([0; 2], [0; 2]);
    let threads: Vec<_> = (0..writers)
        .map(|slot| {
            let slots = Arc::clone(&slots);
            thread::spawn(move || (1..=writes).for_each(|value| slots.write(slot, value)))
        })
        .collect();
    slots.descend(&mut seen, &mut mirror);
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    slots.descend(&mut seen, &mut mirror);
    for (slot, value) in mirror.iter().enumerate().take(writers) {
        assert!(*value == writes, "lost value: {value} of slot {slot}");
    }
}

#[test]
fn by_hand_two_writers() {
    holds(|| by_hand(Leave::AfterEnd, Take::ClearThenLook, 2, 1));
}

#[test]
fn by_hand_two_writes() {
    holds(|| by_hand(Leave::AfterEnd, Take::ClearThenLook, 1, 2));
}

fn loses(leave: Leave, take: Take, writers: usize, writes: usize) {
    fails("lost value", move || by_hand(leave, take, writers, writes));
}

/// Why `HintByte` asks for a multi-copy atomic machine.
#[test]
fn set_without_fences_where_stores_reach_others_apart() {
    loses(Leave::WithoutFences, Take::ClearThenLook, 1, 2);
}

#[test]
fn hint_before_the_end() {
    loses(Leave::BeforeEnd, Take::ClearThenLook, 1, 1);
}

#[test]
fn hint_of_the_chunk_first() {
    loses(Leave::ChunkFirst, Take::ClearThenLook, 2, 1);
}

#[test]
fn no_fence_after_the_chunk() {
    loses(Leave::AfterEnd, Take::NoFenceAfterChunk, 2, 1);
}

#[test]
fn no_fence_after_the_slots() {
    loses(Leave::AfterEnd, Take::NoFenceAfterSlots, 1, 2);
}

#[test]
fn chunk_cleared_after_its_slots() {
    loses(Leave::AfterEnd, Take::ChunkLast, 2, 1);
}

#[test]
fn slots_cleared_after_their_versions() {
    loses(Leave::AfterEnd, Take::SlotsLast, 1, 2);
}

#[test]
fn cleared_without_a_look() {
    loses(Leave::AfterEnd, Take::ClearAll, 2, 1);
}
