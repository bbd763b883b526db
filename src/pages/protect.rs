//! [`WriteProtect`]: the one seam between the tracker and a host.

use core::ops::Range;

/// See [`WriteProtect::bridge`].
pub(crate) const DEFAULT_BRIDGE: usize = 64;

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

    /// Does the same for every range, ascending and apart: what a harvest re-arms at once.
    ///
    /// A host whose `protect` ends with something that serves several ranges as well as one, such as
    /// a TLB invalidation on every core, does it once here. By default each range is a call of
    /// [`protect`](Self::protect).
    ///
    /// # Errors
    ///
    /// As [`protect`](Self::protect), for all of the ranges.
    fn protect_all(&self, ranges: &[Range<u64>]) -> Result<(), Self::Error> {
        ranges
            .iter()
            .try_for_each(|range| self.protect(range.clone()))
    }

    /// How many clean pages between two written runs a re-arm protects along, so that one range serves
    /// both.
    ///
    /// Say what a range costs this host, divided by what one more page of it costs that is protected
    /// already. Then the ranges of a harvest cost least: each gap is bridged or not for itself, and
    /// to bridge one of `g` pages costs `g` pages and saves a range.
    ///
    /// 64 by default, for a host that was not measured: a gap then costs at most 8 times the least
    /// wherever the quotient is from 8 to 512. [`with_bridge`](crate::WriteTracker::with_bridge)
    /// overrules what the host says.
    fn bridge(&self) -> usize {
        DEFAULT_BRIDGE
    }

    /// Gives the permission back.
    ///
    /// It runs in the fault path: keep it short, and bounded. A translation that stays stale after
    /// this returns costs another fault, but loses nothing.
    ///
    /// # Errors
    ///
    /// After an error any part of `range` may already be writable; the tracker marks all of it.
    fn unprotect(&self, range: Range<u64>) -> Result<(), Self::Error>;

    /// For a host that keeps a log of written pages itself, such as KVM: empties the log, and gives
    /// `written` the ranges of guest physical addresses that were in it, in any order, and in as many
    /// pieces as is handy. By default there is none.
    ///
    /// A harvest does it first, and marks what it is given. Then `protect` has nothing to protect, and
    /// must protect nothing: it is given pages that were not in the log as well. It refuses what the
    /// log does not cover.
    ///
    /// It may run on several threads at once. **When it returns, what other calls took before has been
    /// given as well**: a last harvest that finds the log empty must find the marks.
    ///
    /// A page is logged anew **before** `written` is given it. In the other order a harvest on
    /// another thread may copy the page, and a store that comes between the copy and the renewal is
    /// in no log.
    ///
    /// # Errors
    ///
    /// What may have left the log was given to `written` all the same.
    fn take_log(&self, written: &mut dyn FnMut(&[Range<u64>])) -> Result<(), Self::Error> {
        let _ = written;
        Ok(())
    }
}

impl<P: WriteProtect + ?Sized> WriteProtect for &P {
    type Error = P::Error;

    fn protect(&self, range: Range<u64>) -> Result<(), Self::Error> {
        (**self).protect(range)
    }

    fn protect_all(&self, ranges: &[Range<u64>]) -> Result<(), Self::Error> {
        (**self).protect_all(ranges)
    }

    fn bridge(&self) -> usize {
        (**self).bridge()
    }

    fn unprotect(&self, range: Range<u64>) -> Result<(), Self::Error> {
        (**self).unprotect(range)
    }

    fn take_log(&self, written: &mut dyn FnMut(&[Range<u64>])) -> Result<(), Self::Error> {
        (**self).take_log(written)
    }
}

#[cfg(all(feature = "alloc", target_has_atomic = "ptr"))]
impl<P: WriteProtect + ?Sized> WriteProtect for alloc::sync::Arc<P> {
    type Error = P::Error;

    fn protect(&self, range: Range<u64>) -> Result<(), Self::Error> {
        (**self).protect(range)
    }

    fn protect_all(&self, ranges: &[Range<u64>]) -> Result<(), Self::Error> {
        (**self).protect_all(ranges)
    }

    fn bridge(&self) -> usize {
        (**self).bridge()
    }

    fn unprotect(&self, range: Range<u64>) -> Result<(), Self::Error> {
        (**self).unprotect(range)
    }

    fn take_log(&self, written: &mut dyn FnMut(&[Range<u64>])) -> Result<(), Self::Error> {
        (**self).take_log(written)
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

    /// See [`WriteProtect::protect_all`].
    ///
    /// # Errors
    ///
    /// See [`WriteProtect::protect_all`].
    fn protect_all(&mut self, ranges: &[Range<u64>]) -> Result<(), Self::Error> {
        ranges
            .iter()
            .try_for_each(|range| self.protect(range.clone()))
    }

    /// See [`WriteProtect::bridge`].
    fn bridge(&self) -> usize {
        DEFAULT_BRIDGE
    }

    /// See [`WriteProtect::unprotect`].
    ///
    /// # Errors
    ///
    /// See [`WriteProtect::unprotect`].
    fn unprotect(&mut self, range: Range<u64>) -> Result<(), Self::Error>;
}
