//! Harvests: drain, protect, deliver; streaming, or held until a commit.

use core::convert::Infallible;
use core::fmt;
use core::ops::Range;
use core::slice;

use super::{Exclusive, HarvestError, Harvested, RegionSet, WriteTracker};
use crate::bitmap::{DrainRuns, Lines, Run, Runs, Shared, Words};
use crate::pages::adaptive::BlockState;
use crate::pages::protect::WriteProtect;
use crate::pages::region::{DirtyRun, Observed, TrackedRegion};
use crate::sync::{AtomicUsize, Ordering::Relaxed};

/// Runs drained before they are protected and delivered together. They lie on the stack, 16 bytes
/// each.
///
/// A streaming harvest bridges gaps between runs of one batch only: a page that is protected long before
/// it is copied is written, and copied, twice. One that is held until a commit is copied later anyway,
/// and all its gaps can be bridged.
const BATCH: usize = 64;

/// Ranges that the host is given at once, on the stack as well. Runs are more, as most are bridged.
const RANGES: usize = 32;

type Region<R> = TrackedRegion<<R as RegionSet>::Words, <R as RegionSet>::Blocks>;

impl<P: WriteProtect, R: RegionSet> WriteTracker<P, R> {
    /// Delivers every run of written pages to `consumer`, protected again, while vCPUs run on.
    ///
    /// Of each page: it is drained, then protected, then delivered, so that a copy made by the
    /// consumer, or later, holds all that was written before. A page written again meanwhile faults
    /// again, and is in the next harvest.
    ///
    /// # Errors
    ///
    /// [`HarvestError`]; every page not yet accepted, the refused run included, is marked again.
    /// The same if `consumer` unwinds.
    pub fn harvest<C>(
        &self,
        consumer: impl FnMut(DirtyRun) -> Result<(), C>,
    ) -> Result<Harvested, HarvestError<P::Error, C>> {
        let _exclusive = self.exclusive().ok_or(HarvestError::Busy)?;
        self.deliver(consumer)
    }

    /// As [`harvest`](Self::harvest), with every vCPU stopped, and every device whose writes are
    /// told by [`mark_written`](Self::mark_written): the last one.
    ///
    /// # Errors
    ///
    /// Also [`HarvestError::HandlersInFlight`] while a fault handler is under way: it may have
    /// opened a page that it has not marked yet. Nothing was drained then. A handler that never
    /// returns (a cancelled thread) keeps it so for good.
    pub fn final_harvest<C>(
        &self,
        consumer: impl FnMut(DirtyRun) -> Result<(), C>,
    ) -> Result<Harvested, HarvestError<P::Error, C>> {
        let _exclusive = self.exclusive().ok_or(HarvestError::Busy)?;
        self.refuse_in_flight()?;
        self.deliver(consumer)
    }

    /// The two-phase form: drains and protects all that was written, and holds it until
    /// [`Harvest::commit`]. Dropped without, it puts everything back, so that a snapshot that fails
    /// at its last `fsync` loses nothing.
    ///
    /// # Errors
    ///
    /// [`HarvestError`]; everything is marked again then.
    pub fn begin_harvest(&self) -> Result<Harvest<'_, P, R>, HarvestError<P::Error, Infallible>> {
        let exclusive = self.exclusive().ok_or(HarvestError::Busy)?;
        self.hold(exclusive)
    }

    /// As [`begin_harvest`](Self::begin_harvest), with everything stopped, as for
    /// [`final_harvest`](Self::final_harvest).
    ///
    /// # Errors
    ///
    /// Also [`HarvestError::HandlersInFlight`], as [`final_harvest`](Self::final_harvest).
    pub fn begin_final_harvest(
        &self,
    ) -> Result<Harvest<'_, P, R>, HarvestError<P::Error, Infallible>> {
        let exclusive = self.exclusive().ok_or(HarvestError::Busy)?;
        self.refuse_in_flight()?;
        self.hold(exclusive)
    }

    fn refuse_in_flight<C>(&self) -> Result<(), HarvestError<P::Error, C>> {
        match self.handlers_in_flight() {
            0 => Ok(()),
            handlers => Err(HarvestError::HandlersInFlight { handlers }),
        }
    }

    fn deliver<C>(
        &self,
        mut consumer: impl FnMut(DirtyRun) -> Result<(), C>,
    ) -> Result<Harvested, HarvestError<P::Error, C>> {
        let mut harvested = Harvested::default();
        let accept = |region: &Region<R>, run: Run| {
            let run = region.dirty_run(run);
            consumer(run).map_err(|error| HarvestError::Consumer { run, error })
        };
        let outcome = self.take_all(accept, &mut harvested);
        self.tally
            .pages_harvested
            .fetch_add(harvested.pages, Relaxed);
        outcome.map(|()| harvested)
    }

    fn hold<'t>(
        &'t self,
        exclusive: Exclusive<'t>,
    ) -> Result<Harvest<'t, P, R>, HarvestError<P::Error, Infallible>> {
        // Made first: if the host fails, its drop puts back what is held so far.
        let mut harvest = Harvest {
            tracker: self,
            harvested: Harvested::default(),
            committed: false,
            _exclusive: exclusive,
        };
        self.take_into_held(&mut harvest.harvested)?;
        Ok(harvest)
    }

    /// Drains every region into `held`, and protects what came out. If the host fails, it stays there.
    fn take_into_held<C>(
        &self,
        harvested: &mut Harvested,
    ) -> Result<(), HarvestError<P::Error, C>> {
        self.begin_taking()?;
        let bridge = self.bridge();
        let Harvested {
            runs,
            pages,
            rearm_calls,
        } = harvested;
        for region in self.regions.all() {
            let mut observed = region.begin_harvest();
            let held = region.held.view();
            let dirty = region.dirty.view();
            let mut lines = Lines::<Shared>::new(dirty);
            for (word, bits) in Words::<Shared, _>::new(dirty, &mut lines) {
                held.mark_word(word, bits);
            }
            let taken = Runs::new(region.held.marked_words()).inspect(|run| {
                *runs += 1;
                *pages += run.len;
                if let Some(observed) = &mut observed {
                    observed.add(*run);
                }
            });
            *rearm_calls += self.protect_pages(region, bridged(taken, bridge))?;
            self.end_observing(observed);
        }
        Ok(())
    }

    fn end_observing(&self, observed: Option<Observed<'_, R::Words, R::Blocks>>) {
        if let Some(observed) = observed {
            self.tally.record_steps(observed.end());
        }
    }

    /// Marks what the host's own log says was written; see
    /// [`WriteProtect::take_log`]. Each harvest does it first; alone it is for a log that is full.
    ///
    /// # Errors
    ///
    /// The host's own; what may have left its log is marked all the same.
    pub fn collect_log(&self) -> Result<(), P::Error> {
        self.protection.take_log(&mut |ranges| {
            for region in self.regions.all() {
                // What is in no region is not tracked.
                region.mark_ranges(ranges);
            }
        })
    }

    /// From the first address of the first region to the last of the last.
    pub(super) fn extent(&self) -> Range<u64> {
        let ends = (self.regions().first(), self.regions().last());
        let (Some(first), Some(last)) = ends else {
            return 0..0;
        };
        first.base()..last.page_range().end
    }

    /// Drains every region, protects what came out, and gives it to `accept`. What `accept` did not
    /// take is marked again.
    fn take_all<C>(
        &self,
        mut accept: impl FnMut(&Region<R>, Run) -> Result<(), HarvestError<P::Error, C>>,
        harvested: &mut Harvested,
    ) -> Result<(), HarvestError<P::Error, C>> {
        self.begin_taking()?;
        let bridge = self.bridge();
        for region in self.regions.all() {
            let view = region.dirty.view();
            let mut lines = Lines::<Shared>::new(view);
            let mut drain = DrainRuns::<Shared, _>::new(view, &mut lines);
            let mut observed = region.begin_harvest();
            let mut batch = Batch::new(region, &self.tally.pages_restored);
            while batch.refill(drain.by_ref()) {
                if let Some(observed) = &mut observed {
                    batch.runs.iter().for_each(|&run| observed.add(run));
                }
                // Where nothing between them is wider than a bridge, they are one range, without a
                // look at each.
                let whole = batch.whole();
                let runs = match &whole {
                    Some(whole) if whole.len <= bridge => slice::from_ref(whole),
                    _ => &batch.runs,
                };
                let ranges = bridged(runs.iter().copied(), bridge);
                harvested.rearm_calls += self.protect_pages(region, ranges)?;
                while let Some(&run) = batch.runs.get(batch.accepted) {
                    accept(region, run)?;
                    batch.accepted += 1;
                    harvested.runs += 1;
                    harvested.pages += run.len;
                }
            }
            self.end_observing(observed);
        }
        Ok(())
    }

    /// What each harvest does first.
    fn begin_taking<C>(&self) -> Result<(), HarvestError<P::Error, C>> {
        self.tally.harvests.fetch_add(1, Relaxed);
        self.collect_log().map_err(|error| {
            let Range { start, end } = self.extent();
            HarvestError::Host { start, end, error }
        })
    }

    fn bridge(&self) -> usize {
        self.bridge.unwrap_or_else(|| self.protection.bridge())
    }

    /// Protects these pages of `region`, as many ranges at once as there is room for; how many they were.
    fn protect_pages<C>(
        &self,
        region: &Region<R>,
        pages: impl Iterator<Item = Range<usize>>,
    ) -> Result<usize, HarvestError<P::Error, C>> {
        let mut ranges = pages.map(|pages| region.addresses(pages));
        let mut some = heapless::Vec::<_, RANGES>::new();
        let mut calls = 0;
        loop {
            some.clear();
            for range in ranges.by_ref().take(RANGES) {
                let pushed = some.push(range);
                debug_assert!(pushed.is_ok(), "there was room");
            }
            let (Some(first), Some(last)) = (some.first(), some.last()) else {
                return Ok(calls);
            };
            // Even if it fails: later faults are on pages that were protected meanwhile.
            region.record_harvest(&some);
            calls += some.len();
            self.tally.rearm_calls.fetch_add(some.len(), Relaxed);
            let protected = self.protection.protect_all(&some);
            protected.map_err(|error| HarvestError::Host {
                start: first.start,
                end: last.end,
                error,
            })?;
        }
    }
}

/// The runs, joined where the gap between two is at most `bridge` pages.
#[inline]
fn bridged(runs: impl Iterator<Item = Run>, bridge: usize) -> impl Iterator<Item = Range<usize>> {
    let mut runs = runs.peekable();
    core::iter::from_fn(move || {
        let mut span = runs.next()?.range();
        while let Some(next) = runs.next_if(|next| next.start - span.end <= bridge) {
            span.end = next.end();
        }
        Some(span)
    })
}

/// Runs that were drained. Dropped with any that are not accepted, it marks those again.
struct Batch<'a, W: AsRef<[AtomicUsize]>, B> {
    region: &'a TrackedRegion<W, B>,
    pages_restored: &'a AtomicUsize,
    runs: heapless::Vec<Run, BATCH>,
    /// How many of them.
    accepted: usize,
}

impl<'a, W: AsRef<[AtomicUsize]>, B: AsRef<[BlockState]>> Batch<'a, W, B> {
    fn new(region: &'a TrackedRegion<W, B>, pages_restored: &'a AtomicUsize) -> Self {
        Self {
            region,
            pages_restored,
            runs: heapless::Vec::new(),
            accepted: 0,
        }
    }

    /// Drains the next runs, once all before them are accepted; `false` where there are none.
    fn refill(&mut self, drain: impl Iterator<Item = Run>) -> bool {
        self.runs.clear();
        self.accepted = 0;
        for run in drain.take(BATCH) {
            let pushed = self.runs.push(run);
            debug_assert!(pushed.is_ok(), "there was room");
        }
        !self.runs.is_empty()
    }

    /// From the first of them to the last, gaps included.
    fn whole(&self) -> Option<Run> {
        let start = self.runs.first()?.start;
        let len = self.runs.last()?.end() - start;
        Some(Run { start, len })
    }
}

impl<W: AsRef<[AtomicUsize]>, B> Drop for Batch<'_, W, B> {
    fn drop(&mut self) {
        for run in self.runs.iter().skip(self.accepted) {
            let marked = self.region.dirty.mark_range(run.range());
            debug_assert!(marked.is_ok(), "the run came out of this bitmap");
            self.pages_restored.fetch_add(run.len, Relaxed);
        }
    }
}

/// A two-phase harvest that is open: what was written, drained and protected, and kept until
/// [`commit`](Self::commit). Dropped without, it marks everything again.
///
/// While it is open, other harvests, `arm` and `disarm` are refused; faults and marks go on, and
/// are for the next harvest. If it is leaked (`mem::forget`), they are refused for good.
#[must_use = "dropped without commit, it puts everything back"]
pub struct Harvest<'t, P, R: RegionSet> {
    tracker: &'t WriteTracker<P, R>,
    harvested: Harvested,
    committed: bool,
    _exclusive: Exclusive<'t>,
}

impl<P, R: RegionSet> Harvest<'_, P, R> {
    /// What it has taken: runs, pages, calls of `protect`. A page that was held already when an
    /// [`extend`](Self::extend) took it again counts once more; [`runs`](Self::runs) has it once.
    pub const fn harvested(&self) -> Harvested {
        self.harvested
    }

    /// Every run that it holds, lowest address first; as often as needed.
    pub fn runs(&self) -> impl Iterator<Item = DirtyRun> + '_ {
        self.tracker.regions().iter().flat_map(|region| {
            Runs::new(region.held.marked_words()).map(|run| region.dirty_run(run))
        })
    }

    /// The tracker's regions, in ascending order of address.
    pub fn regions(&self) -> &[Region<R>] {
        self.tracker.regions()
    }

    /// The consumer has it all, for good: forgets what was held.
    pub fn commit(mut self) -> Harvested {
        self.committed = true;
        for region in self.tracker.regions() {
            region.held.clear();
        }
        let pages = &self.tracker.tally.pages_harvested;
        pages.fetch_add(self.harvested.pages, Relaxed);
        self.harvested
    }
}

impl<P: WriteProtect, R: RegionSet> Harvest<'_, P, R> {
    /// Takes in what was written since it began: drained, protected, delivered to `consumer`, and
    /// held with the rest. A page that was held already is delivered again.
    ///
    /// Its use is a copy in rounds: most of it while vCPUs run, what they wrote meanwhile last.
    ///
    /// # Errors
    ///
    /// As [`harvest`](WriteTracker::harvest), but never [`HarvestError::Busy`]. What was held
    /// before is held still; what `consumer` did not accept is marked again, for the next harvest.
    pub fn extend<C>(
        &mut self,
        mut consumer: impl FnMut(DirtyRun) -> Result<(), C>,
    ) -> Result<Harvested, HarvestError<P::Error, C>> {
        let mut more = Harvested::default();
        let accept = |region: &Region<R>, run: Run| {
            let dirty = region.dirty_run(run);
            consumer(dirty).map_err(|error| HarvestError::Consumer { run: dirty, error })?;
            let held = region.held.mark_range(run.range());
            debug_assert!(held.is_ok(), "both bitmaps have a bit a page");
            Ok(())
        };
        let outcome = self.tracker.take_all(accept, &mut more);
        self.harvested.runs += more.runs;
        self.harvested.pages += more.pages;
        self.harvested.rearm_calls += more.rearm_calls;
        outcome.map(|()| more)
    }

    /// As [`extend`](Self::extend), with everything stopped, as for
    /// [`final_harvest`](WriteTracker::final_harvest).
    ///
    /// # Errors
    ///
    /// Also [`HarvestError::HandlersInFlight`], as [`final_harvest`](WriteTracker::final_harvest).
    pub fn extend_final<C>(
        &mut self,
        consumer: impl FnMut(DirtyRun) -> Result<(), C>,
    ) -> Result<Harvested, HarvestError<P::Error, C>> {
        self.tracker.refuse_in_flight()?;
        self.extend(consumer)
    }
}

impl<P, R: RegionSet> Drop for Harvest<'_, P, R> {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        let mut restored = 0;
        for region in self.tracker.regions() {
            // Marked in `dirty` before it is gone from `held`: at no moment in neither. Nobody else
            // touches `held` while the harvest is open.
            let merged = region.dirty.merge_from(&region.held);
            debug_assert!(merged.is_ok(), "both bitmaps have a bit a page");
            restored += region.held.count();
            region.held.clear();
        }
        self.tracker
            .tally
            .pages_restored
            .fetch_add(restored, Relaxed);
        note!(
            warn,
            "a harvest was not committed: {} pages are marked again",
            restored
        );
    }
}

impl<P, R: RegionSet> fmt::Debug for Harvest<'_, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harvest")
            .field("harvested", &self.harvested)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "defmt")]
impl<P, R: RegionSet> defmt::Format for Harvest<'_, P, R> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Harvest({})", self.harvested);
    }
}
