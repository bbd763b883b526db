//! A live migration of the guest's memory to the area beside it, by pre-copy: all of it while the
//! guest runs, then again and again what was written meanwhile, then the rest with the world stopped.

use core::{
    ops::Range,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use pugmark::{DirtyBitmap, DirtyRun, Run, words_for};

use super::{
    arguments::Arguments,
    console::{self, die},
    cpu, gate,
    harvester::{self, harvest, harvest_finally},
    layout::{GUEST_PAGES, PAGE_SIZE, page_index, page_ipa},
    memory,
    phase::Phase,
    truth,
};

/// A round of so few pages is small enough to stop the world for the next.
const SMALL: usize = 256;
/// After so many rounds it stops the world anyhow.
const ROUNDS: usize = 16;

/// Pages to copy before it is time to think of the next harvest.
const AT_ONCE: usize = 64;

/// Pages that are to be copied.
static WAITING: DirtyBitmap<[pugmark::AtomicUsize; words_for(GUEST_PAGES)]> =
    DirtyBitmap::new(GUEST_PAGES);

static DUE: AtomicBool = AtomicBool::new(false);
static DONE: AtomicBool = AtomicBool::new(false);
/// Pages that differed after it.
static DIFFERING: AtomicUsize = AtomicUsize::new(0);

/// Has the harvester migrate, if `phase` is the one that the arguments name.
pub fn order_in(phase: Phase, arguments: &Arguments) {
    if arguments.migrate == Some(phase) {
        DUE.store(true, Relaxed);
    }
}

/// Whether it is to; once.
pub fn is_due() -> bool {
    DUE.load(Relaxed) && DUE.swap(false, Relaxed)
}

/// Whether there was one. While the harvester stands still.
pub fn is_done() -> bool {
    DONE.load(Relaxed)
}

/// Pages that differed after it. While the harvester stands still.
pub fn differing() -> usize {
    DIFFERING.load(Relaxed)
}

/// Migrates. On the harvester's core.
pub fn run() {
    fetch(0..GUEST_PAGES);
    let mut round = 1;
    let mut before = usize::MAX;
    loop {
        let pages = copy_round(round);
        // From here on the guest writes as fast as it is copied.
        let converged = pages > before - before / 8;
        if pages <= SMALL || converged || round == ROUNDS {
            break;
        }
        harvest(fetch_run);
        before = pages;
        round += 1;
    }

    let stopped = cpu::now();
    let gate = gate::close();
    harvest_finally(fetch_run);
    WAITING.drain_runs(copy);
    let pause = cpu::now().saturating_sub(stopped);
    let differing = truth::differing();
    // Relaxed: the judge asks after a later final harvest, whose news it acquires.
    DIFFERING.fetch_add(differing, Relaxed);
    DONE.store(true, Relaxed);
    drop(gate);
    console::report(format_args!(
        r#""migration":{{"rounds":{},"pause_us":{},"differing":{differing}}}"#,
        round + 1,
        pause.as_micros(),
    ));
}

/// Copies what waits, and reports how many pages that were. The harvests keep their pace meanwhile;
/// what they deliver waits for a later round, or is still to come in this one.
fn copy_round(round: usize) -> usize {
    let mut pages = 0;
    let mut last = cpu::now();
    WAITING.drain_runs(|run| {
        for start in (run.start..run.start + run.len).step_by(AT_ONCE) {
            let len = AT_ONCE.min(run.start + run.len - start);
            copy(Run { start, len });
            if harvester::is_due(last) {
                last = cpu::now();
                harvest(fetch_run);
            }
        }
        pages += run.len;
    });
    console::report(format_args!(
        r#""migration_round":{{"round":{round},"pages":{pages}}}"#
    ));
    pages
}

/// A harvest's run is to be copied: it is protected again by now.
fn fetch_run(run: DirtyRun) {
    if let Some(first) = page_index(run.start) {
        fetch(first..first + (run.len / PAGE_SIZE) as usize);
    }
}

fn fetch(pages: Range<usize>) {
    if let Err(error) = WAITING.mark_range(pages) {
        die(format_args!("{error}"));
    }
}

fn copy(run: Run) {
    let len = run.len as u64 * PAGE_SIZE;
    memory::copy(page_ipa(run.start), memory::destination(run.start), len);
}
