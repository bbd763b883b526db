//! The memory, where its snapshot goes, and what both must hold.

use std::cell::RefCell;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use super::writers::{Gate, INTERVAL, Script, WRITERS};
use crate::linux::Memory;

pub struct World {
    pub memory: Memory,
    pub copy: Memory,
    model: RefCell<Model>,
}

/// What a snapshot took.
pub struct Live {
    /// The longest time that one write took, in the interval before or during the snapshot.
    pub stall: Duration,
    pub total: Duration,
}

/// What the copy holds when a snapshot begins.
pub enum Before {
    /// The snapshot before.
    Last,
    /// Nothing of use.
    Nothing,
}

/// The first word of each page, and how many turns there were.
struct Model {
    words: Vec<u64>,
    turn: u64,
}

/// What all words of a page but the first hold.
fn rest_of(page: usize) -> u64 {
    (page as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl World {
    pub fn new(pages: usize) -> Self {
        let memory = Memory::new(pages);
        for page in 0..pages {
            let words = memory.page(page);
            words
                .iter()
                .for_each(|word| word.store(rest_of(page), Relaxed));
            words[0].store(0, Relaxed);
        }
        let copy = Memory::new(pages);
        copy.copy_live(&memory, 0..pages);
        let words = vec![0; pages];
        Self {
            memory,
            copy,
            model: RefCell::new(Model { words, turn: 0 }),
        }
    }

    /// Lets the threads write for the interval, then `take` a snapshot while they write on, and
    /// checks it.
    pub fn turn(&self, before: Before, take: impl FnOnce(&Gate)) -> Live {
        let Model { words, turn } = &mut *self.model.borrow_mut();
        *turn += 1;
        let pages = self.memory.pages();
        for (page, word) in words.iter().enumerate() {
            let copied = self.copy.page(page);
            match before {
                Before::Last => copied[0].store(*word, Relaxed),
                Before::Nothing => copied
                    .iter()
                    .step_by(64)
                    .for_each(|word| word.store(!0, Relaxed)),
            }
        }
        let script = |writer| Script::new(writer, *turn, pages);

        let gate = Gate::default();
        let live = thread::scope(|scope| {
            let writer = |writer| {
                let (gate, memory, script) = (&gate, &self.memory, script(writer));
                scope.spawn(move || gate.write(memory, script))
            };
            let writers: [_; WRITERS] = std::array::from_fn(writer);
            thread::sleep(INTERVAL);
            // On a busy machine a thread may not even have begun.
            while gate.written().contains(&0) {
                thread::sleep(INTERVAL / 100);
            }
            let began = Instant::now();
            take(&gate);
            let total = began.elapsed();
            gate.end();
            let stalls = writers.map(|writer| writer.join().expect("it only writes"));
            let stall = stalls.into_iter().max().unwrap_or_default();
            Live { stall, total }
        });

        let mut scripts: [Script; WRITERS] = std::array::from_fn(script);
        let mut play = |words: &mut [u64], counts: [u64; WRITERS]| {
            for (script, count) in scripts.iter_mut().zip(counts) {
                for _ in 0..count {
                    let (page, word) = script.next();
                    words[page] = word;
                }
            }
        };
        let (moment, end) = (gate.moment(), gate.written());
        assert!(moment.iter().all(|writes| *writes > 0), "nobody wrote");
        play(words, moment);
        check(&self.copy, words);
        let more = std::array::from_fn(|writer| end[writer] - moment[writer]);
        play(words, more);
        check(&self.memory, words);
        live
    }

    /// The peer that copies everything while nobody writes.
    pub fn stopped(&self) -> Live {
        let pages = 0..self.memory.pages();
        self.turn(Before::Nothing, |gate| {
            gate.stopped(|| {
                // SAFETY: the threads that write stand, and only this thread uses the copy.
                unsafe { self.copy.copy_still(&self.memory, pages) };
            });
        })
    }
}

/// The first word of each page, and each line of the rest.
fn check(memory: &Memory, words: &[u64]) {
    for (page, word) in words.iter().enumerate() {
        let found = memory.page(page);
        assert_eq!(found[0].load(Relaxed), *word, "page {page}");
        let mut rest = found[64..].iter().step_by(64);
        assert!(
            rest.all(|word| word.load(Relaxed) == rest_of(page)),
            "page {page}"
        );
    }
}
