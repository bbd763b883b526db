//! Replays a trace through a real tracker, epoch by epoch, and counts what it cost; beside it what
//! those would have paid who know the trace beforehand.
//!
//! A cost is fault × faults + page × pages harvested, as in [`CostModel`], in ns of the model. No
//! clock is read: the same trace always costs the same.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Range;
use std::time::Duration;

use pugmark::{
    BoxedRegion, CostModel, DirtyRun, FaultOutcome, PageGeometry, StepDown, WriteProtect,
    WriteTracker,
};

use super::traces::{Epoch, Record, Trace};

pub const BLOCK: u64 = 2 << 20;

/// Who decides the granules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Policy {
    CostModel,
    StepDown(StepDown),
    /// Every block coarse, always.
    Coarse,
    /// Every block fine, always.
    Fine,
}

/// What a replay cost, in ns of the model.
pub fn cost(trace: &Trace, model: CostModel, policy: Policy) -> u64 {
    let page = trace.page_size;
    let block = if policy == Policy::Fine { page } else { BLOCK };
    let geometry = PageGeometry::new(page, block).expect("powers of two");
    let (base, size) = (trace.first_page * page, trace.pages * page);
    let region = BoxedRegion::boxed(base, size, geometry).expect("a region");
    let region = match policy {
        Policy::CostModel => region.with_cost_model(model),
        Policy::StepDown(rule) => region.with_step_down(rule),
        Policy::Coarse | Policy::Fine => region.with_step_down(StepDown::NEVER),
    };
    let host = Pages::new(base, page, trace.pages);
    let tracker = WriteTracker::new(host, [region]).expect("one region");
    tracker.arm().expect("the host protects");

    let (mut faults, mut pages) = (0, 0);
    let mut now = Duration::from_millis(1);
    tracker.tick(now);
    for epoch in epochs(trace) {
        for address in epoch.runs.iter().cloned().flatten() {
            let address = base + address * page;
            if tracker.protection().is_writable(address) {
                continue;
            }
            faults += 1;
            let outcome = tracker.on_write_fault(address).expect("the host grants");
            assert!(matches!(outcome, FaultOutcome::Granted { .. }));
            assert!(tracker.protection().is_writable(address));
        }
        let mut harvested = Vec::new();
        let accept = |run: DirtyRun| {
            pages += run.len / page;
            harvested.push((run.start - base) / page..(run.range().end - base) / page);
            Ok::<_, Infallible>(())
        };
        tracker.harvest(accept).expect("nothing fails");
        for run in &epoch.runs {
            assert!(is_in(run, &harvested), "the pages {run:?} are lost");
        }
        now += epoch.time;
        tracker.tick(now);
    }
    price(model, faults, pages)
}

/// Whether `runs`, which may touch one another, hold all of `run`.
fn is_in(run: &Range<u64>, runs: &[Range<u64>]) -> bool {
    let first = runs.partition_point(|other| other.end <= run.start);
    let mut start = run.start;
    for other in &runs[first..] {
        if other.start > start || start >= run.end {
            break;
        }
        start = other.end;
    }
    start >= run.end
}

fn price(model: CostModel, faults: u64, pages: u64) -> u64 {
    let ns = |cost: Duration| cost.as_nanos() as u64;
    faults * ns(model.fault()) + pages * ns(model.page())
}

/// What those pay who know the trace.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Each block has the granule that is best for the whole trace.
    pub best_fixed: u64,
    /// Each block has the best granule in each epoch.
    pub clairvoyant: u64,
}

pub fn known(trace: &Trace, model: CostModel) -> Known {
    let mut fixed = BTreeMap::<u64, [u64; 2]>::new();
    let mut clairvoyant = 0;
    for epoch in epochs(trace) {
        for (block, written) in by_block(trace, epoch) {
            let pages = pages_of(trace, block);
            let costs = [
                price(model, written, written),
                price(model, 1, pages.end - pages.start),
            ];
            let sums = fixed.entry(block).or_default();
            sums.iter_mut()
                .zip(costs)
                .for_each(|(sum, cost)| *sum += cost);
            clairvoyant += costs[0].min(costs[1]);
        }
    }
    Known {
        best_fixed: fixed.values().map(|[fine, coarse]| fine.min(coarse)).sum(),
        clairvoyant,
    }
}

/// The blocks that were written, and how many of their pages.
fn by_block(trace: &Trace, epoch: &Epoch) -> BTreeMap<u64, u64> {
    let mut written = BTreeMap::new();
    for page in epoch.runs.iter().cloned().flatten() {
        let block = (trace.first_page + page) * trace.page_size / BLOCK;
        *written.entry(block).or_default() += 1;
    }
    written
}

/// The pages of `block` that the trace is about.
fn pages_of(trace: &Trace, block: u64) -> Range<u64> {
    let per_block = BLOCK / trace.page_size;
    let end = trace.first_page + trace.pages;
    (block * per_block).max(trace.first_page)..((block + 1) * per_block).min(end)
}

pub fn epochs(trace: &Trace) -> impl Iterator<Item = &Epoch> {
    trace.records.iter().filter_map(|record| match record {
        Record::Epoch(epoch) => Some(epoch),
        Record::Phase(_) => None,
    })
}

/// The trace as a host of larger pages would have recorded it.
pub fn with_page_size(trace: &Trace, page_size: u64) -> Trace {
    let ratio = page_size / trace.page_size;
    assert!(ratio > 0 && trace.first_page.is_multiple_of(ratio));
    let wider = |run: &Range<u64>| run.start / ratio..run.end.div_ceil(ratio);
    let records = trace.records.iter().map(|record| match record {
        Record::Epoch(epoch) => {
            let mut runs: Vec<Range<u64>> = Vec::new();
            for run in epoch.runs.iter().map(wider) {
                match runs.last_mut() {
                    Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
                    _ => runs.push(run),
                }
            }
            let time = epoch.time;
            Record::Epoch(Epoch { time, runs })
        }
        Record::Phase(name) => Record::Phase(name.clone()),
    });
    Trace {
        page_size,
        first_page: trace.first_page / ratio,
        pages: trace.pages.div_ceil(ratio),
        records: records.collect(),
    }
}

/// A host that knows which pages are open.
struct Pages {
    base: u64,
    page: u64,
    writable: RefCell<Vec<bool>>,
}

impl Pages {
    fn new(base: u64, page: u64, pages: u64) -> Self {
        let writable = RefCell::new(vec![true; pages as usize]);
        Self {
            base,
            page,
            writable,
        }
    }

    fn number(&self, address: u64) -> usize {
        ((address - self.base) / self.page) as usize
    }

    fn is_writable(&self, address: u64) -> bool {
        self.writable.borrow()[self.number(address)]
    }

    fn set(&self, range: Range<u64>, writable: bool) {
        let pages = self.number(range.start)..self.number(range.end);
        self.writable.borrow_mut()[pages].fill(writable);
    }
}

impl WriteProtect for Pages {
    type Error = Infallible;

    fn protect(&self, range: Range<u64>) -> Result<(), Infallible> {
        self.set(range, false);
        Ok(())
    }

    fn unprotect(&self, range: Range<u64>) -> Result<(), Infallible> {
        self.set(range, true);
        Ok(())
    }
}
