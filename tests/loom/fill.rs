//! Whole words are marked by stores: what that needs, and what it takes of a machine.
//!
//! Under loom the library swaps, since C11 does not promise what [`beside_a_writer`] asks for. So the
//! stores are made by hand.

use std::sync::Arc;

use loom::sync::atomic::{
    AtomicUsize as Cell,
    Ordering::{Relaxed, Release, SeqCst},
    fence,
};
use loom::thread;
use pugmark::AtomicUsize;

use crate::check;
use crate::promise::{Bits, WORD_BITS, check_once, content, drain, mark};

/// Marks all bits of a bitmap.
type Fill = fn(&Bits);

const EVERY_BIT: usize = usize::MAX;

/// As the library does it: all words but the last by a store, that one by a read-modify-write, and a
/// fence between them and the look at the summary.
fn fill(bits: &Bits) {
    let (last, words) = bits.words().0.split_last().unwrap();
    words.iter().for_each(store);
    last.fetch_or(EVERY_BIT, SeqCst);
    fence(SeqCst);
    announce(bits);
}

/// A store, for loom: it does not know that what another thread took before a store is older than it,
/// but of a swap it does. That of a swap more is known than of a store makes no difference to a drain;
/// for what else it makes one see [`beside_a_writer`].
fn store(word: &AtomicUsize) {
    word.swap(EVERY_BIT, Release);
}

fn announce(bits: &Bits) {
    let summary = bits.words().1;
    if summary.load(SeqCst) == 0 {
        summary.fetch_or(1, SeqCst);
    }
}

/// Fills two words beside a drain that has bit 0 to take, then drains once more. What the first drain
/// took may be in the second as well, but for what nobody marked twice.
fn beside_a_drain(fill: Fill) {
    let bits = Bits::new(2 * WORD_BITS);
    mark(&bits, 0);
    let filler = {
        let bits = Arc::clone(&bits);
        thread::spawn(move || fill(&bits))
    };
    let mut first = drain(&bits);
    filler.join().unwrap();
    let second = drain(&bits);
    assert!(first.contains(&0), "lost bit 0");
    first.retain(|&bit| bit != 0 || !second.contains(&0));
    check_once(&(0..2 * WORD_BITS).collect::<Vec<_>>(), &[first, second]);
}

#[test]
fn by_hand_beside_a_drain() {
    check::holds(|| beside_a_drain(fill));
}

#[test]
fn by_hand_for_the_content() {
    check::holds(|| content(2 * WORD_BITS, fill));
}

/// As the library does it where the summary bit looks clear: all words by a store, and the bit set
/// without another look.
fn fill_and_set(bits: &Bits) {
    let (words, summary) = bits.words();
    words.iter().for_each(store);
    summary.fetch_or(1, SeqCst);
}

#[test]
fn by_hand_set_beside_a_drain() {
    check::holds(|| beside_a_drain(fill_and_set));
}

#[test]
fn by_hand_set_for_the_content() {
    check::holds(|| content(2 * WORD_BITS, fill_and_set));
}

/// The drain that takes the bit comes before the stores.
#[test]
fn set_before_the_stores() {
    fn set_first(bits: &Bits) {
        let (words, summary) = bits.words();
        summary.fetch_or(1, SeqCst);
        words.iter().for_each(store);
    }
    check::fails("lost bit", || beside_a_drain(set_first));
}

/// Store buffering: the summary is looked at while the store is on its way.
#[test]
fn no_fence() {
    fn unfenced(bits: &Bits) {
        bits.words().0.iter().for_each(store);
        announce(bits);
    }
    check::fails("lost bit", || beside_a_drain(unfenced));
}

/// A fence on the wrong side of the stores.
#[test]
fn fence_before_the_stores() {
    fn fence_first(bits: &Bits) {
        fence(SeqCst);
        bits.words().0.iter().for_each(store);
        announce(bits);
    }
    check::fails("lost bit", || beside_a_drain(fence_first));
}

/// The page is still on its way when its bit is taken.
#[test]
fn stored_relaxed() {
    fn relaxed(bits: &Bits) {
        let words = bits.words().0;
        let store = |word: &AtomicUsize| _ = word.swap(EVERY_BIT, Relaxed);
        words.iter().for_each(store);
        fence(SeqCst);
        announce(bits);
    }
    check::loses(|| content(2 * WORD_BITS, relaxed));
}

/// One writes a page and marks it; another, which has seen the mark but not the page, fills its word.
/// Whoever takes what the other left there copies the page. (The other sets the summary bit as well: the
/// writer may not be there yet. It has no fence, which would make it see the page with the mark; that
/// is no help where the mark comes between its look and its store.)
fn beside_a_writer(fill: fn(&AtomicUsize)) {
    let bits = Bits::new(WORD_BITS);
    let page = Arc::new(Cell::new(0));
    let writer = {
        let (bits, page) = (Arc::clone(&bits), Arc::clone(&page));
        thread::spawn(move || {
            page.store(1, Relaxed);
            mark(&bits, 0);
        })
    };
    let filler = {
        let bits = Arc::clone(&bits);
        thread::spawn(move || {
            let word = &bits.words().0[0];
            if word.load(Relaxed) != 0 {
                fill(word);
                bits.words().1.fetch_or(1, SeqCst);
            }
        })
    };
    if drain(&bits).len() == WORD_BITS {
        let copy = page.load(Relaxed);
        assert!(copy == 1, "lost page 0: the copy is older than its mark");
    }
    writer.join().unwrap();
    filler.join().unwrap();
}

/// The drain synchronises with the store alone, in C11's terms. On a multi-copy atomic machine it finds
/// the page all the same.
#[test]
fn stored_where_stores_reach_others_apart() {
    check::loses(|| beside_a_writer(|word| word.store(EVERY_BIT, Release)));
}

/// What the library does on other machines, and here.
#[test]
fn swapped_beside_a_writer() {
    check::holds(|| beside_a_writer(|word| _ = word.swap(EVERY_BIT, Release)));
}
