//! The harvest that is held until a commit.

use std::mem;

use pugmark::{ArmError, DirtyRun, HarvestError};

use crate::world::{BLOCK, Failure, HOST_ERROR, PAGE, Protect, World, pages_of, region};

const BASE: u64 = 0x4000_0000;
const SECOND: u64 = 1 << 32;

fn world() -> World {
    World::armed([region(BASE, 8 * BLOCK), region(SECOND, 4 * BLOCK + 7)])
}

fn block(base: u64, block: u64) -> DirtyRun {
    DirtyRun {
        start: base + block * BLOCK,
        len: BLOCK,
    }
}

#[test]
fn it_holds_what_was_written_and_protects_it() {
    let world = world();
    world.write(BASE + BLOCK);
    world.write(SECOND + 3 * BLOCK);
    world.host().take_calls();

    let harvest = world.tracker.begin_harvest().unwrap();
    let runs = [block(BASE, 1), block(SECOND, 3)];
    assert!(harvest.runs().eq(runs));
    assert!(harvest.runs().eq(runs), "it can be read as often as needed");
    let calls = world.host().take_calls();
    assert_eq!(calls, runs.map(|run| (Protect, run.range())));
    assert_eq!(world.marked(), [0; 0]);

    harvest.runs().for_each(|run| world.copy(run));
    let harvested = harvest.commit();
    assert_eq!((harvested.runs, harvested.rearm_calls), (2, 2));
    assert_eq!(harvested.pages as u64, 2 * BLOCK / PAGE);
    assert_eq!(world.harvest(), []);
    world.check();
}

#[test]
fn a_drop_without_commit_puts_everything_back() {
    let world = world();
    world.write(BASE + BLOCK);
    world.write(SECOND + 4 * BLOCK);
    let marked = world.marked();
    let harvest = world.tracker.begin_harvest().unwrap();
    let runs: Vec<_> = harvest.runs().collect();
    drop(harvest);
    assert_eq!(world.marked(), marked);
    world.check();
    assert_eq!(world.harvest(), runs);
    world.check_to_the_end();
}

#[test]
fn what_is_written_while_it_is_open_is_for_the_next() {
    let world = world();
    world.write(BASE + BLOCK);
    let harvest = world.tracker.begin_harvest().unwrap();
    let held: Vec<_> = harvest.runs().collect();
    // One that is held, and one that is not.
    world.write(BASE + BLOCK);
    world.write(BASE + 3 * BLOCK);
    assert!(harvest.runs().eq(held.iter().copied()), "it does not grow");
    world.check_beside(&held);
    held.iter().for_each(|&run| world.copy(run));
    harvest.commit();
    assert_eq!(world.harvest(), [block(BASE, 1), block(BASE, 3)]);
    world.check_to_the_end();
}

#[test]
fn a_drop_keeps_what_was_written_meanwhile() {
    let world = world();
    world.write(BASE + BLOCK);
    let harvest = world.tracker.begin_harvest().unwrap();
    world.write(BASE + 3 * BLOCK);
    drop(harvest);
    assert_eq!(world.harvest(), [block(BASE, 1), block(BASE, 3)]);
    world.check_to_the_end();
}

#[test]
fn while_it_is_open_other_harvests_and_checkpoints_are_refused() {
    let world = world();
    world.write(BASE);
    let harvest = world.tracker.begin_harvest().unwrap();
    let tracker = &world.tracker;
    assert_eq!(tracker.begin_harvest().map(drop), Err(HarvestError::Busy));
    assert_eq!(
        tracker.begin_final_harvest().map(drop),
        Err(HarvestError::Busy)
    );
    assert_eq!(
        tracker.harvest(|_| Ok::<_, ()>(())),
        Err(HarvestError::Busy)
    );
    assert_eq!(
        tracker.final_harvest(|_| Ok::<_, ()>(())),
        Err(HarvestError::Busy)
    );
    assert_eq!(tracker.arm(), Err(ArmError::Busy));
    assert_eq!(tracker.disarm(), Err(ArmError::Busy));
    // Faults and marks go on.
    world.write(BASE + BLOCK);
    world.write_as_vmm(BASE + 2 * BLOCK..BASE + 3 * BLOCK);
    drop(harvest);
    assert_eq!(tracker.begin_harvest().map(drop), Ok(()));
    world.check_to_the_end();
    world.arm();
}

#[test]
fn the_refusals_say_why() {
    let busy = "a harvest is open, or another arm or disarm is under way";
    assert_eq!(ArmError::<&str>::Busy.to_string(), busy);
    let busy = "another harvest is open, or an arm or disarm is under way";
    assert_eq!(HarvestError::<&str, &str>::Busy.to_string(), busy);
    assert_eq!(
        HarvestError::<&str, &str>::HandlersInFlight { handlers: 3 }.to_string(),
        "3 fault handlers are under way: stop every vCPU first"
    );
}

#[test]
fn one_that_is_leaked_is_refused_for_good_and_faults_go_on() {
    let world = world();
    world.write(BASE);
    mem::forget(world.tracker.begin_harvest().unwrap());
    assert_eq!(
        world.tracker.begin_harvest().map(drop),
        Err(HarvestError::Busy)
    );
    assert_eq!(world.tracker.arm(), Err(ArmError::Busy));
    assert!(world.write(BASE).is_some());
    assert!(world.is_marked(BASE));
}

#[test]
fn a_protect_that_fails_at_any_call_puts_everything_back() {
    for &how in Failure::ALL {
        for n in 0..3 {
            let world = World::with(
                [region(BASE, 8 * BLOCK), region(SECOND, BLOCK)],
                |tracker| tracker.with_bridge(0),
            );
            world.arm();
            for page in [BASE, BASE + 2 * BLOCK, SECOND] {
                world.write(page);
            }
            let marked = world.marked();
            world.host().fail(Protect, n, how);
            let begun = world.tracker.begin_harvest().map(drop);
            // The pages of a region were to be protected at once.
            let [first, last] = match n {
                0 | 1 => [block(BASE, 0), block(BASE, 2)],
                _ => [block(SECOND, 0); 2],
            };
            let expected = HarvestError::Host {
                start: first.range().start,
                end: last.range().end,
                error: HOST_ERROR,
            };
            assert_eq!(begun, Err(expected));
            assert_eq!(world.marked(), marked, "{how:?} at {n}");
            world.check();
            world.check_to_the_end();
        }
    }
}

#[test]
fn more_ranges_than_the_host_is_given_at_once_come_whole_and_are_counted_once() {
    let regions = [region(BASE, 9 * BLOCK), region(SECOND, 5 * BLOCK)];
    let world = World::with(regions, |tracker| tracker.with_bridge(0));
    world.arm();
    // 32 ranges are given at once.
    for page in 0..35 {
        world.write_as_vmm(BASE + 2 * page * PAGE..BASE + 2 * page * PAGE + 1);
    }
    world.write_as_vmm(SECOND..SECOND + 4 * BLOCK);
    let harvest = world.tracker.begin_harvest().unwrap();
    let runs: Vec<_> = harvest.runs().collect();
    assert_eq!(runs.len(), 36);
    assert_eq!(harvest.harvested().runs, 36);
    assert_eq!(harvest.harvested().rearm_calls, 36);
    assert!(world.pages().all(|page| !world.host().is_writable(page)));
    let pages: Vec<_> = runs.into_iter().flat_map(pages_of).collect();
    assert_eq!(pages.len(), harvest.harvested().pages);
    harvest.commit();
}

#[test]
fn the_last_run_is_clamped_to_the_region() {
    let world = world();
    world.write(SECOND + 4 * BLOCK);
    let harvest = world.tracker.begin_final_harvest().unwrap();
    let run = DirtyRun {
        start: SECOND + 4 * BLOCK,
        len: 7,
    };
    assert!(harvest.runs().eq([run]));
}
