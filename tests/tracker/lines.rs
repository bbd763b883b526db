//! Blocks of 512 pages, which have a line of the bitmap each: as they are on every real host.

use core::convert::Infallible;
use core::ops::Range;

use pugmark::{
    AtomicUsize, BlockState, FaultOutcome, Granule, PageGeometry, Run, TrackedRegion, WriteProtect,
    WriteTracker, blocks_for, pages_for, words_for,
};

const GEOMETRY: PageGeometry = PageGeometry::ARM64_4K;
const PAGE: u64 = 4 << 10;
const BLOCK: u64 = 2 << 20;
const BASE: u64 = 0x4000_0000;

type Region = TrackedRegion<Box<[AtomicUsize]>, Box<[BlockState]>>;
type Tracker = WriteTracker<Still, [Region; 1]>;

struct Still;

impl WriteProtect for Still {
    type Error = Infallible;

    fn protect(&self, _: Range<u64>) -> Result<(), Infallible> {
        Ok(())
    }

    fn unprotect(&self, _: Range<u64>) -> Result<(), Infallible> {
        Ok(())
    }
}

fn tracker(base: u64, size: u64, geometry: PageGeometry) -> Tracker {
    let words = || -> Box<[_]> {
        let words = words_for(pages_for(size, geometry));
        (0..words).map(|_| AtomicUsize::new(0)).collect()
    };
    let blocks = 0..blocks_for(base, size, geometry);
    let blocks = blocks.map(|_| BlockState::new()).collect();
    let region = TrackedRegion::with_storage(base, size, geometry, words(), words(), blocks);
    let tracker = WriteTracker::new(Still, [region.expect("room")]);
    let tracker = tracker.expect("one region");
    tracker.arm().expect("the host does nothing");
    tracker
}

/// Faults at `ipa`: whether the page was marked already.
fn fault(tracker: &Tracker, ipa: u64, expected: Range<u64>) -> bool {
    match tracker.on_write_fault(ipa).expect("the host does nothing") {
        FaultOutcome::Granted {
            granule: Granule::Block,
            span,
            spurious,
        } => {
            assert_eq!(span, expected, "{ipa:#x}");
            spurious
        }
        other => panic!("{other:?}"),
    }
}

/// The marked pages: the first of each run, and the first after it.
fn marked(tracker: &Tracker) -> Vec<(usize, usize)> {
    let mut runs = Vec::new();
    let dirty = tracker.regions()[0].dirty();
    dirty.drain_runs(|run: Run| runs.push((run.start, run.end())));
    assert!(dirty.is_clean());
    runs
}

#[test]
fn a_fault_marks_its_line_and_no_other() {
    let tracker = tracker(BASE, 66 * BLOCK, GEOMETRY);
    // The last one has its summary bit in another word.
    for block in [0, 1, 40, 65] {
        let start = BASE + block * BLOCK;
        for offset in [0, 5 * PAGE + 123, BLOCK - 1] {
            assert!(!fault(&tracker, start + offset, start..start + BLOCK));
            assert!(fault(&tracker, start + offset, start..start + BLOCK));
            let first = block as usize * 512;
            assert_eq!(marked(&tracker), [(first, first + 512)]);
        }
    }
    let counters = tracker.counters();
    let counted = (counters.faults, counters.grants, counters.pages_granted);
    assert_eq!(counted, (24, 24, 24 * 512));
    assert_eq!(counters.spurious_faults, 12);
}

/// The summary bit is set already: by a page of the same line, which is the fault's or another.
#[test]
fn a_line_with_a_page_that_is_marked_is_marked_whole() {
    let tracker = tracker(BASE, 3 * BLOCK, GEOMETRY);
    let start = BASE + BLOCK;
    for (page, spurious) in [(7, true), (8, false), (511, false)] {
        let written = start + 7 * PAGE..start + 8 * PAGE;
        tracker.mark_written(written).expect("it is tracked");
        let ipa = start + page * PAGE;
        assert_eq!(fault(&tracker, ipa, start..start + BLOCK), spurious);
        assert_eq!(marked(&tracker), [(512, 1024)]);
    }
}

/// The last block in part: no line has bits that the bitmap does not have.
#[test]
fn a_block_in_part_is_marked_as_far_as_it_goes() {
    let size = 2 * BLOCK + 3 * PAGE;
    let tracker = tracker(BASE, size, GEOMETRY);
    let [last, end] = [BASE + 2 * BLOCK, BASE + size];
    assert!(!fault(&tracker, end - 1, last..end));
    assert!(fault(&tracker, last, last..end));
    assert_eq!(marked(&tracker), [(1024, 1027)]);
    assert!(!fault(&tracker, last - 1, last - BLOCK..last));
    assert_eq!(marked(&tracker), [(512, 1024)]);
    assert_eq!(tracker.counters().pages_granted, 3 + 3 + 512);
}

/// The base lies within a block, so that each block lies in two lines.
#[test]
fn blocks_beside_their_lines_are_marked_across_them() {
    let base = BASE + 5 * PAGE;
    let tracker = tracker(base, 3 * BLOCK, GEOMETRY);
    assert!(!fault(&tracker, base, base..BASE + BLOCK));
    assert_eq!(marked(&tracker), [(0, 507)]);
    let start = BASE + BLOCK;
    assert!(!fault(&tracker, start, start..start + BLOCK));
    assert_eq!(marked(&tracker), [(507, 1019)]);
    assert_eq!(tracker.counters().pages_granted, 507 + 512);
}

/// Four blocks of 128 pages have a line.
#[test]
fn blocks_of_apple_silicon_are_a_quarter_of_a_line() {
    let tracker = tracker(BASE, 3 * BLOCK, PageGeometry::APPLE_SILICON);
    let start = BASE + BLOCK;
    assert!(!fault(&tracker, start + 9, start..start + BLOCK));
    assert_eq!(marked(&tracker), [(128, 256)]);
    assert_eq!(tracker.counters().pages_granted, 128);
}

/// A block may be half of all addresses: where it ends is 0, counted in pages.
#[test]
fn the_largest_block_there_is() {
    let geometry = PageGeometry::new(1, 1 << 63).expect("powers of two");
    let tracker = tracker((1 << 63) - 4096, 8192, geometry);
    let start = 1 << 63;
    assert!(!fault(&tracker, start + 9, start..start + 4096));
    assert_eq!(marked(&tracker), [(4096, 8192)]);
}
