//! One thread that marks, and two that do so at the same time: what it costs them to meet.

use std::hint::black_box;
use std::sync::atomic::Ordering::SeqCst;

use hibitset::AtomicBitSet;
use pugmark::{AtomicUsize, DirtyBitmap};
use vm_memory::bitmap::AtomicBitmap;

use super::{Picture, Points};
use crate::harness::{Bench, Turn, limit, peer, repeat, together, us};
use crate::report::{self, Axis, Scale};
use crate::rows::mark::{PAGE_SIZE, PAGES};

pub const PICTURE: Picture = Picture {
    name: "plot-mark-contended",
    work: "mark a page again and again, one thread and two at the same time",
    measure,
};

/// Where the pages of the two are, and what they have in common.
const PLACES: [(&str, [usize; 2]); 5] = [
    ("the same bit", [0, 0]),
    ("the same word", [0, 1]),
    ("the same line", [0, 64]),
    // Their summary bits are in one word.
    ("the next line", [0, 512]),
    // So are not these: no line of a bitmap or of a summary is common to both.
    ("far blocks", [0, PAGES / 2]),
];

const HOWS: [&str; 2] = ["1 thread", "2 threads"];

fn measure(bench: &Bench) -> report::Picture {
    let marks = if bench.is_check() { 1 << 10 } else { 1 << 18 };
    let words: Vec<AtomicUsize> = (0..PAGES / 64).map(|_| AtomicUsize::new(0)).collect();
    let bitmap = DirtyBitmap::boxed(PAGES);
    let vm_memory = AtomicBitmap::new(PAGES * PAGE_SIZE.get(), PAGE_SIZE);
    let hibitset = AtomicBitSet::new();
    let (words, bitmap, vm_memory, hibitset) = (&words[..], &bitmap, &vm_memory, &hibitset);

    let parts = PLACES.len() * HOWS.len();
    let mut points = Points::NONE;
    for (x, (_, pages)) in PLACES.into_iter().enumerate() {
        for (threads, how) in (1..).zip(HOWS) {
            let measured = bench.part(parts).rounds([
                limit("fetch_or", || {
                    let turn = mark(threads, marks, pages, |page| {
                        words[page / 64].fetch_or(1 << (page % 64), SeqCst);
                    });
                    let is_set =
                        |page: &usize| words[page / 64].load(SeqCst) >> (page % 64) & 1 == 1;
                    assert!(pages[..threads].iter().all(is_set));
                    words.iter().for_each(|word| word.store(0, SeqCst));
                    turn
                }),
                us(|| {
                    let turn = mark(threads, marks, pages, |page| {
                        assert!(bitmap.mark(page).is_ok());
                    });
                    let is_marked = |page: &usize| bitmap.is_marked(*page) == Ok(true);
                    assert!(pages[..threads].iter().all(is_marked));
                    bitmap.clear();
                    turn
                }),
                peer("vm-memory", || {
                    let turn = mark(threads, marks, pages, |page| vm_memory.set_bit(page));
                    assert!(
                        pages[..threads]
                            .iter()
                            .all(|page| vm_memory.is_bit_set(*page))
                    );
                    vm_memory.reset();
                    turn
                }),
                peer("hibitset", || {
                    let turn = mark(threads, marks, pages, |page| {
                        hibitset.add_atomic(page as u32);
                    });
                    assert!(
                        pages[..threads]
                            .iter()
                            .all(|page| hibitset.contains(*page as u32))
                    );
                    turn
                }),
            ]);
            let names = ["fetch_or", "pugmark", "vm-memory", "hibitset"].map(|who| (who, how));
            points.add(x as f64, &names, &measured);
        }
    }
    let x = Axis {
        label: "what the pages of two threads have in common".into(),
        scale: Scale::Names(PLACES.map(|(name, _)| name.into()).into()),
    };
    PICTURE.of(x, "mark", points)
}

/// Each thread marks its own of the pages so many times.
///
/// Threads that took turns on a core that others wanted as well did not meet: such a turn is tried
/// again, and the one in which they were together most counts.
fn mark(threads: usize, marks: usize, pages: [usize; 2], mark: impl Fn(usize) + Sync) -> Turn {
    const TRIES: usize = 20;
    const ENOUGH: f64 = 0.95;
    let pages = black_box(pages);
    let once = || {
        together(threads, |thread| {
            let page = pages[thread];
            repeat(marks, |_| mark(page))
        })
    };
    let mut best = once();
    for _ in 1..TRIES {
        if best.share > ENOUGH {
            break;
        }
        let next = once();
        if next.share > best.share {
            best = next;
        }
    }
    best.turn
}
