//! Writers that never stop, and a harvester that never stops them.
//!
//! Two judges: what the harvests copied must equal the memory in the end, byte for byte, and the
//! memory must equal a model of what the writers were to write.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use pugmark::host::uffd::{Mapping, UffdHandler, UffdLog, UffdProtection};
use pugmark::{BoxedRegion, DirtyRun, HarvestError, StepDown, WriteProtect, WriteTracker};

use crate::memory::{Kind, Memory, PAGE};
use crate::say;

const WRITERS: u64 = 2;

/// So that one has the machine's memory at a time.
static TURN: Mutex<()> = Mutex::new(());
const WORDS_A_PAGE: u64 = PAGE as u64 / 8;

/// How much, by what memory there is: the tracked one, the copy and the model each take as much.
struct Scale {
    bytes: usize,
    writes: u64,
}

impl Scale {
    fn chosen() -> Self {
        const GIB: usize = 1 << 30;
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let free = read("/proc/meminfo").lines().find_map(|line| {
            let kib = line.strip_prefix("MemAvailable:")?.trim();
            kib.strip_suffix(" kB")?.parse::<usize>().ok()
        });
        // A container may have less than the machine: it is killed, and does not say why.
        let limit = read("/sys/fs/cgroup/memory.max").trim().parse::<usize>();
        let free = (free.unwrap_or(0) << 10).min(limit.unwrap_or(usize::MAX));
        if free >= 5 * GIB {
            return Self {
                bytes: GIB,
                writes: 100_000_000,
            };
        }
        say!("less than 5 GiB available: a sixteenth of the memory and of the writes");
        Self {
            bytes: GIB / 16,
            writes: 6_250_000,
        }
    }
}

/// What one writer writes: pages anywhere, some of them hot, a burst of words in each. Every other
/// word is one writer's own, so that the last value of each is known.
struct Stores {
    random: u64,
    writer: u64,
    pages: u64,
    left: u64,
    page: u64,
    burst: u64,
}

impl Stores {
    fn new(scale: &Scale, writer: u64) -> Self {
        Self {
            random: 0x9e37_79b9_7f4a_7c15 ^ (writer << 32),
            writer,
            pages: (scale.bytes / PAGE) as u64,
            left: scale.writes / WRITERS,
            page: 0,
            burst: 0,
        }
    }
}

impl Iterator for Stores {
    /// A word and its value.
    type Item = (usize, u64);

    #[inline]
    fn next(&mut self) -> Option<(usize, u64)> {
        self.left = self.left.checked_sub(1)?;
        // Marsaglia's xorshift64.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        if self.burst == 0 {
            self.burst = 64;
            let among = if self.random & 3 == 0 {
                self.pages
            } else {
                self.pages / 64
            };
            self.page = ((self.random >> 32) * among) >> 32;
        }
        self.burst -= 1;
        let word = (self.random >> 20) % (WORDS_A_PAGE / WRITERS) * WRITERS + self.writer;
        Some(((self.page * WORDS_A_PAGE + word) as usize, self.random))
    }
}

/// Copies what a harvest delivers.
struct Mirror<'a> {
    memory: &'a Memory,
    copy: Vec<u8>,
    pages: usize,
}

impl<'a> Mirror<'a> {
    fn new(memory: &'a Memory) -> Self {
        Self {
            memory,
            copy: vec![0; memory.len],
            pages: 0,
        }
    }

    fn take(&mut self, run: DirtyRun) -> Result<(), ()> {
        let from = (run.start - self.memory.address()) as usize;
        let to = from + run.len as usize;
        self.memory.copy_out(from, &mut self.copy[from..to]);
        self.pages += run.len as usize / PAGE;
        Ok(())
    }

    /// Compares with the memory, and the memory with the model.
    fn judge(mut self, scale: &Scale, what: &str) {
        let mut page = vec![0; PAGE];
        let mut lost = 0;
        for (number, copied) in self.copy.chunks_exact(PAGE).enumerate() {
            self.memory.copy_out(number * PAGE, &mut page);
            lost += usize::from(page != copied);
        }
        assert_eq!(lost, 0, "{what}: pages whose last write is in no harvest");

        // The copy is the memory, so it stands for it.
        let mut model = vec![0_u64; scale.bytes / 8];
        for writer in 0..WRITERS {
            for (word, value) in Stores::new(scale, writer) {
                model[word] = value;
            }
        }
        let wrong = self.copy.chunks_exact(8).zip(&model);
        let wrong = wrong
            .filter(|(bytes, word)| **bytes != word.to_ne_bytes())
            .count();
        assert_eq!(wrong, 0, "{what}: words that differ from the model");
        self.copy.clear();
    }
}

/// Harvests that there must be, two of which are made to fail.
const ENOUGH: usize = 8;

/// Runs the writers against live harvests, with a failed one now and then, then the last one.
fn run<P>(tracker: &WriteTracker<P, Vec<BoxedRegion>>, memory: &Memory, scale: &Scale, what: &str)
where
    P: WriteProtect<Error: std::fmt::Debug> + Sync,
{
    let begun = Instant::now();
    let mut mirror = Mirror::new(memory);
    tracker.arm().expect("the host protects");
    let running = AtomicUsize::new(WRITERS as usize);
    let (mut harvests, mut failed) = (0, 0);
    let begun_harvests = AtomicUsize::new(0);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (running, begun_harvests) = (&running, &begun_harvests);
            scope.spawn(move || {
                let _ends = Ends(running);
                let mut stores = Stores::new(scale, writer);
                let half = stores.left / 2;
                while let Some((word, value)) = stores.next() {
                    memory.store_word(word, value);
                    // However fast this is: there were enough harvests before it ends.
                    let mut patience = 0..60_000;
                    while stores.left == half
                        && begun_harvests.load(Relaxed) <= ENOUGH
                        && patience.next().is_some()
                    {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
        while running.load(Relaxed) > 0 {
            harvests += 1;
            begun_harvests.store(harvests, Relaxed);
            match harvests % 8 {
                // A snapshot that fails at its end.
                3 => {
                    let held = tracker.begin_harvest().expect("the host protects");
                    held.runs()
                        .for_each(|run| mirror.take(run).expect("a copy"));
                    failed += 1;
                }
                5 => {
                    let refused = tracker.harvest(|_| Err(()));
                    failed += usize::from(refused.is_err());
                }
                _ => {
                    let outcome = tracker.harvest(|run| mirror.take(run));
                    outcome.expect("the host protects");
                }
            }
            tracker.tick(begun.elapsed());
            thread::sleep(Duration::from_millis(20));
        }
    });
    loop {
        match tracker.final_harvest(|run| mirror.take(run)) {
            // A handler marks after it lets the writer go on.
            Err(HarvestError::HandlersInFlight { .. }) => thread::yield_now(),
            outcome => {
                outcome.expect("the host protects");
                break;
            }
        }
    }
    say!(
        "{what}: {} writes over {} MiB in {:.1?}; {harvests} harvests, {failed} of them failed; \
         {} pages copied; {:?}",
        scale.writes,
        scale.bytes >> 20,
        begun.elapsed(),
        mirror.pages,
        tracker.counters(),
    );
    assert!(harvests > ENOUGH && failed > 0);
    mirror.judge(scale, what);
}

/// A writer that runs, until it is dropped: by a panic too.
struct Ends<'a>(&'a AtomicUsize);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[test]
fn a_hundred_million_writes_with_a_handler() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let scale = Scale::chosen();
    let memory = Memory::new(Kind::Anonymous, scale.bytes);
    let mapping = Mapping::identity(memory.start(), memory.len);
    let protection = UffdProtection::new([mapping]).expect("anonymous");
    // A block faults once between two harvests, however hot it is.
    let rule = StepDown {
        threshold: 0,
        ..StepDown::DEFAULT
    };
    let regions = protection.regions().expect("small enough").into_iter();
    let regions: Vec<_> = regions.map(|region| region.with_step_down(rule)).collect();
    let tracker = Arc::new(WriteTracker::new(protection, regions).expect("one region"));
    let handler = UffdHandler::spawn(Arc::clone(&tracker)).expect("the first one");
    run(&tracker, &memory, &scale, "handler");
    let end = handler.stop();
    assert_eq!(end.errors, 0, "{:?}", end.last_error);
    assert_eq!(end.faults, tracker.counters().faults as u64);
    assert!(tracker.counters().step_downs > 0);
}

#[test]
fn twenty_five_million_writes_that_the_kernel_logs() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let scale = Scale {
        writes: Scale::chosen().writes / 4,
        ..Scale::chosen()
    };
    let memory = Memory::new(Kind::Shared, scale.bytes);
    let mapping = Mapping::identity(memory.start(), memory.len);
    let log = UffdLog::new([mapping]).expect("Linux 6.7");
    let regions = log.regions().expect("small enough");
    let tracker = WriteTracker::new(log, regions).expect("one region");
    run(&tracker, &memory, &scale, "log");
}
