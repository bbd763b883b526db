//! [`DirtyBitmap`]: the heart. Bits by index, atomic, hierarchical.
//!
//! # Layout
//!
//! The storage is a slice of words. The leaves come first, one bit an index, so that they are the
//! plain bitmap (on a little-endian machine, byte by byte) that KVM, a vhost-user peer or a file
//! shares. A peer that *sets* leaf bits knows nothing of the summary: see
//! [`rescan`](DirtyBitmap::rescan). After them comes the summary: one bit for each cache line of leaves, [`LINE_BITS`] of them. With 4 KiB
//! pages a 2 MiB block is thus one cache line and one summary bit, and a drain looks only at the
//! lines that the summary names: its cost follows what changed, not what exists.
//!
//! # Why nothing is lost
//!
//! *mark*: `fetch_or` on the leaf, always; then a load of the summary bit; then a `fetch_or` on it
//! if it was clear. *drain*: swap the summary word first, then look at and swap each leaf of its
//! lines. All of them are `SeqCst`, so there is one order of them that every thread agrees on:
//!
//! - The marker loads the summary bit *before* the drainer's swap in that order: its leaf bit is
//!   older still, so the drainer's look, which comes after its swap, sees it.
//! - The marker loads *after* the swap: it finds the bit clear, or set by another marker that also
//!   came after the swap; either way the bit is set when the mark returns, and the next drain
//!   follows it.
//!
//! With acquire and release alone both sides could read the old value (store buffering), and a
//! finished mark would be invisible. `SeqCst` costs nothing here on x86, and on Arm an ordered
//! load in place of a plain one.
//!
//! Two shortcuts look right, and lose:
//!
//! - *Skip the leaf's `fetch_or` when its bit is already set.* A store to the page, then a look at
//!   a bit that the drainer is just about to clear: the drainer copies the page before the store
//!   arrives, and the mark that would have told of it was skipped. The read-modify-write is what
//!   orders the store before the drain.
//! - *Touch the summary only when the leaf word was zero.* The first marker is preempted between
//!   leaf and summary; a second marker sees a leaf that is not zero, skips the summary and returns:
//!   its finished mark is invisible to the next drain.

mod drain;
mod runs;

use core::fmt;
use core::ops::Range;

pub(crate) use drain::{DrainRuns, DrainWords};
pub use runs::Run;
pub(crate) use runs::Runs;

use crate::sync::{AtomicUsize, Ordering::SeqCst};

pub(crate) const WORD_BITS: usize = usize::BITS as usize;

/// Bits under one summary bit: a cache line of 64 bytes, the common size on x86 and Arm.
pub const LINE_BITS: usize = 512;
const LINE_WORDS: usize = LINE_BITS / WORD_BITS;

/// The most bits that a bitmap can have: as many as a `usize` counts, in whole lines.
///
/// Only a 32-bit address space is large enough to come near.
pub const MAX_BITS: usize = usize::MAX - usize::MAX % LINE_BITS;

const fn leaf_words(bits: usize) -> usize {
    bits.div_ceil(WORD_BITS)
}

/// Words of storage that a [`DirtyBitmap`] of `bits` bits takes, leaves and summary together.
///
/// ```
/// // 1 GiB in pages of 4 KiB: 32 KiB of leaves and 64 bytes of summary.
/// # #[cfg(target_pointer_width = "64")]
/// assert_eq!(pugmark::words_for(262_144) * 8, 32 * 1024 + 64);
/// ```
pub const fn words_for(bits: usize) -> usize {
    leaf_words(bits) + bits.div_ceil(LINE_BITS).div_ceil(WORD_BITS)
}

/// An index that the bitmap does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct OutOfRange {
    /// The index asked for; of a range, its last.
    pub index: usize,
    /// Bits in the bitmap.
    pub len: usize,
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, len } = self;
        write!(f, "index {index} is out of range of a bitmap of {len} bits")
    }
}

impl core::error::Error for OutOfRange {}

/// Storage with fewer words than [`words_for`] asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct StorageTooSmall {
    /// Words needed.
    pub needed: usize,
    /// Words given.
    pub given: usize,
}

impl fmt::Display for StorageTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needed, given } = self;
        write!(
            f,
            "the bitmap needs {needed} words of storage and got {given}"
        )
    }
}

impl core::error::Error for StorageTooSmall {}

/// Two bitmaps whose lengths do not fit each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct LengthMismatch {
    /// Bits in the bitmap that is read.
    pub from: usize,
    /// Bits in the bitmap that is written.
    pub into: usize,
    /// Bits of the second for each bit of the first; 1 where they should be equal.
    pub ratio: usize,
}

impl fmt::Display for LengthMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, into, ratio } = self;
        write!(
            f,
            "a bitmap of {from} bits does not fit one of {into} bits at 1:{ratio}"
        )
    }
}

impl core::error::Error for LengthMismatch {}

/// An atomic bitmap that finds its set bits without looking at the clear ones.
///
/// `S` is the storage, anything that is `AsRef<[AtomicUsize]>`: an array in a `static`, a borrowed
/// slice, a box. See the [module](self) for the layout and the ordering.
///
/// **The promise**: a mark that returned before a drain began is in that drain, and each mark is
/// delivered to exactly one drainer. Drains that overlap in time share the work: the promise is
/// then on all of them together.
///
/// ```
/// use pugmark::{AtomicUsize, DirtyBitmap, words_for};
///
/// static DIRTY: DirtyBitmap<[AtomicUsize; words_for(1000)]> = DirtyBitmap::new(1000);
///
/// DIRTY.mark(7)?;
/// DIRTY.mark_range(62..66)?;
///
/// let mut runs = Vec::new();
/// DIRTY.drain_runs(|run| runs.push((run.start, run.len)));
/// assert_eq!(runs, [(7, 1), (62, 4)]);
/// assert!(DIRTY.is_clean());
/// # Ok::<(), pugmark::OutOfRange>(())
/// ```
pub struct DirtyBitmap<S> {
    words: S,
    bits: usize,
}

#[cfg(not(loom))]
impl<const WORDS: usize> DirtyBitmap<[AtomicUsize; WORDS]> {
    /// A clean bitmap of `bits` bits, for a `static` or the stack.
    ///
    /// # Panics
    ///
    /// Where `WORDS` is less than [`words_for(bits)`](words_for). In a `static` or a `const` the
    /// panic is at compile time:
    ///
    /// ```compile_fail
    /// # use pugmark::{AtomicUsize, DirtyBitmap};
    /// static DIRTY: DirtyBitmap<[AtomicUsize; 2]> = DirtyBitmap::new(1000);
    /// ```
    ///
    /// ```
    /// # use pugmark::{AtomicUsize, DirtyBitmap};
    /// static DIRTY: DirtyBitmap<[AtomicUsize; 33]> = DirtyBitmap::new(1000);
    /// ```
    pub const fn new(bits: usize) -> Self {
        assert!(
            bits <= MAX_BITS && WORDS >= words_for(bits),
            "the bitmap needs words_for(bits) words of storage"
        );
        Self {
            words: [const { AtomicUsize::new(0) }; WORDS],
            bits,
        }
    }
}

#[cfg(feature = "alloc")]
impl DirtyBitmap<alloc::boxed::Box<[AtomicUsize]>> {
    /// A clean bitmap of `bits` bits on the heap.
    ///
    /// # Panics
    ///
    /// Where `bits` is more than [`MAX_BITS`].
    pub fn boxed(bits: usize) -> Self {
        assert!(bits <= MAX_BITS, "no bitmap has {bits} bits");
        Self {
            words: (0..words_for(bits)).map(|_| AtomicUsize::new(0)).collect(),
            bits,
        }
    }
}

impl<S: AsRef<[AtomicUsize]>> DirtyBitmap<S> {
    /// A bitmap of `bits` bits over `storage`, which keeps the leaves that are already set.
    ///
    /// The summary is made from the leaves, so that memory which another process or an earlier
    /// boot stage filled is a good start.
    ///
    /// # Errors
    ///
    /// [`StorageTooSmall`] where it has fewer words than [`words_for(bits)`](words_for).
    pub fn with_storage(storage: S, bits: usize) -> Result<Self, StorageTooSmall> {
        View::new(storage.as_ref(), bits)?.rebuild_summary();
        Ok(Self {
            words: storage,
            bits,
        })
    }

    /// Makes the summary say of each marked leaf that it is marked: one load a word.
    ///
    /// Call it before a drain where somebody else sets bits in the leaves, as KVM's dirty log or a
    /// vhost-user peer does. Without it such bits are in no drain and in no count.
    pub fn rescan(&self) {
        self.view().rebuild_summary();
    }

    /// Bits in the bitmap, marked or not.
    pub const fn len(&self) -> usize {
        self.bits
    }

    /// Whether the bitmap has no bits at all. For "none is marked" see
    /// [`is_clean`](Self::is_clean).
    pub const fn is_empty(&self) -> bool {
        self.bits == 0
    }

    /// Marks one bit; `true` if it was clear.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`]; nothing is marked then.
    #[inline]
    pub fn mark(&self, bit: usize) -> Result<bool, OutOfRange> {
        self.view().mark(bit)
    }

    /// Marks each bit of `bits`, with one read-modify-write a word. An empty range marks nothing.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`] where the range goes past the end, or ends before it starts; nothing is
    /// marked then.
    #[inline]
    pub fn mark_range(&self, bits: Range<usize>) -> Result<(), OutOfRange> {
        self.view().mark_range(bits)
    }

    /// Whether `bit` is marked, now.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`].
    pub fn is_marked(&self, bit: usize) -> Result<bool, OutOfRange> {
        self.view().is_marked(bit)
    }

    /// How many bits are marked. Marks and drains that run meanwhile may or may not be counted.
    pub fn count(&self) -> usize {
        let ones = |(_, bits): (usize, usize)| bits.count_ones() as usize;
        self.view().marked_words().map(ones).sum()
    }

    /// Whether no bit is marked, now.
    pub fn is_clean(&self) -> bool {
        self.view().marked_words().next().is_none()
    }

    /// Clears the bitmap, and reports each maximal run of marked bits, lowest first.
    ///
    /// The form to choose where bits cluster; for scattered ones
    /// [`drain_bits`](Self::drain_bits) is cheaper. If `sink` unwinds, its run and all after it
    /// stay marked.
    pub fn drain_runs(&self, mut sink: impl FnMut(Run)) {
        let mut accept = |run| {
            sink(run);
            Ok::<(), core::convert::Infallible>(())
        };
        let Ok(()) = self.try_drain_runs(&mut accept);
    }

    /// As [`drain_runs`](Self::drain_runs), for a sink that can fail.
    ///
    /// # Errors
    ///
    /// The sink's own. The run that it refused and all after it stay marked.
    pub fn try_drain_runs<E>(&self, mut sink: impl FnMut(Run) -> Result<(), E>) -> Result<(), E> {
        let view = self.view();
        for run in DrainRuns::new(view) {
            let refused = drain::PutBack { view, run };
            sink(run)?;
            core::mem::forget(refused);
        }
        Ok(())
    }

    /// Clears the bitmap, and reports each marked bit, lowest first.
    ///
    /// If `sink` unwinds, the bit it was given and all after it stay marked.
    pub fn drain_bits(&self, mut sink: impl FnMut(usize)) {
        let view = self.view();
        for (word, bits) in DrainWords::new(view) {
            let mut refused = drain::PutBackWord { view, word, bits };
            while refused.bits != 0 {
                sink(word * WORD_BITS + refused.bits.trailing_zeros() as usize);
                refused.bits &= refused.bits - 1;
            }
            core::mem::forget(refused);
        }
    }

    /// Clears the bitmap, and reports each leaf word that has marked bits: its index and the bits.
    ///
    /// What both other drains stand on. If `sink` unwinds, the whole word and all after it stay
    /// marked.
    pub fn drain_words(&self, mut sink: impl FnMut(usize, usize)) {
        let view = self.view();
        for (word, bits) in DrainWords::new(view) {
            let refused = drain::PutBackWord { view, word, bits };
            sink(word, bits);
            core::mem::forget(refused);
        }
    }

    /// Clears the bitmap, and reports nothing.
    pub fn clear(&self) {
        DrainWords::new(self.view()).for_each(drop);
    }

    /// Marks here every bit that is marked in `other`, which keeps them.
    ///
    /// # Errors
    ///
    /// [`LengthMismatch`] where the two are not of one length; nothing is marked then.
    pub fn merge_from<T: AsRef<[AtomicUsize]>>(
        &self,
        other: &DirtyBitmap<T>,
    ) -> Result<(), LengthMismatch> {
        if self.bits != other.bits {
            return Err(LengthMismatch {
                from: other.bits,
                into: self.bits,
                ratio: 1,
            });
        }
        let view = self.view();
        for (word, bits) in other.view().marked_words() {
            view.mark_word(word, bits);
        }
        Ok(())
    }

    /// Marks in `finer` all the `ratio` bits that each marked bit here stands for. Bits here stay.
    ///
    /// The last bit here may stand for fewer, where the finer length is no multiple.
    ///
    /// # Errors
    ///
    /// [`LengthMismatch`] where `finer` is not between one and `ratio` times as long; nothing is
    /// marked then.
    pub fn fold_into_finer<T: AsRef<[AtomicUsize]>>(
        &self,
        finer: &DirtyBitmap<T>,
        ratio: usize,
    ) -> Result<(), LengthMismatch> {
        if ratio == 0 || finer.bits.div_ceil(ratio) != self.bits {
            return Err(LengthMismatch {
                from: self.bits,
                into: finer.bits,
                ratio,
            });
        }
        let fine = finer.view();
        for run in Runs::new(self.view().marked_words()) {
            let first = run.start * ratio;
            let end = finer.bits.min(run.end().saturating_mul(ratio));
            let marked = fine.mark_range(first..end);
            debug_assert!(marked.is_ok(), "clamped to the finer length");
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn view(&self) -> View<'_> {
        View {
            words: self.words.as_ref(),
            bits: self.bits,
        }
    }
}

impl<S: AsRef<[AtomicUsize]>> fmt::Debug for DirtyBitmap<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirtyBitmap")
            .field("bits", &self.bits)
            .field("marked", &self.count())
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<S: AsRef<[AtomicUsize]>> defmt::Format for DirtyBitmap<S> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "DirtyBitmap({} of {} bits)", self.count(), self.bits);
    }
}

/// The bitmap without its storage: one body of code, whatever `S` is.
///
/// The constructor saw enough words. Should a hand-written `AsRef` give fewer later, then each
/// access to what is missing is an [`OutOfRange`], not a panic.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    words: &'a [AtomicUsize],
    bits: usize,
}

impl<'a> View<'a> {
    pub(crate) fn new(words: &'a [AtomicUsize], bits: usize) -> Result<Self, StorageTooSmall> {
        let needed = words_for(bits);
        let given = words.len();
        if given < needed || bits > MAX_BITS {
            return Err(StorageTooSmall { needed, given });
        }
        Ok(Self { words, bits })
    }

    #[cfg(all(feature = "capi", not(loom)))]
    pub(crate) fn words(self) -> &'a [AtomicUsize] {
        self.words
    }

    fn out_of_range(self, index: usize) -> OutOfRange {
        OutOfRange {
            index,
            len: self.bits,
        }
    }

    /// The leaf word with bit `bit`, which is below `bits`.
    #[inline]
    fn leaf_of(self, bit: usize) -> Option<&'a AtomicUsize> {
        self.words.get(bit / WORD_BITS)
    }

    /// The word with the summary bit of `line`.
    #[inline]
    fn summary_of(self, line: usize) -> Option<&'a AtomicUsize> {
        self.words.get(leaf_words(self.bits) + line / WORD_BITS)
    }

    #[inline]
    pub(crate) fn mark(self, bit: usize) -> Result<bool, OutOfRange> {
        let line = bit / LINE_BITS;
        let (true, Some(leaf), Some(summary)) =
            (bit < self.bits, self.leaf_of(bit), self.summary_of(line))
        else {
            return Err(self.out_of_range(bit));
        };
        let mask = 1 << (bit % WORD_BITS);
        // Unconditional, and SeqCst: see "Why nothing is lost". As a bool of one bit this is a
        // single `lock bts` on x86; the whole previous word would be a compare-and-swap loop.
        let was_clear = leaf.fetch_or(mask, SeqCst) & mask == 0;
        announce(summary, line);
        Ok(was_clear)
    }

    #[inline]
    pub(crate) fn mark_range(self, bits: Range<usize>) -> Result<(), OutOfRange> {
        if bits.start > bits.end || bits.end > self.bits {
            return Err(self.out_of_range(bits.start.max(bits.end) - 1));
        }
        let mut first = bits.start;
        while first < bits.end {
            let line = first / LINE_BITS;
            let line_end = bits.end.min((line + 1) * LINE_BITS);
            let summary = self.summary_of(line).ok_or(self.out_of_range(first))?;
            while first < line_end {
                let end = line_end.min((first / WORD_BITS + 1) * WORD_BITS);
                let mask = ones(end - first) << (first % WORD_BITS);
                let leaf = self.leaf_of(first).ok_or(self.out_of_range(first))?;
                // The previous word is not used, so that this is one plain `lock or` on x86.
                leaf.fetch_or(mask, SeqCst);
                first = end;
            }
            announce(summary, line);
        }
        Ok(())
    }

    /// Marks each of `ranges`; with one read-modify-write for neighbours that share a word. What is
    /// out of range is left out.
    pub(crate) fn mark_ranges(self, ranges: impl Iterator<Item = Range<usize>>) {
        let (mut word, mut gathered) = (0, 0);
        for bits in ranges {
            let at = bits.start / WORD_BITS;
            if at != word {
                self.mark_gathered(word, gathered);
                (word, gathered) = (at, 0);
            }
            let first = bits.start % WORD_BITS;
            let len = bits.end.wrapping_sub(bits.start);
            if (1..=WORD_BITS - first).contains(&len) && bits.end <= self.bits {
                gathered |= ones(len) << first;
            } else {
                let _ = self.mark_range(bits);
            }
        }
        self.mark_gathered(word, gathered);
    }

    fn mark_gathered(self, word: usize, bits: usize) {
        // Else a line without marks would get its summary bit.
        if bits != 0 {
            self.mark_word(word, bits);
        }
    }

    /// Marks `bits` of leaf word `word`. The caller has them from a bitmap of the same length.
    pub(crate) fn mark_word(self, word: usize, bits: usize) {
        let line = word / LINE_WORDS;
        let (Some(leaf), Some(summary)) = (self.words.get(word), self.summary_of(line)) else {
            debug_assert!(false, "word {word} is from a longer bitmap");
            return;
        };
        leaf.fetch_or(bits, SeqCst);
        announce(summary, line);
    }

    pub(crate) fn is_marked(self, bit: usize) -> Result<bool, OutOfRange> {
        match self.leaf_of(bit) {
            Some(leaf) if bit < self.bits => Ok(leaf.load(SeqCst) & (1 << (bit % WORD_BITS)) != 0),
            _ => Err(self.out_of_range(bit)),
        }
    }

    /// The bits of leaf `word` that the bitmap has: all, but for the last word. Whatever a foreign
    /// writer put past the end is not seen.
    fn valid(self, word: usize) -> usize {
        ones(self.bits.saturating_sub(word * WORD_BITS).min(WORD_BITS))
    }

    /// The summary words.
    fn summary(self) -> &'a [AtomicUsize] {
        let summary = leaf_words(self.bits)..words_for(self.bits);
        self.words.get(summary).unwrap_or_default()
    }

    /// The leaf words of `line`.
    fn words_of(self, line: usize) -> Range<usize> {
        let end = leaf_words(self.bits).min((line + 1) * LINE_WORDS);
        line * LINE_WORDS..end
    }

    /// Leaf words with marked bits, as they are now, lowest first. Clears nothing.
    pub(crate) fn marked_words(self) -> impl Iterator<Item = (usize, usize)> + use<'a> {
        let lines = self.summary().iter().enumerate().flat_map(|(i, summary)| {
            set_bits(summary.load(SeqCst)).map(move |bit| i * WORD_BITS + bit)
        });
        let words = lines.flat_map(move |line| self.words_of(line));
        words.filter_map(move |word| {
            let bits = self.words.get(word)?.load(SeqCst) & self.valid(word);
            (bits != 0).then_some((word, bits))
        })
    }

    fn rebuild_summary(self) {
        for word in 0..leaf_words(self.bits) {
            let is_marked = |word: &AtomicUsize| word.load(SeqCst) != 0;
            if self.words.get(word).is_some_and(is_marked)
                && let Some(summary) = self.summary_of(word / LINE_WORDS)
            {
                announce(summary, word / LINE_WORDS);
            }
        }
    }
}

/// Sets the summary bit of `line`, once its leaves are marked.
#[inline]
fn announce(summary: &AtomicUsize, line: usize) {
    let mask = 1 << (line % WORD_BITS);
    // The load keeps the line shared between markers; it comes after the leaf's `fetch_or` in the
    // one order of SeqCst. The store side is needed only when the bit is clear.
    if summary.load(SeqCst) & mask == 0 {
        summary.fetch_or(mask, SeqCst);
    }
}

/// The lowest `n` bits, of 0 to [`WORD_BITS`].
#[inline]
const fn ones(n: usize) -> usize {
    if n == 0 {
        0
    } else {
        usize::MAX >> (WORD_BITS - n)
    }
}

/// Positions of the set bits of `word`, lowest first.
fn set_bits(mut word: usize) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let bit = word
            .checked_ilog2()
            .map(|_| word.trailing_zeros() as usize)?;
        word &= word - 1;
        Some(bit)
    })
}
