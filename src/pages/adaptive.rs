//! [`AdaptiveController`]: how much of a block the next write fault opens.
//!
//! Opening a whole block costs one fault and reports every page of it; opening a page costs a fault
//! a page and reports just what was written. The controller decides block by block. It holds no
//! page's fate: a granule that changes, at any moment, changes only the span of faults to come, and
//! each fault grants and marks one and the same span.

mod cost_model;
mod step_down;

use core::time::Duration;

use cost_model::{BlockCosts, History, Seen};
pub use cost_model::{CostError, CostModel};
pub use step_down::{StepDown, StepDownScope};

use crate::sync::{
    AtomicBool, AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// How much a write fault opens, and so marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Granule {
    /// The whole block, as far as it lies in the region.
    Block,
    /// One page.
    Page,
}

/// What the controller keeps of one block: 12 bytes.
///
/// All accesses are relaxed, loads and read-modify-writes alike: the counts are statistics, and a
/// granule that is seen late opens a different span, which is marked all the same.
#[derive(Debug)]
pub struct BlockState {
    /// A signed number, and its sign is the granule, so that a fault looks at one word.
    ///
    /// Not negative: coarse; the faults since the window or the epoch began. Negative: fine; as many
    /// faults as it is below zero open a page each, and then it is coarse. [`FINE`] stays as it is.
    faults: AtomicU32,
    /// Faults on pages that were open already, since the block last made progress.
    repeats: AtomicU32,
    /// The [`History`] of a [`CostModel`], which only harvests and checkpoints look at.
    history: AtomicU32,
}

/// Fine until the next checkpoint, however many faults.
const FINE: i32 = i32::MIN;

impl BlockState {
    /// A block at [`Granule::Block`] that has not faulted.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            faults: AtomicU32::new(0),
            repeats: AtomicU32::new(0),
            history: AtomicU32::new(0),
        }
    }

    /// The same; loom's atomics cannot be made in a `const`.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self {
            faults: AtomicU32::new(0),
            repeats: AtomicU32::new(0),
            history: AtomicU32::new(0),
        }
    }

    #[inline]
    fn faults(&self) -> i32 {
        self.faults.load(Relaxed) as i32
    }

    #[inline]
    pub(super) fn granule(&self) -> Granule {
        if self.faults() < 0 {
            Granule::Page
        } else {
            Granule::Block
        }
    }

    /// Counts a fault.
    #[inline]
    pub(super) fn record_fault(&self) {
        // Between -2^30 and 2^30 the two top bits are alike. It stops there, and so does `FINE`. The
        // room above is for handlers that pass before any of them has counted: more than there can be
        // CPUs.
        let faults = self.faults();
        if faults ^ (faults << 1) >= 0 {
            self.faults.fetch_add(1, Relaxed);
        }
    }

    /// Counts a fault on a page that was open, or that had just been opened by another vCPU: how many
    /// since the block last made progress.
    pub(super) fn record_repeat(&self) -> u32 {
        self.repeats.fetch_add(1, Relaxed).wrapping_add(1)
    }

    /// The block made progress: a page of it was opened, or harvested.
    #[inline]
    pub(super) fn record_progress(&self) {
        if self.repeats.load(Relaxed) != 0 {
            self.repeats.store(0, Relaxed);
        }
    }

    /// Ends the window of a [`StepDown`]: the faults that it saw. A fine block has none.
    fn take_faults(&self) -> u32 {
        // A block that saw none, as most did, is not written to.
        if self.faults() <= 0 {
            return 0;
        }
        self.faults.swap(0, Relaxed)
    }

    /// `true` if it was coarse until now.
    fn step_down(&self) -> bool {
        self.faults.swap(FINE as u32, Relaxed) != FINE as u32
    }

    fn history(&self) -> History {
        History::from_bits(self.history.load(Relaxed))
    }

    /// An epoch begins, with what `history` makes of it.
    fn begin_epoch(&self, history: History, costs: BlockCosts) {
        self.history.store(history.to_bits(), Relaxed);
        // A fault that counts at this moment is lost, or counts for the new epoch.
        let faults = history.credit(costs).wrapping_neg();
        self.faults.store(faults, Relaxed);
    }

    /// What the epoch that began with `credit` showed, if there was any fault in it.
    fn seen(&self, credit: u32, pages: u64) -> Option<Seen> {
        let faults = self.faults();
        let counted = faults.wrapping_add_unsigned(credit);
        match (faults, credit) {
            _ if counted <= 0 => None,
            (1.., 0) => Some(Seen::Coarse),
            (1.., _) => Some(Seen::Spent),
            _ => Some(Seen::Fine {
                faults: counted.unsigned_abs(),
                pages,
            }),
        }
    }

    fn reset(&self, history: History, costs: Option<BlockCosts>) {
        self.repeats.store(0, Relaxed);
        match costs {
            Some(costs) => self.begin_epoch(history, costs),
            None => self.faults.store(0, Relaxed),
        }
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for BlockState {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "BlockState({}, {})", self.granule(), self.faults());
    }
}

impl Default for BlockState {
    fn default() -> Self {
        Self::new()
    }
}

/// What decides.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
enum Policy {
    StepDown(StepDown),
    CostModel(BlockCosts),
}

/// Decides each block's [`Granule`], by one of two rules.
///
/// | | [`StepDown`], the default | [`CostModel`] |
/// | --- | --- | --- |
/// | counts | faults in a window of time | faults and pages between two harvests |
/// | needs | [`tick`](Self::tick), with the time | what a fault and a page cost |
/// | a block begins | coarse | fine, on credit |
/// | changes | once, to fine | at each harvest, and to coarse in the midst of an epoch |
///
/// Both keep 12 bytes a block, and cost a fault two loads and one add. With a cost model a harvest also
/// looks at each block that it takes something of: two divisions where the block faulted. Where what
/// is dense has changed, it looks once at each block that nobody has written.
///
/// A granule may change in either direction, at any moment, beside any fault: the fault looks at it
/// once, and grants and marks what it then is. What a coarse grant opened stays marked until it is
/// drained, and is then protected page by page; what a fine one left protected faults, whoever opens
/// it.
///
/// `B` holds the blocks' state: anything that is `AsRef<[BlockState]>`. Time comes in from outside,
/// as a [`Duration`] since any fixed origin; the core reads no clock.
#[derive(Debug)]
pub struct AdaptiveController<B> {
    blocks: B,
    policy: Policy,
    /// The [`History`] that blocks begin with which nobody has written since the checkpoint.
    newcomers: AtomicU32,
    /// Whether that is coarse in the blocks, too.
    newcomers_set_coarse: AtomicBool,
    /// When the window began, in ms since the caller's origin, modulo 2³²; 0 before the first tick.
    window_start: AtomicU32,
}

impl<B> AdaptiveController<B> {
    /// A controller over `blocks`, all coarse, with the default [`StepDown`].
    #[cfg(not(loom))]
    pub const fn new(blocks: B) -> Self {
        Self {
            blocks,
            policy: Policy::StepDown(StepDown::DEFAULT),
            newcomers: AtomicU32::new(0),
            newcomers_set_coarse: AtomicBool::new(false),
            window_start: AtomicU32::new(0),
        }
    }

    /// The same; loom's atomics cannot be made in a `const`.
    #[cfg(loom)]
    pub fn new(blocks: B) -> Self {
        Self {
            blocks,
            policy: Policy::StepDown(StepDown::DEFAULT),
            newcomers: AtomicU32::new(0),
            newcomers_set_coarse: AtomicBool::new(false),
            window_start: AtomicU32::new(0),
        }
    }

    pub(crate) const fn set_step_down(&mut self, step_down: StepDown) {
        self.policy = Policy::StepDown(step_down);
    }

    pub(crate) const fn set_cost_model(&mut self, model: CostModel, pages_per_block: u64) {
        self.policy = Policy::CostModel(BlockCosts::new(model, pages_per_block));
    }
}

#[cfg(feature = "defmt")]
impl<B> defmt::Format for AdaptiveController<B> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "AdaptiveController({})", self.policy);
    }
}

impl<B: AsRef<[BlockState]>> AdaptiveController<B> {
    #[inline]
    pub(super) fn block(&self, block: usize) -> Option<&BlockState> {
        self.blocks.as_ref().get(block)
    }

    /// What the next fault in `block` opens. A block that it does not have is fine-grained.
    pub fn granule(&self, block: usize) -> Granule {
        self.block(block).map_or(Granule::Page, BlockState::granule)
    }

    /// Counts a fault in `block`. Runs in the fault path: one load, one add.
    pub fn record(&self, block: usize) {
        if let Some(block) = self.block(block) {
            block.record_fault();
        }
    }

    /// `block` made progress: pages of it were harvested.
    pub(crate) fn record_progress(&self, block: usize) {
        if let Some(block) = self.block(block) {
            block.record_progress();
        }
    }

    /// Closes the window of a [`StepDown`] if it is over at `now`, and steps down what was hot in it;
    /// how many blocks that were. A [`CostModel`] has none.
    ///
    /// Call it as often as is handy, such as after each harvest: inside a window it does nothing.
    /// The counts are normalised to the time that really passed, so a late tick does not invent a
    /// hot block. The first tick after a checkpoint only starts the clock.
    ///
    /// The cost is one load a block. It is not for the fault path.
    pub fn tick(&self, now: Duration) -> usize {
        let Policy::StepDown(rule) = self.policy else {
            return 0;
        };
        let now = now.as_millis() as u32;
        // Acquire, and release below: of two that tick at once, one closes the window, and the
        // next to close it sees the counts as this one left them.
        let start = self.window_start.load(Acquire);
        let elapsed = now.wrapping_sub(start);
        // Half the range ago is ahead: another caller, or another core's clock, was a little later.
        let ahead = elapsed > u32::MAX / 2;
        if start != 0 && (ahead || !rule.is_over(elapsed)) {
            return 0;
        }
        let closed = self
            .window_start
            .compare_exchange(start, now.max(1), AcqRel, Relaxed);
        if closed.is_err() {
            return 0;
        }
        let blocks = self.blocks.as_ref();
        if start == 0 {
            blocks.iter().for_each(|block| {
                block.take_faults();
            });
            return 0;
        }
        match rule.scope {
            StepDownScope::Block => blocks
                .iter()
                .filter(|block| rule.is_hot(block.take_faults().into(), elapsed))
                .filter(|block| block.step_down())
                .count(),
            StepDownScope::Region => {
                let faults = blocks.iter().map(|block| u64::from(block.take_faults()));
                if !rule.is_hot(faults.sum(), elapsed) {
                    return 0;
                }
                blocks.iter().filter(|block| block.step_down()).count()
            }
        }
    }

    /// Whether it wants to know what harvests take.
    pub(crate) const fn observes(&self) -> bool {
        matches!(self.policy, Policy::CostModel(_))
    }

    /// A harvest has taken `pages` of `block`, all that it takes of it: the granule that the block
    /// changes to for the epoch that begins, if it does.
    pub(crate) fn observe(&self, block: usize, pages: u64) -> Option<Granule> {
        let Policy::CostModel(costs) = self.policy else {
            return None;
        };
        let block = self.block(block)?;
        let before = block.history();
        let credit = before.credit(costs);
        let seen = block.seen(credit, pages)?;
        if !before.is_known() && seen != Seen::Coarse {
            let newcomers = History::from_bits(self.newcomers.load(Relaxed));
            let newcomers = newcomers.after(seen, credit, costs);
            self.newcomers.store(newcomers.to_bits(), Relaxed);
        }
        let after = before.after(seen, credit, costs);
        block.begin_epoch(after, costs);
        match (before.is_coarse(), after.is_coarse()) {
            (true, false) => Some(Granule::Page),
            (false, true) => Some(Granule::Block),
            _ => None,
        }
    }

    /// A harvest has taken all that it takes. If those that were first written lately are coarse now,
    /// or no longer, so are all blocks that nobody has written yet: that is one load a block then.
    pub(crate) fn end_harvest(&self) {
        let Policy::CostModel(costs) = self.policy else {
            return;
        };
        let coarse = History::from_bits(self.newcomers.load(Relaxed)).is_coarse();
        if self.newcomers_set_coarse.swap(coarse, Relaxed) == coarse {
            return;
        }
        let blocks = self.blocks.as_ref().iter().enumerate();
        for (number, block) in blocks.filter(|(_, block)| !block.history().is_known()) {
            block.begin_epoch(History::new(coarse && !is_sample(number)), costs);
        }
    }

    /// As at a clean checkpoint: no window begun, and every block as it was at first: coarse with a
    /// [`StepDown`], fine with a [`CostModel`].
    pub fn reset(&self) {
        let costs = match self.policy {
            Policy::StepDown(_) => None,
            Policy::CostModel(costs) => Some(costs),
        };
        let history = History::new(false);
        self.newcomers.store(history.to_bits(), Relaxed);
        self.newcomers_set_coarse.store(false, Relaxed);
        for block in self.blocks.as_ref() {
            block.reset(history, costs);
        }
        self.window_start.store(0, Relaxed);
    }
}

/// One block in sixteen, whatever the stride at which a guest writes.
fn is_sample(block: usize) -> bool {
    // 2^32 divided by the golden ratio.
    (block as u32).wrapping_mul(0x9e37_79b9) >> 28 == 0
}
