//! The left wing: which guest pages were written.

mod adaptive;
mod geometry;
mod protect;
mod region;
mod tracker;

pub use adaptive::{
    AdaptiveController, BlockState, CostError, CostModel, Granule, StepDown, StepDownScope,
};
pub use geometry::{GeometryError, PageGeometry};
pub use protect::{WriteProtect, WriteProtectMut};
#[cfg(feature = "alloc")]
pub use region::BoxedRegion;
#[cfg(not(loom))]
pub use region::StaticRegion;
pub use region::{BorrowedRegion, DirtyRun, RegionError, TrackedRegion, blocks_for, pages_for};
pub use tracker::{
    ArmError, Counters, FaultError, FaultOutcome, Harvest, HarvestError, Harvested, RegionSet,
    RegionsError, Untracked, WriteTracker,
};
