//! Threads that write to the memory, and can be stopped for a moment.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::memory::Memory;

/// Writes between two looks at the gate and at the clock.
pub const BURST: usize = 32;
/// How long a thread writes in one way before it goes on to the next.
const MOOD: Duration = Duration::from_secs(3);

/// Who writes: a thread of this process, or a vCPU.
pub trait Stores: Send {
    /// Stores each value at its word of the memory; the longest that one store, or all of them, took.
    /// `full` makes room in a log that is full.
    fn store(&mut self, words: &[(usize, u64)], full: &dyn Fn()) -> Duration;
}

impl Stores for &Memory {
    fn store(&mut self, words: &[(usize, u64)], _: &dyn Fn()) -> Duration {
        let each = words.iter().map(|&(word, value)| {
            let began = Instant::now();
            Memory::store(self, word, value);
            began.elapsed()
        });
        each.max().unwrap_or_default()
    }
}

#[derive(Default)]
pub struct Workload {
    gate: Mutex<Gate>,
    changed: Condvar,
    /// A look that costs a running thread nothing.
    closed: AtomicBool,
    writes: AtomicU64,
    longest_write: AtomicU64,
}

#[derive(Default)]
struct Gate {
    closed: bool,
    ended: bool,
    running: usize,
}

impl Workload {
    /// One thread: `rate` writes a second, each of one word of a page.
    pub fn run(&self, mut stores: impl Stores, full: &dyn Fn(), mut choose: Writer, rate: u64) {
        self.lock().running += 1;
        let _leaves = Leaves(self);
        let start = Instant::now();
        let mut written = 0;
        loop {
            if self.closed.load(Relaxed) && !self.wait_at_gate() {
                return;
            }
            let burst: [_; BURST] = std::array::from_fn(|_| choose.next_write(start.elapsed()));
            let longest = stores.store(&burst, full).as_nanos() as u64;
            self.longest_write.fetch_max(longest, Relaxed);
            written += BURST;
            self.writes.fetch_add(BURST as u64, Relaxed);
            self.rest(start + Duration::from_secs_f64(written as f64 / rate as f64));
        }
    }

    /// Runs `act` while no thread writes. The time for which they could not.
    pub fn paused<T>(&self, act: impl FnOnce() -> T) -> (T, Duration) {
        let began = Instant::now();
        self.close(false);
        let done = act();
        self.lock().closed = false;
        self.closed.store(false, Relaxed);
        self.changed.notify_all();
        (done, began.elapsed())
    }

    /// Stops every thread for good, and waits until they stand.
    pub fn end(&self) {
        self.close(true);
    }

    /// Writes, and the longest one, since the last call.
    pub fn take_counts(&self) -> (u64, Duration) {
        let longest = self.longest_write.swap(0, Relaxed);
        (self.writes.swap(0, Relaxed), Duration::from_nanos(longest))
    }

    fn close(&self, ended: bool) {
        let mut gate = self.lock();
        gate.closed = true;
        gate.ended = ended;
        self.closed.store(true, Relaxed);
        self.changed.notify_all();
        while gate.running > 0 {
            gate = self.wait(gate);
        }
    }

    /// Sleeps until then, or until the gate closes.
    fn rest(&self, until: Instant) {
        let mut gate = self.lock();
        while !gate.closed
            && let Some(early) = until.checked_duration_since(Instant::now())
            && !early.is_zero()
        {
            let rested = self.changed.wait_timeout(gate, early);
            (gate, _) = rested.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether to go on.
    fn wait_at_gate(&self) -> bool {
        let mut gate = self.lock();
        gate.running -= 1;
        self.changed.notify_all();
        while gate.closed && !gate.ended {
            gate = self.wait(gate);
        }
        gate.running += 1;
        !gate.ended
    }

    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, gate: MutexGuard<'a, Gate>) -> MutexGuard<'a, Gate> {
        self.changed
            .wait(gate)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that ends, or dies, is not waited for.
struct Leaves<'a>(&'a Workload);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
        self.0.changed.notify_all();
    }
}

/// Which page is written next: in turn a small hot set, a sweep, and anywhere.
pub struct Writer {
    page: usize,
    pages: u64,
    random: u64,
    swept: u64,
}

impl Writer {
    pub fn new(memory: &Memory, page: usize, thread: u64) -> Self {
        let pages = (memory.len() / page) as u64;
        Self {
            page,
            pages,
            random: (thread + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            swept: thread * pages / 3,
        }
    }

    /// The word, and its new value.
    fn next_write(&mut self, elapsed: Duration) -> (usize, u64) {
        let random = self.next();
        let mood = elapsed.as_secs() / MOOD.as_secs();
        let page = match mood % 3 {
            0 => {
                let set = self.pages / 64 + 1;
                mood * 7 * set + random % set
            }
            1 => {
                self.swept += 1;
                self.swept / 4
            }
            _ => random,
        } % self.pages;
        let word = page as usize * self.page / 8 + (random >> 40) as usize % (self.page / 8);
        (word, random)
    }

    /// xorshift64*, as good as a workload needs.
    fn next(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
