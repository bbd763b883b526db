//! Guests on several vCPUs, a harvester beside them, calls that fail and calls that take their time,
//! all as chance decides from a seed; and a mirror of memory that must be right.
//!
//! The same with one thing done wrong must lose pages, or a run that loses none says nothing.
//! `PUGMARK_FULL=1` runs it longer.

mod guest;
mod harvester;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use pugmark::arch::aarch64::{Abort, NotOurs, classify};
use pugmark::hvf::{Exit, Handled, HostPage, HvError, HvfProtection, HvfTracker, Unhandled};
use pugmark::{FaultError, Granule, StepDown, WriteProtect};

use crate::model::{self, Form};
use crate::vmm::{Rng, Vcpu, Vm};
use guest::{Guest, MMIO, Seen};
use harvester::Harvester;

/// What a line begins with that `cargo xtask coverage` shows.
const REPORT: &str = "model: ";

/// vCPUs, each with its thread.
const VCPUS: usize = 3;

/// What the VMM does wrong, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conduct {
    Right,
    MarksBeforeItGrants,
    ProtectsBeforeItDrains,
    AdvancesPc,
    LeavesTableWalksOut,
    ForgetsDeviceWrites,
    CommitsWithoutACopy,
}

/// Whether the vCPUs are out of the guest while pages are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum World {
    Stopped,
    Running,
}

/// One VM, and how it is run.
struct Run {
    vm: Vm,
    /// The first address of each page.
    pages: Vec<u64>,
    page: HostPage,
    tracker: HvfTracker,
    world: World,
    conduct: Conduct,
    running: AtomicUsize,
    faults: AtomicUsize,
    failed_faults: AtomicUsize,
}

impl Run {
    fn new(page: HostPage, world: World, conduct: Conduct) -> Self {
        let block = 2 << 20;
        let vm = Vm::new(
            page,
            &[
                // From the middle of a block on.
                (0x4000_0000 + 3 * page.size(), 2 * block - 3 * page.size()),
                (0x8000_0000, 2 * page.size()),
            ],
        );
        let rule = StepDown {
            threshold: 2,
            window: Duration::from_millis(1),
            ..StepDown::DEFAULT
        };
        let tracker = HvfTracker::with_step_down(page, vm.memory(), rule);
        let tracker = tracker.expect("whole pages, in order");
        Self {
            pages: vm.pages(),
            page,
            vm,
            tracker: tracker
                .with_bridge(3)
                .with_watchdog(Duration::from_secs(60)),
            world,
            conduct,
            running: AtomicUsize::new(VCPUS),
            faults: AtomicUsize::new(0),
            failed_faults: AtomicUsize::new(0),
        }
    }

    fn is(&self, conduct: Conduct) -> bool {
        self.conduct == conduct
    }

    /// The exit of a vCPU, rightly or wrongly handled.
    fn handle(&self, exit: Exit) -> Result<Handled, FaultError<HvError>> {
        let ipa = exit.physical_address;
        let page = ipa & !(self.page.size() - 1);
        let page = page..page + self.page.size();
        let Abort::Write(cause) = classify(exit.syndrome) else {
            return self.tracker.handle_exit(exit);
        };
        let wrong = match self.conduct {
            Conduct::LeavesTableWalksOut => exit.syndrome >> 26 == 0x20,
            Conduct::MarksBeforeItGrants => true,
            _ => false,
        };
        if !wrong || ipa == MMIO {
            return self.tracker.handle_exit(exit);
        }
        if self.is(Conduct::MarksBeforeItGrants) {
            self.tracker.mark_written(page.clone()).expect("tracked");
        }
        thread::yield_now();
        let granted = HvfProtection::new(self.page).unprotect(page.clone());
        granted.map_err(|error| FaultError::Host { ipa, error })?;
        Ok(Handled::Resume {
            cause,
            granule: Granule::Page,
            span: page,
            spurious: false,
        })
    }

    /// A vCPU's thread, until its guest is at its end.
    fn run_vcpu(&self, guest: Guest, mut chance: Rng) {
        let slot = guest.device_slot();
        let vcpu = Vcpu::new(guest);
        let mut seat = self.tracker.seat(vcpu.id);
        loop {
            let running = seat.enter();
            let exit = vcpu.run();
            match self.handle(exit) {
                Ok(Handled::Resume { .. }) => {
                    self.faults.fetch_add(1, Relaxed);
                    if self.is(Conduct::AdvancesPc) {
                        model::advance_pc(vcpu.id);
                    }
                }
                Ok(Handled::NotOurs(Unhandled::Canceled)) => {}
                Ok(Handled::NotOurs(Unhandled::Exception { access, .. })) => match access {
                    // A device's register: it writes to memory at once.
                    Abort::Write(_) => {
                        let page = chance.below(self.pages.len() as u64);
                        let word = self.pages[page as usize] + slot;
                        self.vm.store(word, self.vm.load(word) + 1);
                        if !self.is(Conduct::ForgetsDeviceWrites) {
                            let told = self.tracker.mark_written(word..word + 8);
                            told.expect("a page of RAM");
                        }
                        model::advance_pc(vcpu.id);
                    }
                    Abort::NotOurs(NotOurs::NotAnAbort { .. }) => break,
                    other => panic!("{other:?}"),
                },
                // It is tried again.
                Err(FaultError::Host { .. }) => {
                    self.failed_faults.fetch_add(1, Relaxed);
                }
                other => panic!("{other:?} at {:#x}", exit.physical_address),
            }
            drop(running);
        }
    }
}

/// What became of a run.
struct Outcome {
    /// Pages whose mirror was wrong although they were not marked.
    lost: usize,
    /// Words that do not hold what the guest stored there last.
    dropped: usize,
    stores: u64,
}

/// Runs guests that make so many accesses each.
fn run(page: HostPage, world: World, conduct: Conduct, accesses: u64, seed: u64) -> Outcome {
    let run = Run::new(page, world, conduct);
    let seen: [Seen; VCPUS] = std::array::from_fn(|_| Seen::new(run.pages.len()));
    let mut harvester = Harvester::new(&run, seed);
    // Chance fails 4 calls in a thousand.
    model::planned(|plan| {
        plan.set_slow(true);
        plan.fail_often(256);
    });
    thread::scope(|scope| {
        for (vcpu, seen) in seen.iter().enumerate() {
            let guest = Guest::new(vcpu, seed, accesses, &run.pages, seen.clone());
            let run = &run;
            scope.spawn(move || {
                // Also if it panics.
                let _running = Leave(&run.running);
                run.run_vcpu(guest, Rng(seed + vcpu as u64));
            });
        }
        harvester.until(|| run.running.load(Relaxed) == 0);
    });
    let failed = model::planned(|plan| {
        plan.fail_often(0);
        plan.failed()
    });
    harvester.finish();

    let dropped = seen.iter().enumerate();
    let dropped: usize = dropped.map(|(vcpu, seen)| seen.dropped(vcpu, &run)).sum();
    let stores = seen.iter().map(Seen::stores).sum();
    if conduct == Conduct::Right {
        for form in Form::WRITES {
            let done: u64 = seen.iter().map(|seen| seen.done(form)).sum();
            assert!(done > accesses / 500, "{form:?}: only {done}");
        }
        let counters = run.tracker.counters();
        assert!(run.failed_faults.load(Relaxed) > 0 && failed > 0);
        assert!(counters.step_downs > 0 && counters.pages_restored > 0);
        assert!(harvester.compared > 5, "{}", harvester.compared);
        println!(
            "{REPORT}{page:?} pages, vCPUs {}: lost {} of {stores} stores; {} faults, {} harvests, \
             {failed} calls failed",
            match world {
                World::Stopped => "stopped",
                World::Running => "running",
            },
            harvester.lost + dropped,
            counters.faults,
            counters.harvests,
        );
    }
    Outcome {
        lost: harvester.lost,
        dropped,
        stores,
    }
}

struct Leave<'a>(&'a AtomicUsize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Accesses of each vCPU in each of the four runs below, so that they make 10 million stores.
fn accesses() -> u64 {
    match std::env::var_os("PUGMARK_FULL") {
        Some(full) if full == "1" => 20_000_000,
        _ => 1_000_000,
    }
}

fn loses_nothing(page: HostPage, world: World, seed: u64) {
    let Outcome {
        lost,
        dropped,
        stores,
    } = run(page, world, Conduct::Right, accesses(), seed);
    assert!(stores > 2_500_000, "{stores}: four runs make 10 million");
    assert_eq!(
        (lost, dropped),
        (0, 0),
        "lost pages and dropped stores, of {stores}, from seed {seed}"
    );
}

#[test]
fn stopped_vcpus_lose_nothing_with_16_kib() {
    loses_nothing(HostPage::Kib16, World::Stopped, 1);
}

#[test]
fn stopped_vcpus_lose_nothing_with_4_kib() {
    loses_nothing(HostPage::Kib4, World::Stopped, 2);
}

#[test]
fn running_vcpus_lose_nothing_with_16_kib() {
    loses_nothing(HostPage::Kib16, World::Running, 3);
}

#[test]
fn running_vcpus_lose_nothing_with_4_kib() {
    loses_nothing(HostPage::Kib4, World::Running, 4);
}

/// The first of a few seeds with which something is lost, or dropped, must come.
fn must_lose(world: World, conduct: Conduct) {
    for seed in 0..20 {
        let outcome = run(HostPage::Kib16, world, conduct, 100_000, seed);
        if outcome.lost + outcome.dropped > 0 {
            return;
        }
    }
    panic!("{conduct:?} loses nothing: what do these tests see?");
}

#[test]
fn mark_before_grant_loses_pages() {
    must_lose(World::Running, Conduct::MarksBeforeItGrants);
}

#[test]
fn protect_before_drain_loses_pages() {
    must_lose(World::Running, Conduct::ProtectsBeforeItDrains);
}

#[test]
fn a_pc_that_is_advanced_drops_stores() {
    must_lose(World::Stopped, Conduct::AdvancesPc);
}

#[test]
fn table_walks_that_are_left_out_are_lost() {
    must_lose(World::Stopped, Conduct::LeavesTableWalksOut);
}

#[test]
fn device_writes_that_are_forgotten_are_lost() {
    must_lose(World::Stopped, Conduct::ForgetsDeviceWrites);
}

#[test]
fn a_commit_without_a_copy_loses_pages() {
    must_lose(World::Stopped, Conduct::CommitsWithoutACopy);
}
