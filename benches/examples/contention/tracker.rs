//! The lines that a fault touches, in the order of `WriteTracker::on_write_fault`.

use super::machine::{Costs, Outcome, Step, run};

/// Which pages the vCPUs write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Each goes through memory of its own, page by page.
    Own,
    /// Anywhere in 256 GiB.
    Anywhere,
    /// Four in five in a hundredth of the memory, and of those four in five in a hundredth of that.
    Skewed,
    /// All in one block of 2 MiB.
    OneBlock,
}

impl Pattern {
    pub const ALL: [Self; 4] = [Self::Own, Self::Anywhere, Self::Skewed, Self::OneBlock];
}

/// Where the tracker has its counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Handlers begun in one line, handlers ended and the statistics in another.
    TwoLines,
    /// In 64 such pairs, by a hash of the block's number.
    ByBlock,
    /// In a pair for each vCPU.
    ByVcpu,
}

impl Layout {
    pub const ALL: [Self; 3] = [Self::TwoLines, Self::ByBlock, Self::ByVcpu];
}

#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub vcpus: usize,
    pub pattern: Pattern,
    pub layout: Layout,
    /// From the end of a fault to the next one of the same vCPU, on average, in nanoseconds.
    pub think: f64,
    /// What the host takes to open a page, without a lock.
    pub grant: f64,
}

/// 256 GiB of 4 KiB pages.
const PAGES: usize = 1 << 26;
const BLOCKS: usize = PAGES / 512;

// Which lines there are: the counts, handlers begun and ended; the leaves, a line a block; the summary,
// a bit a line of leaves; the blocks' state, eight blocks a line.
const ENDED: usize = 256;
const LEAVES: usize = 2 * ENDED;
const SUMMARY: usize = LEAVES + BLOCKS;
const STATE: usize = SUMMARY + BLOCKS / 512;
const LINES: usize = STATE + BLOCKS / 8;

/// Transfers a fault of the counts, the leaves, the summary, and the blocks' state.
pub fn by_kind(outcome: &Outcome) -> [f64; 4] {
    let kinds = [0..LEAVES, LEAVES..SUMMARY, SUMMARY..STATE, STATE..LINES];
    kinds.map(|lines| outcome.transfers[lines].iter().sum())
}

/// Faults of each vCPU.
const FAULTS: usize = 500;

pub fn simulate(setting: Setting, costs: Costs) -> Outcome {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut thinks = rng.fork();
    let mut announced = vec![false; BLOCKS];
    let mut count = vec![0_usize; setting.vcpus];
    let steps = |vcpu: usize| {
        count[vcpu] += 1;
        let page = page(setting.pattern, vcpu, setting.vcpus, count[vcpu], &mut rng);
        let block = page / 512;
        let counts = match setting.layout {
            Layout::TwoLines => 0,
            // Hashed: memories of a power of two would all begin in the same one.
            Layout::ByBlock => (block as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize >> 58,
            Layout::ByVcpu => vcpu,
        };
        let mut steps = vec![
            // The handler is counted in.
            Step::Write(counts),
            // Which granule?
            Step::Read(STATE + block / 8),
            Step::Work(setting.grant),
            // Was it marked? Then the mark, and its line's summary bit if that is clear.
            Step::Read(LEAVES + block),
            Step::Write(LEAVES + block),
            Step::Read(SUMMARY + block / 512),
        ];
        if !std::mem::replace(&mut announced[block], true) {
            steps.push(Step::Write(SUMMARY + block / 512));
        }
        // The handler is counted out; faults of the block.
        steps.extend([Step::Write(ENDED + counts), Step::Write(STATE + block / 8)]);
        steps
    };
    // Exponential: the vCPUs do not keep step.
    let think = |_| -setting.think * (1.0 - thinks.f64()).ln();
    run(costs, setting.vcpus, LINES, FAULTS, think, steps)
}

/// A fault of a vCPU that has every line to itself, in nanoseconds.
pub fn alone(setting: Setting, costs: Costs) -> f64 {
    let single = Setting {
        vcpus: 1,
        ..setting
    };
    simulate(single, costs).handler
}

fn page(
    pattern: Pattern,
    vcpu: usize,
    vcpus: usize,
    count: usize,
    rng: &mut fastrand::Rng,
) -> usize {
    match pattern {
        Pattern::Own => vcpu * (PAGES / vcpus) + count,
        Pattern::Anywhere => rng.usize(..PAGES),
        Pattern::Skewed => match rng.f64() {
            hot if hot < 0.64 => rng.usize(..PAGES / 10_000),
            warm if warm < 0.8 => rng.usize(..PAGES / 100),
            _ => rng.usize(..PAGES),
        },
        Pattern::OneBlock => rng.usize(..512),
    }
}
