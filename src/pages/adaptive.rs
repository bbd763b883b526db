//! [`AdaptiveController`]: how much of a block the next write fault opens.
//!
//! Opening a whole block costs one fault and reports every page of it; opening a page costs a fault
//! a page and reports just what was written. The controller decides block by block. It holds no
//! page's fate: a granule that changes, at any moment, changes only the span of faults to come, and
//! each fault grants and marks one and the same span.

mod step_down;

use core::time::Duration;

pub use step_down::{StepDown, StepDownScope};

use crate::sync::{
    AtomicU32,
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

/// What the controller keeps of one block: its granule and two counts, 8 bytes.
///
/// All accesses are relaxed, loads and read-modify-writes alike: the counts are statistics, and a
/// granule that is seen late opens a different span, which is marked all the same.
#[derive(Debug)]
pub struct BlockState {
    /// Bit 31: the granule is [`Granule::Page`]. Below: faults since the window began.
    faults: AtomicU32,
    /// Faults on pages that were open already, since the block last made progress.
    repeats: AtomicU32,
}

const PAGE_GRANULE: u32 = 1 << 31;
/// The fault count stops here. The room up to bit 31 is for handlers that passed the check before
/// any of them has counted: more than there can be CPUs.
const MAX_FAULTS: u32 = 1 << 30;

impl BlockState {
    /// A block at [`Granule::Block`] that has not faulted.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            faults: AtomicU32::new(0),
            repeats: AtomicU32::new(0),
        }
    }

    /// The same; loom's atomics cannot be made in a `const`.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self {
            faults: AtomicU32::new(0),
            repeats: AtomicU32::new(0),
        }
    }

    fn granule(&self) -> Granule {
        if self.faults.load(Relaxed) & PAGE_GRANULE == 0 {
            Granule::Block
        } else {
            Granule::Page
        }
    }

    fn record_fault(&self) {
        if self.faults.load(Relaxed) & !PAGE_GRANULE < MAX_FAULTS {
            self.faults.fetch_add(1, Relaxed);
        }
    }

    /// Ends the window: the faults that it saw, with the granule left as it is.
    fn take_faults(&self) -> u32 {
        // A block that saw none, as most did, is not written to.
        if self.faults.load(Relaxed) & !PAGE_GRANULE == 0 {
            return 0;
        }
        self.faults.fetch_and(PAGE_GRANULE, Relaxed) & !PAGE_GRANULE
    }

    /// `true` if it was coarse until now.
    fn step_down(&self) -> bool {
        self.faults.fetch_or(PAGE_GRANULE, Relaxed) & PAGE_GRANULE == 0
    }

    fn reset(&self) {
        self.faults.store(0, Relaxed);
        self.repeats.store(0, Relaxed);
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for BlockState {
    fn format(&self, f: defmt::Formatter<'_>) {
        let faults = self.faults.load(Relaxed) & !PAGE_GRANULE;
        defmt::write!(f, "BlockState({}, {} faults)", self.granule(), faults);
    }
}

impl Default for BlockState {
    fn default() -> Self {
        Self::new()
    }
}

/// Decides each block's [`Granule`]. It starts coarse, and steps hot blocks down.
///
/// `B` holds the blocks' state: anything that is `AsRef<[BlockState]>`. Time comes in from outside,
/// as a [`Duration`] since any fixed origin; the core reads no clock.
#[derive(Debug)]
pub struct AdaptiveController<B> {
    blocks: B,
    step_down: StepDown,
    /// When the window began, in ms since the caller's origin, modulo 2³²; 0 before the first tick.
    window_start: AtomicU32,
}

impl<B> AdaptiveController<B> {
    /// A controller over `blocks`, all coarse, with the default [`StepDown`].
    #[cfg(not(loom))]
    pub const fn new(blocks: B) -> Self {
        Self {
            blocks,
            step_down: StepDown::DEFAULT,
            window_start: AtomicU32::new(0),
        }
    }

    /// The same; loom's atomics cannot be made in a `const`.
    #[cfg(loom)]
    pub fn new(blocks: B) -> Self {
        Self {
            blocks,
            step_down: StepDown::DEFAULT,
            window_start: AtomicU32::new(0),
        }
    }

    pub(crate) const fn set_step_down(&mut self, step_down: StepDown) {
        self.step_down = step_down;
    }
}

#[cfg(feature = "defmt")]
impl<B> defmt::Format for AdaptiveController<B> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "AdaptiveController({})", self.step_down);
    }
}

impl<B: AsRef<[BlockState]>> AdaptiveController<B> {
    fn block(&self, block: usize) -> Option<&BlockState> {
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

    /// Counts a fault on a page of `block` that was open, or that had just been opened by another
    /// vCPU: how many since the block last made progress.
    pub(crate) fn record_repeat(&self, block: usize) -> u32 {
        let Some(block) = self.block(block) else {
            return 0;
        };
        block.repeats.fetch_add(1, Relaxed).wrapping_add(1)
    }

    /// `block` made progress: a page of it was opened, or harvested.
    pub(crate) fn record_progress(&self, block: usize) {
        if let Some(block) = self.block(block)
            && block.repeats.load(Relaxed) != 0
        {
            block.repeats.store(0, Relaxed);
        }
    }

    /// Closes the window if it is over at `now`, and steps down what was hot in it; how many
    /// blocks that were.
    ///
    /// Call it as often as is handy, such as after each harvest: inside a window it does nothing.
    /// The counts are normalised to the time that really passed, so a late tick does not invent a
    /// hot block. The first tick after a checkpoint only starts the clock.
    ///
    /// The cost is one load a block. It is not for the fault path.
    pub fn tick(&self, now: Duration) -> usize {
        let now = now.as_millis() as u32;
        // Acquire, and release below: of two that tick at once, one closes the window, and the
        // next to close it sees the counts as this one left them.
        let start = self.window_start.load(Acquire);
        let elapsed = now.wrapping_sub(start);
        // Half the range ago is ahead: another caller, or another core's clock, was a little later.
        let ahead = elapsed > u32::MAX / 2;
        if start != 0 && (ahead || !self.step_down.is_over(elapsed)) {
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
        match self.step_down.scope {
            StepDownScope::Block => blocks
                .iter()
                .filter(|block| self.step_down.is_hot(block.take_faults().into(), elapsed))
                .filter(|block| block.step_down())
                .count(),
            StepDownScope::Region => {
                let faults = blocks.iter().map(|block| u64::from(block.take_faults()));
                if !self.step_down.is_hot(faults.sum(), elapsed) {
                    return 0;
                }
                blocks.iter().filter(|block| block.step_down()).count()
            }
        }
    }

    /// Back to coarse everywhere, with no window begun: at a clean checkpoint.
    pub fn reset(&self) {
        self.blocks.as_ref().iter().for_each(BlockState::reset);
        self.window_start.store(0, Relaxed);
    }
}
