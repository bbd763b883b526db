//! [`Slot`]: a memory slot of the VM.

use core::ops::Range;

use alloc::vec::Vec;

use super::error::{KvmError, SetUpError, Unfit};

/// A memory slot, as `KVM_SET_USER_MEMORY_REGION` was told of it, with `KVM_MEM_LOG_DIRTY_PAGES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Slot {
    /// Its number; the address space in bits 16 to 31.
    pub slot: u32,
    /// The guest physical address of its first byte.
    pub ipa: u64,
    /// Its size, in bytes.
    pub size: u64,
}

impl Slot {
    /// The guest physical addresses.
    #[must_use]
    pub const fn ipas(&self) -> Range<u64> {
        // One that ends past the address space is refused where it is used.
        self.ipa..self.ipa.saturating_add(self.size)
    }

    pub(super) const fn pages(&self, page_size: u64) -> u64 {
        self.size / page_size
    }
}

/// Slots, each there once.
#[derive(Debug, Default)]
pub(super) struct Slots(Vec<Slot>);

impl Slots {
    pub fn new(slots: impl IntoIterator<Item = Slot>, page_size: u64) -> Result<Self, SetUpError> {
        let mut this = Self::default();
        for slot in slots {
            this.add(slot, page_size)?;
        }
        Ok(this)
    }

    pub fn add(&mut self, slot: Slot, page_size: u64) -> Result<(), SetUpError> {
        let why = if slot.size == 0 {
            Some(Unfit::Empty)
        } else if !(slot.ipa | slot.size).is_multiple_of(page_size) {
            Some(Unfit::Unaligned { page_size })
        } else if slot.ipa.checked_add(slot.size).is_none() {
            Some(Unfit::Overflow)
        } else if self.0.iter().any(|other| clash(other, &slot)) {
            Some(Unfit::Twice)
        } else {
            None
        };
        if let Some(why) = why {
            let slot = slot.slot;
            return Err(SetUpError::Slot { slot, why });
        }
        self.0.push(slot);
        Ok(())
    }

    pub fn all(&self) -> &[Slot] {
        &self.0
    }

    /// Refuses what is in no slot, and so in no log.
    pub fn cover(&self, ipas: Range<u64>) -> Result<(), KvmError> {
        let mut next = ipas.start;
        while next < ipas.end {
            // In any order, since a VM has a handful of slots.
            let mut slots = self.0.iter().map(Slot::ipas);
            let Some(slot) = slots.find(|slot| slot.contains(&next)) else {
                let Range { start, end } = ipas;
                return Err(KvmError::NoSlot { start, end });
            };
            next = slot.end;
        }
        Ok(())
    }

    pub fn find(&self, number: u32) -> Option<&Slot> {
        self.0.iter().find(|slot| slot.slot == number)
    }
}

fn clash(a: &Slot, b: &Slot) -> bool {
    let overlap = a.ipa < b.ipas().end && b.ipa < a.ipas().end;
    // Other address spaces, such as SMM, show the guest other memory at the same address.
    let same_space = a.slot >> 16 == b.slot >> 16;
    a.slot == b.slot || (overlap && same_space)
}
