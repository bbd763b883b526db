//! An exchange while devices mark.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use pugmark::host::vm_memory::{PugmarkBitmap, SwapBitmap};
use vm_memory::bitmap::{Bitmap, NewBitmap};

const PAGE: usize = 128;
const PAGES: usize = 512;

fn bitmap() -> Arc<PugmarkBitmap> {
    Arc::new(PugmarkBitmap::new(PAGES * PAGE, PAGE).expect("a power of two"))
}

#[test]
fn it_begins_without_one_and_can_be_without_again() {
    let swap = SwapBitmap::<PugmarkBitmap>::with_len(PAGES * PAGE);
    let slice = swap.slice_at(PAGE);
    slice.mark_dirty(0, 1);
    assert!(!slice.dirty_at(0) && swap.current().is_none());

    let first = bitmap();
    assert!(swap.replace(Some(Arc::clone(&first))).is_none());
    // A slice from before knows of it.
    slice.mark_dirty(0, 1);
    assert!(slice.dirty_at(0) && first.dirty_at(PAGE));

    let second = bitmap();
    let old = swap.replace(Some(Arc::clone(&second))).expect("the first");
    assert!(Arc::ptr_eq(&old, &first));
    assert!(!slice.dirty_at(0));
    slice.mark_dirty(PAGE, 1);
    assert_eq!((first.bits().count(), second.bits().count()), (1, 1));

    assert!(Arc::ptr_eq(
        &swap.replace(None).expect("the second"),
        &second
    ));
    slice.mark_dirty(0, 1);
    assert_eq!(second.bits().count(), 1);
}

/// Each mark arrives in exactly one of the bitmaps, and none comes to an old one that nobody else has.
#[test]
fn no_mark_is_lost_in_an_exchange() {
    let rounds = 2_000;
    let swap = SwapBitmap::from(bitmap());
    let go_on = AtomicBool::new(true);
    let mut seen = vec![0_usize; PAGES];
    let marked = thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|first| {
                let (swap, go_on) = (&swap, &go_on);
                scope.spawn(move || {
                    let mut page = first;
                    let mut marked = vec![false; PAGES];
                    while go_on.load(SeqCst) {
                        swap.mark_dirty(page * PAGE, 1);
                        marked[page] = true;
                        page = (page + 2) % PAGES;
                    }
                    marked
                })
            })
            .collect();
        for _ in 0..rounds {
            let mut old = swap.replace(Some(bitmap())).expect("there always is one");
            while Arc::get_mut(&mut old).is_none() {
                thread::yield_now();
            }
            old.bits().drain_bits(|page| seen[page] += 1);
            assert!(old.bits().is_clean(), "a mark came late");
        }
        // Each page once more.
        thread::sleep(Duration::from_millis(5));
        go_on.store(false, SeqCst);
        let marked = threads
            .into_iter()
            .map(|thread| thread.join().expect("it marks"));
        marked.fold(vec![false; PAGES], |all, one| {
            all.iter().zip(one).map(|(a, b)| *a || b).collect()
        })
    });
    let last = swap.replace(None).expect("the last");
    last.bits().drain_bits(|page| seen[page] += 1);
    for page in 0..PAGES {
        assert_eq!(seen[page] > 0, marked[page], "page {page}");
    }
}
