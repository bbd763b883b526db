//! [`SlotWriter`]: the one writer of a slot in an arena.

use core::fmt;

use bytemuck::NoUninit;

use super::hints::Hint;
use super::seqlock::{self, WrongLength};
use super::words::Words;
use crate::sync::AtomicU32;

/// A slot, and which of its uses.
///
/// A slot that is freed and allocated again has another generation, so that an id from before does
/// not fit it. (The generation has 32 bits, and is not zero: an id that is kept over exactly 2³² − 1 uses fits again.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SlotId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl SlotId {
    /// The slot's index in its arena. Its bytes are at this many strides in a reader's mirror.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// Which use of the slot it is: 1 for the first.
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.generation
    }
}

/// The one writer of an allocated slot. It can go to another thread, and it cannot be doubled.
///
/// Dropping it frees nothing: give it to [`Owner::free`](super::Owner::free). What was dropped,
/// [`Owner::recover`](super::Owner::recover) brings back.
///
/// ```compile_fail,E0382
/// # static ARENA: pugmark::StaticArena<1, 64> = pugmark::StaticArena::new();
/// let mut owner = ARENA.owner().unwrap();
/// let writer = owner.allocate().unwrap();
/// owner.free(writer).unwrap();
/// owner.free(writer).unwrap();
/// ```
///
/// ```
/// # static ARENA: pugmark::StaticArena<1, 64> = pugmark::StaticArena::new();
/// let mut owner = ARENA.owner().unwrap();
/// let writer = owner.allocate().unwrap();
/// owner.free(writer).unwrap();
/// ```
#[must_use = "a writer that is dropped leaves its slot allocated"]
pub struct SlotWriter<'a> {
    id: SlotId,
    version: &'a AtomicU32,
    payload: Words<'a>,
    hint: Hint<'a>,
}

impl<'a> SlotWriter<'a> {
    pub(super) fn new(
        id: SlotId,
        version: &'a AtomicU32,
        payload: Words<'a>,
        hint: Hint<'a>,
    ) -> Self {
        Self {
            id,
            version,
            payload,
            hint,
        }
    }

    pub(super) fn hint(&self) -> Hint<'a> {
        self.hint
    }

    /// Which slot it writes.
    #[must_use]
    pub const fn id(&self) -> SlotId {
        self.id
    }

    /// Writes `bytes`, as many as the arena's stride, and leaves the hint. Waits for nobody.
    ///
    /// # Errors
    ///
    /// [`WrongLength`]; nothing is written then.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WrongLength> {
        seqlock::write(self.version, self.payload, bytes)?;
        // After the version: a reader that takes the hint finds it even and new.
        self.hint.leave();
        Ok(())
    }

    /// Writes `value`, as large as the arena's stride.
    ///
    /// # Errors
    ///
    /// [`WrongLength`]; nothing is written then.
    #[inline]
    pub fn write_value<T: NoUninit>(&mut self, value: &T) -> Result<(), WrongLength> {
        self.write(bytemuck::bytes_of(value))
    }

    /// The slot as plain addresses, for a writer that shares no types with us.
    ///
    /// The slot stays allocated, and the addresses are good as long as the arena is there and is not
    /// moved: they borrow nothing. When the other one no longer writes,
    /// [`Owner::recover`](super::Owner::recover) makes a writer of it again.
    #[cfg(not(loom))]
    #[must_use]
    pub fn into_binding(self) -> super::SlotBinding {
        super::SlotBinding {
            version: self.version.as_ptr(),
            payload: self.payload.as_ptr().cast_mut(),
            hint: self.hint.slot.as_ptr(),
            chunk_hint: self.hint.chunk.as_ptr(),
            stride: self.payload.len(),
            chunk: self.id.index / super::CHUNK_SLOTS as u32,
            slot: self.id.index % super::CHUNK_SLOTS as u32,
        }
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for SlotWriter<'_> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "SlotWriter({})", self.id);
    }
}

impl fmt::Debug for SlotWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SlotWriter").field(&self.id).finish()
    }
}
