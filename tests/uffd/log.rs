//! The asynchronous form: the kernel's own log of written pages.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use pugmark::host::uffd::{Mapping, ProtectError, UffdLog};
use pugmark::{ArmError, BoxedRegion, DirtyRun, HarvestError, WriteProtect, WriteTracker};

use crate::memory::{Kind, Memory, PAGE, TRACKABLE};
use crate::say;
use crate::sync::harvested;

const PAGES: usize = 4096;
const IPA: u64 = 0x4000_0000;

type Tracker = WriteTracker<UffdLog, Vec<BoxedRegion>>;

fn track(mappings: impl IntoIterator<Item = Mapping>) -> Tracker {
    let log = UffdLog::new(mappings).expect("Linux 6.7");
    let regions = log.regions().expect("small enough");
    WriteTracker::new(log, regions).expect("in order")
}

fn pages(runs: &[DirtyRun]) -> BTreeSet<usize> {
    let number = |address: u64| (address - IPA) as usize / PAGE;
    runs.iter()
        .flat_map(|run| number(run.start)..number(run.range().end))
        .collect()
}

#[test]
fn each_page_that_was_written_and_no_other() {
    for kind in TRACKABLE {
        let memory = Memory::new(kind, PAGES * PAGE);
        let tracker = track([Mapping::new(IPA, memory.start(), memory.len)]);
        // Present, so that a huge page is not what the first write makes.
        (0..PAGES).for_each(|page| memory.store(page, 1));
        tracker.arm().expect("the kernel scans");
        assert_eq!(harvested(&tracker), [], "{kind:?}");
        for round in 2..5_u8 {
            // More runs than one scan has room for.
            let written: BTreeSet<usize> = (0..PAGES)
                .filter(|page| page % 3 == 0 || page % usize::from(round) == 1)
                .collect();
            for &page in &written {
                memory.store(page, round);
            }
            assert_eq!(pages(&harvested(&tracker)), written, "{kind:?}");
            assert_eq!(harvested(&tracker), [], "{kind:?}");
        }
        assert_eq!(tracker.counters().faults, 0);
    }
}

#[test]
fn memory_that_was_never_touched() {
    for kind in TRACKABLE {
        let memory = Memory::new(kind, PAGES * PAGE);
        let tracker = track([Mapping::new(IPA, memory.start(), memory.len)]);
        tracker.arm().expect("the kernel scans");
        assert_eq!(memory.load(9), 0);
        memory.store(700, 1);
        let found = pages(&harvested(&tracker));
        assert!(found.contains(&700), "{kind:?}: {found:?}");
        say!(
            "{kind:?}: {} pages for one write to untouched memory",
            found.len()
        );
    }
}

#[test]
fn the_vmm_and_system_calls_are_seen_and_told_writes_are_merged() {
    let memory = Memory::new(Kind::Anonymous, PAGES * PAGE);
    let tracker = track([Mapping::new(IPA, memory.start(), memory.len)]);
    (0..PAGES).for_each(|page| memory.store(page, 1));
    tracker.arm().expect("the kernel scans");
    // SAFETY: room for the bytes.
    unsafe { assert_eq!(libc::getrandom(memory.page(8).cast(), 32, 0), 32) };
    // Of a device that the kernel does not see.
    tracker
        .mark_written(IPA + 17 * PAGE as u64..IPA + 18 * PAGE as u64)
        .expect("tracked");
    assert_eq!(pages(&harvested(&tracker)), BTreeSet::from([8, 17]));
}

#[test]
fn a_harvest_that_is_refused_loses_nothing() {
    let memory = Memory::new(Kind::Anonymous, PAGES * PAGE);
    let tracker = track([Mapping::new(IPA, memory.start(), memory.len)]);
    (0..PAGES).for_each(|page| memory.store(page, 1));
    tracker.arm().expect("the kernel scans");
    let written = BTreeSet::from([3, 4, 90, 1000]);
    written.iter().for_each(|&page| memory.store(page, 2));
    drop(tracker.begin_harvest().expect("the kernel scans"));
    memory.store(2000, 2);
    let refused = tracker.harvest(|_| Err(()));
    assert!(matches!(refused, Err(HarvestError::Consumer { .. })));
    let held = tracker.begin_harvest().expect("the kernel scans");
    // An arm that is refused must not empty the log.
    memory.store(2001, 2);
    tracker.arm().expect_err("a harvest is open");
    assert_eq!(held.commit().pages, written.len() + 1);
    assert_eq!(pages(&harvested(&tracker)), BTreeSet::from([2001]));
}

#[test]
fn a_failed_scan_marks_what_it_may_have_taken() {
    let memory = Memory::new(Kind::Anonymous, PAGES * PAGE);
    let half = PAGES / 2;
    let mapping = |page: usize| {
        let ipa = IPA + (page * PAGE) as u64;
        Mapping::new(ipa, memory.page(page), half * PAGE)
    };
    let tracker = track([mapping(0), mapping(half)]);
    (0..PAGES).for_each(|page| memory.store(page, 1));
    tracker.arm().expect("the kernel scans");
    memory.store(half + 5, 1);
    // The first mapping is another one now, which nobody registered.
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: it replaces a part of our own mapping.
    let anew = unsafe { libc::mmap(memory.page(0).cast(), half * PAGE, rights, flags, -1, 0) };
    assert_eq!(anew, memory.page(0).cast());

    let failed = tracker.harvest(|_| Ok::<_, ()>(()));
    let Err(HarvestError::Host { error, .. }) = failed else {
        panic!("{failed:?}");
    };
    assert!(matches!(error, ProtectError::Gone { .. }), "{error:?}");
    let dirty = tracker
        .regions()
        .iter()
        .map(|region| region.dirty().count());
    assert_eq!(dirty.collect::<Vec<_>>(), [half, 1]);
}

#[test]
fn opened_it_is_all_written() {
    let memory = Memory::new(Kind::Anonymous, 4 * PAGE);
    let log = UffdLog::new([Mapping::new(IPA, memory.start(), memory.len)]).expect("Linux 6.7");
    (0..4).for_each(|page| memory.store(page, 1));
    let count = |log: &UffdLog| {
        let mut bytes = 0;
        log.take_log(&mut |ranges| {
            let lens = ranges.iter().map(|range| range.end - range.start);
            bytes += lens.sum::<u64>();
        })
        .expect("the kernel scans");
        bytes as usize / PAGE
    };
    assert_eq!([count(&log), count(&log)], [4, 0]);
    let page = PAGE as u64;
    log.unprotect(IPA + page..IPA + 3 * page).expect("ours");
    assert_eq!(count(&log), 2);
    // Protecting is for the scan alone.
    memory.store(1, 1);
    log.protect(IPA..IPA + 4 * page).expect("ours");
    assert_eq!(count(&log), 1);
}

/// What one thread has scanned and not told of yet is in no other scan: an empty one must wait.
#[test]
fn a_log_that_is_empty_has_been_told_of() {
    let memory = Memory::new(Kind::Anonymous, 4 * PAGE);
    let log = UffdLog::new([Mapping::new(IPA, memory.start(), memory.len)]).expect("Linux 6.7");
    let (scanned, told) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let taken = log.take_log(&mut |_| {
                scanned.store(true, SeqCst);
                thread::sleep(Duration::from_millis(100));
                told.store(true, SeqCst);
            });
            taken.expect("the kernel scans");
        });
        while !scanned.load(SeqCst) {
            thread::yield_now();
        }
        log.take_log(&mut |_| {}).expect("the kernel scans");
        assert!(told.load(SeqCst), "the other thread has not told of it");
    });
}

/// What no mapping covers is in no log: it must not look tracked.
#[test]
fn a_region_that_is_larger_than_its_mapping() {
    let memory = Memory::new(Kind::Anonymous, 4 * PAGE);
    let log = UffdLog::new([Mapping::new(IPA, memory.start(), memory.len)]).expect("Linux 6.7");
    let region = BoxedRegion::boxed(IPA, 5 * PAGE as u64, log.geometry()).expect("a region");
    let tracker = WriteTracker::new(log, vec![region]).expect("one region");
    let (start, end) = (IPA, IPA + 5 * PAGE as u64);
    let error = ProtectError::NoMapping { start, end };
    assert_eq!(tracker.arm(), Err(ArmError::Host { start, end, error }));
    let failed = tracker.harvest(|_| Ok::<_, ()>(()));
    assert_eq!(failed, Err(HarvestError::Host { start, end, error }));
    assert_eq!(tracker.regions()[0].dirty().count(), 5);
}
