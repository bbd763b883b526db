//! [`WriteProtect`]: the one seam between the tracker and a host.

use core::ops::Range;

/// Takes the guest's write permission away, and gives it back.
///
/// This is all that a host must supply: stage-2 tables, `hv_vm_protect`, userfaultfd, an MPU.
/// Addresses are guest physical (IPA), in bytes. The tracker passes ranges of whole pages that
/// lie inside one region, so the end of the last page may lie past the end of a region whose size
/// is no multiple of the page.
///
/// Both calls may come from several threads at once, and both must be idempotent: protecting a
/// protected page, or opening an open one, succeeds. A protect and an unprotect of the same page
/// that race may leave it either way; the order of the tracker's own steps makes both outcomes
/// safe.
///
/// A page that the host makes writable by any other way, such as one that it populates, can be
/// written unseen: tell the tracker ([`mark_written`](crate::WriteTracker::mark_written)) after it
/// is open.
pub trait WriteProtect {
    /// What the host says when it cannot.
    type Error;

    /// Takes the guest's permission to write `range` away, and keeps read and execute.
    ///
    /// No vCPU can write there through a stale translation once this returns.
    ///
    /// # Errors
    ///
    /// After an error any part of `range` may still be writable; the tracker treats all of it so.
    fn protect(&self, range: Range<u64>) -> Result<(), Self::Error>;

    /// Gives the permission back.
    ///
    /// It runs in the fault path: keep it short, and bounded. A translation that stays stale after
    /// this returns costs another fault, but loses nothing.
    ///
    /// # Errors
    ///
    /// After an error any part of `range` may already be writable; the tracker marks all of it.
    fn unprotect(&self, range: Range<u64>) -> Result<(), Self::Error>;
}

impl<P: WriteProtect + ?Sized> WriteProtect for &P {
    type Error = P::Error;

    fn protect(&self, range: Range<u64>) -> Result<(), Self::Error> {
        (**self).protect(range)
    }

    fn unprotect(&self, range: Range<u64>) -> Result<(), Self::Error> {
        (**self).unprotect(range)
    }
}

#[cfg(all(feature = "alloc", target_has_atomic = "ptr"))]
impl<P: WriteProtect + ?Sized> WriteProtect for alloc::sync::Arc<P> {
    type Error = P::Error;

    fn protect(&self, range: Range<u64>) -> Result<(), Self::Error> {
        (**self).protect(range)
    }

    fn unprotect(&self, range: Range<u64>) -> Result<(), Self::Error> {
        (**self).unprotect(range)
    }
}

/// The same for an editor that needs `&mut self`, as most page-table crates do.
///
/// A lock around it is a [`WriteProtect`]: `spin::Mutex<P>` (feature `spin`),
/// `critical_section::Mutex<RefCell<P>>` (feature `critical-section`) and `std::sync::Mutex<P>`
/// (feature `std`).
pub trait WriteProtectMut {
    /// What the host says when it cannot.
    type Error;

    /// See [`WriteProtect::protect`].
    ///
    /// # Errors
    ///
    /// See [`WriteProtect::protect`].
    fn protect(&mut self, range: Range<u64>) -> Result<(), Self::Error>;

    /// See [`WriteProtect::unprotect`].
    ///
    /// # Errors
    ///
    /// See [`WriteProtect::unprotect`].
    fn unprotect(&mut self, range: Range<u64>) -> Result<(), Self::Error>;
}
