//! Lines that a drain has taken ahead of their turn: none is lost when it ends early.
//!
//! A bit in each of so many lines that some are visited, some are ahead, some are named by the same
//! summary word and not ahead yet, and some are in summary words that were not looked at.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::thread;

use pugmark::bitmap::LINE_BITS;
use pugmark::{AtomicUsize, DirtyBitmap, Run, words_for};

use crate::oracle::{Drains, Rng};

/// Some summary words, and a last one with a few lines.
const LINES: usize = if cfg!(miri) { 1 } else { 2 } * usize::BITS as usize + 5;
const BITS: usize = LINES * LINE_BITS;

type Bitmap = DirtyBitmap<Box<[AtomicUsize]>>;

fn clean() -> Bitmap {
    let words = (0..words_for(BITS)).map(|_| AtomicUsize::new(0)).collect();
    DirtyBitmap::with_storage(words, BITS).expect("room")
}

/// One bit of `line`: another word in each.
const fn bit(line: usize) -> usize {
    line * LINE_BITS + line * 37 % LINE_BITS
}

/// All lines, only even ones, and a few that lie far from each other.
fn which() -> Vec<Vec<usize>> {
    let all: Vec<_> = (0..LINES).collect();
    let even = all.iter().copied().step_by(2).collect();
    let few = vec![3, 60, 61, LINES - 1];
    if cfg!(miri) {
        return vec![all];
    }
    vec![all, even, few]
}

fn marked(lines: &[usize]) -> Bitmap {
    let bitmap = clean();
    for &line in lines {
        assert_eq!(bitmap.mark(bit(line)), Ok(true));
    }
    bitmap
}

/// The next drain has what is in `lines`, and so do all that only look.
fn holds(bitmap: &Bitmap, lines: &[usize]) {
    assert_eq!(bitmap.count(), lines.len());
    assert_eq!(bitmap.is_clean(), lines.is_empty());
    let mut drained = Vec::new();
    bitmap.drain_bits(|bit| drained.push(bit));
    let expected: Vec<_> = lines.iter().map(|&line| bit(line)).collect();
    assert_eq!(drained, expected);
}

/// Lets `drain` end at each of the marked lines in turn.
fn ends_at_each(drain: impl Fn(&mut Bitmap, &mut dyn FnMut() -> bool)) {
    for lines in which() {
        let step = if cfg!(miri) { 40 } else { 1 };
        for end in (0..lines.len()).step_by(step) {
            let mut bitmap = marked(&lines);
            let mut accepted = 0;
            drain(&mut bitmap, &mut || {
                accepted += 1;
                accepted <= end
            });
            assert_eq!(accepted, end + 1);
            holds(&bitmap, &lines[end..]);
        }
    }
}

fn refuse(mut drains: impl Drains, accepts: &mut dyn FnMut() -> bool) {
    let accept = |run: Run| if accepts() { Ok(()) } else { Err(run) };
    assert!(drains.try_drain_runs(accept).is_err());
}

#[test]
fn what_a_sink_refused_and_all_lines_after_it_stay() {
    ends_at_each(|bitmap, accepts| refuse(&*bitmap, accepts));
}

#[test]
fn the_same_for_an_exclusive_drain() {
    ends_at_each(|bitmap, accepts| refuse(bitmap.exclusive(), accepts));
}

fn unwinds(mut drain: impl FnMut(&dyn Fn()), accepts: &mut dyn FnMut() -> bool) {
    let accepts = std::cell::RefCell::new(accepts);
    let sink = || {
        if !accepts.borrow_mut()() {
            // Without the message that `panic!` prints.
            std::panic::resume_unwind(Box::new(()));
        }
    };
    assert!(catch_unwind(AssertUnwindSafe(|| drain(&sink))).is_err());
}

#[test]
fn a_sink_that_unwinds_keeps_all_lines_after_it() {
    ends_at_each(|bitmap, accepts| unwinds(|sink| bitmap.drain_bits(|_| sink()), accepts));
    ends_at_each(|bitmap, accepts| unwinds(|sink| bitmap.drain_words(|_, _| sink()), accepts));
    ends_at_each(|bitmap, accepts| unwinds(|sink| bitmap.drain_runs(|_| sink()), accepts));
    ends_at_each(|bitmap, accepts| {
        unwinds(|sink| bitmap.exclusive().drain_bits(|_| sink()), accepts);
    });
}

/// Looking takes nothing: not even when it stops early, as `is_clean` does.
#[test]
fn a_look_leaves_every_line_where_it_is() {
    for lines in which() {
        let bitmap = marked(&lines);
        assert!(!bitmap.is_clean());
        let copy = clean();
        assert_eq!(copy.merge_from(&bitmap), Ok(()));
        holds(&copy, &lines);
        holds(&bitmap, &lines);
    }
}

/// A run over many lines is one run, whatever is ahead; and it is put back whole.
#[test]
fn a_run_over_all_lines_is_one_run() {
    let cases = [
        63..BITS - 65,
        0..BITS,
        1..BITS - 1,
        LINE_BITS - 1..BITS - LINE_BITS + 1,
    ];
    let cases_run = if cfg!(miri) { 1 } else { cases.len() };
    for bits in cases.into_iter().take(cases_run) {
        let mut bitmap = clean();
        let run = Run {
            start: bits.start,
            len: bits.len(),
        };
        assert_eq!(bitmap.mark_range(bits.clone()), Ok(()));
        assert_eq!(bitmap.try_drain_runs(Err), Err(run));
        assert_eq!(bitmap.exclusive().try_drain_runs(Err), Err(run));
        assert_eq!(bitmap.count(), run.len);
        let mut runs = Vec::new();
        bitmap.drain_runs(|run| runs.push(run));
        assert_eq!(runs, [run]);
        assert!(bitmap.is_clean());
    }
}

/// What is written before each mark, and what drainers that refuse and are beside each other saw of
/// it at last. One marker marks a bit of a line, the other the whole line, over the first one's.
#[test]
fn no_line_is_lost_to_markers_or_to_drainers_that_refuse() {
    const MARKERS: usize = 2;
    let marks = if cfg!(miri) { 100 } else { 1_000_000_u64 };
    let bitmap = clean();
    let new = || -> Vec<AtomicU64> { (0..LINES * MARKERS).map(|_| AtomicU64::new(0)).collect() };
    let (written, seen) = (new(), new());
    let copy = |run: Run| {
        let lines = run.start / LINE_BITS..(run.end() - 1) / LINE_BITS + 1;
        for cell in lines.start * MARKERS..lines.end * MARKERS {
            seen[cell].fetch_max(written[cell].load(Relaxed), Relaxed);
        }
    };
    let left = AtomicU64::new(MARKERS as u64);
    thread::scope(|scope| {
        for marker in 0..MARKERS {
            let (bitmap, written, left) = (&bitmap, &written, &left);
            scope.spawn(move || {
                let mut rng = Rng(marker as u64);
                for version in 1..=marks {
                    let line = rng.below(LINES);
                    // Relaxed: the mark is what orders it before the drain.
                    written[line * MARKERS + marker].store(version, Relaxed);
                    if marker == 0 {
                        bitmap.mark(bit(line)).unwrap();
                    } else {
                        let bits = line * LINE_BITS..(line + 1) * LINE_BITS;
                        bitmap.mark_range(bits).unwrap();
                    }
                }
                left.fetch_sub(1, Release);
            });
        }
        for drainer in 0..2 {
            let (bitmap, copy, left) = (&bitmap, &copy, &left);
            scope.spawn(move || {
                let mut rng = Rng(99 + drainer);
                while left.load(Acquire) != 0 {
                    let accept = |run: Run| {
                        if rng.one_in(20) {
                            return Err(());
                        }
                        copy(run);
                        Ok(())
                    };
                    if bitmap.try_drain_runs(accept).is_err() {
                        thread::yield_now();
                    }
                }
            });
        }
    });
    bitmap.drain_runs(copy);
    for (cell, (written, seen)) in written.iter().zip(&seen).enumerate() {
        let (line, marker) = (cell / MARKERS, cell % MARKERS);
        assert_eq!(
            seen.load(Relaxed),
            written.load(Relaxed),
            "line {line}, marker {marker}"
        );
    }
}

/// Clean summary words are skipped, many at once, and no marked one with them.
#[test]
fn a_line_is_found_behind_any_number_of_clean_summary_words() {
    const SUMMARY_BITS: usize = usize::BITS as usize * LINE_BITS;
    let summary_words = if cfg!(miri) { 10 } else { 21 };
    let bits = summary_words * SUMMARY_BITS;
    let words: Vec<_> = (0..words_for(bits)).map(|_| AtomicUsize::new(0)).collect();
    let bitmap = DirtyBitmap::with_storage(&words[..], bits).expect("room");
    let step = if cfg!(miri) { 3 } else { 1 };
    for first in (0..summary_words).step_by(step) {
        for second in (first..summary_words).step_by(step) {
            let mut expected: Vec<_> = [first, second]
                .map(|word| word * SUMMARY_BITS + word)
                .into();
            expected.dedup();
            for &bit in &expected {
                assert_eq!(bitmap.mark(bit), Ok(true));
            }
            let mut drained = Vec::new();
            bitmap.drain_bits(|bit| drained.push(bit));
            assert_eq!(drained, expected);
        }
    }
}
