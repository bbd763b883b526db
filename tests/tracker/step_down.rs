//! From coarse to fine.

use std::time::Duration;

use pugmark::{Granule, StepDown, StepDownScope};

use crate::world::{BLOCK, PAGE, World, region};

const BASE: u64 = 0x4000_0000;
const BLOCKS: u64 = 4;
/// Windows, where one more should make no difference.
const WINDOWS: u64 = if cfg!(miri) { 4 } else { 50 };

const RULE: StepDown = StepDown {
    threshold: 8,
    window: Duration::from_millis(100),
    scope: StepDownScope::Block,
};

/// A clean checkpoint, and the clock begun at `ms(1)`.
fn world(rule: StepDown) -> World {
    let world = World::armed([region(BASE, BLOCKS * BLOCK).with_step_down(rule)]);
    world.tracker.tick(ms(1));
    world
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

impl World {
    /// `n` faults in `block`: of as many vCPUs, or with harvests in between.
    fn faults(&self, block: u64, n: usize) {
        for _ in 0..n {
            self.fault(BASE + block * BLOCK + 2 * PAGE);
        }
    }

    fn fine_blocks(&self) -> Vec<u64> {
        let region = &self.tracker.regions()[0];
        let fine = |block: &u64| region.granule_at(BASE + block * BLOCK) == Some(Granule::Page);
        (0..BLOCKS).filter(fine).collect()
    }
}

#[test]
fn the_defaults_are_32_faults_in_100_ms_by_block() {
    let rule = StepDown::default();
    assert_eq!((rule.threshold, rule.window), (32, ms(100)));
    assert_eq!(rule.scope, StepDownScope::Block);
    let world = world(rule);
    world.faults(0, 32);
    world.faults(1, 33);
    world.tracker.tick(ms(101));
    assert_eq!(world.fine_blocks(), [1]);
}

#[test]
fn more_faults_than_the_threshold_in_a_window_step_a_block_down() {
    let world = world(RULE);
    world.faults(1, 8);
    world.faults(2, 9);
    assert_eq!(world.fine_blocks(), [0; 0], "before the tick");
    world.tracker.tick(ms(101));
    assert_eq!(world.fine_blocks(), [2]);
    assert_eq!(world.tracker.counters().step_downs, 1);
    assert_eq!(world.fault(BASE + 2 * BLOCK + 3 * PAGE).span, {
        let page = BASE + 2 * BLOCK + 3 * PAGE;
        page..page + PAGE
    });
    world.check_to_the_end();
}

#[test]
fn a_tick_inside_the_window_does_nothing() {
    let world = world(RULE);
    world.faults(0, 9);
    for now in 2..101 {
        world.tracker.tick(ms(now));
    }
    assert_eq!(world.fine_blocks(), [0; 0]);
    world.tracker.tick(ms(101));
    assert_eq!(world.fine_blocks(), [0]);
}

#[test]
fn a_late_tick_does_not_invent_a_hot_block() {
    // Ten windows: 80 faults are 8 a window, 81 are more.
    let world = world(RULE);
    world.faults(0, 80);
    world.faults(1, 81);
    world.tracker.tick(ms(1001));
    assert_eq!(world.fine_blocks(), [1]);
}

#[test]
fn the_first_tick_only_starts_the_clock() {
    let world = World::armed([region(BASE, BLOCKS * BLOCK).with_step_down(RULE)]);
    world.faults(0, 100);
    // However late: nobody knows how long the faults took.
    world.tracker.tick(ms(500_000));
    assert_eq!(world.fine_blocks(), [0; 0]);
    world.faults(1, 9);
    world.tracker.tick(ms(500_100));
    assert_eq!(world.fine_blocks(), [1]);
}

#[test]
fn a_clock_that_starts_at_zero_is_a_clock() {
    let world = World::armed([region(BASE, BLOCKS * BLOCK).with_step_down(RULE)]);
    world.tracker.tick(Duration::ZERO);
    world.faults(0, 9);
    world.tracker.tick(ms(100));
    world.tracker.tick(ms(101));
    assert_eq!(world.fine_blocks(), [0]);
}

#[test]
fn each_window_counts_anew() {
    let world = world(RULE);
    for window in 1..WINDOWS {
        world.faults(0, 8);
        world.tracker.tick(ms(1 + window * 100));
    }
    assert_eq!(world.fine_blocks(), [0; 0]);
}

#[test]
fn faults_spread_thinly_over_many_blocks_never_step_down() {
    let world = world(RULE);
    for window in 1..WINDOWS {
        for block in 0..BLOCKS {
            world.faults(block, 8);
        }
        world.tracker.tick(ms(1 + window * 100));
    }
    assert_eq!(world.fine_blocks(), [0; 0]);
    assert_eq!(world.tracker.counters().step_downs, 0);
}

#[test]
fn by_region_thin_faults_add_up_and_all_blocks_step_down() {
    let world = world(StepDown {
        scope: StepDownScope::Region,
        ..RULE
    });
    for block in 0..BLOCKS {
        world.faults(block, 2);
    }
    world.tracker.tick(ms(101));
    assert_eq!(world.fine_blocks(), [0; 0], "8 in all");

    for block in 0..BLOCKS {
        world.faults(block, 2);
    }
    world.faults(3, 1);
    world.tracker.tick(ms(201));
    assert_eq!(world.fine_blocks(), [0, 1, 2, 3], "9 in all");
    assert_eq!(world.tracker.counters().step_downs, BLOCKS as usize);
}

#[test]
fn one_region_does_not_step_another_down() {
    let rule = StepDown {
        scope: StepDownScope::Region,
        ..RULE
    };
    let other = BASE + 2 * BLOCKS * BLOCK;
    let regions = [BASE, other].map(|base| region(base, BLOCK).with_step_down(rule));
    let world = World::armed(regions);
    world.tracker.tick(ms(1));
    for _ in 0..9 {
        world.fault(other);
    }
    world.tracker.tick(ms(101));
    let granules = world.tracker.regions().iter();
    let granules: Vec<_> = granules
        .map(|region| region.granule_at(region.base()))
        .collect();
    assert_eq!(granules, [Some(Granule::Block), Some(Granule::Page)]);
}

#[test]
fn a_step_down_is_one_way_until_the_next_checkpoint() {
    let world = world(RULE);
    world.faults(0, 9);
    world.tracker.tick(ms(101));
    world.harvest();
    // Many quiet windows.
    for window in 2..WINDOWS {
        world.tracker.tick(ms(1 + window * 100));
    }
    assert_eq!(world.fine_blocks(), [0]);

    world.arm();
    assert_eq!(world.fine_blocks(), [0; 0]);
    // And it can happen again, after a first tick that starts the clock anew.
    world.faults(0, 9);
    world.tracker.tick(ms(9_000));
    assert_eq!(world.fine_blocks(), [0; 0]);
    world.faults(0, 9);
    world.tracker.tick(ms(9_100));
    assert_eq!(world.fine_blocks(), [0]);
}

#[test]
fn never_never_steps_down() {
    let world = world(StepDown::NEVER);
    world.faults(0, if cfg!(miri) { 50 } else { 4_000 });
    world.tracker.tick(ms(101));
    assert_eq!(world.fine_blocks(), [0; 0]);
}

#[test]
fn pages_that_a_coarse_grant_opened_stay_marked_across_a_step_down() {
    let world = world(RULE);
    world.faults(0, 9);
    world.tracker.tick(ms(101));
    assert_eq!(world.fine_blocks(), [0]);
    world.check();
    // Open since the coarse grant: written without a fault, and found.
    let page = BASE + 7 * PAGE;
    assert_eq!(world.write(page), None);
    assert!(world.harvest_pages().contains(&page));
    world.check();
    // Drained, hence protected: from now on page by page.
    assert!(world.write(page).is_some());
    assert_eq!(world.harvest_pages(), [page]);
}

#[test]
fn a_clock_that_wraps_or_goes_back_steps_nothing_down() {
    let world = world(RULE);
    world.faults(0, 8);
    for now in [
        ms(50),
        Duration::ZERO,
        Duration::MAX,
        ms(u64::from(u32::MAX) + 1),
    ] {
        world.tracker.tick(now);
    }
    assert_eq!(world.fine_blocks(), [0; 0]);
    world.check();
}
