//! [`Ahead`]: the slots that are hinted, a group at a time.

use crate::slots::chunk::CHUNK_SLOTS;
use crate::slots::fast::{self, HINTS, prefetch};
use crate::slots::storage::Storage;
use crate::sync::HintByte;

/// Slots that are on their way while one is read, where there are caches to speak of.
pub(super) const DISTANCE: usize = if IS_LARGE { 16 } else { 0 };

/// Slots in a group: so many that what is done once for each group is shared by many. They are 4
/// bytes of stack each, of which a machine of 32 bits may have little.
const GROUP: usize = if IS_LARGE { 256 } else { 64 };

const IS_LARGE: bool = cfg!(target_pointer_width = "64");

// A chunk's fit behind those that are kept.
const _: () = assert!(GROUP >= DISTANCE + CHUNK_SLOTS);

/// The slots whose hints are cleared, and which are not read yet: a group at a time.
///
/// A hint is cleared before what it tells of is looked at, with a fence between the two. A fence
/// waits for much that is under way, so there is one for each [`HINTS`] chunks, and one for each group.
pub(super) struct Ahead<'a, A: Storage> {
    storage: &'a A,
    /// The first chunk whose hint was not looked at.
    next: usize,
    /// The chunks before it whose hint is cleared, and whose slots' hints are still to be: a bit each,
    /// from `first` on.
    cleared: u32,
    first: usize,
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
            cleared: 0,
            first: 0,
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
        while self.len + CHUNK_SLOTS <= GROUP && self.find_chunks() {
            let chunk = self.first + self.cleared.trailing_zeros() as usize;
            self.cleared &= self.cleared - 1;
            let hints = &self.storage.slot_hints()[chunk];
            let mut set = fast::set(hints);
            let group = &mut self.group[self.len..][..CHUNK_SLOTS];
            self.len += set.count_ones() as usize;
            for next in group {
                if set == 0 {
                    break;
                }
                let slot = set.trailing_zeros() as usize;
                set &= set - 1;
                hints[slot].clear();
                *next = (chunk * CHUNK_SLOTS + slot) as u32;
            }
        }
        // Before the slots are looked at: what is written after that hints again.
        HintByte::cleared();
        let is_last = self.len + CHUNK_SLOTS <= GROUP;
        self.given = self.len - if is_last { 0 } else { DISTANCE };
        (self.len != 0).then_some(Group {
            slots: &self.group[..self.len],
            asked,
            given: self.given,
        })
    }

    /// Finds chunks, if there are none, and clears their hints. `false` where there are no more.
    #[inline]
    fn find_chunks(&mut self) -> bool {
        let hints = self.storage.hints();
        while self.cleared == 0 {
            let rest = &hints[self.next..];
            if rest.is_empty() {
                return false;
            }
            let block = rest.get(..HINTS).unwrap_or(rest);
            self.first = self.next;
            self.next += block.len();
            self.cleared = fast::written(block);
            if self.cleared == 0 {
                continue;
            }
            let mut set = self.cleared;
            while set != 0 {
                let chunk = set.trailing_zeros() as usize;
                set &= set - 1;
                block[chunk].written.clear();
                prefetch(&raw const self.storage.slot_hints()[self.first + chunk]);
            }
            // Before their slots' hints are looked at.
            HintByte::cleared();
        }
        true
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
        while self.cleared != 0 {
            let chunk = self.first + self.cleared.trailing_zeros() as usize;
            self.storage.hints()[chunk].written.set();
            self.cleared &= self.cleared - 1;
        }
    }
}
