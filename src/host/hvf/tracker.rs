//! [`HvfTracker`]: regions on the heap, the framework's protection, the rendezvous and a clock.

use core::convert::Infallible;
use core::ops::Range;
use core::time::Duration;

use alloc::vec::Vec;

use super::{
    Exit, Handled, HvError, HvfProtection, NewTrackerError, Pause, PauseError, Paused,
    StoppedError, VcpuSeat, handle_exit,
};
use crate::host::std::Clock;
use crate::{
    ArmError, BoxedRegion, CostModel, Counters, DirtyRun, FaultError, Harvest, HarvestError,
    Harvested, StepDown, Untracked, WriteTracker,
};

type Tracker = WriteTracker<HvfProtection, Vec<BoxedRegion>>;

/// Tracks which pages the guest of this process's VM wrote.
///
/// A [`WriteTracker`] over `hv_vm_protect`, with its regions on the heap, a [`Pause`] for the vCPUs
/// and a clock. A VMM keeps it in an `Arc`, or in a `static`; every method takes `&self`.
///
/// A new one has every page marked and nothing protected. [`arm`](Self::arm) it for a baseline, or
/// let the first [`harvest`](Self::harvest) report all of memory.
#[derive(Debug)]
pub struct HvfTracker {
    tracker: Tracker,
    pause: Pause,
    clock: Clock,
}

impl HvfTracker {
    /// A tracker of `memory`: pairs of a guest physical address and a size in bytes, in ascending
    /// order, each mapped as a whole by `hv_vm_map` before it is armed, and kept so. `protection`
    /// is an [`HvfProtection`] or just the VM's [`HostPage`](super::HostPage).
    ///
    /// # Errors
    ///
    /// [`NewTrackerError`] where an address or a size is no multiple of the granule, or they do not
    /// ascend.
    pub fn new(
        protection: impl Into<HvfProtection>,
        memory: impl IntoIterator<Item = (u64, u64)>,
    ) -> Result<Self, NewTrackerError> {
        Self::with_step_down(protection, memory, StepDown::DEFAULT)
    }

    /// The same, with another rule for when a hot block is opened by the page.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_step_down(
        protection: impl Into<HvfProtection>,
        memory: impl IntoIterator<Item = (u64, u64)>,
        step_down: StepDown,
    ) -> Result<Self, NewTrackerError> {
        Self::with_policy(protection, memory, |region| {
            region.with_step_down(step_down)
        })
    }

    /// The same, with granules that follow costs: [`CostModel::HVF_MEMORY`],
    /// [`CostModel::HVF_PACKED`], or what was measured.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_cost_model(
        protection: impl Into<HvfProtection>,
        memory: impl IntoIterator<Item = (u64, u64)>,
        model: CostModel,
    ) -> Result<Self, NewTrackerError> {
        Self::with_policy(protection, memory, |region| region.with_cost_model(model))
    }

    fn with_policy(
        protection: impl Into<HvfProtection>,
        memory: impl IntoIterator<Item = (u64, u64)>,
        policy: impl Fn(BoxedRegion) -> BoxedRegion,
    ) -> Result<Self, NewTrackerError> {
        let protection = protection.into();
        let geometry = protection.page().geometry();
        let page_size = geometry.page_size();
        let region = |(base, size): (u64, u64)| {
            if !size.is_multiple_of(page_size) {
                return Err(NewTrackerError::Size {
                    base,
                    size,
                    page_size,
                });
            }
            let region = BoxedRegion::boxed(base, size, geometry)?;
            Ok(policy(region))
        };
        let regions: Result<Vec<_>, _> = memory.into_iter().map(region).collect();
        let tracker = WriteTracker::new(protection, regions?)?;
        Ok(Self {
            tracker,
            pause: Pause::new(),
            clock: Clock::new(),
        })
    }

    /// Sets how many clean pages between two dirty runs a re-arm may protect along; 256 MiB of them
    /// unless set. See [`WriteTracker::with_bridge`].
    #[must_use]
    pub fn with_bridge(mut self, pages: usize) -> Self {
        self.tracker = self.tracker.with_bridge(pages);
        self
    }

    /// See [`WriteTracker::with_storm_limit`].
    #[must_use]
    pub fn with_storm_limit(mut self, faults: u32) -> Self {
        self.tracker = self.tracker.with_storm_limit(faults);
        self
    }

    /// Sets how long to wait for a vCPU that does not leave the guest; 2 s unless set. Do it before
    /// the first [`seat`](Self::seat).
    #[must_use]
    pub fn with_watchdog(mut self, watchdog: Duration) -> Self {
        self.pause = self.pause.with_watchdog(watchdog);
        self
    }

    /// A seat for a vCPU's thread; see [`Pause::seat`]. Each vCPU needs one, or it is not stopped.
    #[must_use]
    pub fn seat(&self, vcpu: u64) -> VcpuSeat {
        self.pause.seat(vcpu)
    }

    /// Stops every vCPU; see [`Pause::pause`]. For what must be of one moment and is more than one
    /// call: a baseline (stop, [`arm`](Self::arm), copy), a snapshot with the devices' state.
    ///
    /// # Errors
    ///
    /// [`PauseError`]; the vCPUs run on then.
    pub fn pause(&self) -> Result<Paused, PauseError> {
        self.pause.pause()
    }

    /// A clean checkpoint, with every vCPU stopped: forgets every mark, protects everything. See
    /// [`WriteTracker::arm`].
    ///
    /// # Errors
    ///
    /// [`StoppedError`]; if `hv_vm_protect` fails, every page is marked.
    pub fn arm(&self) -> Result<(), StoppedError<ArmError<HvError>>> {
        let _stopped = self.pause()?;
        self.tracker.arm().map_err(StoppedError::Tracker)
    }

    /// An exit of a vCPU, as [`handle_exit`]. Call it under the guard of
    /// [`VcpuSeat::enter`].
    ///
    /// # Errors
    ///
    /// As [`handle_exit`].
    pub fn handle_exit(&self, exit: Exit) -> Result<Handled, FaultError<HvError>> {
        handle_exit(&self.tracker, exit)
    }

    /// Marks what the VMM or one of its devices wrote, **after** it was written; see
    /// [`WriteTracker::mark_written`].
    ///
    /// # Errors
    ///
    /// [`Untracked`] where none of it is in a region.
    pub fn mark_written(&self, range: Range<u64>) -> Result<(), Untracked> {
        self.tracker.mark_written(range)
    }

    /// Gives every run of written pages to `consumer`, protected again, with every vCPU stopped
    /// from beginning to end: what the consumer copies is of one moment. Then ticks the clock.
    ///
    /// Devices are not stopped: what one writes meanwhile, and tells, is in the next harvest.
    ///
    /// # Errors
    ///
    /// [`StoppedError`]; what was not accepted is marked again.
    /// [`HarvestError::HandlersInFlight`] says that a vCPU's exit is handled outside its seat's
    /// guard.
    pub fn harvest<C>(
        &self,
        consumer: impl FnMut(DirtyRun) -> Result<(), C>,
    ) -> Result<Harvested, StoppedError<HarvestError<HvError, C>>> {
        let stopped = self.pause()?;
        let harvested = self.tracker.final_harvest(consumer);
        drop(stopped);
        self.tick();
        harvested.map_err(StoppedError::Tracker)
    }

    /// The two-phase form: stops every vCPU while the written pages are drained and protected, and
    /// lets them go before anything is copied. What it returns puts everything back unless it is
    /// committed. See [`WriteTracker::begin_harvest`].
    ///
    /// A page that is written again before it is copied faults, and is in the next harvest too: what
    /// a migration's rounds want.
    ///
    /// # Errors
    ///
    /// [`StoppedError`]; everything is marked again then.
    #[expect(clippy::type_complexity, reason = "each part is named in the docs")]
    pub fn begin_harvest(
        &self,
    ) -> Result<
        Harvest<'_, HvfProtection, Vec<BoxedRegion>>,
        StoppedError<HarvestError<HvError, Infallible>>,
    > {
        let stopped = self.pause()?;
        let harvest = self.tracker.begin_final_harvest();
        drop(stopped);
        self.tick();
        harvest.map_err(StoppedError::Tracker)
    }

    /// As [`harvest`](Self::harvest), while the vCPUs run on.
    ///
    /// **A warning.** The tracker loses nothing here as long as `hv_vm_protect` does what
    /// [`WriteProtect::protect`](crate::WriteProtect::protect) asks: once it returns, no vCPU writes
    /// through a translation from before. Apple documents neither that nor calls from several
    /// threads. One project saw stores lost, in 5 of 60 runs, when pages were protected in the
    /// middle of a `memcpy` by one of six vCPUs in a VM with a granule of 4 KiB; nobody found out
    /// why. Use it where a lost page costs little, such as for a screen.
    ///
    /// # Errors
    ///
    /// [`HarvestError`]; what was not accepted is marked again.
    pub fn harvest_running<C>(
        &self,
        consumer: impl FnMut(DirtyRun) -> Result<(), C>,
    ) -> Result<Harvested, HarvestError<HvError, C>> {
        let harvested = self.tracker.harvest(consumer);
        self.tick();
        harvested
    }

    /// Tells the clock's time to the rule that steps hot blocks down. Each harvest does it; a VMM
    /// that harvests less often than every few windows of [`StepDown`] calls it from a timer.
    pub fn tick(&self) {
        self.tracker.tick(self.clock.now());
    }

    /// What the tracker has done so far.
    pub fn counters(&self) -> Counters {
        self.tracker.counters()
    }

    /// The tracker itself: its regions, [`disarm`](WriteTracker::disarm), its forms of harvest. They
    /// stop no vCPU; [`pause`](Self::pause) first.
    pub const fn tracker(&self) -> &Tracker {
        &self.tracker
    }
}
