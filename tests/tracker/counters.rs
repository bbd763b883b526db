//! What the tracker counts.

use pugmark::{Counters, FaultOutcome};

use crate::world::{BLOCK, Failure, PAGE, PAGES_PER_BLOCK, Protect, Unprotect, World, region};

const BASE: u64 = 0x4000_0000;

fn world() -> World {
    World::with([region(BASE, 8 * BLOCK)], |tracker| tracker.with_bridge(0))
}

/// What `act` added.
fn counted(world: &World, act: impl FnOnce()) -> Counters {
    let before = world.tracker.counters();
    act();
    let mut after = world.tracker.counters();
    after.faults -= before.faults;
    after.grants -= before.grants;
    after.pages_granted -= before.pages_granted;
    after.spurious_faults -= before.spurious_faults;
    after.harvests -= before.harvests;
    after.pages_harvested -= before.pages_harvested;
    after.pages_restored -= before.pages_restored;
    after.rearm_calls -= before.rearm_calls;
    after.step_downs -= before.step_downs;
    after
}

/// The eight that a test looks at, in the order of [`Counters`].
fn numbers(counters: Counters) -> [usize; 8] {
    [
        counters.faults,
        counters.grants,
        counters.pages_granted,
        counters.spurious_faults,
        counters.harvests,
        counters.pages_harvested,
        counters.pages_restored,
        counters.rearm_calls,
    ]
}

const B: usize = PAGES_PER_BLOCK as usize;

#[test]
fn a_new_tracker_has_counted_nothing() {
    assert_eq!(world().tracker.counters(), Counters::default());
}

#[test]
fn an_arm_is_one_call_a_region() {
    let world = world();
    let counters = counted(&world, || world.arm());
    assert_eq!(numbers(counters), [0, 0, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn faults_grants_and_their_pages_add_up() {
    let world = world();
    world.arm();
    let counters = counted(&world, || {
        world.fault(BASE);
        world.fault(BASE + 2 * BLOCK);
        world.fault(BASE + PAGE);
        world.host().fail(Unprotect, 0, Failure::HalfWay);
        world.tracker.on_write_fault(BASE + 4 * BLOCK).unwrap_err();
        let outside = world.tracker.on_write_fault(0);
        assert_eq!(outside, Ok(FaultOutcome::NotTracked));
    });
    assert_eq!(numbers(counters), [4, 3, 3 * B, 1, 0, 0, 0, 0]);
}

#[test]
fn a_harvest_counts_what_was_accepted_and_what_was_put_back() {
    let world = world();
    world.arm();
    for block in [0, 2, 4] {
        world.write(BASE + block * BLOCK);
    }
    let counters = counted(&world, || {
        world.harvest_refused_at(1);
    });
    assert_eq!(numbers(counters), [0, 0, 0, 0, 1, B, 2 * B, 3]);
    let counters = counted(&world, || {
        world.harvest();
    });
    assert_eq!(numbers(counters), [0, 0, 0, 0, 1, 2 * B, 0, 2]);
}

#[test]
fn a_two_phase_harvest_counts_at_its_commit_or_its_drop() {
    let world = world();
    world.arm();
    world.write(BASE);
    let dropped = counted(&world, || drop(world.tracker.begin_harvest().unwrap()));
    assert_eq!(numbers(dropped), [0, 0, 0, 0, 1, 0, B, 1]);
    let committed = counted(&world, || {
        world.tracker.begin_harvest().unwrap().commit();
    });
    assert_eq!(numbers(committed), [0, 0, 0, 0, 1, B, 0, 1]);
}

#[test]
fn a_protect_that_failed_was_a_call_too() {
    let world = world();
    world.arm();
    world.write(BASE);
    let counters = counted(&world, || {
        world.host().fail(Protect, 0, Failure::HalfWay);
        world.harvest_refused_at(9);
    });
    assert_eq!(numbers(counters), [0, 0, 0, 0, 1, 0, B, 1]);
}

#[test]
fn a_refused_harvest_is_no_harvest() {
    let world = world();
    let harvest = world.tracker.begin_harvest().unwrap();
    let counters = counted(&world, || {
        world.harvest_refused_at(0);
    });
    assert_eq!(numbers(counters), [0; 8]);
    drop(harvest);
}
