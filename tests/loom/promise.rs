//! The bitmap's promise: a mark that returned before a drain began is in that drain, and each mark
//! is delivered once.

use std::sync::Arc;

use loom::sync::atomic::{
    AtomicUsize as Cell,
    Ordering::{self, Acquire, Relaxed, SeqCst},
};
use loom::thread;
use pugmark::{AtomicUsize, DirtyBitmap, words_for};

use crate::check;
use crate::storage::Storage;

pub const WORD_BITS: usize = usize::BITS as usize;

/// A bitmap, and the words under it for the wrong orders.
pub struct Bits {
    pub map: DirtyBitmap<Storage<AtomicUsize>>,
    words: Storage<AtomicUsize>,
}

/// Marks a bit, in one way or another.
pub type Mark = fn(&Bits, usize);
/// Drains, in one way or another.
pub type Drain = fn(&Bits) -> Vec<usize>;

impl Bits {
    /// A clean bitmap of `bits` bits.
    ///
    /// Each word is marked and drained first: loom would let a `SeqCst` load return a cell's first
    /// value after newer ones were stored, as that value does not count as a `SeqCst` store.
    pub fn new(bits: usize) -> Arc<Self> {
        let words = Storage::new(words_for(bits), || AtomicUsize::new(0));
        let map = DirtyBitmap::with_storage(words.share(), bits).unwrap();
        map.mark_range(0..bits).unwrap();
        map.clear();
        Arc::new(Self { map, words })
    }

    /// The leaf words, and the one summary word.
    pub fn words(&self) -> (&[AtomicUsize], &AtomicUsize) {
        let (summary, leaves) = self.words.as_ref().split_last().unwrap();
        (leaves, summary)
    }

    /// The leaf word of `bit`, and its mask there.
    fn leaf(&self, bit: usize) -> (&AtomicUsize, usize) {
        (&self.words().0[bit / WORD_BITS], 1 << (bit % WORD_BITS))
    }
}

pub fn mark(bits: &Bits, bit: usize) {
    bits.map.mark(bit).unwrap();
}

pub fn drain(bits: &Bits) -> Vec<usize> {
    let mut drained = Vec::new();
    bits.map.drain_bits(|bit| drained.push(bit));
    drained
}

/// What a drain by hand gives: the bits of each leaf that `take` takes.
pub fn take_leaves(bits: &Bits, take: impl Fn(&AtomicUsize) -> usize) -> Vec<usize> {
    let leaves = bits.words().0.iter().map(take).enumerate();
    let set = |(word, leaf): (usize, usize)| {
        let bits = (0..WORD_BITS).filter(move |bit| leaf >> bit & 1 != 0);
        bits.map(move |bit| word * WORD_BITS + bit)
    };
    leaves.flat_map(set).collect()
}

/// Fails unless `drains` have each bit of `bits` once.
pub fn check_once(bits: &[usize], drains: &[Vec<usize>]) {
    for bit in bits {
        let times = drains.iter().flatten().filter(|&drained| drained == bit);
        let times = times.count();
        assert!(times != 0, "lost bit {bit} of drains {drains:?}");
        assert!(
            times == 1,
            "delivered twice: bit {bit} of drains {drains:?}"
        );
    }
}

/// Marks `bit` beside a drain that has bit 0 to take, then drains once more.
pub fn mark_beside_a_drain(bit: usize, mark: Mark, drain: Drain) {
    let bits = Bits::new(bit + 1);
    mark(&bits, 0);
    let marker = {
        let bits = Arc::clone(&bits);
        thread::spawn(move || mark(&bits, bit))
    };
    let first = drain(&bits);
    marker.join().unwrap();
    check_once(&[0, bit], &[first, drain(&bits)]);
}

/// Two markers of one word, and a drain that begins when one of them has returned.
fn two_markers(mark: Mark) {
    let bits = Bits::new(2);
    let other = {
        let bits = Arc::clone(&bits);
        thread::spawn(move || mark(&bits, 0))
    };
    mark(&bits, 1);
    let first = drain(&bits);
    assert!(first.contains(&1), "lost bit 1 of drain {first:?}");
    other.join().unwrap();
    check_once(&[0, 1], &[first, drain(&bits)]);
}

/// Page 0 of `pages` is written and then marked. Its bit may be set still from before; whoever takes
/// the bit copies the page.
pub fn content(pages: usize, mark_written: impl Fn(&Bits) + Send + 'static) {
    let bits = Bits::new(pages);
    let page = Arc::new(Cell::new(0));
    mark(&bits, 0);
    let writer = {
        let (bits, page) = (Arc::clone(&bits), Arc::clone(&page));
        thread::spawn(move || {
            page.store(1, Relaxed);
            mark_written(&bits);
        })
    };
    let mut copy = 0;
    if drain(&bits).contains(&0) {
        copy = page.load(Relaxed);
    }
    writer.join().unwrap();
    if drain(&bits).contains(&0) {
        copy = page.load(Relaxed);
    }
    assert!(copy == 1, "lost page 0: the copy is older than its mark");
}

#[test]
fn holds() {
    check::holds(|| mark_beside_a_drain(1, mark, drain));
}

/// The drain looks at the leaf, and does not swap it if it is clear.
#[test]
fn holds_for_another_leaf() {
    check::holds(|| mark_beside_a_drain(WORD_BITS, mark, drain));
}

#[test]
fn holds_for_two_markers() {
    check::holds(|| two_markers(mark));
}

#[test]
fn holds_for_the_content() {
    check::holds(|| content(1, |bits| mark(bits, 0)));
}

/// The store is still on its way when the bit, seen set, has been taken and the page copied.
#[test]
fn no_rmw_when_already_set() {
    fn skip(bits: &Bits, bit: usize) {
        let (leaf, mask) = bits.leaf(bit);
        if leaf.load(SeqCst) & mask == 0 {
            mark(bits, bit);
        }
    }
    check::loses(|| content(1, |bits| skip(bits, 0)));
}

/// One marker is preempted between leaf and summary; the other leaves the summary to it.
#[test]
fn summary_only_when_the_leaf_was_zero() {
    fn trust_the_first(bits: &Bits, bit: usize) {
        let (leaf, mask) = bits.leaf(bit);
        if leaf.fetch_or(mask, SeqCst) == 0 {
            bits.words().1.fetch_or(1, SeqCst);
        }
    }
    check::fails("lost bit", || two_markers(trust_the_first));
}

/// The mark lands after the leaf was taken, and finds the summary bit set that is about to go.
#[test]
fn summary_swapped_after_the_leaves() {
    fn leaves_first(bits: &Bits) -> Vec<usize> {
        let summary = bits.words().1;
        if summary.load(SeqCst) == 0 {
            return Vec::new();
        }
        let taken = take_leaves(bits, |leaf| leaf.swap(0, SeqCst));
        summary.swap(0, SeqCst);
        taken
    }
    check::fails("lost bit", || mark_beside_a_drain(1, mark, leaves_first));
}

fn mark_loading(bits: &Bits, bit: usize, order: Ordering) {
    let (leaf, mask) = bits.leaf(bit);
    leaf.fetch_or(mask, SeqCst);
    let summary = bits.words().1;
    if summary.load(order) == 0 {
        summary.fetch_or(1, SeqCst);
    }
}

fn drain_looking(bits: &Bits, order: Ordering) -> Vec<usize> {
    if bits.words().1.swap(0, SeqCst) == 0 {
        return Vec::new();
    }
    take_leaves(bits, |leaf| match leaf.load(order) {
        0 => 0,
        _ => leaf.swap(0, SeqCst),
    })
}

/// That the two below fail for their one load alone.
#[test]
fn by_hand_with_every_load_seqcst() {
    check::holds(|| {
        mark_beside_a_drain(
            WORD_BITS,
            |bits, bit| mark_loading(bits, bit, SeqCst),
            |bits| drain_looking(bits, SeqCst),
        );
    });
}

/// Store buffering: the drain looks at a leaf that is still clear, and the marker, though its leaf
/// bit comes later, reads the summary as it was before the swap.
#[test]
fn summary_loaded_with_acquire() {
    check::fails("lost bit", || {
        let mark: Mark = |bits, bit| mark_loading(bits, bit, Acquire);
        mark_beside_a_drain(WORD_BITS, mark, drain);
    });
}

/// The other half of it: the marker finds the summary bit set, and the drain, though its swap comes
/// later, looks at the leaf as it was before the mark.
#[test]
fn leaf_looked_at_with_acquire() {
    check::fails("lost bit", || {
        let drain: Drain = |bits| drain_looking(bits, Acquire);
        mark_beside_a_drain(WORD_BITS, mark, drain);
    });
}
