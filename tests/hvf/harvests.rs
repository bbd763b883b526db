//! Harvests through the layer: what is delivered, what a failure of the framework leaves behind, how
//! many calls it takes.

use std::collections::BTreeSet;
use std::time::Duration;

use pugmark::hvf::{Handled, HostPage, HvError, HvfTracker, StoppedError};
use pugmark::{ArmError, CostModel, Granule, HarvestError, StepDown};

use crate::model::{self, Call, ERROR, EXEC, Failure, Form, READ, WRITE};
use crate::vmm::{HVC, Script, Vcpu, Vm, pages_of};

const RAM: u64 = 0x4000_0000;
const BLOCK: u64 = 2 << 20;
const PAGE: u64 = 16 << 10;
const REFUSED: HvError = HvError { code: ERROR };

/// Two regions, of three blocks and of one.
fn vm() -> Vm {
    Vm::new(HostPage::Kib16, &[(RAM, 3 * BLOCK), (0x8000_0000, BLOCK)])
}

/// A store by the guest, with the exit that it takes.
fn store(tracker: &HvfTracker, ipa: u64) {
    let vcpu = Vcpu::new(Script::one(Form::Store, ipa, 1));
    loop {
        let exit = vcpu.run();
        if exit.syndrome == HVC {
            break;
        }
        // A call that fails leaves the instruction to be tried again.
        let _ = tracker.handle_exit(exit);
    }
}

fn marked(tracker: &HvfTracker) -> BTreeSet<u64> {
    let regions = tracker.tracker().regions().iter();
    let marked = regions.flat_map(|region| {
        let pages = (0..region.pages()).filter(|page| region.dirty().is_marked(*page) == Ok(true));
        pages.map(|page| region.base() + page as u64 * PAGE)
    });
    marked.collect()
}

/// What can be written is marked.
fn check(vm: &Vm, tracker: &HvfTracker) {
    let marked = marked(tracker);
    for page in vm.pages() {
        let writable = model::flags_at(page).expect("mapped") & WRITE != 0;
        assert!(!writable || marked.contains(&page), "{page:#x} is open");
    }
}

fn harvest(tracker: &HvfTracker) -> BTreeSet<u64> {
    let mut pages = BTreeSet::new();
    let harvested = tracker.harvest(|run| {
        pages.extend(pages_of(run, HostPage::Kib16));
        Ok::<(), ()>(())
    });
    assert_eq!(harvested.map(|harvested| harvested.pages), Ok(pages.len()));
    pages
}

#[test]
fn a_new_tracker_reports_all_of_memory_and_then_what_was_written() {
    let vm = vm();
    let tracker = vm.tracker();
    assert_eq!(harvest(&tracker), vm.pages().into_iter().collect());
    check(&vm, &tracker);
    assert_eq!(harvest(&tracker), BTreeSet::new());

    store(&tracker, RAM + BLOCK + 0x123 * 8);
    vm.store(0x8000_0000 + PAGE, 7);
    let told = 0x8000_0000 + PAGE..0x8000_0000 + PAGE + 8;
    assert_eq!(tracker.mark_written(told), Ok(()));
    check(&vm, &tracker);
    let block = (RAM + BLOCK..RAM + 2 * BLOCK).step_by(PAGE as usize);
    assert_eq!(
        harvest(&tracker),
        block.chain([0x8000_0000 + PAGE]).collect()
    );
    check(&vm, &tracker);

    let counters = tracker.counters();
    assert_eq!((counters.faults, counters.harvests), (1, 3));
    assert_eq!(counters.pages_harvested, 4 * 128 + 128 + 1);
}

#[test]
fn an_arm_that_fails_half_way_marks_everything() {
    for call in 0..2 {
        for how in Failure::ALL {
            let vm = vm();
            let tracker = vm.tracker();
            tracker.arm().expect("the model protects");
            model::planned(|plan| plan.fail(Call::Protect, call, how, ERROR));
            let (base, size) = vm.memory()[call];
            let error = ArmError::Host {
                start: base,
                end: base + size,
                error: REFUSED,
            };
            assert_eq!(tracker.arm(), Err(StoppedError::Tracker(error)));
            assert_eq!(StoppedError::Tracker(error).to_string(), error.to_string());
            assert_eq!(marked(&tracker).len(), 4 * 128, "{how:?} at {call}");
            check(&vm, &tracker);
            assert_eq!(tracker.arm(), Ok(()));
            check(&vm, &tracker);
        }
    }
}

/// The forms of harvest, which must treat a failure alike.
const FORMS: [fn(&HvfTracker) -> bool; 3] = [
    |tracker| tracker.harvest(|_| Ok::<(), ()>(())).is_ok(),
    |tracker| tracker.harvest_running(|_| Ok::<(), ()>(())).is_ok(),
    |tracker| tracker.begin_harvest().map(|held| held.commit()).is_ok(),
];

#[test]
fn a_rearm_that_fails_half_way_loses_nothing() {
    for (form, harvest_by) in FORMS.iter().enumerate() {
        // Without a bridge each run is a call of its own.
        for call in 0..3 {
            for how in Failure::ALL {
                let vm = vm();
                let tracker = vm.tracker().with_bridge(0);
                tracker.arm().expect("the model protects");
                for ipa in [RAM, RAM + 2 * BLOCK, 0x8000_0000] {
                    store(&tracker, ipa);
                }
                let before = marked(&tracker);
                model::planned(|plan| plan.fail(Call::Protect, call, how, ERROR));
                assert!(!harvest_by(&tracker));
                let (now, delivered) = (marked(&tracker), tracker.counters().pages_harvested);
                assert_eq!(now.len() + delivered, before.len(), "{form} {how:?} {call}");
                check(&vm, &tracker);

                assert!(harvest_by(&tracker), "the next one succeeds");
                assert_eq!(marked(&tracker), BTreeSet::new());
                check(&vm, &tracker);
            }
        }
    }
}

#[test]
fn a_consumer_that_refuses_gets_it_again() {
    let vm = vm();
    let tracker = vm.tracker();
    tracker.arm().expect("the model protects");
    store(&tracker, RAM);
    let before = marked(&tracker);
    for _ in 0..2 {
        let refused = tracker.harvest(|_| Err("full"));
        let Err(StoppedError::Tracker(HarvestError::Consumer { run, error })) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!((run.start, run.len, error), (RAM, BLOCK, "full"));
        let refused = tracker.harvest_running(|_| Err("full"));
        assert!(matches!(refused, Err(HarvestError::Consumer { .. })));
        assert_eq!(marked(&tracker), before);
    }
    // Held, and dropped without a commit.
    let held = tracker.begin_harvest().expect("nothing fails");
    assert_eq!(held.harvested().pages, 128);
    assert_eq!(marked(&tracker), BTreeSet::new());
    drop(held);
    assert_eq!(marked(&tracker), before);
    let held = tracker.begin_harvest().expect("nothing fails");
    let runs: Vec<_> = held.runs().map(|run| (run.start, run.len)).collect();
    assert_eq!(runs, [(RAM, BLOCK)]);
    held.commit();
    assert_eq!(marked(&tracker), BTreeSet::new());
    check(&vm, &tracker);
}

#[test]
fn a_second_harvest_while_one_is_held_is_refused() {
    let vm = vm();
    let tracker = vm.tracker();
    let held = tracker.begin_harvest().expect("nothing fails");
    let busy = tracker.harvest(|_| Ok::<(), ()>(()));
    assert_eq!(busy, Err(StoppedError::Tracker(HarvestError::Busy)));
    assert_eq!(
        tracker.arm(),
        Err(StoppedError::Tracker(ArmError::Busy)),
        "the same for a checkpoint"
    );
    assert!(tracker.begin_harvest().is_err());
    held.commit();
    assert_eq!(tracker.arm(), Ok(()));
}

#[test]
fn one_wide_call_re_arms_what_lies_apart() {
    let vm = vm();
    let tracker = vm.tracker();
    tracker.arm().expect("the model protects");
    store(&tracker, RAM);
    store(&tracker, RAM + 2 * BLOCK);
    model::planned(|plan| plan.take_calls());
    harvest(&tracker);
    assert_eq!(
        model::planned(|plan| plan.take_calls()),
        [(RAM, 3 * BLOCK as usize, READ | EXEC)]
    );

    // Told not to, it takes one for each.
    let tracker = {
        drop(tracker);
        vm.tracker().with_bridge(127)
    };
    tracker.arm().expect("the model protects");
    store(&tracker, RAM);
    store(&tracker, RAM + 2 * BLOCK);
    model::planned(|plan| plan.take_calls());
    harvest(&tracker);
    assert_eq!(model::planned(|plan| plan.take_calls()).len(), 2);
}

#[test]
fn a_hot_block_is_opened_by_the_page_once_the_clock_has_ticked() {
    let vm = vm();
    let rule = StepDown {
        threshold: 2,
        window: Duration::from_millis(5),
        ..StepDown::DEFAULT
    };
    let tracker = HvfTracker::with_step_down(HostPage::Kib16, vm.memory(), rule);
    let tracker = tracker.expect("whole pages");
    tracker.arm().expect("the model protects");
    std::thread::sleep(Duration::from_millis(2));
    tracker.tick();
    let mut faults = 0;
    while tracker.counters().step_downs == 0 {
        store(&tracker, RAM);
        // It ticks.
        harvest(&tracker);
        faults += 1;
        assert!(faults < 1_000_000, "it never steps down");
    }
    let region = &tracker.tracker().regions()[0];
    assert_eq!(region.granule_at(RAM), Some(Granule::Page));
    assert_eq!(region.granule_at(RAM + BLOCK), Some(Granule::Block));
    let vcpu = Vcpu::new(Script::one(Form::Store, RAM + PAGE, 1));
    let handled = tracker.handle_exit(vcpu.run());
    let Ok(Handled::Resume { granule, span, .. }) = handled else {
        panic!("{handled:?}");
    };
    assert_eq!((granule, span), (Granule::Page, RAM + PAGE..RAM + 2 * PAGE));
}

#[test]
fn with_a_cost_model_a_block_is_opened_by_the_page_until_that_has_cost_too_much() {
    let vm = vm();
    let model = CostModel::HVF_MEMORY;
    let tracker = HvfTracker::with_cost_model(HostPage::Kib16, vm.memory(), model);
    let tracker = tracker.expect("whole pages");
    tracker.arm().expect("the model protects");
    store(&tracker, RAM + BLOCK);
    assert_eq!(harvest(&tracker), BTreeSet::from([RAM + BLOCK]));
    // Of 128 pages 33 break even.
    (0..34).for_each(|page| store(&tracker, RAM + page * PAGE));
    assert_eq!(harvest(&tracker).len(), 128);
    assert_eq!(tracker.counters().faults, 1 + 34);
}

#[test]
fn a_harvest_beside_a_handler_outside_its_seat_is_refused() {
    let vm = vm();
    let tracker = vm.tracker();
    tracker.arm().expect("the model protects");
    let vcpu = Vcpu::new(Script::one(Form::Store, RAM, 1));
    let exit = vcpu.run();
    // The handler never got its seat, and takes its time to open the page.
    model::planned(|plan| plan.hold_open(true));
    std::thread::scope(|scope| {
        scope.spawn(|| tracker.handle_exit(exit));
        while tracker.counters().faults == 0 {
            std::thread::yield_now();
        }
        let refused = tracker.harvest(|_| Ok::<(), ()>(()));
        model::planned(|plan| plan.hold_open(false));
        let handlers = HarvestError::HandlersInFlight { handlers: 1 };
        assert_eq!(refused, Err(StoppedError::Tracker(handlers)));
    });
    assert_eq!(harvest(&tracker).len(), 128);
}
