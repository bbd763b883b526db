//! [`WriteTracker`]: fault and harvest, and the order of their steps.
//!
//! # The orders that lose nothing
//!
//! *Grant, then mark.* A fault opens the span, then marks that same span. In the other order a
//! harvester may drain and protect between the two, and the grant then leaves a page that is
//! writable and clean.
//!
//! *Drain, then protect, then copy.* In the order protect, then drain, a vCPU may fault between the
//! two: it marks a bit that is still set, gets write access back, and the drain then clears the bit
//! of a page that is open. And a copy made before the protect misses what is written until then.
//!
//! *Clear, then protect*, at a checkpoint, for the same reason.
//!
//! With these, whatever the interleaving, a page that can be written is marked, or is about to be
//! by a handler that has not returned. Such handlers are counted, so that a harvest with the world
//! stopped, the last one, can refuse to run while one is under way.

mod counters;
mod error;
mod harvest;

use core::ops::Range;
use core::time::Duration;

use counters::{Apart, Tally};
pub use counters::{Counters, Harvested};
pub use error::{ArmError, FaultError, HarvestError, RegionsError, Untracked};
pub use harvest::Harvest;

use super::adaptive::{BlockState, Granule};
use super::geometry::PageGeometry;
use super::protect::WriteProtect;
use super::region::{Span, TrackedRegion};
use crate::sync::{
    AtomicBool, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence, fence_after_rmw,
};

/// Faults on open pages of one block, beyond one for each of its pages, that are still no storm.
///
/// Each vCPU may fault once on a page that another has just opened, and the host may mark any page
/// before the guest writes it; both together stay far below.
const DEFAULT_STORM_LIMIT: u32 = 4096;

/// Up to so many regions are looked at one by one.
const FEW_REGIONS: usize = 4;

/// A set of regions: an array, a slice, a box or a vector of [`TrackedRegion`]s.
pub trait RegionSet {
    /// The storage of a region's bits.
    type Words: AsRef<[AtomicUsize]>;
    /// The storage of a region's blocks.
    type Blocks: AsRef<[BlockState]>;

    /// The regions, in ascending order of address.
    fn regions(&self) -> &[TrackedRegion<Self::Words, Self::Blocks>];
}

macro_rules! region_set {
    ($(#[$gate:meta])* [$($generics:tt)*] $set:ty) => {
        $(#[$gate])*
        impl<W: AsRef<[AtomicUsize]>, B: AsRef<[BlockState]>, $($generics)*> RegionSet for $set {
            type Words = W;
            type Blocks = B;

            fn regions(&self) -> &[TrackedRegion<W, B>] {
                &self[..]
            }
        }
    };
}

region_set!([const N: usize] [TrackedRegion<W, B>; N]);
region_set!([] &[TrackedRegion<W, B>]);
region_set!([const N: usize] &[TrackedRegion<W, B>; N]);
region_set!(#[cfg(feature = "alloc")] [] alloc::boxed::Box<[TrackedRegion<W, B>]>);
region_set!(#[cfg(feature = "alloc")] [] alloc::vec::Vec<TrackedRegion<W, B>>);

/// Regions that no other tracker has, until it is dropped.
#[derive(Debug)]
struct Claimed<R: RegionSet> {
    set: R,
    /// How many of them are claimed: all, once made.
    claimed: usize,
}

impl<R: RegionSet> Claimed<R> {
    fn new(set: R) -> Result<Self, RegionsError> {
        let mut this = Self { set, claimed: 0 };
        while let Some(region) = this.all().get(this.claimed) {
            if !region.claim() {
                return Err(RegionsError::AlreadyTracked {
                    base: region.base(),
                });
            }
            this.claimed += 1;
        }
        Ok(this)
    }

    fn all(&self) -> &[TrackedRegion<R::Words, R::Blocks>] {
        self.set.regions()
    }
}

impl<R: RegionSet> Drop for Claimed<R> {
    fn drop(&mut self) {
        for region in self.all().iter().take(self.claimed) {
            region.release();
        }
    }
}

/// What became of a write fault.
#[must_use = "a fault that is not granted is the host's own to handle"]
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum FaultOutcome {
    /// The span is open and marked: resume the vCPU at the *same* instruction, which now succeeds.
    Granted {
        /// How much of the block was opened.
        granule: Granule,
        /// The guest physical addresses that were opened and marked, whole pages.
        span: Range<u64>,
        /// Whether the page was marked before: another vCPU faulted on it at the same time, or the
        /// host wrote it. Not an error.
        spurious: bool,
    },
    /// No region holds the address. The fault is the host's: MMIO, or a bug of the guest.
    NotTracked,
}

/// Tracks which guest pages were written.
///
/// It owns the regions and the host's [`WriteProtect`]. All methods take `&self` and may run on any
/// number of threads or CPUs at once: handlers beside handlers beside a harvest. Two harvests at
/// once are refused.
///
/// A new tracker has **every page marked**, as nothing is protected yet: the first
/// [`harvest`](Self::harvest) reports all memory, and protects it, which is just what a migration's
/// first round wants. For a snapshot's baseline call [`arm`](Self::arm).
///
/// ```
/// # use core::{convert::Infallible, ops::Range};
/// use pugmark::{FaultOutcome, PageGeometry, StaticRegion, WriteProtect, WriteTracker};
///
/// struct Host; // stage-2 tables, hv_vm_protect, userfaultfd …
/// impl WriteProtect for Host {
///     type Error = Infallible;
///     fn protect(&self, _: Range<u64>) -> Result<(), Infallible> { Ok(()) }
///     fn unprotect(&self, _: Range<u64>) -> Result<(), Infallible> { Ok(()) }
/// }
///
/// // 4 MiB at 1 GiB: 1,024 pages in 2 blocks.
/// static RAM: [StaticRegion<17, 2>; 1] =
///     [StaticRegion::new(0x4000_0000, 4 << 20, PageGeometry::ARM64_4K)];
///
/// let tracker = WriteTracker::new(Host, &RAM).unwrap();
/// tracker.arm().unwrap();
///
/// // The exit handler, at a write fault:
/// match tracker.on_write_fault(0x4020_1234).unwrap() {
///     FaultOutcome::Granted { span, .. } => assert_eq!(span, 0x4020_0000..0x4040_0000),
///     FaultOutcome::NotTracked => unreachable!("the address is in the region"),
/// }
///
/// // The snapshot thread, while the guest runs:
/// tracker.harvest(|run| {
///     assert_eq!(run.range(), 0x4020_0000..0x4040_0000);
///     Ok::<(), Infallible>(())
/// }).unwrap();
/// ```
///
/// A region belongs to one tracker at a time; a tracker that is dropped gives its regions back.
#[derive(Debug)]
pub struct WriteTracker<P, R: RegionSet> {
    protection: P,
    regions: Claimed<R>,
    /// What [`WriteProtect::bridge`] says, unless set.
    bridge: Option<usize>,
    storm_limit: u32,
    /// Held while a harvest, an arm or a disarm is under way.
    exclusive: AtomicBool,
    /// Handlers that have begun. Those begun and not ended are in flight.
    ///
    /// Every fault writes here when it begins, and to the tally when it ends: in two lines, each of
    /// which is asked for once. What a fault only reads, above, lies in neither.
    handlers_begun: Apart<AtomicUsize>,
    tally: Apart<Tally>,
}

impl<P, R: RegionSet> WriteTracker<P, R> {
    /// A tracker of `regions` over `protection`: every page marked, every block coarse, or as a
    /// [`CostModel`](super::CostModel) begins it.
    ///
    /// # Errors
    ///
    /// [`RegionsError::Order`] unless the regions ascend and none overlaps the next, counted in
    /// whole pages. [`RegionsError::AlreadyTracked`] where another tracker has one of them.
    pub fn new(protection: P, regions: R) -> Result<Self, RegionsError> {
        for (index, pair) in regions.regions().windows(2).enumerate() {
            let (this, next) = (pair[0].page_range(), pair[1].page_range());
            if this.end > next.start {
                return Err(RegionsError::Order {
                    index,
                    end: this.end,
                    next: next.start,
                });
            }
        }
        let regions = Claimed::new(regions)?;
        for region in regions.all() {
            region.held.clear();
            region.controller.reset();
            mark_all(region);
        }
        Ok(Self {
            protection,
            regions,
            bridge: None,
            storm_limit: DEFAULT_STORM_LIMIT,
            exclusive: AtomicBool::new(false),
            handlers_begun: Apart(AtomicUsize::new(0)),
            tally: Apart(Tally::new()),
        })
    }

    /// Sets how many clean pages between two dirty runs a re-arm may protect along, so that one
    /// call serves both; what the host says ([`WriteProtect::bridge`]) unless set. More suits a host
    /// whose calls are dear and whose pages are cheap. Protecting more than needed is always safe.
    #[must_use]
    pub fn with_bridge(mut self, pages: usize) -> Self {
        self.bridge = Some(pages);
        self
    }

    /// Sets after how many faults on open pages of one block, without any progress in it, they are
    /// reported as a [`FaultError::Storm`]; 4096 unless set. One for each page of a block comes on
    /// top.
    #[must_use]
    pub fn with_storm_limit(mut self, faults: u32) -> Self {
        self.storm_limit = faults;
        self
    }

    /// The regions, in ascending order of address.
    pub fn regions(&self) -> &[TrackedRegion<R::Words, R::Blocks>] {
        self.regions.all()
    }

    /// The host's side.
    pub const fn protection(&self) -> &P {
        &self.protection
    }

    /// What the tracker has done so far.
    pub fn counters(&self) -> Counters {
        let ended = self.tally.ended();
        let begun = self.handlers_begun.load(Relaxed);
        self.tally.counters(begun, ended)
    }

    /// The region whose whole pages hold `ipa`.
    ///
    /// Not inlined: what follows then has the region's address in one register, and not as the sum
    /// that the search made of it, again for each access.
    #[inline(never)]
    fn region_at(&self, ipa: u64) -> Option<&TrackedRegion<R::Words, R::Blocks>> {
        let mut regions = self.regions.all();
        // By halves while there are many. Most machines have a few, and to look at each is shorter.
        while regions.len() > FEW_REGIONS {
            let (low, high) = regions.split_at_checked(regions.len() / 2)?;
            regions = if high.first()?.base() <= ipa {
                high
            } else {
                low
            };
        }
        while let [region, after @ ..] = regions {
            if region.is_before_end(ipa) {
                return (region.base() <= ipa).then_some(region);
            }
            regions = after;
        }
        None
    }

    /// Marks what the VMM, a device or an emulator wrote: such a write does not fault, so it must
    /// be told. `range` is in guest physical addresses; what of it lies outside the regions is
    /// ignored.
    ///
    /// Call it **after** the write. A mark that comes first may be harvested, and its page copied,
    /// before the write arrives. The same holds for a page that the host makes writable on its own,
    /// such as one that it populates: open it, then tell.
    ///
    /// # Errors
    ///
    /// [`Untracked`] where no byte of `range` is in any region, or it ends before it starts.
    pub fn mark_written(&self, range: Range<u64>) -> Result<(), Untracked> {
        let mut tracked = range.start == range.end;
        for region in self.regions.all() {
            if let Some(pages) = region.pages_in(&range) {
                tracked |= region.dirty.mark_range(pages).is_ok();
            }
        }
        if !tracked {
            return Err(Untracked {
                start: range.start,
                end: range.end,
            });
        }
        Ok(())
    }

    /// Closes the [`StepDown`](super::StepDown) windows that are over at `now`, a time since any
    /// fixed origin, and steps hot blocks down. Call it at each harvest, or from a timer; without
    /// it every block stays coarse. A [`CostModel`](super::CostModel) does without.
    pub fn tick(&self, now: Duration) {
        for region in self.regions.all() {
            let blocks = region.controller.tick(now);
            if blocks != 0 {
                self.tally.step_downs.fetch_add(blocks, Relaxed);
                note!(
                    info,
                    "{} hot blocks of the region at {:#x} step down",
                    blocks,
                    region.base()
                );
            }
        }
    }

    /// Counts a handler in until the guard drops.
    fn enter_handler(&self) -> InFlight<'_> {
        self.handlers_begun.fetch_add(1, Relaxed);
        // The count comes before the grant, however the host stores a permission: an acquire on the
        // add would keep the grant behind its load side alone, not behind its store. It pairs with
        // the fence below: who knows of a store that the grant let through sees the handler.
        fence_after_rmw();
        InFlight(&self.tally.handlers_ended)
    }

    /// Handlers that have begun and not ended.
    fn handlers_in_flight(&self) -> usize {
        // See `enter_handler`.
        fence(SeqCst);
        // Ended first, and acquired: then the second load sees the beginning of each handler that
        // the first one counts, and the drain to come sees its marks.
        let ended = self.tally.ended();
        self.handlers_begun.load(Relaxed).wrapping_sub(ended.all())
    }

    /// Takes the right to harvest, arm or disarm; `None` while another has it.
    fn exclusive(&self) -> Option<Exclusive<'_>> {
        // Acquire: the one before left its held bitmaps clean. On failure nothing is read.
        let taken = self
            .exclusive
            .compare_exchange(false, true, Acquire, Relaxed);
        taken.ok().map(|_| Exclusive(&self.exclusive))
    }
}

impl<P: WriteProtect, R: RegionSet> WriteTracker<P, R> {
    /// A clean checkpoint: forgets every mark, protects everything, and begins every block's granule
    /// anew.
    ///
    /// Copy the baseline **after** it returns: a page that was written while it ran is in that
    /// copy, or marked, or both.
    ///
    /// # Errors
    ///
    /// [`ArmError::Busy`] while a harvest is open. [`ArmError::Host`] where the host could not
    /// protect a region: every page of every region is then marked, as marks are forgotten by now
    /// and there is no new baseline.
    pub fn arm(&self) -> Result<(), ArmError<P::Error>> {
        let _exclusive = self.exclusive().ok_or(ArmError::Busy)?;
        let regions = self.regions.all();
        let unless_armed = MarkAll(regions);
        // Forgotten as well; what is logged from here on is not.
        self.protection.take_log(&mut |_| {}).map_err(|error| {
            let Range { start, end } = self.extent();
            ArmError::Host { start, end, error }
        })?;
        for region in regions {
            region.dirty.clear();
            region.controller.reset();
            let whole = region.page_range();
            self.tally.rearm_calls.fetch_add(1, Relaxed);
            if let Err(error) = self.protection.protect(whole.clone()) {
                note!(error, "arming the region at {:#x} failed", whole.start);
                return Err(ArmError::Host {
                    start: whole.start,
                    end: whole.end,
                    error,
                });
            }
        }
        core::mem::forget(unless_armed);
        Ok(())
    }

    /// Ends tracking: opens everything, then marks everything, since what is open can be written
    /// unseen. [`arm`](Self::arm), or a harvest, begins it again.
    ///
    /// # Errors
    ///
    /// [`ArmError::Busy`] while a harvest is open. [`ArmError::Host`] where the host could not open
    /// a region; that one is marked, and those after it are left tracked.
    pub fn disarm(&self) -> Result<(), ArmError<P::Error>> {
        let _exclusive = self.exclusive().ok_or(ArmError::Busy)?;
        for region in self.regions.all() {
            let whole = region.page_range();
            // Marked once it is open, and also if the host unwinds half-way.
            let opened = {
                let _mark = MarkAll(core::slice::from_ref(region));
                self.protection.unprotect(whole.clone())
            };
            opened.map_err(|error| ArmError::Host {
                start: whole.start,
                end: whole.end,
                error,
            })?;
        }
        Ok(())
    }

    /// The write fault of a vCPU at guest physical address `ipa`: grants, then marks.
    ///
    /// After `Granted` resume the vCPU at the same instruction; nothing of the syndrome but that it
    /// was a write is needed, so what a decoder could not make out (`ISV = 0`) is no obstacle.
    ///
    /// Apart from the host's own `unprotect` it does not allocate, lock, panic or loop without
    /// bound.
    ///
    /// # Errors
    ///
    /// [`FaultError::Host`] where the host could not open the span: it is marked nevertheless, as
    /// any part may be open. [`FaultError::Storm`] where the block faults again and again although
    /// its pages are open: this time too they were opened and marked, but the host's permission
    /// does not seem to reach the vCPU.
    #[inline]
    pub fn on_write_fault(&self, ipa: u64) -> Result<FaultOutcome, FaultError<P::Error>> {
        let Some(region) = self.region_at(ipa) else {
            return Ok(FaultOutcome::NotTracked);
        };
        let in_flight = self.enter_handler();
        let Span {
            granule,
            number,
            block,
            addresses: span,
        } = region.span_at(ipa);

        let unless_granted = MarkPages(region, span.clone());
        if let Err(error) = self.protection.unprotect(span.clone()) {
            drop(unless_granted);
            self.tally.failed_grants.fetch_add(1, Relaxed);
            return Err(FaultError::Host { ipa, error });
        }
        core::mem::forget(unless_granted);
        let was_clear = match granule {
            Granule::Page => {
                let was_clear = region.mark_page(ipa)?;
                in_flight.end(&self.tally.handlers_ended);
                was_clear
            }
            Granule::Block if region.is_line(number) => {
                let was_clear = region.mark_line(number, ipa)?;
                in_flight.end(&self.tally.lines_ended);
                was_clear
            }
            Granule::Block => {
                let (pages, was_clear) = region.mark_part(number, ipa)?;
                self.tally.pages_beside.fetch_add(pages - 1, Relaxed);
                in_flight.end(&self.tally.handlers_ended);
                was_clear
            }
        };
        if let Some(block) = block {
            block.record_fault();
            if was_clear {
                block.record_progress();
            } else if let Some(faults) = self.storm(block, region.geometry()) {
                note!(
                    error,
                    "a storm of {} faults on open pages, now {:#x}",
                    faults,
                    ipa
                );
                return Err(FaultError::Storm { ipa, faults });
            }
        }
        Ok(FaultOutcome::Granted {
            granule,
            span,
            spurious: !was_clear,
        })
    }
}

impl<P, R: RegionSet> WriteTracker<P, R> {
    /// Counts a fault on an open page of `block`; how many there were, if that is a storm.
    #[inline(never)]
    fn storm(&self, block: &BlockState, geometry: PageGeometry) -> Option<u32> {
        self.tally.spurious_faults.fetch_add(1, Relaxed);
        let faults = block.record_repeat();
        let limit = geometry.pages_per_block() + u64::from(self.storm_limit);
        (u64::from(faults) > limit).then(|| {
            block.record_progress();
            faults
        })
    }
}

fn mark_all<W: AsRef<[AtomicUsize]>, B: AsRef<[BlockState]>>(region: &TrackedRegion<W, B>) {
    let marked = region.dirty.mark_range(0..region.pages());
    debug_assert!(marked.is_ok(), "the bitmap has a bit a page");
}

#[cfg(feature = "defmt")]
impl<P, R: RegionSet> defmt::Format for WriteTracker<P, R> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "WriteTracker({})", self.counters());
    }
}

/// Marks every page of the regions when dropped: when the host fails or unwinds, any may be open.
struct MarkAll<'a, W: AsRef<[AtomicUsize]>, B: AsRef<[BlockState]>>(&'a [TrackedRegion<W, B>]);

impl<W: AsRef<[AtomicUsize]>, B: AsRef<[BlockState]>> Drop for MarkAll<'_, W, B> {
    fn drop(&mut self) {
        self.0.iter().for_each(mark_all);
    }
}

/// Marks these pages when dropped: when the host fails or unwinds in a grant, any may be open.
struct MarkPages<'a, W: AsRef<[AtomicUsize]>, B: AsRef<[BlockState]>>(
    &'a TrackedRegion<W, B>,
    Range<u64>,
);

impl<W: AsRef<[AtomicUsize]>, B: AsRef<[BlockState]>> Drop for MarkPages<'_, W, B> {
    fn drop(&mut self) {
        self.0.mark_pages(self.1.start, self.1.end);
    }
}

/// A handler under way.
struct InFlight<'a>(&'a AtomicUsize);

impl InFlight<'_> {
    /// All is marked: it counts as one of `ended`.
    #[inline]
    fn end(self, ended: &AtomicUsize) {
        core::mem::forget(self);
        // Release: as for one that failed.
        ended.fetch_add(1, Release);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        // Release publishes the marks; nothing is read, so no acquire.
        self.0.fetch_add(1, Release);
    }
}

/// The right to harvest, arm or disarm.
#[derive(Debug)]
struct Exclusive<'a>(&'a AtomicBool);

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        // Release: the next to take it sees the held bitmaps as this one left them.
        self.0.store(false, Release);
    }
}
