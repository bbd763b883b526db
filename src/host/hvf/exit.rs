//! [`handle_exit`]: from what `hv_vcpu_run` left behind to the tracker, and back.

use core::ops::Range;

use crate::arch::aarch64::{Abort, WriteCause, classify};
use crate::{FaultError, FaultOutcome, Granule, RegionSet, WriteProtect, WriteTracker};

/// `HV_EXIT_REASON_CANCELED`.
const CANCELED: u32 = 0;
/// `HV_EXIT_REASON_EXCEPTION`.
const EXCEPTION: u32 = 1;
/// `HV_EXIT_REASON_VTIMER_ACTIVATED`.
const VTIMER_ACTIVATED: u32 = 2;

/// `hv_vcpu_exit_t` as plain numbers, so that it comes from any crate of bindings.
///
/// The reason is a `u32`, not an enum: a macOS to come may have more reasons, and to read an enum
/// with a value that it does not list is undefined behaviour. If the bindings type it as an enum,
/// read it through a pointer to `u32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Exit {
    /// `reason`.
    pub reason: u32,
    /// `exception.syndrome`: `ESR_EL2`.
    pub syndrome: u64,
    /// `exception.virtual_address`: `FAR_EL2`. It is not looked at: a guest virtual address does
    /// not say which page was written.
    pub virtual_address: u64,
    /// `exception.physical_address`: the IPA.
    pub physical_address: u64,
}

/// What to do with the vCPU.
#[must_use = "an exit that is not the tracker's is the VMM's to handle"]
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Handled {
    /// It wrote to a tracked page, which is open and marked now: run it again, and leave PC alone.
    Resume {
        /// What kind of write it was.
        cause: WriteCause,
        /// How much of the block was opened.
        granule: Granule,
        /// The guest physical addresses that were opened and marked.
        span: Range<u64>,
        /// Whether the page was marked before. Not an error.
        spurious: bool,
    },
    /// The tracker has nothing to do with it, and did nothing.
    NotOurs(Unhandled),
}

/// An exit that is the VMM's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Unhandled {
    /// `hv_vcpus_exit` was called for this vCPU, by a [`Pause`](super::Pause) or by the VMM. If the
    /// VMM wants nothing of it, go round the loop again.
    Canceled,
    /// The virtual timer fired.
    VirtualTimer,
    /// An exception.
    Exception {
        /// What it was. A [`Abort::Write`] is one outside every region: a device's registers.
        access: Abort,
        /// The guest physical address, of an abort.
        ipa: u64,
    },
    /// A reason that this version does not know, or `HV_EXIT_REASON_UNKNOWN` (3).
    Unknown {
        /// The value.
        reason: u32,
    },
}

/// Gives the exit of a vCPU to the tracker, if it is the tracker's.
///
/// Translation and permission faults count alike, as the framework reports the first store to a
/// protected page as the former; so do the guest's table walks and its cache maintenance. The page
/// is that of `physical_address`. PC stays: the instruction is retried.
///
/// It takes no lock and does not allocate; the framework's `hv_vm_protect` may do either.
///
/// # Errors
///
/// As [`WriteTracker::on_write_fault`]: [`FaultError::Host`] where the framework refuses to open the
/// page, such as one that is not mapped; [`FaultError::Storm`] where a block faults again and again
/// although its pages are open.
pub fn handle_exit<P: WriteProtect, R: RegionSet>(
    tracker: &WriteTracker<P, R>,
    exit: Exit,
) -> Result<Handled, FaultError<P::Error>> {
    let ipa = exit.physical_address;
    let access = match exit.reason {
        EXCEPTION => classify(exit.syndrome),
        CANCELED => return Ok(Handled::NotOurs(Unhandled::Canceled)),
        VTIMER_ACTIVATED => return Ok(Handled::NotOurs(Unhandled::VirtualTimer)),
        reason => return Ok(Handled::NotOurs(Unhandled::Unknown { reason })),
    };
    if let Abort::Write(cause) = access
        && let FaultOutcome::Granted {
            granule,
            span,
            spurious,
        } = tracker.on_write_fault(ipa)?
    {
        return Ok(Handled::Resume {
            cause,
            granule,
            span,
            spurious,
        });
    }
    Ok(Handled::NotOurs(Unhandled::Exception { access, ipa }))
}
