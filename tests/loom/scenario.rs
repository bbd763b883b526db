//! What the models have in common: a tracker of some kind, a guest that writes, a harvester that
//! keeps a copy, and the one question at the end: does the copy equal the memory?

use std::sync::Arc;

use loom::thread::{self, JoinHandle};

use crate::mmu::{Content, Mmu};

/// The library, or a protocol by hand.
pub trait Tracking: Send + Sync + 'static {
    fn mmu(&self) -> &Mmu;

    /// A clean checkpoint. `baseline` copies everything; it is called once, after.
    fn arm(&self, baseline: &mut dyn FnMut());

    /// Handles a vCPU's write fault at `page`.
    fn fault(&self, page: usize);

    /// Gives each dirty page to `copy`, which may refuse it; `false` if the harvest ended early.
    fn harvest(&self, copy: &mut dyn FnMut(usize) -> bool) -> bool;
}

/// What a vCPU does to write `page`: it tries its store until that is let through.
pub fn write(tracking: &impl Tracking, page: usize) {
    // Only a harvest takes a granted page away again, and a model has few.
    while tracking.mmu().store(page).is_err() {
        tracking.fault(page);
    }
}

/// A vCPU that writes `pages`, one after the other.
pub fn vcpu<T: Tracking>(tracking: &Arc<T>, pages: &'static [usize]) -> JoinHandle<()> {
    let tracking = Arc::clone(tracking);
    thread::spawn(move || pages.iter().for_each(|&page| write(&*tracking, page)))
}

/// The harvester's copy of memory.
pub struct Copy(Vec<Content>);

impl Copy {
    /// Copies everything.
    pub fn baseline(mmu: &Mmu) -> Self {
        Self((0..mmu.len()).map(|page| mmu.copy(page)).collect())
    }

    pub fn take(&mut self, mmu: &Mmu, page: usize) {
        self.0[page] = mmu.copy(page);
    }

    /// Harvests into the copy.
    pub fn harvest(&mut self, tracking: &impl Tracking) {
        let whole = tracking.harvest(&mut |page| {
            self.take(tracking.mmu(), page);
            true
        });
        assert!(whole, "nothing was refused");
    }

    /// Fails unless it is what memory holds, with every thread joined.
    pub fn check(&self, mmu: &Mmu) {
        for (page, copy) in self.0.iter().enumerate() {
            let memory = mmu.copy(page);
            assert!(
                *copy == memory,
                "lost page {page}: memory has {memory:?}, the copy {copy:?}"
            );
        }
    }
}

/// An armed tracker and the baseline of its memory.
pub fn armed<T: Tracking>(tracking: T) -> (Arc<T>, Copy) {
    tracking.arm(&mut || ());
    let baseline = Copy::baseline(tracking.mmu());
    (Arc::new(tracking), baseline)
}
