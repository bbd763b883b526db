//! Laws 4 and 5: a block steps down while vCPUs write to it.

use std::time::Duration;

use loom::sync::atomic::{AtomicBool, Ordering::Relaxed};
use pugmark::{AtomicUsize, DirtyBitmap, Granule, words_for};

use crate::check::{holds, loses};
use crate::library::Library;
use crate::mmu::Mmu;
use crate::scenario::{Tracking, armed, vcpu, write};
use crate::storage::Storage;

/// A tracker of one block of two pages, whose granule can change.
trait Adaptive: Tracking {
    /// Lets the block step down when [`step_down`](Self::step_down) is called next.
    fn heat(&self);
    fn step_down(&self);
    fn granule(&self) -> Granule;
}

/// A block steps down and is harvested, beside a vCPU that writes both its pages.
fn step_down_beside_writes(tracking: impl Adaptive) {
    let (tracking, mut copy) = armed(tracking);
    tracking.heat();
    copy.harvest(&*tracking);
    assert_eq!(tracking.granule(), Granule::Block);
    let vcpu = vcpu(&tracking, &[0, 1]);
    tracking.step_down();
    copy.harvest(&*tracking);
    vcpu.join().unwrap();
    assert_eq!(tracking.granule(), Granule::Page);
    copy.harvest(&*tracking);
    copy.check(tracking.mmu());
}

impl Adaptive for Library {
    fn heat(&self) {
        self.tracker.tick(Duration::from_millis(1));
        write(self, 0);
    }

    fn step_down(&self) {
        self.tracker.tick(Duration::from_millis(2));
    }

    fn granule(&self) -> Granule {
        self.granule()
    }
}

#[test]
fn step_down_beside_faults() {
    holds(|| step_down_beside_writes(Library::new(2, 2)));
}

/// A block that `epochs` dense epochs have left with little credit, or none, is written by a vCPU.
/// The harvest beside it takes what was opened by the page, or as a whole, and begins the next epoch
/// in the midst of the faults.
fn cost_model_beside_writes(epochs: usize) {
    let (tracking, mut copy) = armed(Library::with_cost_model(2, 2));
    for _ in 0..epochs {
        write(&*tracking, 0);
        write(&*tracking, 1);
        copy.harvest(&*tracking);
    }
    let vcpu = vcpu(&tracking, &[0, 1]);
    copy.harvest(&*tracking);
    vcpu.join().unwrap();
    copy.harvest(&*tracking);
    copy.check(tracking.mmu());
}

#[test]
fn credit_spent_beside_a_harvest() {
    holds(|| cost_model_beside_writes(0));
}

#[test]
fn step_up_beside_faults() {
    holds(|| cost_model_beside_writes(1));
}

#[test]
fn sample_beside_a_harvest() {
    holds(|| {
        // Spent twice, it is coarse for an epoch; then it is sampled.
        cost_model_beside_writes(3);
    });
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    /// Once a fault.
    Once,
    /// Once for what is granted, and once for what is marked.
    Twice,
    /// A coarse fault marks its first page for the block; the harvest loads the granule to know
    /// how many pages that stands for.
    AtTheHarvest,
}

/// One block of two pages, by hand.
struct ByHand {
    dirty: DirtyBitmap<Storage<AtomicUsize>>,
    mmu: Mmu,
    fine: AtomicBool,
    load: Load,
}

impl ByHand {
    fn new(load: Load) -> Self {
        let words = Storage::new(words_for(2), || AtomicUsize::new(0));
        let dirty = DirtyBitmap::with_storage(words, 2).unwrap();
        dirty.mark_range(0..2).unwrap();
        Self {
            dirty,
            mmu: Mmu::new(2),
            fine: AtomicBool::new(false),
            load,
        }
    }

    fn span(&self, page: usize) -> std::ops::Range<usize> {
        match self.granule() {
            Granule::Page => page..page + 1,
            Granule::Block => 0..2,
        }
    }
}

impl Tracking for ByHand {
    fn mmu(&self) -> &Mmu {
        &self.mmu
    }

    fn arm(&self, baseline: &mut dyn FnMut()) {
        self.dirty.clear();
        (0..2).for_each(|page| self.mmu.protect_page(page).unwrap());
        baseline();
    }

    fn fault(&self, page: usize) {
        let granted = self.span(page);
        for page in granted.clone() {
            self.mmu.open_page(page).unwrap();
        }
        let marked = match self.load {
            Load::Once => granted,
            Load::Twice => self.span(page),
            Load::AtTheHarvest => granted.start..granted.start + 1,
        };
        self.dirty.mark_range(marked).unwrap();
    }

    fn harvest(&self, copy: &mut dyn FnMut(usize) -> bool) -> bool {
        let mut taken = Vec::new();
        self.dirty.drain_bits(|page| {
            taken.extend(match self.load {
                Load::AtTheHarvest => self.span(page),
                _ => page..page + 1,
            });
        });
        for &page in &taken {
            self.mmu.protect_page(page).unwrap();
        }
        taken.into_iter().all(copy)
    }
}

impl Adaptive for ByHand {
    fn heat(&self) {}

    fn step_down(&self) {
        self.fine.store(true, Relaxed);
    }

    fn granule(&self) -> Granule {
        match self.fine.load(Relaxed) {
            true => Granule::Page,
            false => Granule::Block,
        }
    }
}

#[test]
fn by_hand_loaded_once() {
    holds(|| step_down_beside_writes(ByHand::new(Load::Once)));
}

/// The whole block is opened, and only the page marked.
#[test]
fn loaded_twice() {
    loses(|| step_down_beside_writes(ByHand::new(Load::Twice)));
}

/// The mark was for the whole block, and is taken for a page.
#[test]
fn read_again_by_the_harvest() {
    loses(|| step_down_beside_writes(ByHand::new(Load::AtTheHarvest)));
}
