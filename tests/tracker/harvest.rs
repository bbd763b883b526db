//! The streaming harvest.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use pugmark::{DirtyRun, HarvestError};

use crate::world::{BLOCK, Failure, HOST_ERROR, Moment, PAGE, Protect, World, fine_region};

const BASE: u64 = 0x4000_0000;
const SECOND: u64 = 1 << 32;

/// Runs that are more than one batch, which is 64.
const RUNS: usize = if cfg!(miri) { 66 } else { 80 };

/// Two fine regions, bridging gaps up to `bridge` pages.
fn world(bridge: usize) -> World {
    let regions = [
        fine_region(BASE, 3 * RUNS as u64 * PAGE + 2 * BLOCK),
        fine_region(SECOND, 2 * BLOCK),
    ];
    let world = World::with(regions, |tracker| tracker.with_bridge(bridge));
    world.arm();
    world
}

/// Marks as a fine fault would, and opens.
fn write_pages(world: &World, base: u64, pages: &[u64]) {
    use pugmark::WriteProtect;
    for page in pages {
        let ipa = base + page * PAGE;
        world.host().unprotect(ipa..ipa + PAGE).unwrap();
        world.write(ipa);
        world.tracker.mark_written(ipa..ipa + 1).unwrap();
    }
    world.host().take_calls();
}

fn run(base: u64, first: u64, pages: u64) -> DirtyRun {
    DirtyRun {
        start: base + first * PAGE,
        len: pages * PAGE,
    }
}

/// The pages of each `protect` call, counted from `BASE`.
fn protected(world: &World) -> Vec<(u64, u64)> {
    let calls = world.host().take_calls().into_iter();
    let pages = |ipa: u64| (ipa - BASE) / PAGE;
    calls
        .map(|(call, range)| {
            assert_eq!(call, Protect);
            (pages(range.start), pages(range.end))
        })
        .collect()
}

#[test]
fn a_harvest_delivers_maximal_runs_in_ascending_order_and_protects_them() {
    let world = world(0);
    write_pages(&world, BASE, &[0, 1, 2, 7, 63, 64, 65, 100]);
    write_pages(&world, SECOND, &[0, 5]);
    let runs = [
        run(BASE, 0, 3),
        run(BASE, 7, 1),
        run(BASE, 63, 3),
        run(BASE, 100, 1),
        run(SECOND, 0, 1),
        run(SECOND, 5, 1),
    ];
    assert_eq!(world.harvest(), runs);
    assert!(world.pages().all(|page| !world.host().is_writable(page)));
    assert_eq!(world.marked(), [0; 0]);
    assert_eq!(world.harvest(), []);
    world.check();
}

#[test]
fn a_harvest_of_nothing_calls_no_host() {
    let world = world(16);
    let harvested = world.tracker.harvest(|_| Err(())).unwrap();
    assert_eq!(
        (harvested.runs, harvested.pages, harvested.rearm_calls),
        (0, 0, 0)
    );
    assert_eq!(world.host().take_calls(), []);
}

#[test]
fn without_a_bridge_each_run_is_one_call() {
    let world = world(0);
    write_pages(&world, BASE, &[0, 2, 4, 5, 10]);
    world.harvest();
    assert_eq!(protected(&world), [(0, 1), (2, 3), (4, 6), (10, 11)]);
}

#[test]
fn a_gap_of_just_the_bridge_is_joined_and_one_more_is_not() {
    let world = world(3);
    // Gaps of 3, 4, 1 and 3 pages.
    write_pages(&world, BASE, &[0, 4, 9, 11, 15]);
    let harvested = world.tracker.harvest(|run| {
        world.copy(run);
        Ok::<_, Infallible>(())
    });
    assert_eq!(harvested.unwrap().rearm_calls, 2);
    assert_eq!(protected(&world), [(0, 5), (9, 16)]);
    world.check();
}

#[test]
fn a_bridge_does_not_change_what_is_delivered() {
    for bridge in [0, 1, usize::MAX] {
        let world = world(bridge);
        let pages = [3, 9, 10, 40, 100];
        write_pages(&world, BASE, &pages);
        assert_eq!(world.harvest_pages(), pages.map(|page| BASE + page * PAGE));
        world.check();
    }
}

#[test]
fn a_bridge_does_not_reach_into_another_region() {
    // The regions are neighbours.
    let regions = [fine_region(BASE, BLOCK), fine_region(BASE + BLOCK, BLOCK)];
    let world = World::with(regions, |tracker| tracker.with_bridge(usize::MAX));
    world.arm();
    write_pages(&world, BASE, &[7]);
    write_pages(&world, BASE + BLOCK, &[0]);
    world.harvest();
    assert_eq!(protected(&world), [(7, 8), (8, 9)]);
}

#[test]
fn a_bridge_over_an_open_page_loses_nothing() {
    let world = world(16);
    write_pages(&world, BASE, &[0, 4]);
    let tracker = world.weak();
    // Between the drain and the protect a vCPU faults in the gap.
    world.host().at(Protect, Moment::Before, move || {
        crate::world::guest_store(&tracker.upgrade().unwrap(), BASE + 2 * PAGE, 77);
    });
    world.harvest();
    world.check();
    assert!(world.is_marked(BASE + 2 * PAGE));
    world.check_to_the_end();
}

/// Single pages, with gaps of two and now and then of three.
const MANY: [u64; RUNS] = {
    let mut pages = [0; RUNS];
    let mut i = 0;
    while i < RUNS {
        pages[i] = 3 * i as u64 + (i as u64 / 7);
        i += 1;
    }
    pages
};

fn write_many(world: &World) -> Vec<u64> {
    write_pages(world, BASE, &MANY);
    write_pages(world, SECOND, &[1, 3, 9]);
    world.marked()
}

#[test]
fn a_consumer_that_fails_at_any_run_loses_nothing() {
    for refused in if cfg!(miri) { 65..66 } else { 0..RUNS + 3 } {
        let world = world(2);
        let written = write_many(&world);
        let mut accepted = Vec::new();
        let error = world.tracker.harvest(|run| {
            if accepted.len() == refused {
                return Err("disk full");
            }
            world.copy(run);
            accepted.push(run);
            Ok(())
        });
        let (first, rest) = written[refused..].split_first().unwrap();
        let expected = HarvestError::Consumer {
            run: DirtyRun {
                start: *first,
                len: PAGE,
            },
            error: "disk full",
        };
        assert_eq!(error, Err(expected));
        world.check();
        // The next harvest has exactly what this one had not accepted.
        assert_eq!(world.harvest_pages(), written[refused..]);
        assert_eq!(rest.len(), written.len() - refused - 1);
        world.check_to_the_end();
    }
}

#[test]
fn a_consumer_that_unwinds_at_any_run_loses_nothing() {
    for unwound in if cfg!(miri) { 65..66 } else { 0..RUNS + 3 } {
        let world = world(2);
        let written = write_many(&world);
        let mut accepted = 0;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            world.tracker.harvest(|run| {
                if accepted == unwound {
                    resume_unwind(Box::new(()));
                }
                world.copy(run);
                accepted += 1;
                Ok::<_, Infallible>(())
            })
        }));
        assert!(outcome.is_err());
        world.check();
        assert_eq!(world.harvest_pages(), written[unwound..]);
    }
}

#[test]
fn the_consumers_error_is_shown_with_the_run() {
    let world = world(0);
    write_pages(&world, BASE, &[5]);
    let error = world.tracker.harvest(|_| Err("disk full")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the consumer refused 4096 bytes at 0x40005000: disk full"
    );
}

#[test]
fn a_protect_that_fails_at_any_call_loses_nothing() {
    for &how in Failure::ALL {
        for n in (0..).step_by(if cfg!(miri) { 50 } else { 1 }) {
            let world = world(2);
            write_many(&world);
            world.host().fail(Protect, n, how);
            let mut accepted = Vec::new();
            let outcome = world.tracker.harvest(|run| {
                world.copy(run);
                accepted.push(run.start);
                Ok::<_, Infallible>(())
            });
            if world.host().forgive() {
                assert!(
                    outcome.is_ok() && n > 3,
                    "all calls were made to fail in turn"
                );
                break;
            }
            let Err(HarvestError::Host { start, end, error }) = outcome else {
                panic!("{outcome:?}");
            };
            assert_eq!(error, HOST_ERROR);
            assert!(start < end && world.is_marked(start));
            world.check();
            for page in accepted {
                assert!(!world.host().is_writable(page), "accepted, and open");
            }
            world.check_to_the_end();
        }
    }
}

#[test]
fn the_hosts_error_is_shown_with_the_range() {
    let world = world(0);
    write_pages(&world, BASE, &[5]);
    world.host().fail(Protect, 0, Failure::AtOnce);
    let error = world
        .tracker
        .harvest(|_| Ok::<_, Infallible>(()))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "protecting 0x40005000..0x40006000 again failed: host error -12"
    );
}

#[test]
fn a_second_harvest_inside_a_consumer_is_refused() {
    let world = world(0);
    write_pages(&world, BASE, &[5]);
    let harvested = world.tracker.harvest(|run| {
        let busy = world.tracker.harvest(|_| Ok::<_, Infallible>(()));
        assert_eq!(busy, Err(HarvestError::Busy));
        world.copy(run);
        Ok::<_, Infallible>(())
    });
    assert!(harvested.is_ok());
    world.check_to_the_end();
}

#[test]
fn what_a_consumer_writes_is_for_the_next_harvest() {
    let world = world(0);
    write_pages(&world, BASE, &[5]);
    let again = BASE + 5 * PAGE;
    let harvested = world.tracker.harvest(|run| {
        world.copy(run);
        // Protected already, so it faults.
        assert!(world.write(run.start).is_some());
        Ok::<_, Infallible>(())
    });
    assert_eq!(harvested.map(|harvested| harvested.runs), Ok(1));
    world.check();
    assert!(world.harvest_pages().contains(&again));
    world.check_to_the_end();
}
