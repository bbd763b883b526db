//! [`Arena`]: many slots, at addresses that never move. Its owner allocates and frees.

mod error;
mod owner;

use core::fmt;

pub use error::{ArenaError, ArenaFull, ForeignWriter, NotAllocated};
pub use owner::Owner;

use super::chunk::{CHUNK_SLOTS, Chunk};
use super::claim::Claim;
use super::storage::{Inline, Storage};
use super::words::{WORD, Words};
use crate::sync::AtomicU32;

/// Many slots of one stride, in chunks of 64, none of which ever moves.
///
/// It has one [`Owner`], who allocates and frees slots; one [`SlotWriter`](super::SlotWriter) for
/// each slot that is allocated; and one [`Reader`](super::Reader), who visits what changed. None
/// waits for another.
///
/// `S` is where the chunks are: see [`StaticArena`], [`BorrowedArena`] and [`BoxedArena`].
///
/// | | bytes |
/// | --- | --- |
/// | a slot | its stride, and 13: a version, a generation, the owner's list of free slots, a hint |
/// | 64 slots | 2: the hints of their chunk |
/// | the reader, a slot | its stride, and 8 |
pub struct Arena<S> {
    storage: S,
    /// The owner's. The slot that was freed last, plus one; its link leads to the one before it.
    free: AtomicU32,
    /// The owner's: slots that were ever allocated. They are the first ones.
    used: AtomicU32,
    owner: Claim,
    pub(super) reader: Claim,
}

/// An arena with its chunks inside it, for a `static`: `CHUNKS` times 64 slots.
///
/// `WORDS` is [`chunk_words`](super::chunk_words) of the stride. It starts as zeros, and so takes
/// no space in a firmware's image.
///
/// ```
/// use pugmark::{StaticArena, slots::chunk_words};
///
/// // 128 slots of 16 bytes.
/// static ARENA: StaticArena<2, { chunk_words(16) }> = StaticArena::new();
///
/// assert_eq!((ARENA.capacity(), ARENA.stride()), (128, 16));
/// ```
pub type StaticArena<const CHUNKS: usize, const WORDS: usize> = Arena<Inline<CHUNKS, WORDS>>;

/// An arena over memory that is set aside elsewhere.
#[cfg(not(loom))]
pub type BorrowedArena<'a> = Arena<super::storage::Borrowed<'a>>;

/// An arena on the heap, which grows chunk by chunk to a fixed maximum.
#[cfg(all(feature = "alloc", not(loom)))]
pub type BoxedArena = Arena<super::storage::Growing>;

/// The checked numbers of an arena whose size is not in its type.
#[cfg(not(loom))]
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) chunks: usize,
    stride: usize,
}

#[cfg(not(loom))]
impl Shape {
    pub(super) const fn new(slots: usize, stride: usize) -> Result<Self, ArenaError> {
        if stride == 0 || !stride.is_multiple_of(WORD) {
            return Err(ArenaError::Stride { stride });
        }
        let chunks = slots.div_ceil(CHUNK_SLOTS);
        // Whatever is computed of it fits: payload, header and hint, for each slot more than once.
        let bytes = match stride.checked_add(2 * super::chunk::HEADER) {
            Some(bytes) => bytes.checked_mul(slots.saturating_add(CHUNK_SLOTS)),
            None => None,
        };
        match bytes {
            Some(bytes) if bytes <= isize::MAX as usize && slots <= MAX_SLOTS => {
                Ok(Self { chunks, stride })
            }
            _ => Err(ArenaError::TooLarge { slots, stride }),
        }
    }

    pub(super) const fn chunk_words(self) -> usize {
        self.stride / WORD * CHUNK_SLOTS
    }

    pub(super) const fn chunk_bytes(self) -> usize {
        super::chunk::HEADER + self.chunk_words() * WORD
    }

    pub(super) const fn bytes(self) -> usize {
        let hints = size_of::<super::hints::SlotHints>() + size_of::<super::hints::ChunkHints>();
        self.chunks * (self.chunk_bytes() + hints)
    }
}

/// The most slots: each index and one more must be a `u32`, and whole chunks of them.
const MAX_SLOTS: usize = (u32::MAX / 2) as usize;

impl<const CHUNKS: usize, const WORDS: usize> StaticArena<CHUNKS, WORDS> {
    const CHECKED: () = assert!(
        WORDS != 0 && WORDS.is_multiple_of(CHUNK_SLOTS) && CHUNKS <= MAX_SLOTS / CHUNK_SLOTS,
        "WORDS is chunk_words(stride)"
    );

    /// An arena in which no slot is allocated.
    ///
    /// # Panics
    ///
    /// At compile time, where `WORDS` is not [`chunk_words`](super::chunk_words) of a stride.
    ///
    /// ```compile_fail,E0080
    /// static ARENA: pugmark::StaticArena<1, 65> = pugmark::StaticArena::new();
    /// ```
    ///
    /// ```
    /// static ARENA: pugmark::StaticArena<1, 64> = pugmark::StaticArena::new();
    /// ```
    #[cfg(not(loom))]
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "one does not make such a thing in passing"
    )]
    pub const fn new() -> Self {
        let () = Self::CHECKED;
        Self {
            storage: Inline::new(),
            free: AtomicU32::new(0),
            used: AtomicU32::new(0),
            owner: Claim::new(),
            reader: Claim::new(),
        }
    }

    /// An arena in which no slot is allocated.
    #[cfg(loom)]
    #[must_use]
    #[expect(clippy::new_without_default, reason = "as without loom")]
    pub fn new() -> Self {
        Self {
            storage: Inline::new(),
            free: AtomicU32::new(0),
            used: AtomicU32::new(0),
            owner: Claim::new(),
            reader: Claim::new(),
        }
    }
}

#[cfg(not(loom))]
impl<'a> BorrowedArena<'a> {
    /// An empty arena of at least `slots` slots of `stride` bytes each, in `memory`, of which
    /// [`bytes_for`](super::bytes_for) says how much it takes.
    ///
    /// # Errors
    ///
    /// [`ArenaError`].
    ///
    /// ```
    /// use pugmark::{BorrowedArena, slots::bytes_for};
    ///
    /// let mut memory = vec![0; bytes_for(100, 32) + 63];
    /// let arena = BorrowedArena::borrowed(&mut memory, 100, 32)?;
    ///
    /// assert_eq!(arena.capacity(), 128);
    /// # Ok::<(), pugmark::slots::ArenaError>(())
    /// ```
    pub fn borrowed(memory: &'a mut [u8], slots: usize, stride: usize) -> Result<Self, ArenaError> {
        let bytes = memory.len();
        // SAFETY: initialised, and exclusively borrowed for as long as the arena is used.
        unsafe {
            Self::in_memory(
                core::ptr::NonNull::from(memory).cast(),
                bytes,
                slots,
                stride,
            )
        }
    }

    /// The same, in `bytes` bytes of memory that others have too: another process that maps it, a
    /// worker, a device.
    ///
    /// From the first multiple of 64 on, chunk follows chunk: 64 versions, 64 generations and 64 links
    /// of the owner's, all of them `u32`; then 64 times `stride` bytes of payload. After the chunks
    /// come the hints: a byte for each slot, then a pair of bytes for each chunk.
    ///
    /// # Errors
    ///
    /// [`ArenaError`].
    ///
    /// # Safety
    ///
    /// For as long as `'a`, the memory is one allocation or mapping, is initialised, and whoever
    /// else accesses it does so as [`SlotBinding::write`](super::SlotBinding::write) does, through a
    /// binding of this arena.
    pub unsafe fn in_memory(
        memory: core::ptr::NonNull<u8>,
        bytes: usize,
        slots: usize,
        stride: usize,
    ) -> Result<Self, ArenaError> {
        let shape = Shape::new(slots, stride)?;
        // SAFETY: the caller's.
        let storage = unsafe { super::storage::Borrowed::new(memory, bytes, shape)? };
        Ok(Self::with_storage(storage))
    }
}

#[cfg(all(feature = "alloc", not(loom)))]
impl BoxedArena {
    /// An empty arena that grows to at least `max_slots` slots of `stride` bytes each.
    ///
    /// Some 80 bytes for each chunk that there can be are allocated now, and a chunk when the first of
    /// its slots is.
    ///
    /// # Errors
    ///
    /// [`ArenaError`].
    pub fn boxed(max_slots: usize, stride: usize) -> Result<Self, ArenaError> {
        let too_large = ArenaError::TooLarge {
            slots: max_slots,
            stride,
        };
        let shape = Shape::new(max_slots, stride)?;
        let storage = super::storage::Growing::new(shape).ok_or(too_large)?;
        Ok(Self::with_storage(storage))
    }
}

impl<S: Storage> Arena<S> {
    #[cfg(not(loom))]
    fn with_storage(storage: S) -> Self {
        Self {
            storage,
            free: AtomicU32::new(0),
            used: AtomicU32::new(0),
            owner: Claim::new(),
            reader: Claim::new(),
        }
    }

    /// The arena's only owner; `None` while there is one. Dropping it gives it back, and frees no
    /// slot.
    pub fn owner(&self) -> Option<Owner<'_, S>> {
        Some(Owner::new(self, self.owner.take()?))
    }

    /// The most slots that can be allocated at a time: a multiple of 64.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.storage.hints().len() * CHUNK_SLOTS
    }

    /// Bytes of a slot.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.storage.stride()
    }

    #[inline]
    pub(super) fn storage(&self) -> &S {
        &self.storage
    }

    /// The payload of the slot with this number in `chunk`.
    #[inline]
    pub(super) fn payload<'a>(&self, chunk: &'a Chunk, slot: usize) -> Words<'a> {
        let words = self.stride() / WORD;
        Words::new(&chunk.payload[slot * words..][..words])
    }
}

#[cfg(feature = "defmt")]
impl<S: Storage> defmt::Format for Arena<S> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Arena({} slots of {})", self.capacity(), self.stride());
    }
}

impl<S: Storage> fmt::Debug for Arena<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("capacity", &self.capacity())
            .field("stride", &self.stride())
            .finish_non_exhaustive()
    }
}
