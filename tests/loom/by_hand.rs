//! The protocols by hand, out of the bitmap and the MMU, page by page, so that a step can be put in
//! the wrong place.

use pugmark::{AtomicUsize, DirtyBitmap, words_for};

use crate::mmu::Mmu;
use crate::scenario::Tracking;
use crate::storage::Storage;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultOrder {
    GrantMark,
    MarkGrant,
    /// Does not mark what a failed grant may have opened.
    GrantMarkIfGranted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HarvestOrder {
    DrainProtectCopy,
    ProtectDrainCopy,
    DrainCopyProtect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArmOrder {
    ClearProtectCopy,
    ProtectClearCopy,
    ClearCopyProtect,
}

/// What becomes of the drained pages that a harvest which ends early did not deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    MarkedAgain,
    Forgotten,
}

pub struct ByHand {
    pub dirty: DirtyBitmap<Storage<AtomicUsize>>,
    pub mmu: Mmu,
    pub fault: FaultOrder,
    pub harvest: HarvestOrder,
    pub arm: ArmOrder,
    pub rest: Rest,
}

impl ByHand {
    /// Every step in its place.
    pub fn new(pages: usize) -> Self {
        let words = Storage::new(words_for(pages), || AtomicUsize::new(0));
        let dirty = DirtyBitmap::with_storage(words, pages).unwrap();
        // As in a new tracker; see `Library::new` for what loom needs of it.
        dirty.mark_range(0..pages).unwrap();
        Self {
            dirty,
            mmu: Mmu::new(pages),
            fault: FaultOrder::GrantMark,
            harvest: HarvestOrder::DrainProtectCopy,
            arm: ArmOrder::ClearProtectCopy,
            rest: Rest::MarkedAgain,
        }
    }

    fn protect_all(&self) {
        for page in 0..self.mmu.len() {
            self.mmu.protect_page(page).expect("arming does not fail");
        }
    }

    fn mark(&self, page: usize) {
        self.dirty.mark(page).unwrap();
    }

    /// Protects and copies a drained page, as the order has it.
    fn deliver(&self, page: usize, copy: &mut dyn FnMut(usize) -> bool) -> bool {
        match self.harvest {
            HarvestOrder::DrainProtectCopy => self.mmu.protect_page(page).is_ok() && copy(page),
            HarvestOrder::ProtectDrainCopy => copy(page),
            HarvestOrder::DrainCopyProtect => copy(page) && self.mmu.protect_page(page).is_ok(),
        }
    }
}

impl Tracking for ByHand {
    fn mmu(&self) -> &Mmu {
        &self.mmu
    }

    fn arm(&self, baseline: &mut dyn FnMut()) {
        match self.arm {
            ArmOrder::ClearProtectCopy => {
                self.dirty.clear();
                self.protect_all();
                baseline();
            }
            ArmOrder::ProtectClearCopy => {
                self.protect_all();
                self.dirty.clear();
                baseline();
            }
            ArmOrder::ClearCopyProtect => {
                self.dirty.clear();
                baseline();
                self.protect_all();
            }
        }
    }

    fn fault(&self, page: usize) {
        match self.fault {
            FaultOrder::GrantMark => {
                let _ = self.mmu.open_page(page);
                self.mark(page);
            }
            FaultOrder::MarkGrant => {
                self.mark(page);
                let _ = self.mmu.open_page(page);
            }
            FaultOrder::GrantMarkIfGranted => {
                if self.mmu.open_page(page).is_ok() {
                    self.mark(page);
                }
            }
        }
    }

    fn harvest(&self, copy: &mut dyn FnMut(usize) -> bool) -> bool {
        if self.harvest == HarvestOrder::ProtectDrainCopy {
            for page in 0..self.mmu.len() {
                if self.dirty.is_marked(page).unwrap() {
                    self.mmu.protect_page(page).expect("it does not fail here");
                }
            }
        }
        let mut pages = Vec::new();
        self.dirty.drain_bits(|page| pages.push(page));
        for (delivered, &page) in pages.iter().enumerate() {
            if !self.deliver(page, copy) {
                if self.rest == Rest::MarkedAgain {
                    pages[delivered..].iter().for_each(|&page| self.mark(page));
                }
                return false;
            }
        }
        true
    }
}
