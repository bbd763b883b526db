//! Several drainers, and drains that end early.

use std::sync::Arc;

use loom::sync::atomic::Ordering::SeqCst;
use loom::thread::{self, JoinHandle};

use pugmark::bitmap::LINE_BITS;

use crate::check::{fails, holds};
use crate::promise::{
    Bits, Drain, WORD_BITS, check_once, drain, mark, mark_beside_a_drain, take_leaves,
};

fn spawn<T: 'static>(bits: &Arc<Bits>, run: impl FnOnce(&Bits) -> T + 'static) -> JoinHandle<T> {
    let bits = Arc::clone(bits);
    thread::spawn(move || run(&bits))
}

/// Two drains of the same two bits.
fn two_drainers(drain: Drain) {
    let bits = Bits::new(2);
    bits.map.mark_range(0..2).unwrap();
    let other = spawn(&bits, drain);
    let one = drain(&bits);
    let other = other.join().unwrap();
    check_once(&[0, 1], &[one, other]);
}

#[test]
fn one_a_mark() {
    holds(|| two_drainers(drain));
}

#[test]
fn one_a_mark_beside_a_marker() {
    holds(|| {
        let bits = Bits::new(2);
        mark(&bits, 0);
        let marker = spawn(&bits, |bits| mark(bits, 1));
        let other = spawn(&bits, drain);
        let one = drain(&bits);
        marker.join().unwrap();
        let other = other.join().unwrap();
        check_once(&[0, 1], &[one, other, drain(&bits)]);
    });
}

/// Looks at the leaf, and clears it in another step.
fn look_then_clear(bits: &Bits) -> Vec<usize> {
    take_leaves(bits, |leaf| {
        let taken = leaf.load(SeqCst);
        leaf.swap(0, SeqCst);
        taken
    })
}

#[test]
fn look_then_clear_delivers_twice() {
    fails("delivered twice", || two_drainers(look_then_clear));
}

#[test]
fn look_then_clear_delivers_none() {
    fails("lost bit", || mark_beside_a_drain(1, mark, look_then_clear));
}

/// Takes everything and wants none of it.
type Refuse = fn(&Bits);

fn refuse(bits: &Bits) {
    let refused = bits.map.try_drain_runs(Err);
    assert!(refused.is_err(), "there was a run");
}

/// The last bit of `len` is marked beside a drain whose sink refuses the runs before it.
fn mark_beside_a_refusal(refuse: Refuse, len: usize, before: &[usize]) {
    let bits = Bits::new(len);
    before.iter().for_each(|&bit| mark(&bits, bit));
    let marker = spawn(&bits, move |bits| mark(bits, len - 1));
    refuse(&bits);
    marker.join().unwrap();
    for bit in before.iter().copied().chain([len - 1]) {
        assert!(bits.map.is_marked(bit).unwrap(), "lost bit {bit}");
    }
    let mut drained = Vec::new();
    bits.map.drain_bits(|bit| drained.push(bit));
    for bit in before.iter().copied().chain([len - 1]) {
        assert!(
            drained.contains(&bit),
            "lost bit {bit} of drain {drained:?}"
        );
    }
}

#[test]
fn refused_runs_stay() {
    holds(|| mark_beside_a_refusal(refuse, 4, &[0, 2]));
}

/// Two lines of leaves: the second is not looked at any more, and must be found by the next drain.
#[test]
fn refused_lines_stay() {
    holds(|| mark_beside_a_refusal(refuse, LINE_BITS + 2, &[0, LINE_BITS]));
}

/// Of three lines one is visited, one is ahead, and one is named by the summary word and not ahead
/// yet; the mark is in the last.
#[test]
fn refused_lines_ahead_stay() {
    let lines = [0, LINE_BITS, 2 * LINE_BITS];
    holds(move || mark_beside_a_refusal(refuse, 2 * LINE_BITS + 2, &lines));
}

/// Two drains of three lines, of which each may have some ahead when the other comes.
#[test]
fn one_a_mark_of_lines_ahead() {
    holds(|| {
        let bits = Bits::new(2 * LINE_BITS + 1);
        let lines = [0, LINE_BITS, 2 * LINE_BITS];
        lines.iter().for_each(|&bit| mark(&bits, bit));
        let other = spawn(&bits, drain);
        let one = drain(&bits);
        let other = other.join().unwrap();
        check_once(&lines, &[one, other]);
    });
}

/// A line ahead is looked at when it is visited, and not when it is taken ahead of that.
#[test]
fn line_looked_at_before_its_summary_is_swapped() {
    /// Looks at the second line while the first one's summary word is still to be swapped.
    fn look_ahead(bits: &Bits) -> Vec<usize> {
        let (leaves, summary) = bits.words();
        let line = LINE_BITS / WORD_BITS;
        let is_marked = |word: usize| leaves[word].load(SeqCst) != 0;
        let marked = [is_marked(0), is_marked(line)];
        if summary.swap(0, SeqCst) == 0 {
            return Vec::new();
        }
        let marked = [0, line]
            .into_iter()
            .zip(marked)
            .filter(|&(_, marked)| marked);
        // Each of these tests marks the lowest bit of a line.
        let taken = marked.filter(|&(word, _)| leaves[word].swap(0, SeqCst) != 0);
        taken.map(|(word, _)| word * WORD_BITS).collect()
    }
    fails("lost bit", || {
        mark_beside_a_drain(LINE_BITS, mark, look_ahead)
    });
}

#[test]
fn refused_word_stored_back() {
    /// Gives the leaf back as it was, over marks that came since.
    fn store_back(bits: &Bits) {
        let leaf = &bits.words().0[0];
        let refused = leaf.swap(0, SeqCst);
        leaf.swap(refused, SeqCst);
    }
    fails("lost bit", || mark_beside_a_refusal(store_back, 4, &[0, 2]));
}

/// Gives its run back, but of the lines that it took and did not visit only the first `kept`.
fn forget_lines(bits: &Bits, kept: usize) {
    let (leaves, summary) = bits.words();
    summary.swap(0, SeqCst);
    let refused = leaves[0].swap(0, SeqCst);
    leaves[0].fetch_or(refused, SeqCst);
    summary.fetch_or((2 << kept) - 1, SeqCst);
}

#[test]
fn refused_lines_forgotten() {
    fails("lost bit", || {
        let forget: Refuse = |bits| forget_lines(bits, 0);
        mark_beside_a_refusal(forget, LINE_BITS + 2, &[0, LINE_BITS]);
    });
}

/// What is ahead goes back, but not what the same summary word named as well.
#[test]
fn refused_lines_behind_those_ahead_forgotten() {
    fails("lost bit", || {
        let forget: Refuse = |bits| forget_lines(bits, 1);
        let lines = [0, LINE_BITS, 2 * LINE_BITS];
        mark_beside_a_refusal(forget, 2 * LINE_BITS + 2, &lines);
    });
}
