//! Hosts that keep a log of written pages themselves.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use proptest::collection::vec;
use proptest::prelude::*;
use pugmark::{ArmError, DirtyRun, HarvestError, WriteProtect, WriteTracker};

use crate::world::{BLOCK, PAGE, Regions, region};

const BASE: u64 = 0x4000_0000;
const SECOND: u64 = 1 << 32;

/// Its log, as KVM has one.
#[derive(Default)]
struct Log {
    written: Mutex<BTreeSet<u64>>,
    fails: AtomicBool,
}

#[derive(Debug, PartialEq, Eq)]
struct Refused;

impl Log {
    fn write(&self, ipa: u64) {
        self.written.lock().unwrap().insert(ipa);
    }
}

impl WriteProtect for Log {
    type Error = Refused;

    fn protect(&self, _: Range<u64>) -> Result<(), Refused> {
        Ok(())
    }

    fn unprotect(&self, _: Range<u64>) -> Result<(), Refused> {
        Ok(())
    }

    fn take_log(&self, written: &mut dyn FnMut(&[Range<u64>])) -> Result<(), Refused> {
        let taken = std::mem::take(&mut *self.written.lock().unwrap());
        let ranges: Vec<_> = taken.into_iter().map(|ipa| ipa..ipa + PAGE).collect();
        // In pieces, some of them empty.
        ranges.chunks(3).for_each(&mut *written);
        written(&[]);
        match self.fails.swap(false, SeqCst) {
            true => Err(Refused),
            false => Ok(()),
        }
    }
}

type Tracker<P> = WriteTracker<P, Regions>;

fn tracker<P: WriteProtect>(host: P) -> Tracker<P> {
    let regions = vec![region(BASE, 4 * BLOCK), region(SECOND, 2 * BLOCK)];
    WriteTracker::new(host, Regions(regions)).unwrap()
}

fn harvested<P: WriteProtect<Error = Refused>>(tracker: &Tracker<P>) -> Vec<u64> {
    let mut pages = Vec::new();
    let outcome = tracker.harvest(|run: DirtyRun| {
        pages.extend(run.range().step_by(PAGE as usize));
        Ok::<_, ()>(())
    });
    outcome.unwrap();
    pages
}

fn marked<P>(tracker: &Tracker<P>) -> usize {
    let regions = tracker.regions().iter();
    regions.map(|region| region.dirty().count()).sum()
}

#[test]
fn every_harvest_takes_the_log_first() {
    // Through the pointers that a host may come in, too.
    let log = Log::default();
    #[cfg(not(feature = "alloc"))]
    let host = &log;
    #[cfg(feature = "alloc")]
    let host = std::sync::Arc::new(&log);
    let tracker = tracker(host);
    tracker.arm().unwrap();
    log.write(BASE + 3 * PAGE);
    tracker.mark_written(SECOND..SECOND + 1).unwrap();
    assert_eq!(harvested(&tracker), [BASE + 3 * PAGE, SECOND]);

    log.write(BASE + 5 * PAGE);
    let held = tracker.begin_harvest().unwrap();
    let runs: Vec<_> = held.runs().map(|run| run.start).collect();
    assert_eq!(runs, [BASE + 5 * PAGE]);
    log.write(BASE + 6 * PAGE);
    drop(held);
    assert_eq!(harvested(&tracker), [BASE + 5 * PAGE, BASE + 6 * PAGE]);

    log.write(SECOND + PAGE);
    let last = tracker.begin_final_harvest().unwrap();
    assert_eq!(last.commit().pages, 1);
    assert_eq!(harvested(&tracker), [0; 0]);
    // What is in no region is not tracked, and no error.
    log.write(PAGE);
    assert_eq!(harvested(&tracker), [0; 0]);
}

#[test]
fn arming_forgets_the_log_and_a_refused_one_does_not() {
    let tracker = tracker(Log::default());
    let log = tracker.protection();
    log.write(BASE);
    tracker.arm().unwrap();
    assert_eq!(harvested(&tracker), [0; 0]);

    let held = tracker.begin_harvest().unwrap();
    log.write(BASE + PAGE);
    assert_eq!(tracker.arm(), Err(ArmError::Busy));
    held.commit();
    assert_eq!(harvested(&tracker), [BASE + PAGE]);
}

#[test]
fn the_log_can_be_taken_while_a_harvest_is_open() {
    let tracker = tracker(Log::default());
    tracker.arm().unwrap();
    let held = tracker.begin_harvest().unwrap();
    tracker.protection().write(BASE + PAGE);
    tracker.collect_log().unwrap();
    assert_eq!(marked(&tracker), 1);
    assert_eq!(held.commit().pages, 0);
    assert_eq!(harvested(&tracker), [BASE + PAGE]);
}

#[test]
fn what_left_the_log_is_marked_although_it_failed() {
    let tracker = tracker(Log::default());
    let log = tracker.protection();
    tracker.arm().unwrap();
    let failing = || {
        log.write(BASE + PAGE);
        log.fails.store(true, SeqCst);
    };
    let error = |start, end| HarvestError::Host {
        start,
        end,
        error: Refused,
    };
    let (start, end) = (BASE, SECOND + 2 * BLOCK);

    failing();
    let mut delivered = 0;
    let failed = tracker.harvest(|_| {
        delivered += 1;
        Ok::<_, ()>(())
    });
    assert_eq!((failed, delivered), (Err(error(start, end)), 0));
    assert_eq!(marked(&tracker), 1);
    failing();
    let held = tracker.begin_harvest();
    assert!(matches!(
        held,
        Err(HarvestError::Host { error: Refused, .. })
    ));
    assert_eq!(harvested(&tracker), [BASE + PAGE]);

    // There is no new baseline: anything may have been written.
    failing();
    let error = Refused;
    assert_eq!(tracker.arm(), Err(ArmError::Host { start, end, error }));
    assert_eq!(marked(&tracker) as u64, 6 * BLOCK / PAGE);
}

/// Says what it is told to, in one piece.
struct Told(Vec<Range<u64>>);

impl WriteProtect for Told {
    type Error = Refused;

    fn protect(&self, _: Range<u64>) -> Result<(), Refused> {
        Ok(())
    }

    fn unprotect(&self, _: Range<u64>) -> Result<(), Refused> {
        Ok(())
    }

    fn take_log(&self, written: &mut dyn FnMut(&[Range<u64>])) -> Result<(), Refused> {
        written(&self.0);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 200 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Neighbours in a word, ranges over several words and from one region into nothing, parts of pages,
    /// empty ones, ranges that come twice, in any order.
    #[test]
    fn every_page_of_the_log_is_marked_and_no_other(
        ranges in vec((0..4 * BLOCK + 70 * PAGE, 0..70 * PAGE, any::<bool>(), any::<bool>()), 0..40),
        ascending in any::<bool>(),
    ) {
        let range = |(at, len, short, second): (u64, u64, bool, bool)| {
            let base = if second { SECOND } else { BASE };
            let start = base - 35 * PAGE + at;
            start..start + if short { len % (2 * PAGE) } else { len }
        };
        let mut ranges: Vec<_> = ranges.into_iter().map(range).collect();
        if ascending {
            ranges.sort_by_key(|range| range.start);
        }
        let tracker = tracker(Told(ranges.clone()));
        tracker.regions().iter().for_each(|region| region.dirty().clear());
        let expected: BTreeSet<u64> = ranges
            .iter()
            .filter(|range| !range.is_empty())
            .flat_map(|range| (range.start / PAGE..=(range.end - 1) / PAGE).map(|page| page * PAGE))
            .filter(|page| tracker.regions().iter().any(|one| one.page_range().contains(page)))
            .collect();
        let found = harvested(&tracker);
        prop_assert!(found.iter().eq(&expected), "{found:x?} {expected:x?}");
        // Nor is a line named that has no marks.
        prop_assert!(tracker.regions().iter().all(|region| region.dirty().is_clean()));
    }
}
