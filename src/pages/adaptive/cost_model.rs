//! [`CostModel`]: the rule that counts harvests, not time; without state, clock or atomics.

use core::fmt;
use core::time::Duration;

/// What a fault costs and what copying a page costs: each block is kept at the granule for which
/// that comes cheapest.
///
/// Between two harvests, a block of N pages of which d are written costs d faults and d copies at
/// [`Granule::Page`](super::Granule::Page), one fault and N copies at
/// [`Granule::Block`](super::Granule::Block). So the page is cheaper up to
/// k = (fault + N × page) / (fault + page) written pages: 33 of 128 with
/// [`HVF_MEMORY`](Self::HVF_MEMORY), 89 with [`HVF_PACKED`](Self::HVF_PACKED).
///
/// Nobody knows d before the epoch is over, and a coarse block does not show it even then. So:
///
/// - A fine block is fine on **credit**: after k faults between two harvests, the next one opens the
///   whole block. However dense it turns out, the epoch costs less than twice what the better granule
///   would have. What being fine has cost the block in earlier epochs lowers the credit, to a quarter
///   of k; what it has saved raises it, to two and a half times k.
/// - A block whose credit keeps running out becomes **coarse**, and is then **sampled** at page grain:
///   after one coarse epoch in which it was written, then after 2, 4, 8, and each 16. Every other
///   sample is with a quarter of k, the rest with k. A sample that shows no more makes it fine again.
/// - A block that nobody has written since the checkpoint starts as those did that were first written
///   lately, one in sixteen of them at page grain whatever they did.
///
/// An epoch is the time between two harvests, and only those in which a block faults count. There is
/// no clock, so [`tick`](crate::WriteTracker::tick) need not be called. All of it happens in the
/// harvest, for the blocks that it drains; a fault counts and looks at one sign, as with
/// [`StepDown`](super::StepDown).
///
/// Take it where harvests copy what they are told and someone pays for it: snapshots, migration. Take
/// [`StepDown`](super::StepDown) where copies are free, where faults must stay below a rate, or where
/// a granule must not change back.
///
/// ```
/// use core::time::Duration;
/// use pugmark::{CostModel, PageGeometry, StaticRegion};
///
/// // Measured: 900 ns from the trap to the store's retry, and 300 ns to send a page.
/// const COSTS: CostModel =
///     match CostModel::new(Duration::from_nanos(900), Duration::from_nanos(300)) {
///         Ok(model) => model,
///         Err(_) => panic!("both cost something"),
///     };
/// static RAM: StaticRegion<17, 2> =
///     StaticRegion::new(0x4000_0000, 4 << 20, PageGeometry::ARM64_4K).with_cost_model(COSTS);
///
/// assert_eq!(COSTS.break_even(512), 128);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CostModel {
    /// In ns, neither of them zero.
    fault: u32,
    page: u32,
}

impl CostModel {
    /// Hypervisor.framework, 16 KiB pages, copied in memory: 4.9 µs from the protect to the grant, and
    /// 1.7 µs a page.
    pub const HVF_MEMORY: Self = Self::known(4_870, 1_700);
    /// Hypervisor.framework, 16 KiB pages, packed into a file: 4.9 µs, and 11 µs a page.
    pub const HVF_PACKED: Self = Self::known(4_870, 11_000);
    /// userfaultfd with a handler thread, 4 KiB pages, copied in memory: 6 µs (5.6 to 6.3), and
    /// 0.43 µs a page, at the rate of [`HVF_MEMORY`](Self::HVF_MEMORY).
    pub const UFFD_MEMORY: Self = Self::known(6_000, 430);
    /// userfaultfd with a handler thread, 4 KiB pages, packed into a file: 6 µs, and 2.75 µs a page,
    /// at the rate of [`HVF_PACKED`](Self::HVF_PACKED).
    pub const UFFD_PACKED: Self = Self::known(6_000, 2_750);

    /// `fault` is what a write fault costs, from the trap until the vCPU runs on and with the share
    /// of the re-arm that comes of it. `page` is what the consumer of a harvest spends on one page.
    /// Only the ratio matters; both are kept in whole nanoseconds.
    ///
    /// # Errors
    ///
    /// [`CostError`] where one of them is below a nanosecond (then one granule is always the better,
    /// and there is nothing to decide) or above 4.29 s.
    pub const fn new(fault: Duration, page: Duration) -> Result<Self, CostError> {
        let (fault_ns, page_ns) = (fault.as_nanos(), page.as_nanos());
        if fault_ns == 0 {
            return Err(CostError::FreeFault);
        }
        if page_ns == 0 {
            return Err(CostError::FreePage);
        }
        if fault_ns > u32::MAX as u128 {
            return Err(CostError::TooLong { cost: fault });
        }
        if page_ns > u32::MAX as u128 {
            return Err(CostError::TooLong { cost: page });
        }
        Ok(Self::known(fault_ns as u32, page_ns as u32))
    }

    const fn known(fault: u32, page: u32) -> Self {
        Self { fault, page }
    }

    /// What a fault costs.
    pub const fn fault(self) -> Duration {
        Duration::from_nanos(self.fault as u64)
    }

    /// What copying a page costs.
    pub const fn page(self) -> Duration {
        Duration::from_nanos(self.page as u64)
    }

    /// Up to how many written pages of a block of `pages` the page is the better granule: k.
    pub const fn break_even(self, pages: u64) -> u64 {
        self.coarse(pages) / (self.fault as u64 + self.page as u64)
    }

    /// What an epoch of a coarse block of `pages` costs, in ns.
    const fn coarse(self, pages: u64) -> u64 {
        pages
            .saturating_mul(self.page as u64)
            .saturating_add(self.fault as u64)
    }
}

/// Costs that make no model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum CostError {
    /// A fault costs nothing: a block is best opened by the page, always.
    FreeFault,
    /// Copying a page costs nothing: a block is best opened as a whole, always.
    /// [`StepDown::NEVER`](super::StepDown::NEVER) does that.
    FreePage,
    /// The cost has more than 32 bits of nanoseconds.
    TooLong {
        /// The cost given.
        cost: Duration,
    },
}

impl fmt::Display for CostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FreeFault => f.write_str("a fault costs less than a nanosecond"),
            Self::FreePage => f.write_str("copying a page costs less than a nanosecond"),
            Self::TooLong { cost } => write!(f, "a cost of {cost:?} is above 4.29 s"),
        }
    }
}

impl core::error::Error for CostError {}

/// The model for blocks of a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub(super) struct BlockCosts {
    fault: u64,
    page: u64,
    /// Of an epoch at [`Granule::Block`](super::Granule::Block).
    coarse: u64,
    /// Pages up to which the page is better, at least one.
    break_even: u32,
}

impl BlockCosts {
    pub(super) const fn new(model: CostModel, pages_per_block: u64) -> Self {
        let coarse = model.coarse(pages_per_block);
        let pages = model.break_even(pages_per_block);
        Self {
            fault: model.fault as u64,
            page: model.page as u64,
            coarse,
            break_even: if pages < MAX_BREAK_EVEN as u64 {
                pages as u32
            } else {
                MAX_BREAK_EVEN
            },
        }
    }

    /// `cost`, in units of the score.
    fn units(self, cost: u64) -> u64 {
        // At least 1 for the compiler's sake, which else links a panic with the harvest.
        cost.saturating_mul(FULL as u64) / self.coarse.max(1)
    }
}

/// So that a credit, which is up to two and a half times as many, is less than 2^30.
const MAX_BREAK_EVEN: u32 = 1 << 28;
/// What an epoch at [`Granule::Block`](super::Granule::Block) costs, in units of the score.
const FULL: i8 = 64;
/// Coarse epochs between two samples, at most. It bounds the price of sampling a block that stays
/// dense: a fault a page of a quarter of k, then of k, in 17 epochs each.
const MAX_WAIT: u8 = 16;

/// What one epoch showed of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It was coarse, and written.
    Coarse,
    /// It was fine, for so many faults; so many pages were harvested.
    Fine { faults: u32, pages: u64 },
    /// It was fine, and became coarse when its credit was spent.
    Spent,
}

/// What is kept of a block from epoch to epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct History {
    /// What it cost more to be fine than to be coarse, less what it saved, in 1/64 of a coarse epoch:
    /// from −64 to 64.
    score: i8,
    /// Coarse epochs between two samples. Zero: it is fine.
    wait: u8,
    /// Coarse epochs until the next sample.
    left: u8,
    flags: u8,
}

/// Something was seen of the block itself.
const KNOWN: u8 = 1;
/// The next sample is with the whole credit, not with a quarter.
const WHOLE: u8 = 2;

impl History {
    /// Of a block that nobody has written: it is what others are.
    pub(super) const fn new(coarse: bool) -> Self {
        Self {
            score: if coarse { FULL } else { 0 },
            wait: coarse as u8,
            left: coarse as u8,
            flags: 0,
        }
    }

    pub(super) const fn from_bits(bits: u32) -> Self {
        let [score, wait, left, flags] = bits.to_le_bytes();
        Self {
            score: score as i8,
            wait,
            left,
            flags,
        }
    }

    pub(super) const fn to_bits(self) -> u32 {
        u32::from_le_bytes([self.score as u8, self.wait, self.left, self.flags])
    }

    pub(super) const fn is_known(self) -> bool {
        self.flags & KNOWN != 0
    }

    pub(super) const fn is_coarse(self) -> bool {
        self.wait != 0
    }

    /// Faults that open a page each, in the epoch that begins. Zero: the first opens the block.
    pub(super) fn credit(self, costs: BlockCosts) -> u32 {
        let whole = costs.break_even;
        let pages = match self {
            Self { left: 1.., .. } => return 0,
            Self { wait: 1.., .. } if self.flags & WHOLE != 0 => whole,
            Self { wait: 1.., .. } => whole / 4,
            Self { score: ..0, .. } => whole + part(whole, self.score, 6),
            _ => whole - part(whole, self.score, 3),
        };
        pages.max(1)
    }

    /// The same with what was seen in an epoch that began with so much credit.
    pub(super) fn after(mut self, seen: Seen, credit: u32, costs: BlockCosts) -> Self {
        self.flags |= KNOWN;
        match seen {
            Seen::Coarse => self.left = self.left.saturating_sub(1),
            Seen::Spent if self.is_coarse() => {
                self.wait = (self.wait * 2).min(MAX_WAIT);
                self.left = self.wait;
                self.flags ^= WHOLE;
            }
            Seen::Spent => {
                let wasted = costs.units(u64::from(credit) * costs.fault);
                self.add(wasted.max(1));
                if self.score == FULL {
                    self.wait = 1;
                    self.left = 1;
                    self.flags &= !WHOLE;
                }
            }
            Seen::Fine { .. } if self.is_coarse() => {
                self = Self {
                    flags: KNOWN,
                    ..Self::new(false)
                }
            }
            Seen::Fine { faults, pages } => {
                let copies = pages.saturating_mul(costs.page);
                let cost = (u64::from(faults) * costs.fault).saturating_add(copies);
                match cost.checked_sub(costs.coarse) {
                    // Still within its credit: it does not become coarse by this alone.
                    Some(more) => self.add(costs.units(more)),
                    None => self.take(costs.units(costs.coarse - cost)),
                }
            }
        }
        self
    }

    fn add(&mut self, units: u64) {
        let units = units.min(2 * FULL as u64) as i16;
        self.score = (i16::from(self.score) + units).min(FULL.into()) as i8;
    }

    fn take(&mut self, units: u64) {
        let units = units.min(2 * FULL as u64) as i16;
        self.score = (i16::from(self.score) - units).max(-i16::from(FULL)) as i8;
    }
}

/// Of a [`FULL`] score so many quarters of `whole`, of a lower one less; whatever its sign.
fn part(whole: u32, score: i8, quarters: u64) -> u32 {
    (u64::from(whole) * u64::from(score.unsigned_abs()) * quarters / (4 * FULL as u64)) as u32
}
