//! A re-arm by userfaultfd, measured: what a range costs, what a page of one does, and a harvest's.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pugmark::host::uffd::{Mapping, OpenError, UffdProtection};
use pugmark::{BoxedRegion, PageGeometry, WriteProtect, WriteTracker};

use super::Row;
use super::rearm::Cost;
use crate::harness::{Bench, Measured, Turn, limit, peer, time, us};
use crate::linux::{Memory, bare::Uffd};
use crate::random::{rng, scattered};

pub const RANGE: Row = Row {
    name: "rearm-uffd-range",
    work: "protect one open page, userfaultfd",
    unit: "range",
    measure: |bench| figures(bench, |range, _| range),
    note: Some("the same system calls, by strace; what makes them slower here is not known"),
};

pub const PAGE: Row = Row {
    name: "rearm-uffd-page",
    work: "protect a page more of a range, protected already, userfaultfd",
    unit: "page",
    measure: |bench| {
        figures(bench, |range, longer| {
            longer.saturating_sub(range) / MORE as u32
        })
    },
    note: None,
};

pub const HARVEST_2: Row = Row {
    name: "rearm-uffd-harvest-2",
    work: "harvest 64 MiB, 2 % of its pages dirty, and protect, userfaultfd",
    unit: "dirty page",
    measure: |bench| harvest(bench, 2),
    note: None,
};

pub const HARVEST_20: Row = Row {
    name: "rearm-uffd-harvest-20",
    work: "harvest 64 MiB, 20 % of its pages dirty, and protect, userfaultfd",
    unit: "dirty page",
    measure: |bench| harvest(bench, 20),
    note: Some(
        "the same system calls on the same ranges. In runs on one day they took 350 to 590 ns a page, and the \
         ratio was 1.00 to 1.16; what differs is not known",
    ),
};

/// 64 MiB.
const PAGES: usize = 1 << 14;
/// Pages between two ranges whose cost is measured, as far apart as a scattered harvest's.
const APART: usize = 64;
/// Pages more of the longer ones.
const MORE: usize = 16;

/// `figure` is told what a range of one open page takes, and one with [`MORE`] protected pages.
fn figures(bench: &Bench, figure: fn(Duration, Duration) -> Duration) -> Measured {
    let memory = &Memory::new(PAGES);
    let protection = match registered(memory) {
        Ok(protection) => protection,
        Err(error) => return Measured::skipped(error),
    };
    let _served = protection.faults().expect("nobody serves them");
    let theirs = &Memory::new(PAGES);
    let uffd = match Uffd::new(theirs) {
        Ok(uffd) => uffd,
        Err(error) => return Measured::skipped(error),
    };
    uffd.protect(&theirs.addresses());
    protection
        .protect(memory.addresses())
        .expect("it is registered");
    let open = |range: Range<u64>| protection.unprotect(range).expect("it is registered");
    let protect = |ranges: &[Range<u64>]| {
        let protected = protection.protect_all(ranges);
        protected.expect("the memory is registered");
    };
    let bare = || {
        of_each(
            theirs,
            |range| uffd.open(&range),
            |ranges| ranges.iter().for_each(|range| uffd.protect(range)),
            figure,
        )
    };
    bench.rounds([
        limit("the system call", bare),
        us(|| of_each(memory, open, protect, figure)),
    ])
}

fn of_each(
    memory: &Memory,
    open: impl Fn(Range<u64>),
    protect: impl Fn(&[Range<u64>]),
    figure: fn(Duration, Duration) -> Duration,
) -> Turn {
    let firsts = || (0..PAGES).step_by(APART);
    let timed = |pages: usize| {
        for first in firsts() {
            open(memory.addresses_of(first));
            memory.page(first)[0].store(2, Relaxed);
        }
        let ranges = firsts().map(|first| pages_from(memory, first, pages));
        let ranges: Vec<Range<u64>> = ranges.collect();
        // As many at once as a harvest gives.
        let work = || ranges.chunks(32).for_each(&protect);
        time(1, work).0.elapsed() / (PAGES / APART) as u32
    };
    Turn::fixed(figure(timed(1), timed(1 + MORE)))
}

fn pages_from(memory: &Memory, first: usize, pages: usize) -> Range<u64> {
    memory.addresses_of(first).start..memory.addresses_of(first + pages - 1).end
}

fn registered(memory: &Memory) -> Result<UffdProtection, OpenError> {
    let mapping = Mapping::identity(memory.as_ptr(), memory.len());
    UffdProtection::new([mapping])
}

fn harvest(bench: &Bench, per_cent: usize) -> Measured {
    let memory = &Memory::new(PAGES);
    let protection = match registered(memory) {
        Ok(protection) => protection,
        Err(error) => return Measured::skipped(error),
    };
    // Each fault is settled before its store: nothing waits for a handler.
    let _served = protection.faults().expect("nobody serves them");

    let page = memory.page_size() as u64;
    // A block is a page, so that each fault opens one.
    let geometry = PageGeometry::new(page, page).expect("a page is a power of two");
    let tracker = |bridge: Option<usize>| {
        let region = BoxedRegion::boxed(memory.addresses().start, memory.len() as u64, geometry);
        let regions = vec![region.expect("the memory is aligned")];
        let tracker = WriteTracker::new(&protection, regions).expect("one region");
        tracker.arm().expect("the memory is registered");
        match bridge {
            Some(pages) => tracker.with_bridge(pages),
            None => tracker,
        }
    };
    let dirty = scattered(&mut rng(), PAGES * per_cent / 100, PAGES);
    let ranges = Cost::UFFD.ranges(&dirty).into_iter();
    let ranges = ranges.map(|range| pages_from(memory, range.start, range.len()));
    let ranges: Vec<Range<u64>> = ranges.collect();
    let turn = |bridge| {
        let (tracker, dirty) = (tracker(bridge), &dirty);
        move || {
            for &page in dirty {
                let fault = tracker.on_write_fault(memory.addresses_of(page).start);
                assert!(fault.is_ok());
                memory.page(page)[0].store(2, Relaxed);
            }
            let (turn, harvested) = time(dirty.len(), || tracker.harvest(|_| Ok::<_, ()>(())));
            assert_eq!(harvested.map(|harvested| harvested.pages), Ok(dirty.len()));
            turn
        }
    };
    bench.rounds([
        limit("ranges known", || {
            for &page in &dirty {
                let open = protection.unprotect(memory.addresses_of(page));
                open.expect("the memory is registered");
                memory.page(page)[0].store(2, Relaxed);
            }
            let (turn, protected) = time(dirty.len(), || protection.protect_all(&ranges));
            protected.expect("the memory is registered");
            turn
        })
        .at_most(1.1),
        us(turn(None)),
        peer("no gap bridged", turn(Some(0))),
        peer("every gap bridged", turn(Some(usize::MAX))),
    ])
}
