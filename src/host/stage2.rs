#![doc = include_str!("../../features/stage2.md")]

mod error;
mod pool;
mod split;
mod tlb;

#[cfg(test)]
mod tests;

use core::ops::Range;

/// The crate whose tables these are, in the version that this one works with.
pub use ::aarch64_paging;
use ::aarch64_paging::{
    Mapping,
    descriptor::Stage2Attributes,
    paging::{BITS_PER_LEVEL, LEAF_LEVEL, MemoryRegion, PAGE_SIZE, Stage2, Translation},
};

use crate::WriteProtectMut;
use split::Plan;
use tlb::Scope;

pub use error::Stage2Error;
pub use pool::{PooledTables, TablePool};

/// The upper bit of S2AP. With 4 KiB granules it is bit 7 of every block and page descriptor, and it
/// alone says whether the guest may write; bit 6 says whether it may read, XN whether it may fetch.
const WRITE: Stage2Attributes = Stage2Attributes::S2AP_ACCESS_WO;

/// Where the tables come from, and how many are left there.
///
/// [`Translation::allocate_table`] has no way to fail, and a live block must be taken out of use
/// before its table can be built. So the room is asked for first.
pub trait TableSource: Translation<Stage2Attributes> {
    /// How many times [`Translation::allocate_table`] can be called from here on, at the least.
    fn available(&self) -> usize;
}

/// A VM's stage-2 tables, whose write permission a tracker takes and gives back.
///
/// It needs `&mut self`, so it goes behind a lock: `spin::Mutex`, `critical_section::Mutex` or
/// `std::sync::Mutex`, each with the feature of that name.
///
/// Only the write bit of S2AP changes. Read and execute permissions, memory type, shareability,
/// access flag and output address stay as they are, and so does every descriptor that is not valid.
#[derive(Debug)]
pub struct Stage2Protection<T: TableSource> {
    mapping: Mapping<T, Stage2>,
    vmid: u16,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    ReadOnly,
    ReadWrite,
}

impl<T: TableSource> Stage2Protection<T> {
    /// The tables of a VM whose VMID is 0, the one that [`Mapping::activate`] sets.
    pub const fn new(mapping: Mapping<T, Stage2>) -> Self {
        Self { mapping, vmid: 0 }
    }

    /// The same tables for the VM with this VMID.
    ///
    /// TLB maintenance acts on the VMID in the calling core's `VTTBR_EL2`, so the VMID must be the
    /// one that the vCPUs run with. Where `VTCR_EL2.VS` is 0 a VMID has 8 bits.
    #[must_use]
    pub fn with_vmid(mut self, vmid: u16) -> Self {
        self.vmid = vmid;
        self
    }

    /// The value of `VTTBR_EL2` for these tables: the root's address and the VMID.
    ///
    /// A vCPU loop that loads it by hand calls [`Mapping::mark_active`] first. Before that an edit
    /// does no TLB maintenance.
    pub fn vttbr(&self) -> u64 {
        self.mapping.root_address().0 as u64 | u64::from(self.vmid) << 48
    }

    /// The tables.
    pub const fn mapping(&self) -> &Mapping<T, Stage2> {
        &self.mapping
    }

    /// The tables, to map more or less.
    ///
    /// After an edit of live tables call [`invalidate`](Self::invalidate). What is mapped writable
    /// inside a tracked region can be written unseen: tell the tracker
    /// ([`mark_written`](crate::WriteTracker::mark_written)) after it is mapped, or map it read-only.
    pub const fn mapping_mut(&mut self) -> &mut Mapping<T, Stage2> {
        &mut self.mapping
    }

    /// Makes every core forget this VM's translations, of either kind: combined ones too, which the
    /// tables' own crate leaves.
    pub fn invalidate(&self) {
        tlb::invalidate(self.vttbr(), Scope::AllCores);
    }

    /// Gives the tables back.
    pub fn into_mapping(self) -> Mapping<T, Stage2> {
        self.mapping
    }

    /// Whether the guest may write at `ipa`; `None` where nothing is mapped.
    ///
    /// The lock around `self` makes this the question to ask about a *translation* fault. While a
    /// block is being split it is not mapped for a moment, and other vCPUs that read, fetch or write
    /// there fault. `Some` means that the split is over: retry the instruction.
    pub fn writable(&self, ipa: u64) -> Option<bool> {
        let page = usize::try_from(ipa).ok()? & !(PAGE_SIZE - 1);
        let region = MemoryRegion::new(page, page.checked_add(PAGE_SIZE)?);
        let mut writable = None;
        self.mapping
            .walk_range(&region, &mut |_, leaf, _| {
                writable = leaf.is_valid().then(|| leaf.flags().contains(WRITE));
                Ok(())
            })
            .ok()?;
        writable
    }

    /// The caller ends with a TLB invalidation, whatever this returns.
    fn set(&mut self, range: Range<u64>, access: Access) -> Result<(), Stage2Error> {
        // Everything that can be refused is refused here, before the first change.
        let plan = Plan::new(&self.mapping, range, access)?;
        plan.check_room(self.mapping.translation().available())?;
        for block in plan.blocks() {
            self.split(block, access)?;
        }
        // A live table is flipped with a broadcast TLBI for each descriptor: 512 for a block that
        // was split. Our callers end with one that covers them all, so for the flip alone, which
        // changes permissions and nothing that asks for break-before-make, the table counts as not
        // live. `&mut self` keeps everyone from seeing that.
        let mut uses = 0;
        while self.mapping.active() {
            self.mapping.mark_inactive();
            uses += 1;
        }
        let flipped = plan.flip(&mut self.mapping, access);
        for _ in 0..uses {
            self.mapping.mark_active();
        }
        flipped
    }
}

impl<T: TableSource> WriteProtectMut for Stage2Protection<T> {
    type Error = Stage2Error;

    fn protect(&mut self, range: Range<u64>) -> Result<(), Self::Error> {
        self.protect_all(&[range])
    }

    /// With one TLB invalidation on every core for all of the ranges.
    fn protect_all(&mut self, ranges: &[Range<u64>]) -> Result<(), Self::Error> {
        let done = ranges
            .iter()
            .try_for_each(|range| self.set(range.clone(), Access::ReadOnly));
        if self.mapping.active() {
            // Also after an error, and where nothing changed: a store through a translation that
            // an earlier edit left behind would be lost, and one TLBI is cheap beside a fault.
            tlb::invalidate(self.vttbr(), Scope::AllCores);
        }
        done
    }

    fn unprotect(&mut self, range: Range<u64>) -> Result<(), Self::Error> {
        let page = range.end.wrapping_sub(range.start) == PAGE_SIZE as u64;
        let scope = match page {
            true => Scope::Fault { ipa: range.start },
            false => Scope::ThisCore,
        };
        let done = self.set(range, Access::ReadWrite);
        if self.mapping.active() {
            // Where nothing changed, another core opened the page before us, and it is a stale
            // read-only translation on *this* core that faulted. It would fault again for ever, so
            // it must go, whatever the descriptor said. Other cores may keep theirs: a stale
            // refusal costs one fault, whose handler comes through here on that core.
            tlb::invalidate(self.vttbr(), scope);
        }
        done
    }
}

#[cfg(feature = "defmt")]
impl<T: TableSource> defmt::Format for Stage2Protection<T> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Stage2Protection(VTTBR {:#x})", self.vttbr());
    }
}

/// Bytes that one descriptor at `level` maps.
const fn leaf_size(level: usize) -> usize {
    PAGE_SIZE << ((LEAF_LEVEL - level) * BITS_PER_LEVEL)
}
