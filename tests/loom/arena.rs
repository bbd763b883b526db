//! Free and reuse: a freed slot that is used again is never mistaken for the old one (law 12).

use std::sync::Arc;

use loom::sync::atomic::{
    AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};
use loom::thread;
use pugmark::StaticArena;
use pugmark::slots::{Reader, Seen, WORD, chunk_words, mirror_words};

use crate::check::{fails, holds};

/// Runs `model` on an arena that lives until it returns, and its threads are joined.
pub fn with_arena<const WORDS: usize>(model: impl FnOnce(&'static StaticArena<1, WORDS>)) {
    let arena = Box::into_raw(Box::new(StaticArena::new()));
    // SAFETY: it is dropped below, after all that borrowed it; if the model panics, never.
    model(unsafe { &*arena });
    // SAFETY: `into_raw` made it, and no borrow is left.
    drop(unsafe { Box::from_raw(arena) });
}

const OLD: usize = 1;
const NEW: usize = 2;

/// A slot is freed, allocated again and written, beside `descends` descends. The first use's value
/// is seen before all that, or not.
fn reuse(is_seen: bool, descends: usize) {
    with_arena(|arena: &'static StaticArena<1, { chunk_words(WORD) }>| {
        let mut owner = arena.owner().unwrap();
        let mut reader = Reader::new(arena, [Seen::ZERO; 1], [0; mirror_words(2, WORD)]).unwrap();
        let mut writer = owner.allocate().unwrap();
        let old = writer.id();
        writer.write_value(&OLD).unwrap();
        if is_seen {
            reader.descend(|_, _| ());
            assert_eq!(reader.value_as(old), Some(OLD));
        }

        let reuser = thread::spawn(move || {
            owner.free(writer).unwrap();
            let mut writer = owner.allocate().unwrap();
            writer.write_value(&NEW).unwrap();
            writer.id()
        });
        for _ in 0..descends {
            // So that it looks although no hint is there yet.
            reader.rescan();
            reader.descend(|_, _| ());
            let value = reader.value_as(old);
            assert!(matches!(value, None | Some(OLD)), "mistaken: {value:?}");
        }
        let new = reuser.join().unwrap();
        let value = reader.value_as(new);
        assert!(matches!(value, None | Some(NEW)), "mistaken: {value:?}");
        reader.descend(|_, _| ());
        let values: [Option<usize>; 2] = [reader.value_as(old), reader.value_as(new)];
        assert!(values == [None, Some(NEW)], "lost value: {values:?}");
    });
}

#[test]
fn reuse_beside_descend() {
    holds(|| reuse(true, 1));
}

#[test]
fn reuse_beside_two_descends() {
    holds(|| reuse(true, 2));
}

#[test]
fn reuse_before_the_first_descend() {
    holds(|| reuse(false, 1));
}

/// A value of `N` words is written beside a descend that visits the slot for the write before:
/// whatever it finds, the mirror has a whole one.
fn mirror_is_whole<const N: usize, const WORDS: usize, const MIRROR: usize>() {
    with_arena(|arena: &'static StaticArena<1, WORDS>| {
        let mut owner = arena.owner().unwrap();
        let mut reader = Reader::new(arena, [Seen::ZERO; 1], [0; MIRROR]).unwrap();
        let mut writer = owner.allocate().unwrap();
        let id = writer.id();
        let value = |n: usize| [n.to_ne_bytes(); N];
        writer.write(value(1).as_flattened()).unwrap();
        reader.descend(|_, _| ());
        writer.write(value(2).as_flattened()).unwrap();
        let writer = thread::spawn(move || writer.write(value(3).as_flattened()).unwrap());
        let descent = reader.descend(|_, _| ());
        let found = reader.value(id).unwrap();
        let is = |n| found == value(n).as_flattened();
        let is_whole = match descent.updated {
            0 => is(1),
            _ => is(2) || is(3),
        };
        assert!(is_whole, "torn value {found:?} after {descent:?}");
        writer.join().unwrap();
    });
}

#[test]
fn mirror_is_whole_by_way_of_the_scratch() {
    holds(mirror_is_whole::<2, { chunk_words(2 * WORD) }, { mirror_words(2, 2 * WORD) }>);
}

#[test]
fn mirror_is_whole_by_way_of_registers() {
    holds(mirror_is_whole::<8, { chunk_words(8 * WORD) }, { mirror_words(2, 8 * WORD) }>);
}

/// A slot and its generation, by hand.
struct ByHand {
    version: AtomicU32,
    generation: AtomicU32,
    value: AtomicUsize,
    free: Free,
    read: Read,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Free {
    /// The version odd, then the generation.
    OddFirst,
    GenerationFirst,
    /// The version stays even: the old value is still whole, of the new generation.
    NeverOdd,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    /// The generation is loaded between the look and the confirmation.
    Within,
    Before,
    After,
}

impl ByHand {
    fn begin(&self) -> u32 {
        let odd = self.version.load(Relaxed) | 1;
        self.version.store(odd, Relaxed);
        fence(Release);
        odd
    }

    fn write(&self, value: usize) {
        let odd = self.begin();
        self.value.store(value, Relaxed);
        self.version.store(odd + 1, Release);
    }

    fn free(&self) {
        if self.free == Free::OddFirst {
            self.begin();
        }
        self.generation.store(2, Relaxed);
        if self.free == Free::GenerationFirst {
            self.begin();
        }
    }

    fn read(&self) -> Option<(u32, usize)> {
        let mut generation = self.generation.load(Relaxed);
        let looked = self.version.load(Acquire);
        if looked & 1 != 0 {
            return None;
        }
        if self.read == Read::Within {
            generation = self.generation.load(Relaxed);
        }
        let value = self.value.load(Relaxed);
        fence(Acquire);
        let is_whole = self.version.load(Relaxed) == looked;
        if self.read == Read::After {
            generation = self.generation.load(Relaxed);
        }
        is_whole.then_some((generation, value))
    }
}

fn by_hand(free: Free, read: Read) {
    let slot = Arc::new(ByHand {
        version: AtomicU32::new(2),
        generation: AtomicU32::new(1),
        value: AtomicUsize::new(OLD),
        free,
        read,
    });
    let reuser = {
        let slot = Arc::clone(&slot);
        thread::spawn(move || {
            slot.free();
            slot.write(NEW);
        })
    };
    if let Some(found) = slot.read() {
        assert!(
            matches!(found, (1, OLD) | (2, NEW)),
            "mistaken: {found:?} is generation and value"
        );
    }
    reuser.join().unwrap();
}

#[test]
fn by_hand_reuse() {
    holds(|| by_hand(Free::OddFirst, Read::Within));
}

fn mistakes(free: Free, read: Read) {
    fails("mistaken", move || by_hand(free, read));
}

#[test]
fn generation_before_odd() {
    mistakes(Free::GenerationFirst, Read::Within);
}

#[test]
fn freed_without_odd() {
    mistakes(Free::NeverOdd, Read::Within);
}

#[test]
fn generation_read_before_the_look() {
    mistakes(Free::OddFirst, Read::Before);
}

#[test]
fn generation_read_after_the_confirmation() {
    mistakes(Free::OddFirst, Read::After);
}
