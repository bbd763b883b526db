//! The harvester: a core that harvests, while the vCPUs run, at an even pace. Like the vCPUs it
//! knows nothing of the truth; it also does half of the comparison at a checkpoint.

use core::{
    convert::Infallible,
    hint::spin_loop,
    sync::atomic::{
        AtomicU8, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    time::Duration,
};

use pugmark::{DirtyRun, HarvestError};
use spin::Mutex;

use super::{
    console::die,
    cpu::{self, Features},
    layout::{GUEST_PAGES, PAGE_SIZE, page_index},
    migration,
    sizes::Sizes,
    sleep, trace,
    tracking::{self, tracker},
    truth::{self, Findings},
};

/// From the beginning of a harvest to that of the next one: more than 50 a second.
const PERIOD: Duration = Duration::from_millis(17);

/// How many checkpoints were ordered; of how many the final harvest is done; of how many its half
/// of the comparison.
static ORDERED: AtomicU64 = AtomicU64::new(0);
static FINISHED: AtomicU64 = AtomicU64::new(0);
static COMPARED: AtomicU64 = AtomicU64::new(0);
/// The harvester goes on after this many.
static RESUMED: AtomicU64 = AtomicU64::new(0);

static FINDINGS: Mutex<Findings> = Mutex::new(Findings::NONE);
static SIZES: Mutex<Sizes> = Mutex::new(Sizes::NONE);

/// Whether each page was in a harvest since the checkpoint before.
static REPORTED: [AtomicU8; GUEST_PAGES] = [const { AtomicU8::new(0) }; GUEST_PAGES];

/// What the core does.
pub fn run(features: Features) -> ! {
    cpu::open_vectors(features);
    tracking::activate();
    let mut finished = 0;
    loop {
        let began = cpu::now();
        // Acquire: the world was stopped before the order.
        if ORDERED.load(Acquire) != finished {
            finished += 1;
            checkpoint(finished);
        } else if migration::is_due() {
            migration::run();
        } else {
            harvest(|_| ());
            rest(began + PERIOD);
        }
    }
}

fn checkpoint(number: u64) {
    harvest_finally(|_| ());
    // Release: the reports, before the news.
    FINISHED.store(number, Release);
    *FINDINGS.lock() = truth::check(truth::SECOND_HALF);
    COMPARED.store(number, Release);
    // Acquire: the judge has seen to all else that depends on the world's standing still.
    sleep::until(|| RESUMED.load(Acquire) == number);
}

/// Sleeps until it is time for the next harvest.
fn rest(until: Duration) {
    while let Some(left) = until.checked_sub(cpu::now()).filter(|left| !left.is_zero()) {
        sleep::nap(left);
    }
}

/// Whether the last harvest began longer ago than it should.
pub fn is_due(last: Duration) -> bool {
    cpu::now().saturating_sub(last) >= PERIOD
}

/// A harvest while the guest runs: notes what it gets, and hands it on. How many pages it were.
pub fn harvest(mut consumer: impl FnMut(DirtyRun)) -> usize {
    let outcome = tracker().harvest(|run| deliver(run, &mut consumer));
    tracker().tick(cpu::now());
    match outcome {
        Ok(harvested) => count(harvested.pages),
        Err(error) => die(format_args!("the harvest failed: {error}")),
    }
}

/// The same with the world stopped.
pub fn harvest_finally(mut consumer: impl FnMut(DirtyRun)) -> usize {
    loop {
        match tracker().final_harvest(|run| deliver(run, &mut consumer)) {
            Ok(harvested) => return count(harvested.pages),
            // A handler that began before the world stopped: this passes.
            Err(HarvestError::HandlersInFlight { .. }) => spin_loop(),
            Err(error) => die(format_args!("the final harvest failed: {error}")),
        }
    }
}

fn count(pages: usize) -> usize {
    trace::end_epoch(cpu::now());
    SIZES.lock().add(pages);
    pages
}

fn deliver(run: DirtyRun, consumer: &mut impl FnMut(DirtyRun)) -> Result<(), Infallible> {
    if let Some(first) = page_index(run.start) {
        let pages = (run.len / PAGE_SIZE) as usize;
        for reported in &REPORTED[first..first + pages] {
            // Relaxed: the judge looks after it has acquired the news of the final harvest.
            reported.store(1, Relaxed);
        }
        trace::add(first, pages);
    }
    consumer(run);
    Ok(())
}

/// Orders a checkpoint, with the world stopped, and waits for the final harvest. The harvester then
/// stands still until [`resume`].
pub fn finish() {
    let ordered = ORDERED.load(Relaxed) + 1;
    ORDERED.store(ordered, Release);
    sleep::until(|| {
        // The harvester may have to wait for room in the trace.
        trace::flush();
        FINISHED.load(Acquire) == ordered
    });
}

/// What it found in its half.
pub fn findings() -> Findings {
    let ordered = ORDERED.load(Relaxed);
    sleep::until(|| COMPARED.load(Acquire) == ordered);
    *FINDINGS.lock()
}

/// Lets it harvest again.
pub fn resume() {
    RESUMED.store(ORDERED.load(Relaxed), Release);
}

/// How large the harvests were since this was last asked.
pub fn sizes() -> Sizes {
    core::mem::replace(&mut SIZES.lock(), Sizes::NONE)
}

/// Whether page `index` was in a harvest since this was last asked of it. While it stands still.
pub fn was_reported(index: usize) -> bool {
    let reported = REPORTED[index].load(Relaxed) != 0;
    REPORTED[index].store(0, Relaxed);
    reported
}
