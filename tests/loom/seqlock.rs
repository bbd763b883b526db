//! The version protocol: no torn value is accepted (law 11).

use std::sync::Arc;

use loom::sync::atomic::{
    AtomicUsize,
    Ordering::{self, Acquire, Relaxed, Release},
    fence,
};
use loom::thread;
use pugmark::AtomicU32;
use pugmark::slots::{Read, UNSEEN, WORD, Words, seqlock};

use crate::check::{fails, holds};

/// What a slot's two words both are after its write number `n`.
type Value = usize;

/// A slot's cells, and an order in which to access them.
pub trait Protocol: Send + Sync + 'static {
    fn write(&self, value: Value);

    /// The words and the version, if it looks whole and newer than `seen`.
    fn read(&self, seen: u32) -> Option<([usize; 2], u32)>;
}

struct Library {
    version: AtomicU32,
    words: [AtomicUsize; 2],
}

impl Library {
    fn new(version: u32) -> Self {
        Self {
            version: AtomicU32::new(version),
            words: [AtomicUsize::new(0), AtomicUsize::new(0)],
        }
    }
}

impl Protocol for Library {
    fn write(&self, value: Value) {
        let bytes = [value.to_ne_bytes(); 2];
        seqlock::write(&self.version, Words::new(&self.words), bytes.as_flattened()).unwrap();
    }

    fn read(&self, seen: u32) -> Option<([usize; 2], u32)> {
        let mut bytes = [[0; WORD]; 2];
        let into = bytes.as_flattened_mut();
        match seqlock::read(&self.version, Words::new(&self.words), seen, into).unwrap() {
            Read::Updated { version } => Some((bytes.map(usize::from_ne_bytes), version)),
            Read::Unchanged | Read::Torn => None,
        }
    }
}

/// The same by hand, each step with an order that can be taken away.
#[derive(Debug)]
struct ByHand {
    version: AtomicU32,
    words: [AtomicUsize; 2],
    odd: Ordering,
    fence_after_odd: bool,
    even: Ordering,
    look: Ordering,
    fence_before_again: bool,
    again: Ordering,
    confirms: bool,
}

impl ByHand {
    fn new() -> Self {
        Self {
            version: AtomicU32::new(0),
            words: [AtomicUsize::new(0), AtomicUsize::new(0)],
            odd: Relaxed,
            fence_after_odd: true,
            even: Release,
            look: Acquire,
            fence_before_again: true,
            again: Relaxed,
            confirms: true,
        }
    }
}

impl Protocol for ByHand {
    fn write(&self, value: Value) {
        let odd = self.version.load(Relaxed) | 1;
        self.version.store(odd, self.odd);
        if self.fence_after_odd {
            fence(Release);
        }
        self.words
            .iter()
            .for_each(|word| word.store(value, Relaxed));
        self.version.store(odd.wrapping_add(1), self.even);
    }

    fn read(&self, seen: u32) -> Option<([usize; 2], u32)> {
        let looked = self.version.load(self.look);
        if looked & 1 != 0 || looked == seen {
            return None;
        }
        let words = [self.words[0].load(Relaxed), self.words[1].load(Relaxed)];
        if self.fence_before_again {
            fence(Acquire);
        }
        let is_whole = !self.confirms || self.version.load(self.again) == looked;
        is_whole.then_some((words, looked))
    }
}

/// Two writes beside two reads. Version 2 is the first value, 4 the second.
fn two_writes(protocol: impl Protocol) {
    let protocol = Arc::new(protocol);
    let writer = {
        let protocol = Arc::clone(&protocol);
        thread::spawn(move || (1..=2).for_each(|value| protocol.write(value)))
    };
    let mut seen = UNSEEN;
    for _ in 0..2 {
        if let Some((words, version)) = protocol.read(seen) {
            check(words, version);
            seen = version;
        }
    }
    writer.join().unwrap();
    // Whatever was seen before: the last value can be read now, if it was not.
    if let Some((words, version)) = protocol.read(seen) {
        check(words, version);
        seen = version;
    }
    assert_eq!(seen, 4, "the last value was not read");
}

fn check(words: [usize; 2], version: u32) {
    let value = version as usize / 2;
    assert!(
        words == [value; 2],
        "torn value {words:?} accepted as version {version}"
    );
}

#[test]
fn write_beside_reads() {
    holds(|| two_writes(Library::new(0)));
}

#[test]
fn by_hand_write_beside_reads() {
    holds(|| two_writes(ByHand::new()));
}

fn tears(wrong: impl Fn(ByHand) -> ByHand + Send + Sync + 'static) {
    fails("torn value", move || two_writes(wrong(ByHand::new())));
}

#[test]
fn no_fence_after_odd() {
    tears(|right| ByHand {
        fence_after_odd: false,
        ..right
    });
}

/// Looks as good as the fence; but it orders what comes before it.
#[test]
fn odd_stored_with_release_for_the_fence() {
    tears(|right| ByHand {
        odd: Release,
        fence_after_odd: false,
        ..right
    });
}

#[test]
fn even_stored_relaxed() {
    tears(|right| ByHand {
        even: Relaxed,
        ..right
    });
}

#[test]
fn looked_relaxed() {
    tears(|right| ByHand {
        look: Relaxed,
        ..right
    });
}

#[test]
fn no_fence_before_the_second_look() {
    tears(|right| ByHand {
        fence_before_again: false,
        ..right
    });
}

/// Looks as good as the fence; but it orders what comes after it.
#[test]
fn second_look_with_acquire_for_the_fence() {
    tears(|right| ByHand {
        fence_before_again: false,
        again: Acquire,
        ..right
    });
}

#[test]
fn no_second_look() {
    tears(|right| ByHand {
        confirms: false,
        ..right
    });
}

/// A writer that died between the words, and the one that takes over, beside a reader.
fn taken_over(begin: impl Fn(&AtomicU32) -> u32 + Send + Sync + 'static) {
    let slot = Arc::new(Library::new(0));
    let writer = {
        let slot = Arc::clone(&slot);
        thread::spawn(move || {
            seqlock::begin(&slot.version);
            slot.words[0].store(9, Relaxed);
            // It is dead; another one takes over.
            let odd = begin(&slot.version);
            slot.words.iter().for_each(|word| word.store(1, Relaxed));
            seqlock::end(&slot.version, odd);
        })
    };
    if let Some((words, _)) = slot.read(UNSEEN) {
        assert!(
            words[0] == words[1] && words[0] < 9,
            "torn value {words:?} accepted"
        );
    }
    writer.join().unwrap();
    assert_eq!(slot.read(UNSEEN).map(|(words, _)| words), Some([1, 1]));
}

#[test]
fn dead_writer_taken_over() {
    holds(|| taken_over(seqlock::begin));
}

/// Adds one, as a writer does that takes an even version for granted.
#[test]
fn dead_writer_counted_on() {
    fails("torn value", || {
        taken_over(|version| {
            let next = version.load(Relaxed).wrapping_add(1);
            version.store(next, Relaxed);
            fence(Release);
            next | 1
        });
    });
}
