//! What a harvest gives the host to protect: no more, and in no more ranges, than it must.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Mutex;

use pugmark::{WriteProtect, WriteTracker};

use crate::world::{PAGE, Protect, Region, Regions, World, region};

/// Pages that are tried in every combination.
const FEW: u32 = if cfg!(miri) { 4 } else { 9 };

/// A host that says what a range costs it, in pages, and keeps what it was given.
struct Host {
    bridge: usize,
    given: Mutex<Vec<Range<u64>>>,
}

impl WriteProtect for Host {
    type Error = Infallible;

    fn protect(&self, range: Range<u64>) -> Result<(), Infallible> {
        self.given.lock().unwrap().push(range);
        Ok(())
    }

    fn bridge(&self) -> usize {
        self.bridge
    }

    fn unprotect(&self, _: Range<u64>) -> Result<(), Infallible> {
        Ok(())
    }
}

fn tracker(bridge: usize, pages: u32) -> WriteTracker<Host, Regions> {
    let given = Mutex::default();
    let regions = Regions(vec![region(0, u64::from(pages) * PAGE)]);
    let tracker = WriteTracker::new(Host { bridge, given }, regions).unwrap();
    tracker.arm().unwrap();
    tracker.protection().given.lock().unwrap().clear();
    tracker
}

fn mark(region: &Region, dirty: u32) {
    for page in (0..FEW).filter(|page| dirty >> page & 1 != 0) {
        region.dirty().mark(page as usize).unwrap();
    }
}

/// With a range at the cost of `bridge` pages.
fn cost(bridge: usize, ranges: usize, pages: u64) -> u64 {
    (ranges * bridge) as u64 + pages
}

/// Of all sets of pages to protect, each in as few ranges as it is, the cheapest.
fn least(bridge: usize, dirty: u32) -> u64 {
    let covers = (0..1_u32 << FEW).filter(|covered| dirty & !covered == 0);
    let costs = covers.map(|covered| {
        let ranges = (covered & !(covered << 1)).count_ones();
        cost(bridge, ranges as usize, covered.count_ones().into())
    });
    costs.min().unwrap()
}

#[test]
fn no_other_ranges_cost_less() {
    for bridge in [0, 1, 2, 3, 100] {
        let tracker = tracker(bridge, FEW);
        for dirty in 0..1_u32 << FEW {
            for held in [false, true] {
                mark(&tracker.regions()[0], dirty);
                if held {
                    tracker.begin_harvest().unwrap().commit();
                } else {
                    tracker.harvest(|_| Ok::<_, Infallible>(())).unwrap();
                }
                let given = std::mem::take(&mut *tracker.protection().given.lock().unwrap());
                let pages = given.iter().map(|range| (range.end - range.start) / PAGE);
                let pages = pages.sum();
                let ours = cost(bridge, given.len(), pages);
                assert_eq!(ours, least(bridge, dirty), "{dirty:#b}, {bridge}, {held}");
            }
        }
    }
}

#[test]
fn the_hosts_bridge_counts_unless_another_is_set() {
    let calls = |tracker: WriteTracker<Host, Regions>| {
        mark(&tracker.regions()[0], 0b1001);
        let harvested = tracker.harvest(|_| Ok::<_, Infallible>(()));
        harvested.unwrap().rearm_calls
    };
    assert_eq!(calls(tracker(2, FEW)), 1);
    assert_eq!(calls(tracker(1, FEW)), 2);
    assert_eq!(calls(tracker(1, FEW).with_bridge(2)), 1);
    assert_eq!(calls(tracker(2, FEW).with_bridge(0)), 2);
}

#[test]
fn a_host_is_asked_through_a_reference_an_arc_and_a_lock() {
    struct Editor;
    impl pugmark::WriteProtectMut for Editor {
        type Error = Infallible;
        fn protect(&mut self, _: Range<u64>) -> Result<(), Infallible> {
            Ok(())
        }
        fn bridge(&self) -> usize {
            7
        }
        fn unprotect(&mut self, _: Range<u64>) -> Result<(), Infallible> {
            Ok(())
        }
    }
    fn bridge(host: impl WriteProtect) -> usize {
        host.bridge()
    }
    let given = Mutex::default();
    let host = Host { bridge: 5, given };
    assert_eq!(bridge(&host), 5);
    #[cfg(feature = "alloc")]
    assert_eq!(bridge(std::sync::Arc::new(host)), 5);
    #[cfg(feature = "std")]
    assert_eq!(bridge(Mutex::new(Editor)), 7);
    #[cfg(feature = "spin")]
    assert_eq!(bridge(spin::mutex::Mutex::<_>::new(Editor)), 7);
    #[cfg(feature = "critical-section")]
    {
        use std::cell::RefCell;
        let editor = critical_section::Mutex::new(RefCell::new(Editor));
        assert_eq!(bridge(editor), 7);
    }
    let _ = Editor;
}

/// A streaming harvest bridges within a batch of 64 runs; what is held until a commit is bridged as
/// far as it goes.
#[test]
fn what_is_held_is_bridged_across_more_runs_than_a_batch() {
    const RUNS: u64 = 65;
    let world = World::with([region(0, 2 * RUNS * PAGE)], |tracker| {
        tracker.with_bridge(1)
    });
    world.arm();
    let write = || {
        for page in (0..2 * RUNS).step_by(2) {
            world.write_as_vmm(page * PAGE..page * PAGE + 1);
        }
        world.host().take_calls();
    };
    write();
    assert_eq!(world.harvest().len() as u64, RUNS);
    let streamed = [(Protect, 0..127 * PAGE), (Protect, 128 * PAGE..129 * PAGE)];
    assert_eq!(world.host().take_calls(), streamed);
    write();
    let harvest = world.tracker.begin_harvest().unwrap();
    assert_eq!(harvest.harvested().runs as u64, RUNS);
    assert_eq!(harvest.harvested().rearm_calls, 1);
    assert_eq!(world.host().take_calls(), [(Protect, 0..129 * PAGE)]);
    harvest.commit();
}
