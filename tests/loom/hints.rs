//! Hints: a finished write is in a descend that begins later, whoever else writes beside it.

use std::sync::Arc;

use loom::sync::atomic::{
    AtomicU8, AtomicU32, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
    fence,
};
use loom::thread;
use pugmark::StaticArena;
use pugmark::slots::{Reader, Seen, WORD, chunk_words, mirror_words};

use crate::arena::with_arena;
use crate::check::{fails, holds};

/// Two slots of one line, a word each.
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

/// Two slots and their hint, by hand.
struct ByHand {
    versions: [AtomicU32; 2],
    values: [AtomicUsize; 2],
    hint: AtomicU8,
    set: Set,
    take: Take,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Set {
    /// After the version, by a read-modify-write: as the library, on a multi-copy atomic machine.
    AfterEnd,
    /// After the version, by a plain store: as the library, on any machine that C11 allows.
    AfterEndByStore,
    AfterEndRelaxed,
    BeforeEnd,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Take {
    SwapThenCompare,
    /// Clears without a read of what it clears.
    StoreThenCompare,
    SwapRelaxed,
    CompareThenSwap,
}

impl ByHand {
    fn new(set: Set, take: Take) -> Self {
        let hint = AtomicU8::new(0);
        Self {
            versions: [AtomicU32::new(0), AtomicU32::new(0)],
            values: [AtomicUsize::new(0), AtomicUsize::new(0)],
            hint,
            set,
            take,
        }
    }

    fn write(&self, slot: usize, value: usize) {
        let version = &self.versions[slot];
        let odd = version.load(Relaxed) | 1;
        version.store(odd, Relaxed);
        fence(Release);
        self.values[slot].store(value, Relaxed);
        if self.set == Set::BeforeEnd {
            self.hint.swap(1, AcqRel);
        }
        version.store(odd + 1, Release);
        match self.set {
            Set::AfterEnd => _ = self.hint.swap(1, AcqRel),
            Set::AfterEndByStore => self.hint.store(1, Release),
            Set::AfterEndRelaxed => _ = self.hint.swap(1, Relaxed),
            Set::BeforeEnd => {}
        }
    }

    /// A torn slot is hinted by its writer alone, so that the order of its hint matters.
    fn descend(&self, seen: &mut [u32; 2], mirror: &mut [usize; 2]) {
        // A plain load: beside a plain store loom takes no read-modify-write for atomic.
        if self.hint.load(Relaxed) == 0 {
            return;
        }
        match self.take {
            Take::SwapThenCompare => _ = self.hint.swap(0, Acquire),
            Take::SwapRelaxed => _ = self.hint.swap(0, Relaxed),
            Take::StoreThenCompare => self.hint.store(0, Relaxed),
            Take::CompareThenSwap => {}
        }
        for slot in 0..2 {
            let looked = self.versions[slot].load(Acquire);
            if looked & 1 != 0 || looked == seen[slot] {
                continue;
            }
            let value = self.values[slot].load(Relaxed);
            fence(Acquire);
            if self.versions[slot].load(Relaxed) == looked {
                (seen[slot], mirror[slot]) = (looked, value);
            }
        }
        if self.take == Take::CompareThenSwap {
            self.hint.swap(0, Acquire);
        }
    }
}

fn by_hand(set: Set, take: Take, writers: usize) {
    let slots = Arc::new(ByHand::new(set, take));
    let (mut seen, mut mirror) = ([0; 2], [0; 2]);
    let threads: Vec<_> = (0..writers)
        .map(|slot| {
            let slots = Arc::clone(&slots);
            thread::spawn(move || slots.write(slot, 7))
        })
        .collect();
    slots.descend(&mut seen, &mut mirror);
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    slots.descend(&mut seen, &mut mirror);
    for (slot, value) in mirror.iter().enumerate().take(writers) {
        assert!(*value == 7, "lost value: {value} of slot {slot}");
    }
}

#[test]
fn by_hand_two_writers() {
    holds(|| by_hand(Set::AfterEnd, Take::SwapThenCompare, 2));
}

#[test]
fn by_hand_plain_store_of_one_writer() {
    holds(|| by_hand(Set::AfterEndByStore, Take::SwapThenCompare, 1));
}

/// Why `HintByte` asks for a multi-copy atomic machine.
#[test]
fn plain_stores_of_two_writers_where_stores_reach_others_apart() {
    fails("lost value", || {
        by_hand(Set::AfterEndByStore, Take::SwapThenCompare, 2);
    });
}

#[test]
fn hint_before_the_end() {
    fails("lost value", || {
        by_hand(Set::BeforeEnd, Take::SwapThenCompare, 1)
    });
}

#[test]
fn hint_relaxed() {
    fails("lost value", || {
        by_hand(Set::AfterEndRelaxed, Take::SwapThenCompare, 1)
    });
}

#[test]
fn taken_by_a_store() {
    fails("lost value", || {
        by_hand(Set::AfterEnd, Take::StoreThenCompare, 1)
    });
}

#[test]
fn taken_relaxed() {
    fails("lost value", || {
        by_hand(Set::AfterEnd, Take::SwapRelaxed, 1)
    });
}

#[test]
fn compared_then_taken() {
    fails("lost value", || {
        by_hand(Set::AfterEnd, Take::CompareThenSwap, 1)
    });
}
