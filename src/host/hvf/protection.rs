//! [`HvfProtection`]: `hv_vm_protect` as a [`WriteProtect`].

use core::ops::Range;

use super::HvError;
use super::ffi::{self, Permission};
use crate::{PageGeometry, WriteProtect};

/// Clean memory that a re-arm protects along, to make one call of two.
///
/// Other projects measured a call for a whole range at 0 to 1 µs, flat from 1 to 256 MiB, and one
/// for 16 KiB at 6 µs (13 µs at the 99th percentile): on this host a call is dear and its size is
/// not. What is bridged is protected already, so it costs no fault. 256 MiB is as far as was
/// measured.
const BRIDGED_BYTES: u64 = 256 << 20;

/// The finest size that Hypervisor.framework can protect: the granule that the VM was made with.
///
/// The framework refuses a range that is no multiple of it (`HV_BAD_ARGUMENT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum HostPage {
    /// 16 KiB: every VM, unless it was configured otherwise.
    #[default]
    Kib16,
    /// 4 KiB: a VM made on macOS 26 or later after `hv_vm_config_set_ipa_granule` with
    /// `HV_IPA_GRANULE_4KB`. Guests that are bound by the CPU run 4 to 8 % slower.
    Kib4,
}

impl HostPage {
    /// The page with blocks of 2 MiB.
    pub const fn geometry(self) -> PageGeometry {
        match self {
            Self::Kib16 => PageGeometry::APPLE_SILICON,
            Self::Kib4 => PageGeometry::ARM64_4K,
        }
    }

    /// Bytes in a page.
    pub const fn size(self) -> u64 {
        self.geometry().page_size()
    }
}

/// Takes the guest's write permission and gives it back, by `hv_vm_protect`.
///
/// The framework has one VM a process, so there is nothing to hold but what the guest may do: read,
/// write while a page is open, and execute.
///
/// ```no_run
/// use pugmark::{WriteProtect, host::hvf::{HostPage, HvfProtection}};
///
/// let protection = HvfProtection::new(HostPage::Kib16);
/// protection.protect(0x4000_0000..0x4400_0000)?; // one call, whatever the size
/// # Ok::<(), pugmark::host::hvf::HvError>(())
/// ```
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct HvfProtection {
    page: HostPage,
    execute: bool,
}

impl HvfProtection {
    /// For memory that is mapped readable, writable and executable, by a VM with this granule.
    pub const fn new(page: HostPage) -> Self {
        Self {
            page,
            execute: true,
        }
    }

    /// For memory that is mapped without permission to execute: opening a page must not give it.
    #[must_use]
    pub const fn without_execute(self) -> Self {
        Self {
            execute: false,
            ..self
        }
    }

    /// The granule of the VM.
    pub const fn page(&self) -> HostPage {
        self.page
    }

    fn set(&self, range: Range<u64>, write: bool) -> Result<(), HvError> {
        let Self { execute, .. } = *self;
        // The framework refuses an empty range.
        let size = range.end.saturating_sub(range.start);
        ffi::protect(range.start, size, Permission { write, execute })
    }
}

impl From<HostPage> for HvfProtection {
    fn from(page: HostPage) -> Self {
        Self::new(page)
    }
}

impl WriteProtect for HvfProtection {
    type Error = HvError;

    fn protect(&self, range: Range<u64>) -> Result<(), HvError> {
        self.set(range, false)
    }

    fn bridge(&self) -> usize {
        (BRIDGED_BYTES / self.page.size()) as usize
    }

    fn unprotect(&self, range: Range<u64>) -> Result<(), HvError> {
        self.set(range, true)
    }
}
