//! What an edit must do, found before it is done; and the split of a block.

use core::ops::Range;

use ::aarch64_paging::{
    Mapping,
    descriptor::{PhysicalAddress, Stage2Attributes},
    paging::{Constraints, LEAF_LEVEL, MemoryRegion, PAGE_SIZE, Stage2},
};

use super::{
    Access, Stage2Error, Stage2Protection, TableSource, WRITE, leaf_size,
    tlb::{self, Scope},
};

/// A block descriptor of which only a part is to change.
#[derive(Clone)]
pub(super) struct Block {
    start: usize,
    level: usize,
    output: usize,
    flags: Stage2Attributes,
    /// What is to change, in IPA: less than the whole block.
    part: Range<usize>,
}

impl Block {
    fn end(&self) -> usize {
        self.start + leaf_size(self.level)
    }

    /// Tables that the split takes: one for each descriptor, level by level, that an end of the
    /// part falls inside of.
    fn tables(&self) -> usize {
        (self.level..LEAF_LEVEL)
            .map(|level| {
                let size = leaf_size(level);
                let inside = |end: usize| (!end.is_multiple_of(size)).then_some(end / size);
                match (inside(self.part.start), inside(self.part.end)) {
                    (None, None) => 0,
                    (Some(start), Some(end)) if start != end => 2,
                    _ => 1,
                }
            })
            .sum()
    }
}

/// The leaves of a range that do not have the wanted permission yet.
#[derive(Default)]
pub(super) struct Plan {
    /// From the first of them to the end of the last, inside the range.
    changes: Option<Range<usize>>,
    /// Those that the range covers in part: the one at its start, the one at its end.
    blocks: [Option<Block>; 2],
}

impl Plan {
    pub(super) fn new<T: TableSource>(
        mapping: &Mapping<T, Stage2>,
        range: Range<u64>,
        access: Access,
    ) -> Result<Self, Stage2Error> {
        let mut plan = Self::default();
        if range.is_empty() {
            return Ok(plan);
        }
        for ipa in [range.start, range.end] {
            if !ipa.is_multiple_of(PAGE_SIZE as u64) {
                return Err(Stage2Error::Unaligned { ipa });
            }
        }
        // Past the last address that the root table can translate nothing is mapped.
        let limit = mapping.size() as u64;
        let mut hole = (range.end > limit).then_some(range.start.max(limit));
        let start = range.start.min(limit) as usize;
        let end = range.end.min(limit) as usize;

        let walked =
            mapping.walk_range(&MemoryRegion::new(start, end), &mut |chunk, leaf, level| {
                let part = chunk.start().0..chunk.end().0;
                if !leaf.is_valid() {
                    // The walk is in ascending order: this one is before the limit.
                    hole = Some(part.start as u64);
                    return match access {
                        Access::ReadOnly => Ok(()),
                        Access::ReadWrite => Err(()),
                    };
                }
                let flags = leaf.flags();
                if flags.contains(WRITE) != (access == Access::ReadWrite) {
                    let block = Block {
                        start: part.start & !(leaf_size(level) - 1),
                        level,
                        output: leaf.output_address().0,
                        flags,
                        part,
                    };
                    plan.change(block);
                }
                Ok(())
            });
        match (access, hole, walked) {
            (Access::ReadWrite, Some(ipa), _) => Err(Stage2Error::Unmapped { ipa }),
            (_, _, Ok(())) => Ok(plan),
            (_, _, Err(_)) => Err(Stage2Error::Refused { ipa: range.start }),
        }
    }

    fn change(&mut self, block: Block) {
        let part = block.part.clone();
        let first = self
            .changes
            .take()
            .map_or(part.start, |changes| changes.start);
        self.changes = Some(first..part.end);
        let whole = part.len() == leaf_size(block.level);
        // Only the first and the last leaf of a range can be covered in part, so there is a place.
        if !whole && let Some(place) = self.blocks.iter_mut().find(|place| place.is_none()) {
            *place = Some(block);
        }
    }

    pub(super) fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.blocks.iter().flatten()
    }

    pub(super) fn check_room(&self, available: usize) -> Result<(), Stage2Error> {
        let mut room = available;
        for block in self.blocks() {
            room = room
                .checked_sub(block.tables())
                .ok_or(Stage2Error::OutOfTables {
                    ipa: block.start as u64,
                })?;
        }
        Ok(())
    }

    /// Flips the write bit of every leaf that still needs it. The blocks are split by now.
    pub(super) fn flip<T: TableSource>(
        &self,
        mapping: &mut Mapping<T, Stage2>,
        access: Access,
    ) -> Result<(), Stage2Error> {
        let Some(changes) = &self.changes else {
            return Ok(());
        };
        // Both ends are leaf boundaries now, and so no descriptor is covered in part: the edit
        // takes no table, not even for a part where nothing is mapped.
        let (set, clear) = access.bits();
        mapping
            .modify_range(
                &MemoryRegion::new(changes.start, changes.end),
                &|_, leaf| {
                    if leaf.flags().contains(Stage2Attributes::VALID) {
                        leaf.modify_flags(set, clear)
                    } else {
                        Ok(())
                    }
                },
            )
            .map_err(|_| Stage2Error::Refused {
                ipa: changes.start as u64,
            })
    }
}

impl Access {
    /// The bits to set, and those to clear.
    fn bits(self) -> (Stage2Attributes, Stage2Attributes) {
        match self {
            Access::ReadOnly => (Stage2Attributes::empty(), WRITE),
            Access::ReadWrite => (WRITE, Stage2Attributes::empty()),
        }
    }

    fn apply(self, flags: Stage2Attributes) -> Stage2Attributes {
        let (set, clear) = self.bits();
        (flags | set) & !clear
    }
}

impl<T: TableSource> Stage2Protection<T> {
    /// Replaces a block by the largest smaller ones, and pages where an end of the part asks for
    /// them; the part gets its new permission in the same step.
    ///
    /// A live block must not become a table in one store: a core could hold both sizes in its TLB.
    /// The architecture asks for break-before-make: an invalid descriptor, its invalidation on
    /// every core, then the new one. In between no vCPU can use the block.
    pub(super) fn split(&mut self, block: &Block, access: Access) -> Result<(), Stage2Error> {
        note!(
            debug,
            "stage 2: splits the level {} block at {:#x}",
            block.level,
            block.start
        );
        self.map(block.start..block.end(), 0, Stage2Attributes::empty())?;
        if self.mapping.active() {
            // The edit invalidated its IPA. Entries that hold both stages in one are still there,
            // and so is everything if this core runs another VM.
            tlb::invalidate(self.vttbr(), Scope::AllCores);
        }
        // An invalid descriptor is never in a TLB, so the make needs no invalidation. The bits
        // before the part come first: the range that each call maps picks the sizes.
        let pieces = [
            (block.start..block.part.start, block.flags),
            (block.part.clone(), access.apply(block.flags)),
            (block.part.end..block.end(), block.flags),
        ];
        for (piece, flags) in pieces {
            let output = block.output + (piece.start - block.start);
            self.map(piece, output, flags)?;
        }
        Ok(())
    }

    fn map(
        &mut self,
        range: Range<usize>,
        output: usize,
        flags: Stage2Attributes,
    ) -> Result<(), Stage2Error> {
        self.mapping
            .map_range(
                &MemoryRegion::new(range.start, range.end),
                PhysicalAddress(output),
                flags,
                Constraints::empty(),
            )
            .map_err(|_| Stage2Error::Refused {
                ipa: range.start as u64,
            })
    }
}
