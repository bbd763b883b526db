//! What can go wrong, with the number that says where.

use core::fmt;

use crate::bitmap::OutOfRange;
use crate::pages::region::DirtyRun;

/// Regions that one tracker cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum RegionsError {
    /// Two neighbours do not ascend, or overlap, counted in whole pages.
    Order {
        /// The first of the two, by its index.
        index: usize,
        /// The guest physical address at which its last page ends.
        end: u64,
        /// The guest physical address at which the next one begins.
        next: u64,
    },
    /// Another tracker has a region of the set. Drop it first, or keep using it.
    AlreadyTracked {
        /// The base of the region.
        base: u64,
    },
}

impl fmt::Display for RegionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Order { index, end, next } => write!(
                f,
                "region {} begins at {next:#x}, before region {index} ends at {end:#x}: \
                 give them in ascending order, without overlap",
                index + 1
            ),
            Self::AlreadyTracked { base } => {
                write!(f, "another tracker has the region at {base:#x}")
            }
        }
    }
}

impl core::error::Error for RegionsError {}

/// A range of guest physical addresses of which no byte is in any region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct Untracked {
    /// Its first address.
    pub start: u64,
    /// The address after its last.
    pub end: u64,
}

impl fmt::Display for Untracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, end } = self;
        write!(f, "no region holds any of {start:#x}..{end:#x}")
    }
}

impl core::error::Error for Untracked {}

/// Why [`arm`](super::WriteTracker::arm) or [`disarm`](super::WriteTracker::disarm) failed. `H` is
/// the host's own error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ArmError<H> {
    /// A harvest is open, or another arm or disarm is under way.
    Busy,
    /// The host could not change the permission of a region.
    Host {
        /// Guest physical address of the region's first page.
        start: u64,
        /// The address after its last page.
        end: u64,
        /// What the host says.
        error: H,
    },
}

impl<H: fmt::Display> fmt::Display for ArmError<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("a harvest is open, or another arm or disarm is under way"),
            Self::Host { start, end, error } => {
                write!(
                    f,
                    "changing the permission of {start:#x}..{end:#x} failed: {error}"
                )
            }
        }
    }
}

impl<H: fmt::Debug + fmt::Display> core::error::Error for ArmError<H> {}

/// Why a write fault was not handled as it should be. Its pages are marked all the same. `H` is the
/// host's own error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum FaultError<H> {
    /// The host could not open the span. To resume the vCPU is to try again.
    Host {
        /// Guest physical address of the fault.
        ipa: u64,
        /// What the host says.
        error: H,
    },
    /// Pages of one block fault again and again although they are open.
    Storm {
        /// Guest physical address of the fault.
        ipa: u64,
        /// Faults on open pages of its block since one was last opened or harvested.
        faults: u32,
    },
    /// The region's storage is shorter than when the region was made. Only a hand-written `AsRef`
    /// can do that; the page is open and not marked.
    Storage(OutOfRange),
}

impl<H> From<OutOfRange> for FaultError<H> {
    fn from(error: OutOfRange) -> Self {
        Self::Storage(error)
    }
}

impl<H: fmt::Display> fmt::Display for FaultError<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { ipa, error } => {
                write!(
                    f,
                    "opening the page at {ipa:#x} to the guest failed: {error}"
                )
            }
            Self::Storm { ipa, faults } => write!(
                f,
                "{faults} faults on open pages, now at {ipa:#x}: \
                 the permission does not reach the vCPU"
            ),
            Self::Storage(error) => write!(f, "the region's storage shrank: {error}"),
        }
    }
}

impl<H: fmt::Debug + fmt::Display> core::error::Error for FaultError<H> {}

/// Why a harvest ended early. Every page that was not accepted is marked again. `H` is the host's
/// own error, `C` the consumer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum HarvestError<H, C> {
    /// Another harvest is open, or an arm or disarm is under way.
    Busy,
    /// A final harvest came while fault handlers were under way; try again once they returned.
    HandlersInFlight {
        /// How many.
        handlers: usize,
    },
    /// The host could not protect pages that were drained, and the clean ones bridged between; or
    /// not read its own log, which is of all regions.
    Host {
        /// Guest physical address of the first page that was to be protected at once.
        start: u64,
        /// The address after the last.
        end: u64,
        /// What the host says.
        error: H,
    },
    /// The consumer refused a run.
    Consumer {
        /// The run.
        run: DirtyRun,
        /// What the consumer says.
        error: C,
    },
}

impl<H: fmt::Display, C: fmt::Display> fmt::Display for HarvestError<H, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("another harvest is open, or an arm or disarm is under way"),
            Self::HandlersInFlight { handlers } => {
                write!(
                    f,
                    "{handlers} fault handlers are under way: stop every vCPU first"
                )
            }
            Self::Host { start, end, error } => {
                write!(f, "protecting {start:#x}..{end:#x} again failed: {error}")
            }
            Self::Consumer { run, error } => {
                write!(
                    f,
                    "the consumer refused {} bytes at {:#x}: {error}",
                    run.len, run.start
                )
            }
        }
    }
}

impl<H, C> core::error::Error for HarvestError<H, C>
where
    H: fmt::Debug + fmt::Display,
    C: fmt::Debug + fmt::Display,
{
}
