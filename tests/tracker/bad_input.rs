//! Numbers that make no geometry, no region, no tracker: each an error that carries them.

use pugmark::{
    AtomicUsize, BlockState, GeometryError, PageGeometry, RegionError, RegionsError, StaticRegion,
    TrackedRegion, WriteTracker, words_for,
};

use crate::world::{BLOCK, GEOMETRY, Host, PAGE, PAGES_PER_BLOCK, Regions, region};

const BASE: u64 = 0x4000_0000;

fn assert_says(error: impl std::error::Error, message: &str) {
    assert_eq!(error.to_string(), message);
}

#[test]
fn a_page_that_is_no_power_of_two() {
    for page_size in [0, 3, 4095, 4097, u64::MAX] {
        let error = PageGeometry::new(page_size, 2 << 20).unwrap_err();
        assert_eq!(error, GeometryError::PageNotPowerOfTwo { page_size });
        assert_says(
            error,
            &format!("a page of {page_size} bytes is no power of two"),
        );
    }
}

#[test]
fn a_block_that_is_no_power_of_two() {
    for block_size in [0, 5000, u64::MAX] {
        let error = PageGeometry::new(4096, block_size).unwrap_err();
        assert_eq!(error, GeometryError::BlockNotPowerOfTwo { block_size });
        assert_says(
            error,
            &format!("a block of {block_size} bytes is no power of two"),
        );
    }
}

#[test]
fn a_page_larger_than_the_block() {
    let error = PageGeometry::new(8192, 4096).unwrap_err();
    let expected = GeometryError::PageLargerThanBlock {
        page_size: 8192,
        block_size: 4096,
    };
    assert_eq!(error, expected);
    assert_says(error, "a page of 8192 bytes is larger than a block of 4096");
}

/// A region over storage of so many words and blocks.
fn over(base: u64, size: u64, words: usize, blocks: usize) -> Result<(), RegionError> {
    let words = || (0..words).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>();
    let blocks: Vec<_> = (0..blocks).map(|_| BlockState::new()).collect();
    TrackedRegion::with_storage(base, size, GEOMETRY, words(), words(), blocks).map(drop)
}

#[test]
fn an_empty_region() {
    let error = over(BASE, 0, 9, 9).unwrap_err();
    assert_eq!(error, RegionError::Empty { base: BASE });
    assert_says(error, "the region at 0x40000000 is empty");
}

#[test]
fn a_base_within_a_page() {
    let base = BASE + 0x800;
    let error = over(base, BLOCK, 9, 9).unwrap_err();
    let expected = RegionError::Misaligned {
        base,
        page_size: PAGE,
    };
    assert_eq!(error, expected);
    assert_says(
        error,
        "the region's base 0x40000800 is no multiple of its page of 4096 bytes",
    );
}

#[test]
fn an_end_past_the_address_space() {
    let top = 0_u64.wrapping_sub(PAGE);
    // The last of each has a last page that ends at 2^64, which is no address.
    for (base, size) in [(BASE, u64::MAX), (top, 2 * PAGE), (top, PAGE), (top, 1)] {
        let error = over(base, size, 9, 9).unwrap_err();
        assert_eq!(error, RegionError::Overflow { base, size });
        assert_says(
            error,
            &format!("the region of {size:#x} bytes at {base:#x} ends past the address space"),
        );
    }
}

#[test]
fn more_pages_than_a_bitmap_has_bits() {
    let bytes = PageGeometry::new(1, 1).unwrap();
    let none = || Vec::<AtomicUsize>::new();
    let region = TrackedRegion::with_storage(
        0,
        u64::MAX,
        bytes,
        none(),
        none(),
        [(); 0].map(|()| BlockState::new()),
    );
    let error = region.map(drop).unwrap_err();
    assert_eq!(error, RegionError::TooManyPages { pages: u64::MAX });
    assert_says(
        error,
        &format!(
            "the region has {} pages, more than a bitmap can have bits",
            u64::MAX
        ),
    );
}

#[test]
fn too_few_words_for_the_pages() {
    let size = 100 * PAGE;
    let needed = words_for(100);
    let error = over(BASE, size, needed - 1, 100).unwrap_err();
    let RegionError::Storage(storage) = error else {
        panic!("{error:?}");
    };
    assert_eq!((storage.needed, storage.given), (needed, needed - 1));
    let given = needed - 1;
    assert_says(
        error,
        &format!("the bitmap needs {needed} words of storage and got {given}"),
    );
}

#[test]
fn too_few_blocks() {
    let error = over(BASE + PAGE, 2 * BLOCK, 9, 2).unwrap_err();
    let expected = RegionError::TooFewBlocks {
        needed: 3,
        given: 2,
    };
    assert_eq!(error, expected);
    assert_says(error, "the region needs 3 blocks and got 2");
}

#[test]
#[should_panic = "words_for(bits) words"]
fn a_static_region_with_too_few_words_panics_in_new() {
    let _ = StaticRegion::<1, 1>::new(BASE, BLOCK, GEOMETRY);
}

#[test]
#[should_panic = "blocks_for(…) blocks"]
fn a_static_region_with_too_few_blocks_panics_in_new() {
    let _ = StaticRegion::<9, 1>::new(BASE, 2 * BLOCK, GEOMETRY);
}

#[cfg(feature = "alloc")]
#[test]
fn a_boxed_region_refuses_the_same() {
    use pugmark::BoxedRegion;
    let error = BoxedRegion::boxed(BASE, 0, GEOMETRY).unwrap_err();
    assert_eq!(error, RegionError::Empty { base: BASE });
}

#[test]
fn regions_that_overlap_or_do_not_ascend() {
    let cases = [
        // The same one twice; one page in common; the wrong way round.
        (region(BASE, BLOCK), region(BASE, BLOCK)),
        (region(BASE, BLOCK), region(BASE + BLOCK - PAGE, BLOCK)),
        (region(BASE + BLOCK, BLOCK), region(BASE, BLOCK)),
        // The first one's last page is partial, but protected whole.
        (region(BASE, PAGE + 1), region(BASE + PAGE, BLOCK)),
    ];
    for (first, second) in cases {
        let (end, next) = (first.page_range().end, second.base());
        let below = region(0, PAGE);
        let regions = Regions(vec![below, first, second]);
        let error = WriteTracker::new(Host::new(&[]), regions)
            .map(drop)
            .unwrap_err();
        assert_eq!(
            error,
            RegionsError::Order {
                index: 1,
                end,
                next
            }
        );
        assert_says(
            error,
            &format!(
                "region 2 begins at {next:#x}, before region 1 ends at {end:#x}: \
                 give them in ascending order, without overlap"
            ),
        );
    }
}

#[test]
fn a_region_that_another_tracker_has() {
    let [free, taken] = [BASE, BASE + BLOCK].map(|base| region(base, BLOCK));
    let regions = [free, taken];
    let new = |regions| WriteTracker::new(Host::new(&[]), regions);
    let first = new(&regions[1..]).unwrap();
    let error = new(&regions[..]).map(drop).unwrap_err();
    assert_eq!(error, RegionsError::AlreadyTracked { base: BASE + BLOCK });
    assert_says(error, "another tracker has the region at 0x40008000");
    // The refused one took nothing, and a tracker that is gone gives its regions back.
    assert!(new(&regions[..1]).is_ok());
    drop(first);
    assert!(new(&regions[..]).is_ok());
}

#[test]
fn regions_that_touch_are_fine() {
    let regions = Regions(vec![region(BASE, BLOCK), region(BASE + BLOCK, BLOCK)]);
    assert!(WriteTracker::new(Host::new(&[]), regions).is_ok());
}

#[test]
fn no_regions_at_all_are_fine() {
    let tracker = WriteTracker::new(Host::new(&[]), Regions(vec![])).unwrap();
    assert_eq!(tracker.arm(), Ok(()));
    assert!(
        tracker
            .harvest(|_| Err(()))
            .is_ok_and(|harvested| harvested.runs == 0)
    );
    assert!(tracker.mark_written(0..1).is_err());
}

#[test]
fn the_hosts_error_is_shown_with_the_region() {
    let error = pugmark::ArmError::Host {
        start: BASE,
        end: BASE + PAGES_PER_BLOCK * PAGE,
        error: "no memory",
    };
    assert_says(
        error,
        "changing the permission of 0x40000000..0x40008000 failed: no memory",
    );
}
