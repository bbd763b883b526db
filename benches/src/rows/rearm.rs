//! What the host has to do for a harvest's re-arm, against the least that would do.
//!
//! The harvests are real, over a host that only counts what it is given. The costs are computed from
//! that, with figures of real hosts, and are the same in each run. The limit knows all runs of a harvest
//! in advance. The peers bridge no gap, or every one.

mod cost;
mod dirty;

use std::convert::Infallible;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use pugmark::{BoxedRegion, PageGeometry, WriteProtect, WriteTracker};

use super::Row;
use crate::harness::{Bench, Contender, Measured, Turn, limit, peer, us};
pub use cost::Cost;
use dirty::Dirty;

pub const TRACE_UFFD: Row = row(
    "rearm-trace-uffd",
    "re-arm after each epoch of a recorded Linux, userfaultfd",
    |_| measure(Cost::UFFD, &dirty::recorded(), Form::Streaming),
);

pub const TRACE_STAGE2: Row = noted(
    "rearm-trace-stage2",
    "re-arm after each epoch of a recorded Linux, stage-2 tables",
    |_| measure(Cost::STAGE2, &dirty::recorded(), Form::Streaming),
    Some(BATCHES),
);

pub const TRACE_STAGE2_HELD: Row = row(
    "rearm-trace-stage2-held",
    "the same, held until a commit",
    |_| measure(Cost::STAGE2, &dirty::recorded(), Form::Held),
);

pub const TRACE_HVF: Row = noted(
    "rearm-trace-hvf",
    "re-arm after each epoch of a recorded Linux, Hypervisor.framework",
    |_| measure(Cost::HVF, &dirty::recorded(), Form::Streaming),
    Some(BATCHES),
);

pub const TRACE_HVF_HELD: Row = row(
    "rearm-trace-hvf-held",
    "the same, held until a commit",
    |_| measure(Cost::HVF, &dirty::recorded(), Form::Held),
);

pub const RANDOM_1: Row = row(
    "rearm-random-1",
    "re-arm 1 GiB, 1 % of its pages dirty, userfaultfd",
    |_| measure(Cost::UFFD, &dirty::random(1), Form::Streaming),
);

pub const RANDOM_10: Row = row(
    "rearm-random-10",
    "re-arm 1 GiB, 10 % of its pages dirty, userfaultfd",
    |_| measure(Cost::UFFD, &dirty::random(10), Form::Streaming),
);

pub const RANDOM_50: Row = row(
    "rearm-random-50",
    "re-arm 1 GiB, 50 % of its pages dirty, userfaultfd",
    |_| measure(Cost::UFFD, &dirty::random(50), Form::Streaming),
);

/// Of a streaming harvest, where a call is dear and the rest is cheap.
const BATCHES: &str = "a streaming harvest protects 64 runs at a time, which fit in 1 KiB of stack, and \
    copies them before it protects more: a page protected early is written, and copied, twice. Tried: 32 \
    runs give 2.2 and 5.5 for tables and Hypervisor.framework, 128 give 1.2 and 1.7. What is held until a \
    commit has no batches";

const fn row(name: &'static str, work: &'static str, measure: fn(&Bench) -> Measured) -> Row {
    noted(name, work, measure, None)
}

const fn noted(
    name: &'static str,
    work: &'static str,
    measure: fn(&Bench) -> Measured,
    note: Option<&'static str>,
) -> Row {
    Row {
        name,
        work,
        unit: "harvest",
        measure,
        note,
    }
}

/// A harvest that delivers as it goes, or one that holds all until it is committed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Streaming,
    Held,
}

fn measure(cost: Cost, dirty: &Dirty, form: Form) -> Measured {
    let ours = |bridge| move || computed(harvests(cost, dirty, form, bridge), dirty);
    let least = || {
        let each = |runs: &Vec<Range<usize>>| cost.least(runs);
        computed(dirty.harvests.iter().map(each).sum(), dirty)
    };
    let contenders: [Contender<'_>; 4] = [
        limit("the least", least).at_most(1.1),
        us(ours(None)),
        peer("no gap bridged", ours(Some(0))),
        peer("every gap bridged", ours(Some(usize::MAX))),
    ];
    // What is computed does not get better with time.
    Bench::new(Duration::ZERO).rounds(contenders)
}

fn computed(nanoseconds: f64, dirty: &Dirty) -> Turn {
    Turn::fixed(Duration::from_nanos(
        (nanoseconds / dirty.harvests.len() as f64) as u64,
    ))
}

/// What all harvests cost the host together, in nanoseconds.
fn harvests(cost: Cost, dirty: &Dirty, form: Form, bridge: Option<usize>) -> f64 {
    let region = BoxedRegion::boxed(0, (dirty.pages * PAGE) as u64, PageGeometry::ARM64_4K);
    let regions = vec![region.expect("whole pages")];
    let tracker = WriteTracker::new(Host::new(cost), regions).expect("one region");
    let tracker = match bridge {
        Some(pages) => tracker.with_bridge(pages),
        None => tracker,
    };
    tracker.arm().expect("it only counts");
    let bitmap = tracker.regions()[0].dirty();
    let host = tracker.protection();
    host.take();
    let mut sum = 0.0;
    for runs in &dirty.harvests {
        for run in runs {
            bitmap.mark_range(run.clone()).expect("inside");
        }
        let harvested = match form {
            Form::Streaming => tracker
                .harvest(|_| Ok::<_, Infallible>(()))
                .expect("it only counts"),
            Form::Held => tracker.begin_harvest().expect("it only counts").commit(),
        };
        let pages: usize = runs.iter().map(Range::len).sum();
        assert_eq!(harvested.pages, pages);
        let given = host.take();
        assert_eq!(harvested.rearm_calls as u64, given.ranges);
        sum += cost.of(given.calls as f64, given.ranges as f64, given.pages as f64);
    }
    sum
}

const PAGE: usize = 4096;

/// Counts what it is to protect.
struct Host {
    cost: Cost,
    calls: AtomicU64,
    ranges: AtomicU64,
    pages: AtomicU64,
}

/// Since it was last asked.
struct Given {
    /// Of `protect_all`.
    calls: u64,
    ranges: u64,
    pages: u64,
}

impl Host {
    fn new(cost: Cost) -> Self {
        Self {
            cost,
            calls: AtomicU64::new(0),
            ranges: AtomicU64::new(0),
            pages: AtomicU64::new(0),
        }
    }

    fn take(&self) -> Given {
        Given {
            calls: self.calls.swap(0, Relaxed),
            ranges: self.ranges.swap(0, Relaxed),
            pages: self.pages.swap(0, Relaxed),
        }
    }
}

impl WriteProtect for Host {
    type Error = Infallible;

    fn protect(&self, range: Range<u64>) -> Result<(), Infallible> {
        self.protect_all(&[range])
    }

    fn protect_all(&self, ranges: &[Range<u64>]) -> Result<(), Infallible> {
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        self.calls.fetch_add(1, Relaxed);
        self.ranges.fetch_add(ranges.len() as u64, Relaxed);
        self.pages.fetch_add(bytes / PAGE as u64, Relaxed);
        Ok(())
    }

    fn bridge(&self) -> usize {
        self.cost.bridge
    }

    fn unprotect(&self, _: Range<u64>) -> Result<(), Infallible> {
        Ok(())
    }
}
