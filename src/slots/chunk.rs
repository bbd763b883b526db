//! [`Chunk`]: the memory of 64 slots.

use core::fmt;

use super::words::WORD;
use crate::sync::{AtomicU32, AtomicUsize};

/// Slots in a chunk: what an arena grows by.
pub const CHUNK_SLOTS: usize = if cfg!(loom) { 2 } else { 64 };

/// Words of payload in a chunk of slots of `stride` bytes: the `WORDS` of a
/// [`StaticArena`](super::StaticArena).
///
/// # Panics
///
/// At compile time in a `const`, where `stride` is zero or no multiple of
/// [`WORD`](super::WORD) bytes.
pub const fn chunk_words(stride: usize) -> usize {
    assert!(
        stride != 0 && stride.is_multiple_of(WORD),
        "a slot's stride is a multiple of the word, and not zero"
    );
    stride / WORD * CHUNK_SLOTS
}

/// 64 slots. All zeros is a chunk in which no slot was ever allocated.
#[repr(C, align(64))]
pub struct Chunk<P: ?Sized = [AtomicUsize]> {
    /// Odd while the slot is written, and while it has no value.
    pub(super) versions: [AtomicU32; CHUNK_SLOTS],
    /// How many times the slot was given to be allocated. Changes only while the version is odd,
    /// which it stays until a value is written: so a reader that checks the version of a value
    /// knows the value's generation too.
    pub(super) generations: [AtomicU32; CHUNK_SLOTS],
    /// The owner's: see `Owner`.
    pub(super) links: [AtomicU32; CHUNK_SLOTS],
    pub(super) payload: P,
}

/// Bytes before the payload.
#[cfg(not(loom))]
pub(super) const HEADER: usize = size_of::<Chunk<[AtomicUsize; 0]>>();

impl<const WORDS: usize> Chunk<[AtomicUsize; WORDS]> {
    #[cfg(not(loom))]
    pub(super) const fn empty() -> Self {
        Self {
            versions: [const { AtomicU32::new(0) }; CHUNK_SLOTS],
            generations: [const { AtomicU32::new(0) }; CHUNK_SLOTS],
            links: [const { AtomicU32::new(0) }; CHUNK_SLOTS],
            payload: [const { AtomicUsize::new(0) }; WORDS],
        }
    }

    #[cfg(loom)]
    pub(super) fn empty() -> Self {
        use core::array::from_fn;
        Self {
            versions: from_fn(|_| AtomicU32::new(0)),
            generations: from_fn(|_| AtomicU32::new(0)),
            links: from_fn(|_| AtomicU32::new(0)),
            payload: from_fn(|_| AtomicUsize::new(0)),
        }
    }
}

impl Chunk {
    /// The chunk at `start`, with `words` words of payload.
    ///
    /// # Safety
    ///
    /// For as long as `'a`, `start` is aligned to 64 bytes, and [`HEADER`] bytes and `words` words
    /// from there on are initialised, of one allocation, and only accessed atomically.
    #[cfg(not(loom))]
    #[inline]
    pub(super) unsafe fn at<'a>(start: *const u8, words: usize) -> &'a Self {
        let chunk = core::ptr::slice_from_raw_parts(start.cast::<AtomicUsize>(), words);
        // SAFETY: the caller's. The length of a pointer to the slice is that of one to the chunk,
        // whose last field is the slice; the header is a multiple of its alignment, and so leaves no
        // gap. It is made of nothing but atomics.
        unsafe { &*(chunk as *const Self) }
    }
}

impl<P: ?Sized> fmt::Debug for Chunk<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").finish_non_exhaustive()
    }
}
