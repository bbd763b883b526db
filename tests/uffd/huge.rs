//! hugetlbfs: memory whose pages are of 2 MiB, and cannot be protected in part.

use std::sync::Arc;

use pugmark::host::uffd::{
    Mapping, OpenError, ProtectError, UffdHandler, UffdLog, UffdProtection, Unfit,
};
use pugmark::{BoxedRegion, HarvestError, PageGeometry, WriteProtect, WriteTracker};

use crate::memory::Memory;
use crate::say;
use crate::sync::harvested;

const HUGE: usize = 2 << 20;
const PAGES: usize = 4;
const IPA: u64 = 0x4000_0000;

/// `None`, and the reason said, where the system has none set aside (`vm.nr_hugepages`).
fn memory() -> Option<Memory> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
    let memory = Memory::try_map(PAGES * HUGE, libc::PROT_READ | libc::PROT_WRITE, flags, -1);
    match memory {
        Ok(memory) => Some(memory),
        Err(error) => {
            say!("skipped: no huge pages here: {error}");
            None
        }
    }
}

fn pages<P: WriteProtect<Error: std::fmt::Debug>>(
    tracker: &WriteTracker<P, Vec<BoxedRegion>>,
) -> Vec<u64> {
    let runs = harvested(tracker).into_iter();
    runs.flat_map(|run| run.range().step_by(HUGE))
        .map(|start| (start - IPA) / HUGE as u64)
        .collect()
}

/// Stores into two of its pages, in the middle, and finds both, round after round.
fn rounds<P: WriteProtect<Error: std::fmt::Debug>>(
    memory: &Memory,
    tracker: &WriteTracker<P, Vec<BoxedRegion>>,
) {
    for round in 1..4 {
        memory.store(HUGE / 4096 + 7, round);
        memory.store(3 * HUGE / 4096 + 511, round);
        assert_eq!(pages(tracker), [1, 3]);
        assert_eq!(pages(tracker), [0; 0]);
        assert_eq!(memory.load(HUGE / 4096 + 7), round);
    }
}

#[test]
fn with_a_handler() {
    let Some(memory) = memory() else { return };
    // Present, and never touched.
    memory.store(0, 1);
    let mapping = Mapping::new(IPA, memory.start(), memory.len);
    let protection = UffdProtection::new([mapping]).expect("hugetlbfs");
    assert_eq!(protection.geometry().page_size(), HUGE as u64);
    let regions = protection.regions().expect("small enough");
    let tracker = Arc::new(WriteTracker::new(protection, regions).expect("one region"));
    let handler = UffdHandler::spawn(Arc::clone(&tracker)).expect("the first one");
    tracker.arm().expect("the kernel protects");
    rounds(&memory, &tracker);
    let end = handler.stop();
    assert_eq!((end.faults, end.errors), (6, 0));
}

#[test]
fn logged_by_the_kernel() {
    let Some(memory) = memory() else { return };
    memory.store(0, 1);
    let mapping = Mapping::new(IPA, memory.start(), memory.len);
    let log = UffdLog::new([mapping]).expect("hugetlbfs");
    let regions = log.regions().expect("small enough");
    let tracker = WriteTracker::new(log, regions).expect("one region");
    tracker.arm().expect("the kernel protects");
    rounds(&memory, &tracker);
}

/// Protected by somebody, and in no region: the handler opens the page, and the write goes on.
#[test]
fn in_no_region() {
    let Some(memory) = memory() else { return };
    let mapping = Mapping::new(IPA, memory.start(), memory.len);
    let protection = UffdProtection::new([mapping]).expect("hugetlbfs");
    let region = BoxedRegion::boxed(IPA, HUGE as u64, protection.geometry());
    let region = region.expect("a page");
    let tracker = Arc::new(WriteTracker::new(protection, vec![region]).expect("one region"));
    let handler = UffdHandler::spawn(Arc::clone(&tracker)).expect("the first one");
    let third = IPA + 2 * HUGE as u64..IPA + 3 * HUGE as u64;
    tracker.protection().protect(third).expect("a page");
    memory.store(2 * HUGE / 4096 + 9, 1);
    assert_eq!(handler.stop().faults, 1);
}

/// Whoever makes regions of small pages is told.
#[test]
fn in_parts() {
    let Some(memory) = memory() else { return };
    let mapping = Mapping::new(IPA, memory.start(), memory.len);
    let region = || {
        let region = BoxedRegion::boxed(IPA, memory.len as u64, PageGeometry::X86_64);
        vec![region.expect("a region")]
    };
    let protection = UffdProtection::new([mapping]).expect("hugetlbfs");
    let tracker = Arc::new(WriteTracker::new(protection, region()).expect("one region"));
    let handler = UffdHandler::spawn(Arc::clone(&tracker)).expect("the first one");
    tracker.arm().expect("whole pages");
    // A write opens the block, which is the page.
    memory.store(5, 1);
    assert_eq!(pages(&tracker), [0]);
    tracker.mark_written(IPA..IPA + 1).expect("tracked");
    let refused = tracker.harvest(|_| Ok::<_, ()>(()));
    let (start, end) = (memory.address(), memory.address() + 4096);
    let error = ProtectError::PartOfHugePage { start, end };
    assert!(error.to_string().contains("its geometry"), "{error}");
    let (start, end) = (IPA, IPA + 4096);
    assert_eq!(refused, Err(HarvestError::Host { start, end, error }));
    // And nothing is lost.
    assert_eq!(tracker.regions()[0].dirty().count(), 1);
    handler.stop();
    drop(tracker);

    // The kernel's log is of whole pages whatever the region.
    let log = UffdLog::new([mapping]).expect("hugetlbfs");
    let tracker = WriteTracker::new(log, region()).expect("one region");
    tracker.arm().expect("the kernel protects");
    rounds(&memory, &tracker);

    // A mapping that ends within a page.
    let short = Mapping::new(IPA, memory.start(), memory.len - 4096);
    let why = Unfit::NotMemory;
    assert!(
        matches!(UffdLog::new([short]), Err(OpenError::Mapping { why: found, .. }) if found == why)
    );
}
