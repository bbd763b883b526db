//! The fault path as an exit handler has it, from the syndrome to the decision to resume.

use core::ops::Range;
use core::time::Duration;

use pugmark::arch::aarch64::{self, Abort};
use pugmark::{
    FaultOutcome, PageGeometry, StaticRegion, StepDown, WriteProtect, WriteTracker, blocks_for,
    pages_for, words_for,
};

const GEOMETRY: PageGeometry = PageGeometry::ARM64_4K;
/// Bytes of a region.
pub const SIZE: u64 = 64 << 20;
/// Where the regions begin: RAM on both sides of the hole for devices, as most machines have it.
const BASES: [u64; 2] = [0x4000_0000, 0x1_0000_0000];

type Region =
    StaticRegion<{ words_for(pages_for(SIZE, GEOMETRY)) }, { blocks_for(0, SIZE, GEOMETRY) }>;
pub type Tracker = WriteTracker<Still, &'static [Region]>;

/// Steps each block down that faulted at all.
const AT_ONCE: StepDown = StepDown {
    threshold: 0,
    window: Duration::from_millis(1),
    ..StepDown::DEFAULT
};

const fn region(base: u64) -> Region {
    Region::new(base, SIZE, GEOMETRY).with_step_down(AT_ONCE)
}

static REGIONS: [Region; 2] = [region(BASES[0]), region(BASES[1])];

/// A tracker of two regions of [`SIZE`], over a host that does nothing.
///
/// # Panics
///
/// Where there is one already.
pub fn tracker() -> Tracker {
    let tracker = WriteTracker::new(Still, &REGIONS[..]);
    tracker.expect("the regions ascend, and nobody else has them")
}

/// A host that does nothing, behind a call that the compiler cannot see into.
#[derive(Debug)]
pub struct Still;

impl WriteProtect for Still {
    type Error = u32;

    fn protect(&self, range: Range<u64>) -> Result<(), u32> {
        change(range)
    }

    fn unprotect(&self, range: Range<u64>) -> Result<(), u32> {
        change(range)
    }
}

#[inline(always)]
fn change(range: Range<u64>) -> Result<(), u32> {
    match status(range.start, range.end) {
        0 => Ok(()),
        status => Err(status),
    }
}

/// What a host says that has changed a permission, in the fewest instructions.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[unsafe(naked)]
extern "C" fn status(_start: u64, _end: u64) -> u32 {
    #[cfg(target_arch = "x86_64")]
    core::arch::naked_asm!("xor eax, eax", "ret");
    #[cfg(target_arch = "aarch64")]
    core::arch::naked_asm!("mov w0, wzr", "ret");
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline(never)]
extern "C" fn status(start: u64, end: u64) -> u32 {
    core::hint::black_box((start, end));
    core::hint::black_box(0)
}

/// What the CPU says of an exit.
#[derive(Clone, Copy)]
pub struct Exit {
    /// `ESR_EL2`
    pub esr: u64,
    /// `FAR_EL2`
    pub far: u64,
    /// `HPFAR_EL2`
    pub hpfar: u64,
    /// `PAR_EL1`, after `AT S1E1R` of `far`
    pub par: u64,
}

impl Exit {
    /// A store that the permission at level 3 of stage 2 stopped, through an identity map.
    fn of_store(ipa: u64) -> Self {
        Self {
            esr: 0x24 << 26 | 1 << 25 | 1 << 6 | 0x0f,
            far: ipa,
            hpfar: 0,
            par: ipa & !0xfff,
        }
    }
}

/// What an exit handler does: whether to resume the guest at the same instruction.
#[inline(always)]
pub fn handle(tracker: &Tracker, exit: Exit) -> bool {
    let Exit {
        esr,
        far,
        hpfar,
        par,
    } = exit;
    let Abort::Write(_) = aarch64::classify(esr) else {
        return false;
    };
    let ipa = if aarch64::hpfar_is_valid(esr) {
        aarch64::ipa_from_hpfar(hpfar, far)
    } else {
        match aarch64::ipa_from_par(par, far) {
            Some(ipa) => ipa,
            // The guest's tables changed meanwhile.
            None => return true,
        }
    };
    matches!(
        tracker.on_write_fault(ipa),
        Ok(FaultOutcome::Granted { .. })
    )
}

/// A fault, by what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The first in a block of 512 clean pages, which it opens whole.
    CoarseFirst,
    /// One more in a block that is open: another vCPU was a moment earlier.
    CoarseAgain,
    /// The first in a block that is tracked by the page: also the first mark under its summary bit.
    FineFirst,
    /// One of another page there.
    FineNext,
    /// One of a page that is open.
    FineAgain,
    /// Outside of all regions.
    Elsewhere,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::CoarseFirst,
        Self::CoarseAgain,
        Self::FineFirst,
        Self::FineNext,
        Self::FineAgain,
        Self::Elsewhere,
    ];

    /// Its row of the counts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CoarseFirst => "fault-coarse-first",
            Self::CoarseAgain => "fault-coarse-again",
            Self::FineFirst => "fault-fine-first",
            Self::FineNext => "fault-fine-next",
            Self::FineAgain => "fault-fine-again",
            Self::Elsewhere => "fault-elsewhere",
        }
    }

    /// Whether the tracker knows the page.
    const fn is_tracked(self) -> bool {
        !matches!(self, Self::Elsewhere)
    }
}

/// Faults of each kind in every block, all through `take`, which calls [`handle`] and says what it
/// said.
///
/// # Panics
///
/// Where an answer is wrong: then what was counted is another path.
pub fn each(tracker: &Tracker, mut take: impl FnMut(Kind, Exit) -> bool) {
    let mut round = |kind: Kind, offset: u64| {
        for base in BASES {
            for block in 0..SIZE / GEOMETRY.block_size() {
                let ipa = base + block * GEOMETRY.block_size() + offset;
                assert_eq!(take(kind, Exit::of_store(ipa)), kind.is_tracked());
            }
        }
    };
    tracker.arm().expect("the host does nothing");
    tracker.tick(Duration::from_millis(1));
    round(Kind::CoarseFirst, 0x5_1238);
    round(Kind::CoarseAgain, 0x4_d000);
    let blocks = BASES.len() * blocks_for(0, SIZE, GEOMETRY);
    let pages = blocks * GEOMETRY.pages_per_block() as usize;
    assert_eq!(super::harvest::harvest(tracker), pages);
    tracker.tick(Duration::from_millis(10));
    round(Kind::FineFirst, 0x5_1238);
    round(Kind::FineNext, 0x15_0000);
    round(Kind::FineAgain, 0x5_1000);
    round(Kind::Elsewhere, SIZE);
    assert_eq!(super::harvest::harvest(tracker), 2 * blocks);
}
