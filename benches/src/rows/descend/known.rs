//! The limit: the written slots are known.

use pugmark::slots::{CHUNK_SLOTS, Read, Words, seqlock};
use pugmark::{AtomicU32, SlotBinding};

use super::world::{STRIDE, Value};
use crate::prefetch::prefetch;

/// How many slots ahead the caches are told.
const AHEAD: usize = 32;

/// Where the versions and the payloads of an arena's slots are.
///
/// What [`BorrowedArena::in_memory`](pugmark::BorrowedArena::in_memory) documents is learned from a
/// few bindings: each chunk looks the same.
pub struct Addresses {
    start: *mut u8,
    /// Bytes from one chunk to the next.
    chunk: usize,
    /// Bytes from the start of a chunk to each version and to each payload.
    versions: [usize; CHUNK_SLOTS],
    payloads: [usize; CHUNK_SLOTS],
}

impl Addresses {
    /// Of the arena with these slots, from the first one on, whose memory starts at `start`.
    ///
    /// # Panics
    ///
    /// Where one is elsewhere than it should be.
    pub fn new(start: *mut u8, slots: &[SlotBinding]) -> Self {
        let offset = |address: *mut u8| address.addr() - start.addr();
        let addresses = Self {
            start,
            chunk: offset(slots[CHUNK_SLOTS].payload) - offset(slots[0].payload),
            versions: std::array::from_fn(|slot| offset(slots[slot].version.cast())),
            payloads: std::array::from_fn(|slot| offset(slots[slot].payload)),
        };
        for (slot, binding) in slots.iter().enumerate() {
            assert_eq!(addresses.of(slot), (binding.version, binding.payload));
        }
        addresses
    }

    #[inline]
    fn of(&self, slot: usize) -> (*mut u32, *mut u8) {
        let (chunk, slot) = (slot / CHUNK_SLOTS, slot % CHUNK_SLOTS);
        let chunk = self.start.wrapping_add(chunk * self.chunk);
        let version = chunk.wrapping_add(self.versions[slot]);
        (version.cast(), chunk.wrapping_add(self.payloads[slot]))
    }
}

/// Copies the `written` slots into the mirror, and remembers the versions, as every reader must to
/// tell what is new. Returns how many were whole.
///
/// # Safety
///
/// The addresses are of an arena that is still there, of slots of [`STRIDE`] bytes.
pub unsafe fn copy(
    addresses: &Addresses,
    written: &[usize],
    seen: &mut [u32],
    mirror: &mut [Value],
) -> usize {
    let mut whole = 0;
    for (i, &slot) in written.iter().enumerate() {
        if let Some(&ahead) = written.get(i + AHEAD) {
            let (version, payload) = addresses.of(ahead);
            prefetch(version);
            prefetch(payload);
            prefetch(&raw const seen[ahead]);
            prefetch(&raw const mirror[ahead]);
        }
        let (version, payload) = addresses.of(slot);
        // SAFETY: the caller's; a version and a payload are only accessed so.
        let (version, payload) = unsafe {
            (
                AtomicU32::from_ptr(version),
                Words::from_raw(payload, STRIDE),
            )
        };
        let into = bytemuck::bytes_of_mut(&mut mirror[slot]);
        if let Ok(Read::Updated { version }) = seqlock::read(version, payload, seen[slot], into) {
            seen[slot] = version;
            whole += 1;
        }
    }
    whole
}
