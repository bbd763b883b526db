//! The harvester: a core that does nothing but harvest, while the vCPUs run. Like a live migration
//! it copies what it harvests, so that a page which it hears of too early shows as well as one that
//! it never hears of.

use core::{
    convert::Infallible,
    hint::spin_loop,
    sync::atomic::{
        AtomicU8, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use pugmark::{DirtyRun, HarvestError};

use super::{
    HARVESTER, JUDGE,
    console::die,
    cpu, idle,
    layout::{GUEST_PAGES, PAGE_SIZE, page_index},
    memory,
    tracking::{self, tracker},
};

/// How many final harvests were ordered; how many are done.
static ORDERED: AtomicU64 = AtomicU64::new(0);
static FINISHED: AtomicU64 = AtomicU64::new(0);
/// The harvester goes on after this many.
static RESUMED: AtomicU64 = AtomicU64::new(0);

/// Whether each page was in a harvest since the judge last asked.
static REPORTED: [AtomicU8; GUEST_PAGES] = [const { AtomicU8::new(0) }; GUEST_PAGES];

/// What the core does.
pub fn run() -> ! {
    idle::init_core();
    tracking::activate();
    let mut finished = 0;
    loop {
        // Acquire: the vCPUs were parked before the order.
        if ORDERED.load(Acquire) == finished {
            harvest_non_stop();
            continue;
        }
        harvest_finally();
        finished += 1;
        // Release: the copies and the reports, before the news.
        FINISHED.store(finished, Release);
        idle::wake(JUDGE);
        // Acquire: the judge has read its copies; they may change again.
        idle::until(|| RESUMED.load(Acquire) == finished);
    }
}

fn harvest_non_stop() {
    let tracker = tracker();
    // An empty harvest would count as one, and show nothing.
    if tracker
        .regions()
        .iter()
        .all(|region| region.dirty().is_clean())
    {
        spin_loop();
    } else if let Err(error) = tracker.harvest(deliver) {
        die(format_args!("the harvest failed: {error}"));
    }
    tracker.tick(cpu::now());
}

fn harvest_finally() {
    loop {
        match tracker().final_harvest(deliver) {
            Ok(_) => return,
            // A vCPU parks inside an exit, never inside a fault: this passes.
            Err(HarvestError::HandlersInFlight { .. }) => spin_loop(),
            Err(error) => die(format_args!("the final harvest failed: {error}")),
        }
    }
}

/// Takes what was written since the harvest before, protected again: copies it and notes it.
fn deliver(run: DirtyRun) -> Result<(), Infallible> {
    if let Some(first) = page_index(run.start) {
        memory::copy(run.start, memory::destination(first), run.len);
        let pages = (run.len / PAGE_SIZE) as usize;
        for reported in &REPORTED[first..first + pages] {
            // Relaxed: the judge looks after it has acquired the news of the final harvest.
            reported.store(1, Relaxed);
        }
    }
    Ok(())
}

/// Orders a final harvest, with every vCPU parked, and waits for it. The harvester then stands
/// still until [`resume`].
pub fn finish() {
    let ordered = ORDERED.load(Relaxed) + 1;
    ORDERED.store(ordered, Release);
    idle::until(|| FINISHED.load(Acquire) == ordered);
}

/// Lets it harvest again.
pub fn resume() {
    RESUMED.store(ORDERED.load(Relaxed), Release);
    idle::wake(HARVESTER);
}

/// Whether page `index` was in a harvest since this was last asked of it. While it stands still.
pub fn was_reported(index: usize) -> bool {
    let reported = REPORTED[index].load(Relaxed) != 0;
    REPORTED[index].store(0, Relaxed);
    reported
}
