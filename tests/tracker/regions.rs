//! Several regions, found by address; borders, and pages in part.

use pugmark::{
    AtomicUsize, BlockState, BorrowedRegion, DirtyRun, FaultOutcome, Granule, PageGeometry,
    StaticRegion, WriteTracker, blocks_for, pages_for, words_for,
};

use crate::world::{
    BLOCK, GEOMETRY, Granted, Host, PAGE, PAGES_PER_BLOCK, Region, Unprotect, World, fine_region,
    granted, region,
};

/// Memory with a hole below 4 GiB, as a PC has it.
const LOW: u64 = 0x8000_0000;
const LOW_END: u64 = LOW + 4 * BLOCK;
const HIGH: u64 = 1 << 32;
const HIGH_END: u64 = HIGH + 6 * BLOCK;

fn with_a_hole() -> World {
    World::armed([region(LOW, LOW_END - LOW), region(HIGH, HIGH_END - HIGH)])
}

#[test]
fn the_first_and_the_last_byte_of_each_region_are_its_own() {
    let cases = [
        (LOW, LOW),
        (LOW_END - 1, LOW_END - BLOCK),
        (HIGH, HIGH),
        (HIGH_END - 1, HIGH_END - BLOCK),
    ];
    for (ipa, block) in cases {
        let world = with_a_hole();
        assert_eq!(world.fault(ipa).span, block..block + BLOCK, "{ipa:#x}");
        let run = DirtyRun {
            start: block,
            len: BLOCK,
        };
        assert_eq!(world.harvest(), [run]);
    }
}

#[test]
fn an_address_is_found_among_many_regions() {
    // Every other block, so that each has a hole on both sides.
    let bases = (1..if cfg!(miri) { 10 } else { 40 }).map(|n| n * 2 * BLOCK);
    let world = World::armed(bases.clone().map(|base| region(base, BLOCK)));
    for base in bases {
        assert_eq!(world.fault(base + 5 * PAGE).span, base..base + BLOCK);
        for hole in [base - 1, base + BLOCK] {
            let outcome = world.tracker.on_write_fault(hole);
            assert_eq!(outcome, Ok(FaultOutcome::NotTracked));
        }
    }
}

#[test]
fn adjacent_regions_do_not_share_a_block() {
    // The border lies in the middle of a block.
    let border = LOW + 3 * PAGE;
    let world = World::armed([region(LOW, 3 * PAGE), region(border, BLOCK)]);
    assert_eq!(world.fault(border - 1).span, LOW..border);
    assert_eq!(world.fault(border).span, border..LOW + BLOCK);
    assert_eq!(world.fault(LOW + BLOCK).span, LOW + BLOCK..border + BLOCK);
    world.check_to_the_end();
}

#[test]
fn a_base_within_a_block_cuts_the_first_and_the_last_span() {
    let base = LOW + 5 * PAGE;
    let world = World::armed([region(base, 2 * BLOCK)]);
    assert_eq!(
        world.tracker.regions()[0].pages() as u64,
        2 * PAGES_PER_BLOCK
    );
    let spans = [
        base..LOW + BLOCK,
        LOW + BLOCK..LOW + 2 * BLOCK,
        LOW + 2 * BLOCK..base + 2 * BLOCK,
    ];
    for span in spans {
        for ipa in [span.start, span.end - 1] {
            assert_eq!(world.fault(ipa).span, span);
        }
    }
    world.check_to_the_end();
}

#[test]
fn the_last_page_may_be_partial() {
    let end = LOW + BLOCK + 2 * PAGE + 100;
    let world = World::armed([region(LOW, end - LOW)]);
    let last = LOW + BLOCK + 2 * PAGE;
    let whole = LOW + BLOCK..last + PAGE;
    // Beyond the size, within the page: the host protects it whole, so the fault is ours.
    assert_eq!(world.fault(last + PAGE - 1).span, whole);
    assert_eq!(
        world.tracker.on_write_fault(last + PAGE),
        Ok(FaultOutcome::NotTracked)
    );
    assert_eq!(world.host().take_calls(), [(Unprotect, whole)]);
    let run = DirtyRun {
        start: LOW + BLOCK,
        len: 2 * PAGE + 100,
    };
    assert_eq!(world.harvest(), [run]);
    world.check();
}

#[test]
fn a_region_smaller_than_a_page_is_a_page() {
    let world = World::armed([fine_region(LOW, 1), fine_region(LOW + PAGE, 1)]);
    for base in [LOW, LOW + PAGE] {
        assert_eq!(world.fault(base + 99).span, base..base + PAGE);
    }
    let runs = [LOW, LOW + PAGE].map(|start| DirtyRun { start, len: 1 });
    assert_eq!(world.harvest(), runs);
}

#[test]
fn a_region_may_end_at_the_last_page_of_the_address_space() {
    let end = 0_u64.wrapping_sub(PAGE);
    let base = end - 2 * BLOCK;
    let world = World::armed([region(base, 2 * BLOCK)]);
    assert_eq!(world.fault(end - 1).span, end - (BLOCK - PAGE)..end);
    assert_eq!(
        world.tracker.on_write_fault(u64::MAX),
        Ok(FaultOutcome::NotTracked)
    );
    world.write_as_vmm(base..end);
    assert_eq!(world.marked().len() as u64, 2 * PAGES_PER_BLOCK);
    world.check_to_the_end();
}

// ---- what the VMM wrote

#[test]
fn what_the_vmm_wrote_is_marked_page_by_page() {
    let world = with_a_hole();
    world.write_as_vmm(LOW + PAGE - 1..LOW + PAGE + 1);
    assert_eq!(world.marked(), [LOW, LOW + PAGE]);
    // It opens nothing.
    assert_eq!(world.host().take_calls(), []);
    world.check_to_the_end();
}

#[test]
fn a_write_across_regions_is_marked_in_each() {
    let world = with_a_hole();
    let range = LOW_END - 1..HIGH + PAGE + 1;
    world.tracker.mark_written(range).unwrap();
    assert_eq!(world.marked(), [LOW_END - PAGE, HIGH, HIGH + PAGE]);

    world.tracker.mark_written(0..u64::MAX).unwrap();
    assert!(world.pages().eq(world.marked()));
}

#[test]
fn a_write_that_begins_or_ends_outside_is_marked_inside() {
    let world = with_a_hole();
    world.tracker.mark_written(0..LOW + 1).unwrap();
    world.tracker.mark_written(HIGH_END - 1..u64::MAX).unwrap();
    assert_eq!(world.marked(), [LOW, HIGH_END - PAGE]);
}

#[test]
fn a_write_in_the_tail_of_a_partial_page_marks_it() {
    let world = World::armed([region(LOW, PAGE + 100)]);
    world
        .tracker
        .mark_written(LOW + PAGE + 200..LOW + PAGE + 201)
        .unwrap();
    assert_eq!(world.marked(), [LOW + PAGE]);
}

#[test]
fn a_write_outside_every_region_is_an_error_that_names_it() {
    let world = with_a_hole();
    for range in [0..LOW, LOW_END..HIGH, HIGH_END..u64::MAX] {
        let error = world.tracker.mark_written(range.clone()).unwrap_err();
        assert_eq!((error.start, error.end), (range.start, range.end));
        assert_eq!(
            error.to_string(),
            format!(
                "no region holds any of {:#x}..{:#x}",
                range.start, range.end
            )
        );
    }
    assert_eq!(world.marked(), [0; 0]);
}

#[test]
fn a_write_of_nothing_marks_nothing() {
    let world = with_a_hole();
    for range in [0..0, LOW..LOW] {
        assert_eq!(world.tracker.mark_written(range), Ok(()));
    }
    assert_eq!(world.marked(), [0; 0]);
}

#[test]
fn a_write_that_ends_before_it_starts_is_an_error() {
    let world = with_a_hole();
    let range = std::ops::Range {
        start: HIGH + 5,
        end: LOW,
    };
    let error = world.tracker.mark_written(range).unwrap_err();
    assert_eq!((error.start, error.end), (HIGH + 5, LOW));
    assert_eq!(world.marked(), [0; 0]);
}

// ---- forms

#[test]
fn what_the_next_fault_opens_can_be_asked() {
    let world = World::armed_fine(&[(LOW, BLOCK)]);
    let region = &world.tracker.regions()[0];
    assert_eq!(region.granule_at(LOW), Some(Granule::Page));
    assert_eq!(region.granule_at(LOW - 1), None);
    assert_eq!(region.granule_at(LOW + BLOCK), None);
    world.arm();
    assert_eq!(region.granule_at(LOW + BLOCK - 1), Some(Granule::Block));
}

#[test]
fn a_static_region_and_a_borrowed_one_do_the_same() {
    const SIZE: u64 = 2 * BLOCK + PAGE + 1;
    const PAGES: usize = pages_for(SIZE, GEOMETRY);
    const BLOCKS: usize = blocks_for(LOW, SIZE, GEOMETRY);
    static STATIC: [StaticRegion<{ words_for(PAGES) }, BLOCKS>; 1] =
        [StaticRegion::new(LOW, SIZE, GEOMETRY)];

    let [dirty, held] = [(); 2].map(|()| [const { AtomicUsize::new(0) }; words_for(PAGES)]);
    let blocks = [const { BlockState::new() }; BLOCKS];
    let borrowed =
        BorrowedRegion::with_storage(LOW, SIZE, GEOMETRY, &dirty, &held, &blocks).unwrap();

    let world = World::armed([region(LOW, SIZE)]);
    let host = world.host();
    let of_static = WriteTracker::new(host, &STATIC).unwrap();
    let of_borrowed = WriteTracker::new(host, [borrowed]).unwrap();
    of_static.arm().unwrap();
    of_borrowed.arm().unwrap();
    for page in world.pages() {
        let outcome = world.tracker.on_write_fault(page + 7);
        assert_eq!(of_static.on_write_fault(page + 7), outcome);
        assert_eq!(of_borrowed.on_write_fault(page + 7), outcome);
    }
    let runs = world.harvest();
    let mut delivered = Vec::new();
    let mut accept = |run| {
        delivered.push(run);
        Ok::<_, ()>(())
    };
    of_static.harvest(&mut accept).expect("nothing fails");
    of_borrowed.harvest(&mut accept).expect("nothing fails");
    assert_eq!(delivered, [&runs[..], &runs[..]].concat());
}

#[cfg(feature = "alloc")]
#[test]
fn a_boxed_region_has_room_for_its_pages() {
    use pugmark::BoxedRegion;
    let boxed = BoxedRegion::boxed(LOW, 1 << 30, PageGeometry::ARM64_4K).unwrap();
    assert_eq!(boxed.pages(), 1 << 18);
    assert_eq!(boxed.dirty().len(), 1 << 18);
    let tracker = WriteTracker::new(Host::new(&[]), vec![boxed]).unwrap();
    assert_eq!(tracker.regions()[0].dirty().count(), 1 << 18);
}

#[test]
fn the_geometries_are_those_of_the_hosts() {
    let sizes = |geometry: PageGeometry| {
        (
            geometry.page_size(),
            geometry.block_size(),
            geometry.pages_per_block(),
        )
    };
    assert_eq!(sizes(PageGeometry::APPLE_SILICON), (16 << 10, 2 << 20, 128));
    for geometry in [
        PageGeometry::ARM64_4K,
        PageGeometry::X86_64,
        PageGeometry::RISCV64,
    ] {
        assert_eq!(sizes(geometry), (4 << 10, 2 << 20, 512));
    }
    let one = PageGeometry::new(1 << 21, 1 << 21).unwrap();
    assert_eq!(one.pages_per_block(), 1);
}

#[test]
fn a_block_of_one_page_is_tracked_too() {
    let geometry = PageGeometry::new(PAGE, PAGE).unwrap();
    let words = || [(); 3].map(|()| AtomicUsize::new(0));
    let blocks = [(); 9].map(|()| BlockState::new());
    let of_pages =
        pugmark::TrackedRegion::with_storage(LOW, 9 * PAGE, geometry, words(), words(), blocks);
    let world = World::armed([region(LOW, 9 * PAGE)]);
    let tracker = WriteTracker::new(world.host(), [of_pages.unwrap()]).unwrap();
    tracker.arm().unwrap();
    let Granted { span, .. } = granted(tracker.on_write_fault(LOW + 3 * PAGE + 1));
    assert_eq!(span, LOW + 3 * PAGE..LOW + 4 * PAGE);
}

#[test]
fn a_new_tracker_forgets_what_an_abandoned_harvest_held() {
    // Storage in which a harvest was leaked: stale bits everywhere.
    let stale = || {
        let words = 0..words_for(2 * PAGES_PER_BLOCK as usize);
        words.map(|_| AtomicUsize::new(usize::MAX)).collect()
    };
    let blocks = [(); 2].map(|()| BlockState::new()).into();
    let region: Region =
        pugmark::TrackedRegion::with_storage(LOW, 2 * BLOCK, GEOMETRY, stale(), stale(), blocks)
            .unwrap();
    let world = World::armed([region]);
    world.write(LOW);
    let harvest = world.tracker.begin_harvest().unwrap();
    let run = DirtyRun {
        start: LOW,
        len: BLOCK,
    };
    assert!(harvest.runs().eq([run]));
}

#[test]
fn a_new_tracker_of_used_regions_is_coarse_and_marked() {
    let regions = [fine_region(LOW, 2 * BLOCK)];
    let host = Host::new(&regions);
    let tracker = WriteTracker::new(&host, &regions).unwrap();
    tracker.arm().unwrap();
    tracker.tick(std::time::Duration::from_millis(1));
    granted(tracker.on_write_fault(LOW));
    tracker.tick(std::time::Duration::from_millis(2));
    assert_eq!(regions[0].granule_at(LOW), Some(Granule::Page));
    std::mem::forget(tracker.begin_harvest().unwrap());
    drop(tracker);

    let tracker = WriteTracker::new(&host, &regions).unwrap();
    assert_eq!(regions[0].granule_at(LOW), Some(Granule::Block));
    assert_eq!(regions[0].dirty().count(), regions[0].pages());
    assert!(
        tracker.begin_harvest().is_ok(),
        "the leaked harvest was the other tracker's"
    );
}
