//! From 64 MiB of RAM to 4 TiB: a drain follows what is dirty, and not what there is.

use std::sync::atomic::Ordering::SeqCst;

use pugmark::bitmap::BoxedWords;
use pugmark::{AtomicUsize, DirtyBitmap};
use vm_memory::bitmap::AtomicBitmap;

use super::{Picture, Points};
use crate::harness::{Bench, Turn, limit, peer, repeat, time_waiting, us};
use crate::improved::Improved;
use crate::random::{rng, scattered};
use crate::report::{self, Axis, Scale};
use crate::rows::drain::limits::{LINE_PAGES, take};
use crate::rows::mark::PAGE_SIZE;

pub const PICTURE: Picture = Picture {
    name: "plot-drain-ram",
    work: "drain 4 KiB pages of more and more RAM, a dirty one in each dirty line of 512",
    measure,
};

/// How many pages there are, as powers of two: of 64 MiB to 4 TiB.
const SIZES: [u32; 9] = [14, 16, 18, 20, 22, 24, 26, 28, 30];

/// How many cache lines of bits have a dirty page. 64 MiB has no more of them than the first.
const DIRTY: [(usize, &str); 3] = [
    (32, "32 dirty lines"),
    (1024, "1,024 dirty lines"),
    (32_768, "32,768 dirty lines"),
];
const NOTHING: &str = "nothing dirty";

fn measure(bench: &Bench) -> report::Picture {
    let sizes = if bench.is_check() {
        &SIZES[..4]
    } else {
        &SIZES
    };
    let mut points = Points::NONE;
    for size in sizes {
        at(&bench.part(sizes.len()), 1 << size, &mut points);
    }
    let x = Axis {
        label: "RAM".into(),
        scale: Scale::Bytes,
    };
    PICTURE.of(x, "drain", points)
}

fn at(bench: &Bench, pages: usize, points: &mut Points) {
    let ours = &DirtyBitmap::boxed(pages);
    let leaves: &[AtomicUsize] = &(0..pages / 64)
        .map(|_| AtomicUsize::new(0))
        .collect::<Box<_>>();
    let vm_memory = &AtomicBitmap::new(pages * PAGE_SIZE.get(), PAGE_SIZE);
    let improved = &Improved::new(pages);
    // A clean summary is read in nanoseconds, the bits themselves in up to a tenth of a second.
    let times = ((1 << 36) / pages).clamp(16, 4096);

    let mut names = vec![
        ("pugmark", NOTHING),
        ("look, then swap", NOTHING),
        ("vm-memory", NOTHING),
    ];
    let mut contenders = vec![
        us(|| {
            repeat(times, |_| {
                ours.drain_bits(|page| panic!("page {page} is clean"))
            })
        }),
        peer("look, then swap", || {
            let (turn, ()) = time_waiting(1, || {
                improved.drain(|word, _| panic!("word {word} is clean"))
            });
            turn
        }),
        peer("vm-memory", || {
            let (turn, dirty) = time_waiting(1, || {
                let copy = vm_memory.get_and_reset();
                copy.into_iter().filter(|bits| *bits != 0).count()
            });
            assert_eq!(dirty, 0);
            turn
        }),
    ];
    for (count, how) in DIRTY
        .into_iter()
        .filter(|(count, _)| *count <= pages / LINE_PAGES)
    {
        let lines = scattered(&mut rng(), count, pages / LINE_PAGES);
        names.push(("pugmark", how));
        contenders.push(peer("pugmark", drain_lines(ours, lines.clone())));
        names.push(("lines known", how));
        contenders.push(limit("lines known", take_lines(leaves, lines)));
    }
    let measured = bench.rounds(contenders);
    points.add((pages * PAGE_SIZE.get()) as f64, &names, &measured);
}

/// Turns in which one page of each of `lines` is dirty: which of them, their numbers say.
fn drain_lines(bitmap: &DirtyBitmap<BoxedWords>, lines: Vec<usize>) -> impl FnMut() -> Turn {
    move || {
        for line in &lines {
            bitmap.mark(page_of(*line)).expect("it has that page");
        }
        let mut sum = 0;
        let (turn, ()) = time_waiting(1, || bitmap.drain_bits(|page| sum += page));
        assert_eq!(sum, lines.iter().map(|line| page_of(*line)).sum::<usize>());
        turn
    }
}

fn take_lines(leaves: &[AtomicUsize], lines: Vec<usize>) -> impl FnMut() -> Turn {
    move || {
        for page in lines.iter().map(|line| page_of(*line)) {
            leaves[page / 64].fetch_or(1 << (page % 64), SeqCst);
        }
        let mut sum = 0;
        let (turn, ()) = time_waiting(1, || {
            take(leaves, &lines, |word, bits| {
                sum += word * 64 + bits.trailing_zeros() as usize;
            })
        });
        assert_eq!(sum, lines.iter().map(|line| page_of(*line)).sum::<usize>());
        turn
    }
}

/// The dirty page of a line: any.
fn page_of(line: usize) -> usize {
    line * LINE_PAGES + line.wrapping_mul(0x9e37_79b1) % LINE_PAGES
}
