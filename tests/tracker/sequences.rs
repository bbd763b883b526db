//! Any sequence of operations, with failures anywhere: what must always hold, holds after each.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use pugmark::{CostModel, DirtyRun};

use crate::world::{
    BLOCK, Failure, Moment, PAGE, Protect, Unprotect, World, fine_region, guest_store, region,
};

const LOW: u64 = 0x4000_0000;
const HIGH: u64 = 1 << 32;
/// Pages in both regions together.
const PAGES: usize = 31 + 18;

/// What decides the granules.
#[derive(Debug, Clone, Copy)]
enum Policy {
    /// Coarse in one region, and soon fine in the other.
    StepDown,
    /// So many ns a fault, for one a page.
    CostModel(u64),
}

/// One region begins within a block, the other ends within a page.
fn world(bridge: usize, policy: Policy) -> World {
    let low = region(LOW + 5 * PAGE, 31 * PAGE);
    let high = fine_region(HIGH, 17 * PAGE + 9);
    let regions = match policy {
        Policy::StepDown => [low, high],
        Policy::CostModel(fault) => {
            let [fault, page] = [fault, 1].map(Duration::from_nanos);
            let model = CostModel::new(fault, page).expect("both cost something");
            [low, high].map(|region| region.with_cost_model(model))
        }
    };
    World::with(regions, |tracker| tracker.with_bridge(bridge))
}

#[derive(Debug, Clone)]
enum Op {
    Write(usize),
    /// A store whose grant fails once.
    WriteAndFail(usize, Failure),
    WriteAsVmm(usize, u64),
    Harvest,
    /// A store at this moment of the harvest's first protect.
    HarvestDuringWrite(usize, Moment),
    HarvestRefused(usize),
    HarvestUnwinds(usize),
    HarvestFails(usize, Failure),
    /// Stores while it is open, then a commit or a drop.
    TwoPhase(Vec<usize>, bool),
    TwoPhaseFails(usize, Failure),
    FinalHarvest,
    Arm,
    ArmFails(usize, Failure),
    Disarm,
    DisarmFails(usize, Failure),
    Tick(u64),
}

fn any_op() -> impl Strategy<Value = Op> {
    let page = || 0..PAGES;
    let how = || prop::sample::select(Failure::ALL);
    let moment = prop_oneof![Just(Moment::Before), Just(Moment::After)];
    let length = 1..3 * BLOCK;
    prop_oneof![
        8 => page().prop_map(Op::Write),
        2 => (page(), how()).prop_map(|(page, how)| Op::WriteAndFail(page, how)),
        2 => (page(), length).prop_map(|(page, length)| Op::WriteAsVmm(page, length)),
        3 => Just(Op::Harvest),
        2 => (page(), moment).prop_map(|(page, moment)| Op::HarvestDuringWrite(page, moment)),
        2 => (0..6_usize).prop_map(Op::HarvestRefused),
        1 => (0..6_usize).prop_map(Op::HarvestUnwinds),
        2 => (0..4_usize, how()).prop_map(|(n, how)| Op::HarvestFails(n, how)),
        2 => (vec(page(), 0..4), any::<bool>())
            .prop_map(|(pages, commit)| Op::TwoPhase(pages, commit)),
        1 => (0..4_usize, how()).prop_map(|(n, how)| Op::TwoPhaseFails(n, how)),
        1 => Just(Op::FinalHarvest),
        1 => Just(Op::Arm),
        1 => (0..2_usize, how()).prop_map(|(n, how)| Op::ArmFails(n, how)),
        1 => Just(Op::Disarm),
        1 => (0..2_usize, how()).prop_map(|(n, how)| Op::DisarmFails(n, how)),
        2 => (0..20_u64).prop_map(Op::Tick),
    ]
}

impl World {
    fn nth_page(&self, n: usize) -> u64 {
        self.pages().nth(n).expect("there are as many")
    }

    /// A harvest into the mirror that may fail.
    fn try_harvest(&self) {
        let accept = |run: DirtyRun| {
            self.copy(run);
            Ok::<_, Infallible>(())
        };
        let _ = self.tracker.harvest(accept);
    }

    fn two_phase(&self, pages: &[usize], commit: bool) {
        let Ok(harvest) = self.tracker.begin_harvest() else {
            panic!("nothing fails");
        };
        let held: Vec<_> = harvest.runs().collect();
        self.check_beside(&held);
        for &page in pages {
            self.write(self.nth_page(page));
            self.check_beside(&held);
        }
        if commit {
            harvest.runs().for_each(|run| self.copy(run));
            harvest.commit();
        }
    }

    fn step(&self, op: &Op, now: &mut u64) {
        let host = self.host();
        match *op {
            Op::Write(page) => drop(self.write(self.nth_page(page))),
            Op::WriteAndFail(page, how) => {
                host.fail(Unprotect, 0, how);
                let _ = self.tracker.on_write_fault(self.nth_page(page));
                self.check();
                self.write(self.nth_page(page));
            }
            Op::WriteAsVmm(page, length) => {
                let start = self.nth_page(page);
                let end = self.tracker.regions().iter();
                let end = end
                    .map(|region| region.page_range().end)
                    .find(|&end| start < end);
                self.write_as_vmm(start..end.map_or(start, |end| end.min(start + length)));
            }
            Op::Harvest => drop(self.harvest()),
            Op::HarvestDuringWrite(page, moment) => {
                let (tracker, ipa) = (self.weak(), self.nth_page(page));
                host.at(Protect, moment, move || {
                    guest_store(&tracker.upgrade().expect("alive"), ipa, u64::MAX - 1);
                });
                self.harvest();
            }
            Op::HarvestRefused(n) => drop(self.harvest_refused_at(n)),
            Op::HarvestUnwinds(n) => {
                let mut left = n;
                let accept = |run: DirtyRun| {
                    if left == 0 {
                        resume_unwind(Box::new(()));
                    }
                    left -= 1;
                    self.copy(run);
                    Ok::<_, Infallible>(())
                };
                let _ = catch_unwind(AssertUnwindSafe(|| self.tracker.harvest(accept)));
            }
            Op::HarvestFails(n, how) => {
                host.fail(Protect, n, how);
                self.try_harvest();
            }
            Op::TwoPhase(ref pages, commit) => self.two_phase(pages, commit),
            Op::TwoPhaseFails(n, how) => {
                host.fail(Protect, n, how);
                drop(self.tracker.begin_harvest());
            }
            Op::FinalHarvest => {
                let accept = |run: DirtyRun| {
                    self.copy(run);
                    Ok::<_, Infallible>(())
                };
                self.tracker
                    .final_harvest(accept)
                    .expect("no handler is under way");
                assert_eq!(self.marked(), [0; 0]);
            }
            Op::Arm => self.arm(),
            Op::ArmFails(n, how) => {
                host.fail(Protect, n, how);
                assert!(self.tracker.arm().is_err());
            }
            Op::Disarm => self.tracker.disarm().expect("the host opens"),
            Op::DisarmFails(n, how) => {
                host.fail(Unprotect, n, how);
                assert!(self.tracker.disarm().is_err());
            }
            Op::Tick(ms) => {
                *now += ms;
                self.tracker.tick(Duration::from_millis(*now));
            }
        }
        // What was asked for and did not come, because the operation had less to do.
        host.forget_plans();
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 1 } else { 600 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_sequence_of_operations_and_failures_loses_a_page(
        bridge in prop::sample::select(&[0, 1, 3, 16][..]),
        // With blocks of 8 pages, 4 break even for 1 ns a fault, and 1 for 1,000.
        policy in prop::sample::select(
            &[Policy::StepDown, Policy::CostModel(1), Policy::CostModel(1_000)][..]
        ),
        ops in vec(any_op(), 1..if cfg!(miri) { 10 } else { 60 }),
    ) {
        let world = world(bridge, policy);
        world.check();
        let mut now = 0;
        for op in &ops {
            world.step(op, &mut now);
        }
        world.check_to_the_end();
    }
}
