//! The threads that write.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::linux::Memory;

pub const WRITERS: usize = 2;
/// What they write 1 % of the memory in.
pub const INTERVAL: Duration = Duration::from_millis(100);
/// Writes between two sleeps.
const BURST: u64 = 16;

/// What the threads share with who takes the snapshot.
#[derive(Default)]
pub struct Gate {
    /// Held for reading by a thread that writes.
    open: RwLock<()>,
    written: [AtomicU64; WRITERS],
    /// How many writes each had done when they last stood.
    moment: Mutex<[u64; WRITERS]>,
    end: AtomicBool,
}

impl Gate {
    /// Runs `act` while nobody writes. What was written until then is what the snapshot has to give.
    pub fn stopped<T>(&self, act: impl FnOnce() -> T) -> T {
        let _closed = self.open.write().unwrap();
        *self.moment.lock().unwrap() = self.written();
        act()
    }

    pub fn moment(&self) -> [u64; WRITERS] {
        *self.moment.lock().unwrap()
    }

    pub fn written(&self) -> [u64; WRITERS] {
        std::array::from_fn(|writer| self.written[writer].load(Relaxed))
    }

    pub fn end(&self) {
        self.end.store(true, Relaxed);
    }

    /// Writes until the end, by `script`; the longest that one write took.
    pub fn write(&self, memory: &Memory, mut script: Script) -> Duration {
        let rate = memory.pages() as f64 / 100.0 / WRITERS as f64 / INTERVAL.as_secs_f64();
        let start = Instant::now();
        let mut longest = Duration::ZERO;
        let mut done = 0;
        while !self.end.load(Relaxed) {
            for _ in 0..BURST {
                let (page, value) = script.next();
                let began = Instant::now();
                {
                    let _open = self.open.read().unwrap();
                    memory.page(page)[0].store(value, Relaxed);
                    done += 1;
                    self.written[script.writer].store(done, Relaxed);
                }
                longest = longest.max(began.elapsed());
            }
            let next = start + Duration::from_secs_f64(done as f64 / rate);
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        longest
    }
}

/// What a thread writes where, so that it can be told afterwards.
pub struct Script {
    writer: usize,
    value: u64,
    pages: usize,
    rng: Rng,
}

impl Script {
    /// `turn` is another one each time.
    pub fn new(writer: usize, turn: u64, pages: usize) -> Self {
        Self {
            writer,
            value: turn << 32,
            pages,
            rng: Rng::with_seed(turn * WRITERS as u64 + writer as u64),
        }
    }

    /// The next write: a page that no other thread writes, and its new first word.
    pub fn next(&mut self) -> (usize, u64) {
        let page = self.rng.usize(..self.pages / WRITERS) * WRITERS + self.writer;
        self.value += 1;
        (page, self.value)
    }
}
