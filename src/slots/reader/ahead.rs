//! [`Ahead`]: the slots that are hinted, a group at a time.

use crate::slots::chunk::CHUNK_SLOTS;
use crate::slots::fast::{self, HINTS, RUN, prefetch};
use crate::slots::storage::Storage;
use crate::sync::HintByte;

/// Slots that are on their way while one is read, where there are caches to speak of.
pub(super) const DISTANCE: usize = if IS_LARGE { 32 } else { 0 };

/// Slots in a group: so many that what is done once for each group is shared by many. They are 4
/// bytes of stack each, of which a machine of 32 bits may have little.
const GROUP: usize = if IS_LARGE { 256 } else { 64 };

/// Chunks whose slots' hints are on their way while a group is read.
const QUEUE: usize = if IS_LARGE { 64 } else { 32 };

/// The hints of so many neighbours are cleared at once.
const RUN_MASK: u64 = (1 << RUN) - 1;

const IS_LARGE: bool = cfg!(target_pointer_width = "64");

// A chunk's fit behind those that are kept.
const _: () = assert!(GROUP >= DISTANCE + CHUNK_SLOTS);
// A look's fit.
const _: () = assert!(QUEUE >= HINTS);

/// The slots whose hints are cleared, and which are not read yet: a group at a time.
///
/// A hint is cleared before what it tells of is looked at, with a fence between the two. A fence
/// waits for much that is under way, so there is one for each group: it is for the group's slots, and
/// for the chunks of the next one.
pub(super) struct Ahead<'a, A: Storage> {
    storage: &'a A,
    /// The first chunk whose hint was not looked at.
    next: usize,
    /// The chunks before it whose hint is cleared, and whose slots' hints are still to be.
    chunks: [u32; QUEUE],
    chunks_len: usize,
    group: [u32; GROUP],
    len: usize,
    /// How many of them were given to be read.
    given: usize,
}

/// What is to be read next.
pub(super) struct Group<'g> {
    /// Slots, by their indices in the arena.
    pub(super) slots: &'g [u32],
    /// So many, the first ones, were in the group before, and asked for there.
    pub(super) asked: usize,
    /// So many are to be read. The last ones are only to be asked for, as long as others follow: no
    /// group waits for the memory of its first slots.
    pub(super) given: usize,
}

impl<'a, A: Storage> Ahead<'a, A> {
    pub(super) fn new(storage: &'a A) -> Self {
        Self {
            storage,
            next: 0,
            chunks: [0; QUEUE],
            chunks_len: 0,
            group: [0; GROUP],
            len: 0,
            given: 0,
        }
    }

    /// Finds the next slots, and clears their hints; `None` where there are no more.
    // Not inlined, to leave the registers to what is done with each slot.
    #[inline(never)]
    pub(super) fn next(&mut self) -> Option<Group<'_>> {
        self.group.copy_within(self.given..self.len, 0);
        self.len -= self.given;
        let asked = self.len;
        loop {
            self.find_slots();
            self.find_chunks();
            // Before the slots, and the slots' hints of the chunks, are looked at: what is written
            // after that hints again.
            HintByte::cleared();
            let is_last = self.chunks_len == 0;
            self.given = if is_last {
                self.len
            } else {
                self.len.saturating_sub(DISTANCE)
            };
            if is_last || self.given != 0 {
                break;
            }
        }
        (self.len != 0).then_some(Group {
            slots: &self.group[..self.len],
            asked,
            given: self.given,
        })
    }

    /// Clears the hints of the slots of the chunks that were found, as far as there is room.
    #[inline]
    fn find_slots(&mut self) {
        let mut taken = 0;
        for chunk in &self.chunks[..self.chunks_len] {
            let Some(group) = self.group[self.len..].get_mut(..CHUNK_SLOTS) else {
                break;
            };
            taken += 1;
            let chunk = *chunk as usize;
            let hints = &self.storage.slot_hints()[chunk];
            let mut set = fast::set(hints);
            let mut len = 0;
            while set != 0 {
                let slot = set.trailing_zeros() as usize;
                let first = (chunk * CHUNK_SLOTS + slot) as u32;
                // Neighbours at once: a hint at a time is a twentieth of a descend of long runs.
                if IS_LARGE && set >> slot & RUN_MASK == RUN_MASK {
                    set &= !(RUN_MASK << slot);
                    if let Some(hints) = hints[slot..].first_chunk() {
                        fast::clear(hints);
                    }
                    for (next, i) in group[len..][..RUN].iter_mut().zip(0..) {
                        *next = first + i;
                    }
                    len += RUN;
                } else {
                    set &= set - 1;
                    hints[slot].clear();
                    group[len] = first;
                    len += 1;
                }
            }
            self.len += len;
        }
        self.chunks.copy_within(taken..self.chunks_len, 0);
        self.chunks_len -= taken;
    }

    /// Clears the hints of more chunks, as far as there is room, and asks for those of their slots.
    #[inline]
    fn find_chunks(&mut self) {
        let hints = self.storage.hints();
        while self.chunks_len + HINTS <= QUEUE && self.next < hints.len() {
            let rest = &hints[self.next..];
            let block = rest.get(..HINTS).unwrap_or(rest);
            let first = self.next;
            self.next += block.len();
            let mut set = fast::written(block);
            while set != 0 {
                let chunk = set.trailing_zeros() as usize;
                set &= set - 1;
                block[chunk].written.clear();
                prefetch(&raw const self.storage.slot_hints()[first + chunk]);
                self.chunks[self.chunks_len] = (first + chunk) as u32;
                self.chunks_len += 1;
            }
        }
    }
}

/// If a sink unwinds: what was not read is hinted again, and what was of the same group.
impl<A: Storage> Drop for Ahead<'_, A> {
    fn drop(&mut self) {
        for slot in &self.group[..self.len] {
            let (chunk, slot) = (*slot as usize / CHUNK_SLOTS, *slot as usize % CHUNK_SLOTS);
            if let Some(hint) = self.storage.hint(chunk, slot) {
                hint.leave();
            }
        }
        for chunk in &self.chunks[..self.chunks_len] {
            self.storage.hints()[*chunk as usize].written.set();
        }
    }
}
