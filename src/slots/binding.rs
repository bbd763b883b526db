//! [`SlotBinding`]: a slot as plain addresses.

use super::hints::Hint;
use super::seqlock::{self, WrongLength};
use super::words::Words;
use crate::sync::{AtomicU32, HintByte};

/// A slot as plain addresses, for a writer that shares no types with us: C code, another process,
/// a WebAssembly worker. `SlotWriter::into_binding` makes it.
///
/// The addresses are those of the process that the arena is in. Where another one maps the memory
/// elsewhere, it moves all four by the same distance.
///
/// In C11 terms, for the one writer of the slot, which `slot` points to:
///
/// ```c
/// _Atomic(uint32_t) *version = (void *)slot->version;
/// _Atomic(uintptr_t) *payload = (void *)slot->payload;
/// _Atomic(uint8_t) *hint = (void *)slot->hint, *chunk_hint = (void *)slot->chunk_hint;
///
/// uint32_t odd = atomic_load_explicit(version, memory_order_relaxed) | 1;
/// atomic_store_explicit(version, odd, memory_order_relaxed);
/// atomic_thread_fence(memory_order_release);
/// for (size_t i = 0; i < slot->stride / sizeof(uintptr_t); i++)
///     atomic_store_explicit(&payload[i], words[i], memory_order_relaxed);
/// atomic_store_explicit(version, odd + 1, memory_order_release);
/// atomic_store_explicit(hint, 1, memory_order_release);
/// atomic_store_explicit(chunk_hint, 1, memory_order_release);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(C)]
pub struct SlotBinding {
    /// The slot's version: 32 bits, aligned to them.
    pub version: *mut u32,
    /// The slot's bytes, aligned to a machine word.
    pub payload: *mut u8,
    /// The slot's hint byte.
    pub hint: *mut u8,
    /// The hint byte of its chunk.
    pub chunk_hint: *mut u8,
    /// How many bytes the slot has: a multiple of a machine word.
    pub stride: usize,
    /// The slot's chunk in its arena.
    pub chunk: u32,
    /// The slot in its chunk.
    pub slot: u32,
}

// SAFETY: addresses; what is done with them is the caller's of `write`, on whichever thread.
unsafe impl Send for SlotBinding {}
// SAFETY: the same.
unsafe impl Sync for SlotBinding {}

impl SlotBinding {
    /// The slot's index in its arena.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.chunk as usize * super::CHUNK_SLOTS + self.slot as usize
    }

    /// Writes `bytes`, as many as the stride, and leaves the hint.
    ///
    /// # Errors
    ///
    /// [`WrongLength`]; nothing is written then.
    ///
    /// # Safety
    ///
    /// - The addresses are of one slot, in an arena that is still there and was not moved since; if
    ///   the fields were filled in by hand, they are what this type says of them.
    /// - Nobody else writes the slot at the same time, by a copy of this binding or otherwise, and
    ///   it was not recovered or freed since the binding was made.
    #[inline]
    pub unsafe fn write(&self, bytes: &[u8]) -> Result<(), WrongLength> {
        // SAFETY: the caller's: they are addresses of such cells, which only atomics access.
        let (version, payload, hint) = unsafe {
            (
                AtomicU32::from_ptr(self.version),
                Words::from_raw(self.payload, self.stride),
                Hint {
                    slot: &*self.hint.cast::<HintByte>(),
                    chunk: &*self.chunk_hint.cast::<HintByte>(),
                },
            )
        };
        seqlock::write(version, payload, bytes)?;
        // After the version, as in `SlotWriter::write`.
        hint.leave();
        Ok(())
    }
}
