//! What the tracker counts.

use core::ops::Deref;

use crate::bitmap::LINE_BITS;
use crate::sync::{
    AtomicUsize,
    Ordering::{Acquire, Relaxed},
};

/// What a [`WriteTracker`](super::WriteTracker) has done so far. Each wraps at `usize::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct Counters {
    /// Write faults inside the regions.
    pub faults: usize,
    /// Those that opened their span.
    pub grants: usize,
    /// Pages opened by them, those that were open before included.
    pub pages_granted: usize,
    /// Faults on a page that was marked already.
    pub spurious_faults: usize,
    /// Harvests, of either form, that began.
    pub harvests: usize,
    /// Pages delivered by them and accepted, or committed.
    pub pages_harvested: usize,
    /// Pages put back because a consumer, the host, or a drop without commit refused them.
    pub pages_restored: usize,
    /// Ranges that the host was given to protect.
    pub rearm_calls: usize,
    /// Blocks that stepped down from coarse to fine.
    pub step_downs: usize,
    /// Blocks that stepped up from fine to coarse. A [`CostModel`](crate::CostModel) does both, and
    /// it is counted at the end of a harvest that went through.
    pub step_ups: usize,
}

/// In cache lines of its own: 128 bytes are a line of an Apple core, and two that an x86 core fetches
/// together. A core of 32 bits has no lines to speak of, and no memory to spare.
#[derive(Debug)]
#[cfg_attr(target_pointer_width = "64", repr(align(128)))]
pub(super) struct Apart<T>(pub T);

impl<T> Deref for Apart<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

/// The counters themselves. All accesses are relaxed, as each is a sum that orders nothing; but for
/// those of the handlers that have ended.
#[derive(Debug)]
pub(super) struct Tally {
    /// Handlers that have ended: see `WriteTracker::enter_handler`. Those that granted a line of the
    /// bitmap are counted apart, so that the pages which they granted need no counter of their own.
    pub handlers_ended: AtomicUsize,
    pub lines_ended: AtomicUsize,
    pub failed_grants: AtomicUsize,
    /// Pages that the others granted, beside those that faulted.
    pub pages_beside: AtomicUsize,
    pub spurious_faults: AtomicUsize,
    pub harvests: AtomicUsize,
    pub pages_harvested: AtomicUsize,
    pub pages_restored: AtomicUsize,
    pub rearm_calls: AtomicUsize,
    pub step_downs: AtomicUsize,
    pub step_ups: AtomicUsize,
}

/// Handlers that have ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    lines: usize,
    others: usize,
}

impl Ended {
    pub fn all(self) -> usize {
        self.lines.wrapping_add(self.others)
    }
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            handlers_ended: AtomicUsize::new(0),
            lines_ended: AtomicUsize::new(0),
            failed_grants: AtomicUsize::new(0),
            pages_beside: AtomicUsize::new(0),
            spurious_faults: AtomicUsize::new(0),
            harvests: AtomicUsize::new(0),
            pages_harvested: AtomicUsize::new(0),
            pages_restored: AtomicUsize::new(0),
            rearm_calls: AtomicUsize::new(0),
            step_downs: AtomicUsize::new(0),
            step_ups: AtomicUsize::new(0),
        }
    }

    /// What changed at a harvest, which is rarely anything.
    pub(super) fn record_steps(&self, [downs, ups]: [usize; 2]) {
        if downs != 0 {
            self.step_downs.fetch_add(downs, Relaxed);
        }
        if ups != 0 {
            self.step_ups.fetch_add(ups, Relaxed);
        }
    }

    /// Before `begun` is loaded: a handler that ends in between is not counted as a negative one.
    pub(super) fn ended(&self) -> Ended {
        // Acquire: see `WriteTracker::handlers_in_flight`.
        Ended {
            others: self.handlers_ended.load(Acquire),
            lines: self.lines_ended.load(Acquire),
        }
    }

    pub(super) fn counters(&self, begun: usize, ended: Ended) -> Counters {
        let failed = self.failed_grants.load(Relaxed);
        // A grant that failed is counted before its handler ends.
        let grants = ended.all().saturating_sub(failed);
        let beside = ended.lines.wrapping_mul(LINE_BITS - 1);
        let beside = beside.wrapping_add(self.pages_beside.load(Relaxed));
        Counters {
            faults: begun,
            grants,
            pages_granted: grants.wrapping_add(beside),
            spurious_faults: self.spurious_faults.load(Relaxed),
            harvests: self.harvests.load(Relaxed),
            pages_harvested: self.pages_harvested.load(Relaxed),
            pages_restored: self.pages_restored.load(Relaxed),
            rearm_calls: self.rearm_calls.load(Relaxed),
            step_downs: self.step_downs.load(Relaxed),
            step_ups: self.step_ups.load(Relaxed),
        }
    }
}

/// What one harvest did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct Harvested {
    /// Runs of neighbouring pages.
    pub runs: usize,
    /// Pages in them.
    pub pages: usize,
    /// Ranges that the host was given to protect.
    pub rearm_calls: usize,
}
