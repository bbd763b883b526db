//! [`UffdLog`]: the kernel settles each write fault itself, and tells afterwards.

use core::ops::Range;

use alloc::vec::Vec;
use std::sync::{Mutex, PoisonError};

use linux_raw_sys::general::page_region;

use super::error::{OpenError, ProtectError};
use super::mapping::Mapping;
use super::registered::{Registered, failed};
use super::sys::{Access, KernelFeature, Pagemap};
use crate::{BoxedRegion, PageGeometry, RegionError, WriteProtect};

/// What one scan has room for, 24 bytes each on the stack. A run of neighbours takes one.
const FOUND: usize = 256;

/// Memory of this process whose written pages the kernel finds by itself: each page, exactly, and
/// without a handler (`UFFD_FEATURE_WP_ASYNC` and `PAGEMAP_SCAN`).
///
/// A [`WriteTracker`](crate::WriteTracker) over it takes no faults; its harvest asks the kernel first.
/// The writes of system calls and of KVM are seen whatever the [`access`](Self::access).
///
/// Dropped, it unregisters its mappings: drop it **before** they are unmapped, as what is mapped there
/// next may be somebody else's.
#[derive(Debug)]
pub struct UffdLog {
    memory: Registered,
    pagemap: Pagemap,
    /// Held while a log is taken and told of: what a scan has found is in no other scan.
    taking: Mutex<()>,
}

impl UffdLog {
    /// Registers `mappings`.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; nothing is registered then.
    pub fn new(mappings: impl IntoIterator<Item = Mapping>) -> Result<Self, OpenError> {
        let pagemap = Pagemap::open()?;
        let required = [KernelFeature::WriteProtection, KernelFeature::Async];
        // The kernel turns the last one on with the asynchronous form anyway.
        let welcome = [KernelFeature::SharedMemory, KernelFeature::Unpopulated];
        let memory = Registered::new(mappings, None, &required, &welcome)?;
        Ok(Self {
            memory,
            pagemap,
            taking: Mutex::new(()),
        })
    }

    /// Which descriptor it got. It makes no difference here.
    pub const fn access(&self) -> Access {
        self.memory.uffd().access
    }

    /// The host's page, in blocks of 2 MiB; where the page is larger, a block is a page.
    pub fn geometry(&self) -> PageGeometry {
        self.memory.geometry()
    }

    /// The mappings, in ascending order of guest physical address.
    pub fn mappings(&self) -> &[Mapping] {
        self.memory.mappings().all()
    }

    /// A region for each mapping, for a [`WriteTracker`](crate::WriteTracker).
    ///
    /// # Errors
    ///
    /// [`RegionError`], where a mapping has too many pages for a bitmap.
    pub fn regions(&self) -> Result<Vec<BoxedRegion>, RegionError> {
        self.memory.regions()
    }

    /// Scans one mapping; where that fails, all that is left of it counts as written.
    fn scan(
        &self,
        mapping: &Mapping,
        written: &mut dyn FnMut(Range<u64>),
    ) -> Result<(), ProtectError> {
        const NONE: page_region = page_region {
            start: 0,
            end: 0,
            categories: 0,
        };
        let mut found = [NONE; FOUND];
        let Range { mut start, end } = mapping.hosts();
        while start < end {
            let scanned = self.pagemap.scan(&(start..end), &mut found);
            let (filled, next) = scanned.map_err(|error| {
                // Some pages may be protected again, and not have been told of.
                written(mapping.to_ipa(start)..mapping.to_ipa(end));
                failed(&(start..end), error)
            })?;
            for run in &found[..filled] {
                written(mapping.to_ipa(run.start)..mapping.to_ipa(run.end));
            }
            start = next;
        }
        Ok(())
    }
}

impl WriteProtect for UffdLog {
    type Error = ProtectError;

    /// Protects nothing: [`take_log`](WriteProtect::take_log) protects what it finds, and protecting
    /// more, such as a page between two others, would make a page clean that was written since. This
    /// refuses what is in no mapping, and so in no log.
    fn protect(&self, range: Range<u64>) -> Result<(), ProtectError> {
        let mappings = self.memory.mappings();
        mappings.each_host_range(&range, |_| Ok(()))
    }

    fn unprotect(&self, range: Range<u64>) -> Result<(), ProtectError> {
        self.memory.refuse_child()?;
        self.memory.set(&range, true)
    }

    fn take_log(&self, written: &mut dyn FnMut(Range<u64>)) -> Result<(), ProtectError> {
        self.memory.refuse_child()?;
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        // All of them, even if one fails: what is written in the others is not to be lost.
        let scans = self.mappings().iter().map(|one| self.scan(one, written));
        scans.fold(Ok(()), Result::and)
    }
}
