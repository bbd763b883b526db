//! What can go wrong, with the framework's name for it.

use core::fmt;
use core::time::Duration;

use crate::{RegionError, RegionsError};

/// What a function of Hypervisor.framework returned instead of `HV_SUCCESS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct HvError {
    /// The value, such as 0xfae94003.
    pub code: u32,
}

impl HvError {
    /// `hv_return_t` is a signed 32-bit number whose values are written as unsigned ones.
    pub(super) const fn check(returned: i32) -> Result<(), Self> {
        match returned as u32 {
            0 => Ok(()),
            code => Err(Self { code }),
        }
    }

    /// The framework's name for it; `None` where it has none. From `<Hypervisor/hv_error.h>`.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.code {
            0xfae9_4001 => "HV_ERROR",
            0xfae9_4002 => "HV_BUSY",
            0xfae9_4003 => "HV_BAD_ARGUMENT",
            0xfae9_4004 => "HV_ILLEGAL_GUEST_STATE",
            0xfae9_4005 => "HV_NO_RESOURCES",
            0xfae9_4006 => "HV_NO_DEVICE",
            0xfae9_4007 => "HV_DENIED",
            0xfae9_4008 => "HV_FAULT",
            0xfae9_400f => "HV_UNSUPPORTED",
            _ => return None,
        })
    }
}

impl fmt::Display for HvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name().unwrap_or("Hypervisor.framework's error");
        write!(f, "{name} ({:#x})", self.code)
    }
}

impl core::error::Error for HvError {}

/// Why the vCPUs were not stopped. They run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum PauseError {
    /// A vCPU did not come out in time: its thread is busy with an exit, or waits for something.
    Stuck {
        /// The vCPU's number, as the framework gave it.
        vcpu: u64,
        /// How long it was waited for.
        waited: Duration,
    },
    /// `hv_vcpus_exit` failed. One of the vCPUs was destroyed, perhaps, before its seat was dropped.
    Exit {
        /// What the framework says.
        error: HvError,
    },
}

impl fmt::Display for PauseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stuck { vcpu, waited } => {
                write!(f, "vCPU {vcpu} did not leave the guest within {waited:?}")
            }
            Self::Exit { error } => write!(f, "the vCPUs cannot be made to leave: {error}"),
        }
    }
}

impl core::error::Error for PauseError {}

/// Why something that is done with every vCPU stopped was not done. `E` is what the tracker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum StoppedError<E> {
    /// The vCPUs could not be stopped, so nothing was tried.
    Pause(PauseError),
    /// They were, and the tracker failed.
    Tracker(E),
}

impl<E> From<PauseError> for StoppedError<E> {
    fn from(error: PauseError) -> Self {
        Self::Pause(error)
    }
}

impl<E: fmt::Display> fmt::Display for StoppedError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pause(error) => error.fmt(f),
            Self::Tracker(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for StoppedError<E> {}

/// Memory that an [`HvfTracker`](super::HvfTracker) cannot track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum NewTrackerError {
    /// A size is no multiple of the VM's granule. The framework maps and protects whole pages only.
    Size {
        /// Guest physical address of the memory.
        base: u64,
        /// Its size, in bytes.
        size: u64,
        /// Bytes in a page.
        page_size: u64,
    },
    /// The numbers make no region, such as a base that is no multiple of the granule.
    Region(RegionError),
    /// They do not ascend, or overlap.
    Regions(RegionsError),
}

impl From<RegionError> for NewTrackerError {
    fn from(error: RegionError) -> Self {
        Self::Region(error)
    }
}

impl From<RegionsError> for NewTrackerError {
    fn from(error: RegionsError) -> Self {
        Self::Regions(error)
    }
}

impl fmt::Display for NewTrackerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size {
                base,
                size,
                page_size,
            } => write!(
                f,
                "{size:#x} bytes at {base:#x} are no whole pages of {page_size} bytes"
            ),
            Self::Region(error) => error.fmt(f),
            Self::Regions(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for NewTrackerError {}
