//! One suite, and every bitmap that must pass it: vm-memory's own first.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use pugmark::host::vm_memory::{
    PageSizeError, PugmarkBitmap, SharedBitmap, SwapBitmap, TrackerBitmap,
};
use pugmark::{BoxedRegion, PageGeometry, WriteProtect, WriteTracker};
use vm_memory::bitmap::{AtomicBitmap, Bitmap, NewBitmap};

/// Small pages, so that each offset can be asked for.
const PAGE: usize = 128;
/// A partial page at the end.
const LEN: usize = 70 * PAGE + 5;

pub struct Open;

impl WriteProtect for Open {
    type Error = Infallible;

    fn protect(&self, _: Range<u64>) -> Result<(), Infallible> {
        Ok(())
    }

    fn unprotect(&self, _: Range<u64>) -> Result<(), Infallible> {
        Ok(())
    }
}

pub fn tracker(base: u64, len: u64, page: u64) -> Arc<WriteTracker<Open, Vec<BoxedRegion>>> {
    let geometry = PageGeometry::new(page, 16 * page).expect("powers of two");
    let region = BoxedRegion::boxed(base, len, geometry).expect("a region");
    let tracker = WriteTracker::new(Open, vec![region]).expect("one region");
    tracker.arm().expect("nothing to protect");
    Arc::new(tracker)
}

fn ours() -> PugmarkBitmap {
    PugmarkBitmap::new(LEN, PAGE).expect("a power of two")
}

/// Every bitmap of the suite, clean.
fn each(check: impl Fn(&str, &dyn Asked)) {
    let theirs = AtomicBitmap::new(LEN, const { NonZeroUsize::new(PAGE).unwrap() });
    check("AtomicBitmap", &theirs);
    check("PugmarkBitmap", &ours());
    check("SharedBitmap", &SharedBitmap::from(Arc::new(ours())));
    check("SwapBitmap", &SwapBitmap::from(Arc::new(ours())));
    check("Option", &Some(ours()));
    // Neighbours on both sides are tracked too, and must not be marked.
    let base = 3 * PAGE as u64;
    let tracker = tracker(0, 200 * PAGE as u64, PAGE as u64);
    let tracked = TrackerBitmap::new(tracker.clone(), base, LEN);
    check("TrackerBitmap", &tracked);
    let marked = tracker.regions()[0].dirty();
    assert!(
        (0..3)
            .chain(3 + 71..200)
            .all(|page| marked.is_marked(page) == Ok(false))
    );
}

/// What the suite asks, at the bitmap itself and through slices.
trait Asked {
    fn mark(&self, offset: usize, len: usize);
    fn dirty(&self, offset: usize) -> bool;
    fn mark_in_slice(&self, at: [usize; 2], offset: usize, len: usize);
    fn dirty_in_slice(&self, at: [usize; 2], offset: usize) -> bool;
}

impl<B: Bitmap> Asked for B {
    fn mark(&self, offset: usize, len: usize) {
        self.mark_dirty(offset, len);
    }

    fn dirty(&self, offset: usize) -> bool {
        self.dirty_at(offset)
    }

    fn mark_in_slice(&self, at: [usize; 2], offset: usize, len: usize) {
        self.slice_at(at[0]).slice_at(at[1]).mark_dirty(offset, len);
    }

    fn dirty_in_slice(&self, at: [usize; 2], offset: usize) -> bool {
        self.slice_at(at[0]).slice_at(at[1]).dirty_at(offset)
    }
}

fn dirty_pages(bitmap: &dyn Asked) -> Vec<usize> {
    assert!((LEN.next_multiple_of(PAGE)..LEN + 3 * PAGE).all(|offset| !bitmap.dirty(offset)));
    // The first and the last byte of a page say the same.
    let pages = (0..LEN.div_ceil(PAGE)).filter(|page| {
        let ends = [page * PAGE, (LEN - 1).min(page * PAGE + PAGE - 1)];
        let [first, last] = ends.map(|offset| bitmap.dirty(offset));
        assert_eq!(first, last, "page {page}");
        first
    });
    pages.collect()
}

#[test]
fn a_page_that_is_touched_is_dirty_as_a_whole() {
    let cases: [(usize, usize, Range<usize>); 9] = [
        (0, 1, 0..1),
        (PAGE - 1, 1, 0..1),
        (PAGE - 1, 2, 0..2),
        (PAGE, PAGE, 1..2),
        (PAGE, PAGE + 1, 1..3),
        (3 * PAGE + 7, 60 * PAGE, 3..64),
        (63 * PAGE, 2 * PAGE, 63..65),
        (LEN - 1, 1, 70..71),
        (0, LEN, 0..71),
    ];
    for (offset, len, pages) in cases {
        each(|name, bitmap| {
            bitmap.mark(offset, len);
            let pages: Vec<usize> = pages.clone().collect();
            assert_eq!(dirty_pages(bitmap), pages, "{name}: {len} at {offset}");
        });
    }
}

#[test]
fn nothing_is_marked_by_no_bytes() {
    for offset in [0, 1, PAGE, LEN, usize::MAX] {
        each(|name, bitmap| {
            bitmap.mark(offset, 0);
            assert_eq!(dirty_pages(bitmap), [0; 0], "{name}: 0 at {offset}");
        });
    }
}

#[test]
fn what_is_out_of_range_is_ignored_and_the_rest_is_not() {
    let last = LEN / PAGE;
    let cases: [(usize, usize, Range<usize>); 6] = [
        (LEN + PAGE, 1, 0..0),
        (usize::MAX, 1, 0..0),
        (usize::MAX, usize::MAX, 0..0),
        (LEN - 1, 10 * PAGE, last..last + 1),
        (2 * PAGE, usize::MAX, 2..last + 1),
        (0, usize::MAX, 0..last + 1),
    ];
    for (offset, len, pages) in cases {
        each(|name, bitmap| {
            bitmap.mark(offset, len);
            let pages: Vec<usize> = pages.clone().collect();
            assert_eq!(dirty_pages(bitmap), pages, "{name}: {len} at {offset}");
            assert!(!bitmap.dirty(usize::MAX), "{name}");
        });
    }
}

#[test]
fn a_slice_is_the_same_bitmap_from_an_offset_on() {
    each(|name, bitmap| {
        bitmap.mark_in_slice([5 * PAGE, 3], PAGE, 2);
        assert_eq!(dirty_pages(bitmap), [6], "{name}");
        assert!(bitmap.dirty_in_slice([PAGE, PAGE], 4 * PAGE), "{name}");
        assert!(!bitmap.dirty_in_slice([PAGE, PAGE], 5 * PAGE), "{name}");
        bitmap.mark(9 * PAGE, 1);
        assert!(bitmap.dirty_in_slice([9 * PAGE, 0], 0), "{name}");
        // Past the end through a slice is ignored too.
        bitmap.mark_in_slice([LEN, PAGE], 0, PAGE);
        assert_eq!(dirty_pages(bitmap), [6, 9], "{name}");
    });
}

#[test]
fn random_marks_match_vm_memorys_own() {
    let mut random = 0x5_eed0_u64;
    let mut below = |limit: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 16) as usize % limit
    };
    let theirs = AtomicBitmap::new(LEN, const { NonZeroUsize::new(PAGE).unwrap() });
    let bitmap = ours();
    for _ in 0..2_000 {
        let (offset, len) = (below(LEN + 200), below(5 * PAGE));
        theirs.mark(offset, len);
        bitmap.mark(offset, len);
        assert_eq!(dirty_pages(&bitmap), dirty_pages(&theirs));
        if below(20) == 0 {
            let bits = theirs
                .get_and_reset()
                .into_iter()
                .map(|word| word.count_ones());
            let mut drained = 0;
            bitmap.bits().drain_bits(|_| drained += 1);
            assert_eq!(bits.sum::<u32>(), drained);
        }
    }
}

#[test]
fn sizes() {
    // SAFETY: a question without effects.
    let host = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    let bitmap = PugmarkBitmap::with_len(10 * host + 1);
    assert_eq!((bitmap.page_size(), bitmap.bits().len()), (host, 11));
    assert_eq!(
        SharedBitmap::<PugmarkBitmap>::with_len(3 * host)
            .bits()
            .len(),
        3
    );
    assert_eq!(PugmarkBitmap::default().bits().len(), 0);
    PugmarkBitmap::default().mark(0, 1);
    for page_size in [0, 3, 4097] {
        let refused = PugmarkBitmap::new(100, page_size).expect_err("no power of two");
        assert!(matches!(refused, PageSizeError { page_size: said, .. } if said == page_size));
    }
}
