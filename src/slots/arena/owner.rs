use core::fmt;

use super::{Arena, ArenaFull, ForeignWriter, NotAllocated};
use crate::slots::chunk::{CHUNK_SLOTS, Chunk};
use crate::slots::claim::Claimed;
use crate::slots::hints::{ChunkHints, Hint};
use crate::slots::seqlock;
use crate::slots::storage::Storage;
use crate::slots::writer::{SlotId, SlotWriter};
use crate::sync::Ordering::Relaxed;

/// The link of a slot that is allocated. A free slot's is the next free one plus one, or zero.
const ALLOCATED: u32 = u32::MAX;

/// The one who allocates an [`Arena`]'s slots, and frees them.
pub struct Owner<'a, S> {
    arena: &'a Arena<S>,
    _claimed: Claimed<'a>,
}

// All that only the owner accesses (`free`, `used`, the links) is relaxed: the claim orders one
// owner after another.
impl<'a, S: Storage> Owner<'a, S> {
    pub(super) fn new(arena: &'a Arena<S>, claimed: Claimed<'a>) -> Self {
        Self {
            arena,
            _claimed: claimed,
        }
    }

    /// A slot, and the only writer that it will have. It has no value before that writes one.
    ///
    /// The slot that was freed last; without such, the lowest that was never allocated.
    ///
    /// # Errors
    ///
    /// [`ArenaFull`].
    pub fn allocate(&mut self) -> Result<SlotWriter<'a>, ArenaFull> {
        self.take_freed()
            .or_else(|| self.take_unused())
            .ok_or_else(|| ArenaFull {
                allocated: self.arena.used.load(Relaxed) as usize,
            })
    }

    fn take_freed(&mut self) -> Option<SlotWriter<'a>> {
        let index = self.arena.free.load(Relaxed).checked_sub(1)?;
        let (chunk, slot) = self.locate(index)?;
        self.arena
            .free
            .store(chunk.links[slot].load(Relaxed), Relaxed);
        chunk.links[slot].store(ALLOCATED, Relaxed);
        self.writer(index)
    }

    fn take_unused(&mut self) -> Option<SlotWriter<'a>> {
        let index = self.arena.used.load(Relaxed);
        let slot = index as usize % CHUNK_SLOTS;
        let chunk = self.arena.storage.grow(index as usize / CHUNK_SLOTS)?;
        self.arena.used.store(index + 1, Relaxed);
        void(chunk, slot, self.hints(index)?);
        chunk.links[slot].store(ALLOCATED, Relaxed);
        self.writer(index)
    }

    /// Takes a slot back. For a reader it has no value from its next descend on.
    ///
    /// # Errors
    ///
    /// [`ForeignWriter`], with the writer in it, where it is of another arena, or no longer the
    /// slot's.
    pub fn free(&mut self, writer: SlotWriter<'a>) -> Result<(), ForeignWriter<'a>> {
        let index = writer.id().index;
        let located = (self.hints(index), self.hint(index), self.locate(index));
        let (Some(hints), Some(hint), Some((chunk, slot))) = located else {
            return Err(ForeignWriter { writer });
        };
        // The index alone would fit a slot here too; the hint's address is of one arena only. The
        // slot was freed already if another writer of it was recovered, against that one's contract.
        let generation = chunk.generations[slot].load(Relaxed);
        if !core::ptr::eq(hint.slot, writer.hint().slot)
            || chunk.links[slot].load(Relaxed) != ALLOCATED
            || generation != writer.id().generation
        {
            return Err(ForeignWriter { writer });
        }
        void(chunk, slot, hints);
        hint.leave();
        chunk.links[slot].store(self.arena.free.load(Relaxed), Relaxed);
        self.arena.free.store(index + 1, Relaxed);
        Ok(())
    }

    /// A new writer for an allocated slot whose writer is gone: dropped, bound
    /// ([`SlotWriter::into_binding`]) and no longer used, or dead, perhaps in mid-write.
    ///
    /// The slot keeps its [`SlotId`]. If the writer died in mid-write, the slot is torn until the
    /// new one writes. If it died after its value and before its hint, the next descend finds that
    /// value: this leaves the hint.
    ///
    /// # Errors
    ///
    /// [`NotAllocated`].
    ///
    /// # Safety
    ///
    /// No writer and no binding of the slot from before is used any more: neither to write, nor to
    /// be freed.
    pub unsafe fn recover(&mut self, index: usize) -> Result<SlotWriter<'a>, NotAllocated> {
        let allocated = u32::try_from(index).ok().filter(|&index| {
            let located = self.locate(index);
            located.is_some_and(|(chunk, slot)| chunk.links[slot].load(Relaxed) == ALLOCATED)
        });
        let writer = allocated.and_then(|index| self.writer(index));
        let writer = writer.ok_or(NotAllocated { index })?;
        writer.hint().leave();
        Ok(writer)
    }

    /// Slots that are allocated now, counted one by one.
    #[must_use]
    pub fn allocated(&self) -> usize {
        let used = 0..self.arena.used.load(Relaxed);
        let is_allocated = |&index: &u32| {
            let located = self.locate(index);
            located.is_some_and(|(chunk, slot)| chunk.links[slot].load(Relaxed) == ALLOCATED)
        };
        used.filter(is_allocated).count()
    }

    /// The arena.
    #[must_use]
    pub fn arena(&self) -> &'a Arena<S> {
        self.arena
    }

    fn locate(&self, index: u32) -> Option<(&'a Chunk, usize)> {
        let chunk = self.arena.storage.chunk(index as usize / CHUNK_SLOTS)?;
        Some((chunk, index as usize % CHUNK_SLOTS))
    }

    fn hints(&self, index: u32) -> Option<&'a ChunkHints> {
        let hints = self.arena.storage.hints();
        hints.get(index as usize / CHUNK_SLOTS)
    }

    fn hint(&self, index: u32) -> Option<Hint<'a>> {
        let (chunk, slot) = (index as usize / CHUNK_SLOTS, index as usize % CHUNK_SLOTS);
        self.arena.storage.hint(chunk, slot)
    }

    fn writer(&self, index: u32) -> Option<SlotWriter<'a>> {
        let (chunk, slot) = self.locate(index)?;
        let id = SlotId {
            index,
            generation: chunk.generations[slot].load(Relaxed),
        };
        Some(SlotWriter::new(
            id,
            &chunk.versions[slot],
            self.arena.payload(chunk, slot),
            self.hint(index)?,
        ))
    }
}

/// Takes a slot's value away: begins a write that the next writer ends, of the next generation.
///
/// [`seqlock::begin`] puts the odd version before the generation, for a reader that sees the latter:
/// to it the generation is a part of the payload.
///
/// The news of the generation comes after it, and before the end of the next write.
fn void(chunk: &Chunk, slot: usize, hints: &ChunkHints) {
    seqlock::begin(&chunk.versions[slot]);
    let generation = &chunk.generations[slot];
    // Never zero again: that is a slot which was never allocated.
    let next = generation.load(Relaxed).wrapping_add(1).max(1);
    generation.store(next, Relaxed);
    hints.reused.set();
}

#[cfg(feature = "defmt")]
impl<S: Storage> defmt::Format for Owner<'_, S> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Owner({})", self.arena);
    }
}

impl<S: Storage> fmt::Debug for Owner<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Owner").field(self.arena).finish()
    }
}
