//! From nothing dirty to everything: what a drain takes for how much there is to drain.

use std::sync::atomic::Ordering::SeqCst;

use pugmark::bitmap::BoxedWords;
use pugmark::{AtomicUsize, DirtyBitmap, words_for};
use vm_memory::bitmap::AtomicBitmap;

use super::{Picture, Points};
use crate::harness::{Bench, Turn, limit, peer, time, time_waiting, us};
use crate::improved::Improved;
use crate::random::rng;
use crate::report::{self, Axis, Scale};
use crate::rows::drain::{Sum, limits::take};
use crate::rows::mark::PAGE_SIZE;

pub const PICTURE: Picture = Picture {
    name: "plot-drain-density",
    work: "drain 256 GiB of 4 KiB pages, of which some are dirty, anywhere",
    measure,
};

/// 256 GiB of 4 KiB pages.
const PAGES: usize = 1 << 26;
/// Of one.
const SHARES: [f64; 9] = [0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 1.0];

fn measure(bench: &Bench) -> report::Picture {
    let pages = if bench.is_check() { 1 << 20 } else { PAGES };
    let mut points = Points::NONE;
    for share in SHARES {
        at(&bench.part(SHARES.len()), pages, share, &mut points);
    }
    let x = Axis {
        label: "dirty pages".into(),
        scale: Scale::Shares,
    };
    PICTURE.of(x, "drain", points)
}

fn at(bench: &Bench, pages: usize, share: f64, points: &mut Points) {
    let words = draw(pages / 64, share);
    let mut expected = Sum::default();
    let dirty = || words.iter().enumerate().filter(|(_, bits)| **bits != 0);
    dirty().for_each(|(word, bits)| expected.word(word, *bits));

    let mut lines: Vec<usize> = dirty().map(|(word, _)| word / 8).collect();
    lines.dedup();
    let leaves = &storage(words.len(), &[]);
    let all = storage(words_for(pages), &words);
    let all = DirtyBitmap::with_storage(all, pages).expect("it is large enough");
    let ours = DirtyBitmap::boxed(pages);
    let improved = &Improved::new(pages);
    let theirs = AtomicBitmap::new(pages * PAGE_SIZE.get(), PAGE_SIZE);
    for (word, bits) in dirty() {
        let set = (0..64).filter(|bit| bits >> bit & 1 == 1);
        set.for_each(|bit| theirs.set_bit(word * 64 + bit));
    }

    let ours = |drain: fn(&DirtyBitmap<BoxedWords>, &mut Sum)| {
        let (ours, all) = (&ours, &all);
        move || {
            ours.merge_from(all).expect("they are as long");
            let mut sum = Sum::default();
            let turn = timed(share, || drain(ours, &mut sum));
            assert!(sum == expected && ours.is_clean());
            turn
        }
    };
    let names = [
        ("lines known", "nobody told"),
        ("pugmark", "page by page"),
        ("pugmark", "in runs"),
        ("look, then swap", ""),
        ("vm-memory", ""),
    ];
    let measured = bench.rounds([
        limit(names[0].0, || {
            dirty().for_each(|(word, bits)| leaves[word].store(*bits as usize, SeqCst));
            let mut taken = 0_u64;
            let turn = timed(share, || {
                take(leaves, &lines, |_, bits| taken = taken.wrapping_add(bits));
            });
            let sum = dirty().fold(0_u64, |sum, (_, bits)| sum.wrapping_add(*bits));
            assert_eq!(taken, sum);
            turn
        }),
        us(ours(|bitmap, sum| bitmap.drain_bits(|page| sum.page(page)))),
        peer(
            names[2].0,
            ours(|bitmap, sum| bitmap.drain_runs(|run| sum.run(run.start, run.len))),
        ),
        peer(names[3].0, || {
            dirty().for_each(|(word, bits)| improved.set_word(word, *bits));
            let mut sum = Sum::default();
            let turn = timed(share, || improved.drain(|word, bits| sum.word(word, bits)));
            assert_eq!(sum, expected);
            turn
        }),
        peer(names[4].0, || {
            // To mark so many pages again would take it seconds.
            let theirs = theirs.clone();
            let mut sum = Sum::default();
            let turn = timed(share, || {
                let copy = theirs.get_and_reset().into_iter().enumerate();
                copy.for_each(|(word, bits)| sum.word(word, bits));
            });
            assert_eq!(sum, expected);
            turn
        }),
    ]);
    points.add(share, &names, &measured);
}

/// The clock of a thread takes a microsecond, which is too much where there is little to drain; the one
/// on the wall runs on while others have the core, which hardly happens in so short a time.
fn timed(share: f64, work: impl FnOnce()) -> Turn {
    if share < 1e-3 {
        time_waiting(1, work).0
    } else {
        time(1, work).0
    }
}

/// Atomic words that begin with `words`.
fn storage(len: usize, words: &[u64]) -> Box<[AtomicUsize]> {
    let word = |number| words.get(number).copied().unwrap_or(0) as usize;
    (0..len)
        .map(|number| AtomicUsize::new(word(number)))
        .collect()
}

/// Words in which a `share` of the bits is set, anywhere.
fn draw(words: usize, share: f64) -> Vec<u64> {
    let mut drawn = vec![0; words];
    if share == 0.0 || share == 1.0 {
        drawn.fill(if share == 0.0 { 0 } else { u64::MAX });
        return drawn;
    }
    let mut rng = rng();
    // From one set bit to the next: as far as a coin falls on its other side.
    let mut bit = 0;
    loop {
        let gap = (1.0 - rng.f64()).ln() / (1.0 - share).ln();
        bit += gap.min(1e18) as usize;
        let Some(word) = drawn.get_mut(bit / 64) else {
            return drawn;
        };
        *word |= 1 << (bit % 64);
        bit += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_large_a_share_as_asked() {
        for share in SHARES {
            let words = draw(1 << 16, share);
            let ones: u32 = words.iter().map(|bits| bits.count_ones()).sum();
            let found = f64::from(ones) / f64::from(1 << 22);
            assert!(
                (found - share).abs() <= share / 10.0 + 2e-6,
                "{found} of {share}"
            );
        }
    }
}
