//! [`StepDown`]: the rule, without state or clock.

use core::time::Duration;

/// When a block steps down from [`Granule::Block`](super::Granule::Block) to
/// [`Granule::Page`](super::Granule::Page): after more than `threshold` faults in a `window`.
///
/// One way: it stays fine until the next clean checkpoint.
///
/// A coarse block that is open does not fault: it faults once, and again after each harvest that
/// protected it. So a block can only be hot where there are more harvests in a window than the
/// `threshold` (or several vCPUs that fault at once), and the default suits non-stop harvesting. To
/// harvest ten times a second, set a threshold of a few faults in a window of a second; or take a
/// [`CostModel`](super::CostModel), which counts harvests, and knows a sparse block from a dense one
/// where this rule knows a block that is written often from one that is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct StepDown {
    /// Faults in a window that are still cool; fewer than the harvests in it, or no block can be
    /// hot. The default is 32.
    pub threshold: u32,
    /// The length of a window, in whole milliseconds, at least one. The default is 100 ms.
    pub window: Duration,
    /// What is counted and stepped down together. The default is each block for itself.
    pub scope: StepDownScope,
}

/// What [`StepDown`] counts, and steps down, together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum StepDownScope {
    /// Each block for itself, so that faults spread thinly over many blocks never trigger it.
    Block,
    /// The whole region at once.
    Region,
}

impl StepDown {
    /// More than 32 faults in 100 ms, by block.
    ///
    /// For harvests that never stop: at about 5 µs a fault (userfaultfd, Hypervisor.framework) that
    /// is 0.2 % of a CPU, and 330 reports a second of all 512 pages of a block.
    pub const DEFAULT: Self = Self {
        threshold: 32,
        window: Duration::from_millis(100),
        scope: StepDownScope::Block,
    };

    /// Never steps down: tracking stays coarse.
    pub const NEVER: Self = Self {
        threshold: u32::MAX,
        ..Self::DEFAULT
    };

    fn window_ms(self) -> u64 {
        u64::try_from(self.window.as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// Whether a window that began `elapsed` ms ago is over.
    pub(super) fn is_over(self, elapsed: u32) -> bool {
        u64::from(elapsed) >= self.window_ms()
    }

    /// Whether `faults` in `elapsed` ms are more than `threshold` in a window.
    pub(super) fn is_hot(self, faults: u64, elapsed: u32) -> bool {
        faults.saturating_mul(self.window_ms())
            > u64::from(self.threshold).saturating_mul(u64::from(elapsed))
    }
}

impl Default for StepDown {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_normalised_to_the_time_that_passed() {
        let rule = StepDown::DEFAULT;
        assert!(!rule.is_hot(32, 100));
        assert!(rule.is_hot(33, 100));
        // Ten windows late: 330 faults are 33 a window, 320 are not.
        assert!(rule.is_hot(330, 1_000));
        assert!(!rule.is_hot(320, 1_000));
        assert!(!rule.is_hot(33, 1_000));
    }

    #[test]
    fn a_window_below_a_millisecond_is_one() {
        let rule = StepDown {
            window: Duration::ZERO,
            ..StepDown::DEFAULT
        };
        assert!(!rule.is_over(0));
        assert!(rule.is_over(1));
        assert!(rule.is_hot(33, 1));
    }

    #[test]
    fn never_is_never() {
        assert!(!StepDown::NEVER.is_hot(u64::from(u32::MAX) / 2, 100));
    }
}
