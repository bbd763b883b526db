//! The library, as the scenarios drive it.

use std::time::Duration;

use pugmark::{
    AtomicUsize, BlockState, CostModel, DirtyRun, FaultError, Granule, HarvestError, PageGeometry,
    StepDown, TrackedRegion, WriteTracker, blocks_for, pages_for, words_for,
};

use crate::mmu::{BASE, Failed, Mmu, PAGE, ipa, pages};
use crate::scenario::Tracking;
use crate::storage::Storage;

pub type Regions = [Region; 1];
type Region = TrackedRegion<Storage<AtomicUsize>, Storage<BlockState>>;

pub struct Library {
    pub tracker: WriteTracker<Mmu, Regions>,
}

/// The consumer did not want the run.
#[derive(Debug)]
pub struct Refused;

impl Library {
    /// `pages` pages, in blocks of `per_block`.
    ///
    /// Every page is marked first, as always, so that each word of the dirty bitmap has a `SeqCst`
    /// store. loom needs that: it does not count a cell's first value as one, and would let a
    /// `SeqCst` load return it although a newer one has been stored.
    pub fn new(pages: usize, per_block: usize) -> Self {
        Self {
            tracker: Self::over(Mmu::new(pages), pages, per_block),
        }
    }

    /// The same; granules follow costs, and a page is far cheaper than a fault: the first fault in
    /// an epoch opens a page, the second the block.
    pub fn with_cost_model(pages: usize, per_block: usize) -> Self {
        let [fault, page] = [98, 1].map(Duration::from_nanos);
        let model = CostModel::new(fault, page).unwrap();
        let region = Self::region(pages, per_block).with_cost_model(model);
        Self {
            tracker: WriteTracker::new(Mmu::new(pages), [region]).unwrap(),
        }
    }

    /// The same tracker over another host.
    pub fn over<P>(host: P, pages: usize, per_block: usize) -> WriteTracker<P, Regions> {
        let region = Self::region(pages, per_block).with_step_down(StepDown {
            threshold: 0,
            window: Duration::from_millis(1),
            ..StepDown::DEFAULT
        });
        WriteTracker::new(host, [region]).unwrap()
    }

    fn region(pages: usize, per_block: usize) -> Region {
        let geometry = PageGeometry::new(PAGE, PAGE * per_block as u64).unwrap();
        let size = PAGE * pages as u64;
        let words = || {
            let words = words_for(pages_for(size, geometry));
            Storage::new(words, || AtomicUsize::new(0))
        };
        let blocks = Storage::new(blocks_for(BASE, size, geometry), BlockState::new);
        TrackedRegion::with_storage(BASE, size, geometry, words(), words(), blocks).unwrap()
    }

    /// As [`new`](Self::new); gaps of up to `bridge` pages are protected along.
    pub fn with_bridge(pages: usize, bridge: usize) -> Self {
        let Self { tracker } = Self::new(pages, 1);
        Self {
            tracker: tracker.with_bridge(bridge),
        }
    }

    pub fn granule(&self) -> Granule {
        let region = &self.tracker.regions()[0];
        region.granule_at(BASE).expect("it is the region's base")
    }

    /// A consumer, out of one that takes a page at a time.
    pub fn by_page(
        copy: &mut dyn FnMut(usize) -> bool,
    ) -> impl FnMut(DirtyRun) -> Result<(), Refused> {
        move |run| match pages(run.range()).all(&mut *copy) {
            true => Ok(()),
            false => Err(Refused),
        }
    }
}

impl Tracking for Library {
    fn mmu(&self) -> &Mmu {
        self.tracker.protection()
    }

    fn arm(&self, baseline: &mut dyn FnMut()) {
        self.tracker.arm().expect("nothing else is open");
        baseline();
    }

    fn fault(&self, page: usize) {
        match self.tracker.on_write_fault(ipa(page)) {
            Ok(_) | Err(FaultError::Host { error: Failed, .. }) => {}
            Err(error) => unreachable!("{error:?}"),
        }
    }

    fn harvest(&self, copy: &mut dyn FnMut(usize) -> bool) -> bool {
        match self.tracker.harvest(Self::by_page(copy)) {
            Ok(_) => true,
            Err(HarvestError::Consumer { .. } | HarvestError::Host { .. } | HarvestError::Busy) => {
                false
            }
            Err(error) => unreachable!("{error:?}"),
        }
    }
}
