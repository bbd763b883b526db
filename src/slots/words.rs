//! [`Words`]: the one place where a payload is copied in and out.

use core::fmt;

use super::fast;
use crate::sync::{AtomicU8, AtomicUsize, Ordering::Relaxed};

/// Bytes in a word: what one atomic access copies, and what a payload is aligned to.
pub const WORD: usize = size_of::<usize>();

/// Words that are copied at a time: what registers hold.
pub(super) const BLOCK: usize = 8;

/// A payload that one thread writes while others read it: word by word, each relaxed.
///
/// The accesses are atomic, so that a read beside a write is no data race; what it copied may
/// still be half old and half new. That is for the version around it to say: see
/// [`seqlock`](super::seqlock).
///
/// Bytes past the last whole word are copied one by one, always: memory that is accessed as a word
/// here is never accessed as bytes there, and none past the payload's end is touched.
#[derive(Clone, Copy)]
pub struct Words<'a> {
    words: &'a [AtomicUsize],
    tail: &'a [AtomicU8],
}

impl<'a> Words<'a> {
    /// A payload of whole words.
    #[inline]
    #[must_use]
    pub const fn new(words: &'a [AtomicUsize]) -> Self {
        Self { words, tail: &[] }
    }

    /// A payload of `len` bytes at `start`.
    ///
    /// # Safety
    ///
    /// For as long as `'a`: `start` is aligned to [`WORD`]; the `len` bytes are initialised, and
    /// one allocation; whoever accesses them at the same time does so through a `Words` of the same
    /// length, or by atomic accesses of the same sizes.
    #[cfg(not(loom))]
    #[inline]
    #[must_use]
    pub const unsafe fn from_raw(start: *mut u8, len: usize) -> Self {
        let count = len / WORD;
        // SAFETY: the caller's; an atomic has the size and the alignment of its integer.
        let words = unsafe { core::slice::from_raw_parts(start.cast::<AtomicUsize>(), count) };
        // SAFETY: the same, for the bytes behind the last whole word.
        let tail = unsafe {
            core::slice::from_raw_parts(start.add(count * WORD).cast::<AtomicU8>(), len % WORD)
        };
        Self { words, tail }
    }

    /// Bytes in the payload.
    #[inline]
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a length in bytes")]
    pub const fn len(self) -> usize {
        self.words.len() * WORD + self.tail.len()
    }

    /// Copies `bytes` in; those past the payload's end, if there are any, are left out.
    ///
    /// `bytes` may have any alignment.
    #[inline]
    pub(super) fn store(self, bytes: &[u8]) {
        let (blocks, words) = self.words.as_chunks::<BLOCK>();
        let (whole, rest) = bytes.as_chunks::<{ BLOCK * WORD }>();
        for (block, bytes) in blocks.iter().zip(whole) {
            fast::store(block, bytes);
        }
        let (whole, rest) = rest.as_chunks::<WORD>();
        // Relaxed: the version's fences order the payload as a whole.
        for (word, bytes) in words.iter().zip(whole) {
            word.store(usize::from_ne_bytes(*bytes), Relaxed);
        }
        for (tail, byte) in self.tail.iter().zip(rest) {
            tail.store(*byte, Relaxed);
        }
    }

    /// Copies the payload out into `bytes`, which may have any alignment.
    #[inline]
    pub(super) fn load(self, bytes: &mut [u8]) {
        let (whole, rest) = bytes.as_chunks_mut::<WORD>();
        // Relaxed: as in `store`.
        for (word, bytes) in self.words.iter().zip(whole) {
            *bytes = word.load(Relaxed).to_ne_bytes();
        }
        for (tail, byte) in self.tail.iter().zip(rest) {
            *byte = tail.load(Relaxed);
        }
    }

    /// Copies a payload of whole words out into as many words.
    #[inline]
    pub(super) fn load_words(self, into: &mut [usize]) {
        let (blocks, rest) = self.words.as_chunks::<BLOCK>();
        let (into_blocks, into_rest) = into.as_chunks_mut::<BLOCK>();
        // Relaxed: as in `store`.
        for (words, into) in blocks.iter().zip(into_blocks) {
            *into = core::array::from_fn(|i| words[i].load(Relaxed));
        }
        for (word, into) in rest.iter().zip(into_rest) {
            *into = word.load(Relaxed);
        }
    }

    /// The payload from byte `offset` on, which is a multiple of [`WORD`].
    #[cfg(all(target_arch = "aarch64", not(any(miri, loom))))]
    pub(super) fn from(self, offset: usize) -> Self {
        Self {
            words: &self.words[offset / WORD..],
            tail: self.tail,
        }
    }

    /// The first byte; the tail follows the words.
    #[cfg(not(loom))]
    pub(super) const fn as_ptr(self) -> *const u8 {
        self.words.as_ptr().cast()
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Words<'_> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Words({} bytes)", self.len());
    }
}

impl fmt::Debug for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Words({} bytes)", self.len())
    }
}
