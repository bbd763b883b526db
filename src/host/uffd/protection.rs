//! [`UffdProtection`]: userfaultfd write protection as a [`WriteProtect`].

use core::ops::Range;

use alloc::vec::Vec;
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use super::error::{OpenError, ProtectError};
use super::handler::{Faults, ServeError};
use super::mapping::Mapping;
use super::registered::Registered;
use super::sys::{Access, KernelFeature};
use crate::sync::{Ordering::SeqCst, fence};
use crate::{BoxedRegion, PageGeometry, RegionError, WriteProtect};

/// What `UFFDIO_WRITEPROTECT` costs, in pages of it: 0.6 to 1 µs a call, and for each page that is
/// present 0.06 to 0.17 µs, whether it is protected already or not; the dearer the colder the page table is.
/// So from 5 to 15. Measured on Linux 6.18 in a virtual machine; the bench's rows `rearm-uffd-range`
/// and `rearm-uffd-page` do it anew. A page that was never touched costs 2.5 ns, but a guest has few.
const BRIDGE: usize = 8;

/// Takes the permission to write memory of this process, and gives it back.
///
/// A store to a protected page stops its thread, or its vCPU, until somebody opens the page: a
/// [`UffdHandler`](super::UffdHandler), which is to be there before anything is protected. Without
/// one `protect` is an error.
///
/// Dropped, it unregisters its mappings: all memory is open, and whoever waited goes on. Drop it **before**
/// they are unmapped, as what is mapped there next may be somebody else's.
#[derive(Debug)]
pub struct UffdProtection {
    memory: Registered,
    /// Held for reading while pages are protected, so that none is protected after the handler has
    /// opened them all to leave.
    served: RwLock<Served>,
}

/// Whether somebody serves the faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    No,
    /// Pages may be protected.
    Yes,
    /// Somebody did, and is opening everything.
    Ending,
}

impl UffdProtection {
    /// Registers `mappings`, for [everyone's](Access::Full) writes if this user may, else for this
    /// program's own stores; [`access`](Self::access) says which. A VMM that runs its guest with KVM
    /// asks for `Access::Full` by [`with_access`](Self::with_access), to hear of it here and not
    /// from a vCPU that dies of `EFAULT`.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing is registered then.
    pub fn new(mappings: impl IntoIterator<Item = Mapping>) -> Result<Self, OpenError> {
        Self::open(mappings, None, Self::WELCOME)
    }

    /// The same with just this access.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_access(
        mappings: impl IntoIterator<Item = Mapping>,
        access: Access,
    ) -> Result<Self, OpenError> {
        Self::open(mappings, Some(access), Self::WELCOME)
    }

    const WELCOME: &[KernelFeature] = &[KernelFeature::SharedMemory, KernelFeature::Unpopulated];

    pub(super) fn open(
        mappings: impl IntoIterator<Item = Mapping>,
        access: Option<Access>,
        welcome: &[KernelFeature],
    ) -> Result<Self, OpenError> {
        let required = [KernelFeature::WriteProtection];
        Ok(Self {
            memory: Registered::new(mappings, access, &required, welcome)?,
            served: RwLock::new(Served::No),
        })
    }

    /// Whose writes are tracked.
    pub const fn access(&self) -> Access {
        self.memory.uffd().access
    }

    /// The host's page, or the largest of a mapping in hugetlbfs, in blocks of 2 MiB; where the page is
    /// larger, a block is a page.
    pub fn geometry(&self) -> PageGeometry {
        self.memory.geometry()
    }

    /// The mappings, in ascending order of guest physical address.
    pub fn mappings(&self) -> &[Mapping] {
        self.memory.mappings().all()
    }

    /// A region for each mapping, in pages of its own, for a [`WriteTracker`](crate::WriteTracker).
    ///
    /// # Errors
    ///
    /// [`RegionError`], where a mapping has too many pages for a bitmap.
    pub fn regions(&self) -> Result<Vec<BoxedRegion>, RegionError> {
        self.memory.regions()
    }

    /// The faults, for a loop of one's own in place of a [`UffdHandler`](super::UffdHandler).
    ///
    /// # Errors
    ///
    /// [`ServeError::AlreadyServed`] while somebody else has them.
    pub fn faults(&self) -> Result<Faults<'_>, ServeError> {
        self.begin_serving()?;
        Ok(Faults::new(self))
    }

    /// Somebody serves the faults from here on, so that pages may be protected.
    pub(super) fn begin_serving(&self) -> Result<(), ServeError> {
        let mut served = self.served_mut();
        if *served != Served::No {
            return Err(ServeError::AlreadyServed);
        }
        *served = Served::Yes;
        Ok(())
    }

    /// Nobody serves the faults from here on: opens everything, and wakes who waits.
    ///
    /// `mark` is to mark everything. It comes when no page can be protected any more, and before one is
    /// opened: a harvest that takes a mark away from there on fails, and puts it back. So at no moment
    /// is a page open and clean.
    pub(super) fn end_serving(&self, mark: impl FnOnce()) {
        if !self.memory.is_ours() {
            return;
        }
        *self.served_mut() = Served::Ending;
        mark();
        // Who knows of a store that the opening let through sees the mark.
        fence(SeqCst);
        for mapping in self.mappings() {
            // An error says that the memory is gone, and with it whoever could wait there.
            let _ = self.memory.set(&mapping.ipas(), true);
        }
        *self.served_mut() = Served::No;
    }

    fn served_mut(&self) -> RwLockWriteGuard<'_, Served> {
        self.served.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) const fn memory(&self) -> &Registered {
        &self.memory
    }
}

impl WriteProtect for UffdProtection {
    type Error = ProtectError;

    fn protect(&self, range: Range<u64>) -> Result<(), ProtectError> {
        self.protect_all(&[range])
    }

    fn protect_all(&self, ranges: &[Range<u64>]) -> Result<(), ProtectError> {
        self.memory.refuse_child()?;
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
        if *served != Served::Yes {
            return Err(ProtectError::NoHandler);
        }
        ranges
            .iter()
            .try_for_each(|range| self.memory.set(range, false))
    }

    fn bridge(&self) -> usize {
        BRIDGE
    }

    fn unprotect(&self, range: Range<u64>) -> Result<(), ProtectError> {
        self.memory.refuse_child()?;
        self.memory.set(&range, true)
    }
}
