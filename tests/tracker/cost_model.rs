//! Granules by what a fault and a page cost.

use std::time::Duration;

use pugmark::{CostError, CostModel, Granule};

use crate::world::{
    BLOCK, Moment, PAGE, PAGES_PER_BLOCK, Protect, Unprotect, World, guest_store, region,
};

const BASE: u64 = 0x4000_0000;
const BLOCKS: u64 = 4;
const US: Duration = Duration::from_micros(1);

/// A fault costs as much as a page: of the 8 pages of a block 4 break even.
const EVEN: CostModel = match CostModel::new(US, US) {
    Ok(model) => model,
    Err(_) => panic!("not a model"),
};
const BREAK_EVEN: u64 = 4;

fn world() -> World {
    world_of(BLOCKS)
}

fn world_of(blocks: u64) -> World {
    World::armed([region(BASE, blocks * BLOCK).with_cost_model(EVEN)])
}

fn page(block: u64, page: u64) -> u64 {
    BASE + block * BLOCK + page * PAGE
}

impl World {
    /// Writes the first `pages` pages of `block`: how many of the writes faulted.
    fn write_pages(&self, block: u64, pages: u64) -> usize {
        let faults = (0..pages).filter_map(|n| self.write(page(block, n)));
        faults.count()
    }

    fn granule(&self, block: u64) -> Granule {
        let region = &self.tracker.regions()[0];
        region.granule_at(page(block, 0)).expect("it is tracked")
    }

    /// An epoch in which every page of `block` is written: the faults that it took.
    fn dense_epoch(&self, block: u64) -> usize {
        let faults = self.write_pages(block, PAGES_PER_BLOCK);
        self.harvest();
        self.check();
        faults
    }

    /// The same for one page.
    fn sparse_epoch(&self, block: u64) {
        self.write(page(block, 1));
        self.harvest();
        self.check();
    }

    /// Dense epochs until `block` is coarse.
    fn make_coarse(&self, block: u64) {
        let mut epochs = 0..20;
        while self.granule(block) == Granule::Page && epochs.next().is_some() {
            self.dense_epoch(block);
        }
        assert_eq!(self.granule(block), Granule::Block);
    }
}

#[test]
fn the_presets_break_even_where_they_were_measured() {
    assert_eq!(CostModel::HVF_MEMORY.break_even(128), 33);
    assert_eq!(CostModel::HVF_PACKED.break_even(128), 89);
    assert_eq!(CostModel::UFFD_MEMORY.break_even(512), 35);
    assert_eq!(CostModel::UFFD_PACKED.break_even(512), 161);
    assert_eq!(EVEN.break_even(PAGES_PER_BLOCK), BREAK_EVEN);
    assert_eq!((EVEN.fault(), EVEN.page()), (US, US));
}

#[test]
fn costs_that_decide_nothing_are_refused() {
    let zero = Duration::ZERO;
    assert_eq!(CostModel::new(zero, US), Err(CostError::FreeFault));
    assert_eq!(CostModel::new(US, zero), Err(CostError::FreePage));
    let most = Duration::from_nanos(u32::MAX.into());
    assert!(CostModel::new(most, most).is_ok());
    let cost = most + Duration::from_nanos(1);
    assert_eq!(CostModel::new(cost, US), Err(CostError::TooLong { cost }));
    assert_eq!(CostModel::new(US, cost), Err(CostError::TooLong { cost }));
}

#[test]
fn errors_say_what_is_wrong() {
    let cost = Duration::from_secs(5);
    let text = [
        CostError::FreeFault,
        CostError::FreePage,
        CostError::TooLong { cost },
    ]
    .map(|error| error.to_string());
    assert_eq!(
        text,
        [
            "a fault costs less than a nanosecond",
            "copying a page costs less than a nanosecond",
            "a cost of 5s is above 4.29 s",
        ]
    );
}

#[test]
#[cfg_attr(miri, ignore = "many epochs, of arithmetic")]
fn extreme_costs_overflow_nothing() {
    let [least, most] = [1, u32::MAX.into()].map(Duration::from_nanos);
    for (fault, cost) in [(least, most), (most, least), (most, most), (least, least)] {
        let model = CostModel::new(fault, cost).unwrap();
        assert!(model.break_even(u64::MAX) >= 1);
        let world = World::armed([region(BASE, BLOCKS * BLOCK).with_cost_model(model)]);
        for n in 0..40 {
            world.write_pages(0, n % PAGES_PER_BLOCK + 1);
            world.harvest();
            world.check();
        }
    }
}

#[test]
fn a_sparse_block_is_reported_by_the_page_from_the_start() {
    let world = world();
    for _ in 0..20 {
        let written = [page(0, 1), page(0, 6)];
        for page in written {
            world.write(page);
        }
        assert_eq!(world.harvest_pages(), written);
    }
    assert_eq!(world.tracker.counters().step_ups, 0);
}

#[test]
fn the_fault_after_the_break_even_opens_the_block() {
    let world = world();
    for n in 0..BREAK_EVEN {
        let granted = world.write(page(3, n)).expect("a fault");
        assert_eq!(granted.span, page(3, n)..page(3, n + 1));
    }
    let granted = world.write(page(3, 6)).expect("a fault");
    assert_eq!(granted.span, page(3, 0)..page(4, 0));
    // The rest needs no fault, and is found.
    assert_eq!(world.write(page(3, 7)), None);
    assert_eq!(world.harvest_pages().len() as u64, PAGES_PER_BLOCK);
    assert_eq!(world.granule(2), Granule::Page, "each block has its own");
    world.check_to_the_end();
}

#[test]
fn credit_shrinks_with_what_it_cost_and_grows_with_what_it_saved() {
    let world = world();
    let dense = world.dense_epoch(0);
    assert_eq!(dense as u64, BREAK_EVEN + 1);
    assert!(world.dense_epoch(0) < dense);

    for _ in 0..10 {
        world.sparse_epoch(1);
    }
    // Two and a half times the break-even is more than the block has.
    assert_eq!(world.dense_epoch(1) as u64, PAGES_PER_BLOCK);
}

#[test]
#[cfg_attr(miri, ignore = "many epochs, of arithmetic")]
fn a_dense_block_becomes_coarse_and_is_sampled_ever_more_rarely() {
    let world = world();
    world.make_coarse(0);
    assert_eq!(world.tracker.counters().step_ups, 1);
    let samples: Vec<_> = (0..70).filter(|_| world.dense_epoch(0) > 1).collect();
    // After 1, 2, 4, 8, 16 and 16 coarse epochs.
    assert_eq!(samples, [1, 4, 9, 18, 35, 52, 69]);
    assert_eq!(world.tracker.counters().step_downs, 0);
}

#[test]
fn a_coarse_block_that_turns_sparse_is_fine_after_a_sample() {
    let world = world();
    world.make_coarse(0);
    let mut epochs = 0;
    while world.tracker.counters().step_downs == 0 {
        world.sparse_epoch(0);
        epochs += 1;
    }
    assert_eq!(epochs, 2, "a coarse one, and the sample");
    world.write(page(0, 5));
    assert_eq!(world.harvest_pages(), [page(0, 5)]);
}

#[test]
fn an_epoch_without_a_fault_shows_nothing() {
    let world = world();
    world.make_coarse(0);
    // Neither harvests alone, nor what the VMM wrote, bring the next sample nearer.
    for _ in 0..40 {
        world.write_as_vmm(page(0, 0)..page(1, 0));
        world.harvest();
        world.harvest();
        assert_eq!(world.granule(0), Granule::Block);
    }
    // And a fine block stays fine, whatever the VMM writes.
    world.write_as_vmm(page(1, 0)..page(2, 0));
    world.harvest();
    assert_eq!(world.granule(1), Granule::Page);
    assert_eq!(world.tracker.counters().step_ups, 1);
}

#[test]
#[cfg_attr(miri, ignore = "many epochs, of arithmetic")]
fn blocks_that_nobody_wrote_follow_those_first_written_lately() {
    const BLOCKS: u64 = 32;
    let world = world_of(BLOCKS);
    let fine = |world: &World| {
        let fine = (0..BLOCKS).filter(|&block| world.granule(block) == Granule::Page);
        fine.count() as u64
    };
    assert_eq!(fine(&world), BLOCKS);
    let mut block = 0;
    while fine(&world) > BLOCKS / 2 {
        world.dense_epoch(block);
        block += 1;
        assert!(block < 4, "dense blocks make others coarse");
    }
    let fine_ones: Vec<_> = (block..BLOCKS)
        .filter(|&block| world.granule(block) == Granule::Page)
        .collect();
    let samples = fine_ones.len() as u64;
    assert!(
        (1..BLOCKS / 8).contains(&samples),
        "about one in 16: {fine_ones:?}"
    );
    assert_eq!(world.dense_epoch(block + 1), 1, "coarse at the first write");
    assert_eq!(world.dense_epoch(block + 1), 2, "a sample");

    // A sample that is sparse makes the rest fine again, but not those that were dense.
    world.sparse_epoch(fine_ones[0]);
    assert_eq!(world.granule(BLOCKS - 1), Granule::Page);
    assert_eq!(world.granule(block + 1), Granule::Block);
    world.check_to_the_end();
}

#[test]
fn a_checkpoint_forgets() {
    let world = world();
    world.make_coarse(0);
    world.arm();
    assert_eq!(world.granule(0), Granule::Page);
    assert_eq!(world.dense_epoch(0) as u64, BREAK_EVEN + 1);
}

#[test]
fn a_harvest_that_fails_and_is_repeated_teaches_once() {
    let world = world();
    let dense = world.write_pages(0, PAGES_PER_BLOCK);
    for _ in 0..20 {
        world.harvest_refused_at(0);
        world.check();
    }
    world.harvest();
    assert_eq!(world.granule(0), Granule::Page);
    assert_eq!(world.dense_epoch(0), dense - 1);
    assert_eq!(world.tracker.counters().step_ups, 0);
}

#[test]
#[cfg_attr(miri, ignore = "many epochs, of arithmetic")]
fn it_needs_no_tick() {
    let world = world();
    for now in 0..50 {
        world.tracker.tick(Duration::from_secs(now));
        world.sparse_epoch(0);
    }
    assert_eq!(world.granule(0), Granule::Page);
    world.make_coarse(1);
    for now in 50..100 {
        world.tracker.tick(Duration::from_secs(now));
        assert_eq!(world.granule(1), Granule::Block);
    }
}

#[test]
fn a_block_that_steps_up_in_the_middle_of_a_fault_is_granted_and_marked_by_the_page() {
    for moment in [Moment::Before, Moment::After] {
        let world = world();
        // Its credit is spent in this epoch as well: the next harvest makes it coarse.
        while world.tracker.counters().step_ups == 0 && world.granule(0) == Granule::Page {
            world.write_pages(0, PAGES_PER_BLOCK);
            let tracker = world.weak();
            world.host().at(Unprotect, moment, move || {
                let tracker = tracker.upgrade().expect("alive");
                tracker.harvest(|_| Err(())).unwrap_err();
            });
            let granted = world.fault(page(1, 0));
            assert_eq!(granted.span, page(1, 0)..page(1, 1));
            world.check();
            world.harvest();
            world.check();
        }
        assert_eq!(world.granule(0), Granule::Block);
        world.check_to_the_end();
    }
}

#[test]
#[cfg_attr(miri, ignore = "many epochs, of arithmetic")]
fn a_block_that_steps_up_or_down_beside_a_write_loses_nothing() {
    for moment in [Moment::Before, Moment::After] {
        let world = world();
        for epoch in 0..40 {
            // Dense, then sparse: coarse, and fine again.
            let pages = if epoch % 20 < 10 { PAGES_PER_BLOCK } else { 1 };
            world.write_pages(0, pages);
            let tracker = world.weak();
            world.host().at(Protect, moment, move || {
                let tracker = tracker.upgrade().expect("alive");
                // A vCPU, between the drain and the protect, or right after.
                guest_store(&tracker, page(0, 0), u64::MAX - epoch);
            });
            world.harvest();
            world.check();
        }
        let counters = world.tracker.counters();
        assert!(
            counters.step_ups > 0 && counters.step_downs > 0,
            "{counters:?}"
        );
        world.check_to_the_end();
    }
}
