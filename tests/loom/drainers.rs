//! Several drainers, and drains that end early.

use std::sync::Arc;

use loom::sync::atomic::Ordering::SeqCst;
use loom::thread::{self, JoinHandle};

use pugmark::bitmap::LINE_BITS;

use crate::check::{fails, holds};
use crate::promise::{Bits, Drain, check_once, drain, mark, mark_beside_a_drain, take_leaves};

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

#[test]
fn refused_lines_forgotten() {
    /// Gives its run back, but not the lines that it took and did not visit.
    fn forget_lines(bits: &Bits) {
        let (leaves, summary) = bits.words();
        summary.swap(0, SeqCst);
        let refused = leaves[0].swap(0, SeqCst);
        leaves[0].fetch_or(refused, SeqCst);
        summary.fetch_or(1, SeqCst);
    }
    fails("lost bit", || {
        mark_beside_a_refusal(forget_lines, LINE_BITS + 2, &[0, LINE_BITS]);
    });
}
