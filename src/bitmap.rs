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
//! Whole words are *stored*, on x86 and AArch64, as nothing that was there need be kept: a drain finds all
//! bits, or leaves all. A store orders less than a read-modify-write. So the last of several words is
//! one, and a fence comes before the look at the summary; or, of one word or one line, if the summary
//! bit looks clear it is set without another look, and released with the words before it.
//!
//! Two shortcuts look right, and lose:
//!
//! - *Skip the leaf's `fetch_or` when its bit is already set.* A store to the page, then a look at
//!   a bit that the drainer is just about to clear: the drainer copies the page before the store
//!   arrives, and the mark that would have told of it was skipped. The mark, done always,
//!   is what orders the store before the drain.
//! - *Touch the summary only when the leaf word was zero.* The first marker is preempted between
//!   leaf and summary; a second marker sees a leaf that is not zero, skips the summary and returns:
//!   its finished mark is invisible to the next drain.

mod access;
#[cfg(feature = "alloc")]
mod boxed;
mod drain;
mod error;
mod exclusive;
mod lines;
mod look;
mod runs;
mod span;
mod view;
mod words;

use core::fmt;
use core::ops::Range;

pub(crate) use access::{Look, Shared};
#[cfg(feature = "alloc")]
pub use boxed::BoxedWords;
pub(crate) use drain::DrainRuns;
pub use error::{LengthMismatch, OutOfRange, StorageTooSmall};
pub use exclusive::Exclusive;
pub(crate) use lines::Lines;
pub use runs::Run;
pub(crate) use runs::Runs;
pub(crate) use view::View;
pub(crate) use words::Words;

use crate::sync::AtomicUsize;

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
impl DirtyBitmap<BoxedWords> {
    /// A clean bitmap of `bits` bits on the heap.
    ///
    /// # Panics
    ///
    /// Where `bits` is more than [`MAX_BITS`].
    pub fn boxed(bits: usize) -> Self {
        assert!(bits <= MAX_BITS, "no bitmap has {bits} bits");
        Self {
            words: BoxedWords::new(words_for(bits)),
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

    /// Marks each bit of `bits`, with at most one read-modify-write a word. An empty range marks nothing.
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
        self.marked_words().map(ones).sum()
    }

    /// Whether no bit is marked, now.
    pub fn is_clean(&self) -> bool {
        self.marked_words().next().is_none()
    }

    /// Clears the bitmap, and reports each maximal run of marked bits, lowest first.
    ///
    /// The form to choose where bits cluster; for scattered ones
    /// [`drain_bits`](Self::drain_bits) is cheaper. If `sink` unwinds, its run and all after it
    /// stay marked.
    pub fn drain_runs(&self, sink: impl FnMut(Run)) {
        drain::all_runs::<Shared>(self.view(), sink);
    }

    /// As [`drain_runs`](Self::drain_runs), for a sink that can fail.
    ///
    /// # Errors
    ///
    /// The sink's own. The run that it refused and all after it stay marked.
    pub fn try_drain_runs<E>(&self, sink: impl FnMut(Run) -> Result<(), E>) -> Result<(), E> {
        drain::runs::<Shared, E>(self.view(), sink)
    }

    /// Clears the bitmap, and reports each marked bit, lowest first.
    ///
    /// If `sink` unwinds, the bit it was given and all after it stay marked.
    pub fn drain_bits(&self, sink: impl FnMut(usize)) {
        drain::bits::<Shared>(self.view(), sink);
    }

    /// Clears the bitmap, and reports each leaf word that has marked bits: its index and the bits.
    ///
    /// What both other drains stand on. If `sink` unwinds, the whole word and all after it stay
    /// marked.
    pub fn drain_words(&self, sink: impl FnMut(usize, usize)) {
        drain::words::<Shared>(self.view(), sink);
    }

    /// Clears the bitmap, and reports nothing.
    pub fn clear(&self) {
        drain::words::<Shared>(self.view(), |_, _| ());
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
        for (word, bits) in other.marked_words() {
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
        for run in Runs::new(self.marked_words()) {
            let first = run.start * ratio;
            let end = finer.bits.min(run.end().saturating_mul(ratio));
            let marked = fine.mark_range(first..end);
            debug_assert!(marked.is_ok(), "clamped to the finer length");
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn view(&self) -> View<'_> {
        View::of(self.words.as_ref(), self.bits)
    }

    /// Leaf words with marked bits, as they are now, lowest first.
    pub(crate) fn marked_words(&self) -> impl Iterator<Item = (usize, usize)> {
        let view = self.view();
        Words::<Look, _>::new(view, Lines::<Look>::new(view))
    }
}

impl<S: AsRef<[AtomicUsize]> + AsMut<[AtomicUsize]>> DirtyBitmap<S> {
    /// The bitmap to oneself, with every marker and drainer stopped: drains that need no locked
    /// instruction.
    pub fn exclusive(&mut self) -> Exclusive<'_> {
        Exclusive::new(self.words.as_mut(), self.bits)
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
