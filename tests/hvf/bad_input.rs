//! Memory that cannot be tracked, refused with the number that says why.

use pugmark::hvf::{HostPage, HvfTracker, NewTrackerError};
use pugmark::{RegionError, RegionsError};

const RAM: u64 = 0x4000_0000;

fn refused(page: HostPage, memory: &[(u64, u64)]) -> NewTrackerError {
    HvfTracker::new(page, memory.iter().copied()).expect_err("not trackable")
}

#[test]
fn a_base_within_a_page_of_the_granule_is_refused() {
    for (page, base) in [
        (HostPage::Kib16, RAM + 0x1000),
        (HostPage::Kib16, RAM + 1),
        (HostPage::Kib4, RAM + 0x800),
    ] {
        let page_size = page.size();
        let error = refused(page, &[(base, 1 << 20)]);
        let expected = RegionError::Misaligned { base, page_size };
        assert_eq!(error, NewTrackerError::Region(expected));
        assert_eq!(error.to_string(), expected.to_string());
    }
    // With its granule it is whole.
    let base = RAM + 0x1000;
    assert!(HvfTracker::new(HostPage::Kib4, [(base, 0x3000)]).is_ok());
}

#[test]
fn a_size_that_is_no_whole_pages_is_refused() {
    for (page, size) in [
        (HostPage::Kib16, 0x1000),
        (HostPage::Kib16, 0x4001),
        (HostPage::Kib4, 0x1fff),
    ] {
        let error = refused(page, &[(RAM, size)]);
        let expected = NewTrackerError::Size {
            base: RAM,
            size,
            page_size: page.size(),
        };
        assert_eq!(error, expected);
        let said = format!("{size:#x} bytes at 0x40000000 are no whole pages");
        assert!(error.to_string().starts_with(&said), "{error}");
    }
}

#[test]
fn what_is_no_region_is_refused() {
    let last = !0x3fff;
    for ((base, size), expected) in [
        ((RAM, 0), RegionError::Empty { base: RAM }),
        (
            (last, 0x4000),
            RegionError::Overflow {
                base: last,
                size: 0x4000,
            },
        ),
    ] {
        let error = refused(HostPage::Kib16, &[(base, size)]);
        assert_eq!(error, NewTrackerError::Region(expected));
    }
}

#[test]
fn memory_out_of_order_are_refused() {
    let error = refused(HostPage::Kib16, &[(RAM, 0x8000), (RAM + 0x4000, 0x8000)]);
    let expected = RegionsError::Order {
        index: 0,
        end: RAM + 0x8000,
        next: RAM + 0x4000,
    };
    assert_eq!(error, NewTrackerError::Regions(expected));
    assert_eq!(error.to_string(), expected.to_string());
}

#[test]
fn what_no_region_holds_cannot_be_marked() {
    let tracker = HvfTracker::new(HostPage::Kib16, [(RAM, 0x4000)]).expect("a page");
    assert_eq!(tracker.mark_written(RAM..RAM + 8), Ok(()));
    let error = tracker.mark_written(0..8).expect_err("no region");
    assert_eq!((error.start, error.end), (0, 8));
}
