//! One write fault.

use std::sync::Barrier;
use std::thread;

use pugmark::{FaultError, FaultOutcome, Granule, HarvestError, StepDown, WriteTracker};

use crate::world::{
    BLOCK, Failure, Granted, HOST_ERROR, HostError, Moment, PAGE, PAGES_PER_BLOCK, Unprotect,
    World, fine_region, granted, guest_store, region,
};

const BASE: u64 = 0x4000_0000;

fn refuse(_: pugmark::DirtyRun) -> Result<(), ()> {
    Err(())
}

#[test]
fn a_coarse_fault_opens_and_marks_its_block() {
    let world = World::armed([region(BASE, 4 * BLOCK)]);
    let outcome = world.tracker.on_write_fault(BASE + BLOCK + 5 * PAGE + 123);
    let span = BASE + BLOCK..BASE + 2 * BLOCK;
    let expected = FaultOutcome::Granted {
        granule: Granule::Block,
        span: span.clone(),
        spurious: false,
    };
    assert_eq!(outcome, Ok(expected));
    assert_eq!(world.host().take_calls(), [(Unprotect, span.clone())]);
    assert!(span.step_by(PAGE as usize).eq(world.marked()));
    world.check();
}

#[test]
fn a_fine_fault_opens_and_marks_its_page() {
    let world = World::armed_fine(&[(BASE, 2 * BLOCK)]);
    let page = BASE + BLOCK + 3 * PAGE;
    let span = page..page + PAGE;
    let outcome = world.tracker.on_write_fault(page + PAGE - 1);
    let expected = FaultOutcome::Granted {
        granule: Granule::Page,
        span: span.clone(),
        spurious: false,
    };
    assert_eq!(outcome, Ok(expected));
    assert_eq!(world.host().take_calls(), [(Unprotect, span)]);
    assert_eq!(world.marked(), [page]);
    world.check();
}

#[test]
fn a_fault_outside_every_region_is_handed_back() {
    let world = World::armed([region(BASE, BLOCK), region(BASE + 2 * BLOCK, BLOCK)]);
    let hole = BASE + BLOCK;
    for ipa in [
        0,
        BASE - 1,
        hole,
        hole + BLOCK - 1,
        BASE + 3 * BLOCK,
        u64::MAX,
    ] {
        let outcome = world.tracker.on_write_fault(ipa);
        assert_eq!(outcome, Ok(FaultOutcome::NotTracked), "{ipa:#x}");
    }
    assert_eq!(world.host().take_calls(), []);
    assert_eq!(world.marked(), [0; 0]);
    assert_eq!(world.tracker.counters().faults, 0);
}

#[test]
fn a_fault_on_a_marked_page_is_granted_and_called_spurious() {
    let world = World::armed([region(BASE, BLOCK)]);
    assert!(!world.fault(BASE).spurious);
    assert!(world.fault(BASE + PAGE).spurious);

    let world = World::armed([region(BASE, BLOCK)]);
    world.write_as_vmm(BASE..BASE + 1);
    let Granted { span, spurious } = world.fault(BASE);
    assert!(spurious);
    assert_eq!(span, BASE..BASE + BLOCK);
    world.check();
}

#[test]
fn a_grant_that_fails_marks_its_span_and_names_the_address() {
    for &how in Failure::ALL {
        let world = World::armed([region(BASE, 2 * BLOCK)]);
        let ipa = BASE + BLOCK + PAGE + 8;
        world.host().fail(Unprotect, 0, how);
        let error = world.tracker.on_write_fault(ipa).unwrap_err();
        let expected = FaultError::Host {
            ipa,
            error: HOST_ERROR,
        };
        assert_eq!(error, expected);
        assert_eq!(
            error.to_string(),
            format!("opening the page at {ipa:#x} to the guest failed: host error -12")
        );
        assert_eq!(world.marked().len() as u64, PAGES_PER_BLOCK, "{how:?}");
        world.check();
        // The vCPU tries again.
        world.write(ipa);
        world.check_to_the_end();
    }
}

#[test]
fn a_handler_under_way_makes_a_final_harvest_refuse() {
    let world = World::armed([region(BASE, 2 * BLOCK)]);
    for moment in [Moment::Before, Moment::After] {
        let tracker = world.weak();
        world.host().at(Unprotect, moment, move || {
            let tracker = tracker.upgrade().unwrap();
            let refused = HarvestError::HandlersInFlight { handlers: 1 };
            assert_eq!(tracker.final_harvest(refuse), Err(refused));
            let refused = HarvestError::HandlersInFlight { handlers: 1 };
            assert_eq!(tracker.begin_final_harvest().map(drop), Err(refused));
        });
        world.write(BASE);
        // It returned, so now it is fine.
        let harvested = world.tracker.final_harvest(|run| {
            world.copy(run);
            Ok::<_, ()>(())
        });
        assert_eq!(harvested.map(|h| h.pages as u64), Ok(PAGES_PER_BLOCK));
        world.check();
    }
}

#[test]
fn a_final_harvest_counts_the_handlers_that_it_waits_for() {
    const HANDLERS: usize = 3;
    let [entered, leave] = [(); 2].map(|()| Barrier::new(HANDLERS + 1));
    struct Slow<'a>(&'a Barrier, &'a Barrier);
    impl pugmark::WriteProtect for Slow<'_> {
        type Error = HostError;
        fn protect(&self, _: std::ops::Range<u64>) -> Result<(), HostError> {
            Ok(())
        }
        fn unprotect(&self, _: std::ops::Range<u64>) -> Result<(), HostError> {
            self.0.wait();
            self.1.wait();
            Ok(())
        }
    }
    let slow = Slow(&entered, &leave);
    let tracker = WriteTracker::new(slow, [region(BASE, 4 * BLOCK)]).unwrap();
    tracker.arm().unwrap();
    thread::scope(|scope| {
        for handler in 0..HANDLERS as u64 {
            let tracker = &tracker;
            scope.spawn(move || granted(tracker.on_write_fault(BASE + handler * BLOCK)));
        }
        entered.wait();
        let last = tracker.final_harvest(refuse);
        let non_stop = tracker.harvest(refuse);
        // Before any assertion: a handler that is left waiting would never be joined.
        leave.wait();
        let expected = HarvestError::HandlersInFlight { handlers: HANDLERS };
        assert_eq!(last, Err(expected));
        assert!(non_stop.is_ok(), "it waits for none, and finds nothing");
    });
    let harvested = tracker.final_harvest(|_| Ok::<_, ()>(()));
    assert_eq!(
        harvested.map(|h| h.pages as u64),
        Ok(HANDLERS as u64 * PAGES_PER_BLOCK)
    );
}

// ---- storms

const LIMIT: u32 = 20;

#[test]
fn a_host_that_opens_nothing_is_a_storm() {
    let world = World::with([region(BASE, BLOCK)], |tracker| {
        tracker.with_storm_limit(LIMIT)
    });
    world.arm();
    world.host().ignore_calls();
    // The first fault opens the block, as far as the tracker can tell.
    assert!(!world.fault(BASE).spurious);
    let tolerated = LIMIT + PAGES_PER_BLOCK as u32;
    for _ in 0..tolerated {
        assert!(world.fault(BASE + PAGE).spurious);
    }
    let error = world.tracker.on_write_fault(BASE + PAGE).unwrap_err();
    let expected = FaultError::Storm {
        ipa: BASE + PAGE,
        faults: tolerated + 1,
    };
    assert_eq!(error, expected);
    assert_eq!(
        error.to_string(),
        "29 faults on open pages, now at 0x40001000: the permission does not reach the vCPU"
    );
    // Reported once, then it is counted anew.
    for _ in 0..tolerated {
        assert!(world.fault(BASE).spurious);
    }
    assert!(world.tracker.on_write_fault(BASE).is_err());
}

#[test]
fn a_harvest_ends_a_storm() {
    let world = World::with([region(BASE, BLOCK)], |tracker| tracker.with_storm_limit(0));
    world.arm();
    for _ in 0..if cfg!(miri) { 5 } else { 100 } {
        world.fault(BASE);
        for page in 0..PAGES_PER_BLOCK {
            assert!(world.fault(BASE + page * PAGE).spurious);
        }
        world.harvest();
    }
}

#[test]
fn pages_that_the_vmm_wrote_do_not_look_like_a_storm() {
    let world = World::with([fine_region(BASE, BLOCK)], |tracker| {
        tracker.with_storm_limit(0)
    });
    world.arm();
    world.step_all_down();
    for _ in 0..10 {
        world.write_as_vmm(BASE..BASE + BLOCK);
        for page in 0..PAGES_PER_BLOCK {
            let granted = world.write(BASE + page * PAGE);
            assert!(granted.is_some_and(|granted| granted.spurious));
        }
        world.harvest();
    }
}

#[test]
fn a_consumer_that_refuses_every_harvest_does_not_look_like_a_storm() {
    let world = World::with(
        [region(BASE, BLOCK).with_step_down(StepDown::NEVER)],
        |tracker| tracker.with_storm_limit(0),
    );
    world.arm();
    world.write(BASE);
    for _ in 0..4 * PAGES_PER_BLOCK {
        // Protected again, and its mark put back: the next store faults, and opens it.
        world.harvest_refused_at(0);
        assert!(!world.host().is_writable(BASE));
        let outcome = world.tracker.on_write_fault(BASE);
        assert!(outcome.is_ok(), "a page that was protected: {outcome:?}");
    }
}

#[test]
fn many_vcpus_on_one_block_are_no_storm() {
    let vcpus = if cfg!(miri) { 3 } else { 8 };
    let rounds = if cfg!(miri) { 10 } else { 500 };
    let world = World::with([region(BASE, 2 * BLOCK)], |tracker| {
        tracker.with_storm_limit(vcpus)
    });
    world.arm();
    let tracker = &*world.tracker;
    let start = Barrier::new(vcpus as usize);
    for round in 0..rounds {
        thread::scope(|scope| {
            for vcpu in 0..u64::from(vcpus) {
                let start = &start;
                scope.spawn(move || {
                    let page = (vcpu + round) % (2 * PAGES_PER_BLOCK);
                    start.wait();
                    guest_store(tracker, BASE + page * PAGE, round);
                });
            }
        });
        let harvested = tracker.final_harvest(|_| Ok::<_, ()>(()));
        assert!(harvested.is_ok_and(|harvested| harvested.pages > 0));
    }
    let counters = tracker.counters();
    assert_eq!(counters.grants, counters.faults);
}
