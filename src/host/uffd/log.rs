//! [`UffdLog`]: the kernel settles each write fault itself, and tells afterwards.

use core::ops::Range;
use core::slice;

use alloc::vec;
use alloc::vec::Vec;
use std::sync::{Mutex, PoisonError};

use linux_raw_sys::general::page_region;

use super::error::{OpenError, ProtectError};
use super::mapping::Mapping;
use super::registered::{Registered, failed};
use super::sys::{Access, KernelFeature, Pagemap};
use crate::{BoxedRegion, PageGeometry, RegionError, WriteProtect};

/// What one scan has room for; a run of neighbours takes one. The kernel goes through 2 MiB at a time,
/// so with as many as its pages it never has to stop within.
const FOUND: usize = 512;

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
    found: Mutex<Found>,
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
            found: Mutex::new(Found::new()),
        })
    }

    /// Which descriptor it got. It makes no difference here.
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

    /// Scans one mapping; where that fails, all that is left of it counts as written.
    fn scan(
        &self,
        mapping: &Mapping,
        found: &mut Found,
        written: &mut dyn FnMut(&[Range<u64>]),
    ) -> Result<(), ProtectError> {
        let Found { hosts, ipas } = found;
        let Range { mut start, end } = mapping.hosts();
        while start < end {
            let scanned = self.pagemap.scan(&(start..end), hosts);
            let (filled, next) = scanned.map_err(|error| {
                // Some pages may be protected again, and not have been told of.
                let rest = mapping.to_ipa(start)..mapping.to_ipa(end);
                written(slice::from_ref(&rest));
                failed(&(start..end), error)
            })?;
            let to_ipas = |run: &page_region| mapping.to_ipa(run.start)..mapping.to_ipa(run.end);
            ipas.clear();
            ipas.extend(hosts[..filled].iter().map(to_ipas));
            written(ipas);
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

    fn protect_all(&self, ranges: &[Range<u64>]) -> Result<(), ProtectError> {
        let ends = (ranges.first(), ranges.last());
        if let (Some(first), Some(last)) = ends
            && self.protect(first.start..last.end).is_ok()
        {
            return Ok(());
        }
        // One of them may be in no mapping, or what lies between two.
        let mut ranges = ranges.iter();
        ranges.try_for_each(|range| self.protect(range.clone()))
    }

    fn unprotect(&self, range: Range<u64>) -> Result<(), ProtectError> {
        self.memory.refuse_child()?;
        self.memory.set(&range, true)
    }

    /// All of them: to protect is nothing but to look whether the log covers it.
    fn bridge(&self) -> usize {
        usize::MAX
    }

    fn take_log(&self, written: &mut dyn FnMut(&[Range<u64>])) -> Result<(), ProtectError> {
        self.memory.refuse_child()?;
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let mappings = self.mappings().iter();
        // All of them, even if one fails: what is written in the others is not to be lost.
        mappings
            .map(|one| self.scan(one, &mut found, written))
            .fold(Ok(()), Result::and)
    }
}

/// Room for what one scan finds: where it is in this process, and the same for the guest.
#[derive(Debug)]
struct Found {
    hosts: Vec<page_region>,
    ipas: Vec<Range<u64>>,
}

impl Found {
    fn new() -> Self {
        const NONE: page_region = page_region {
            start: 0,
            end: 0,
            categories: 0,
        };
        Self {
            hosts: vec![NONE; FOUND],
            ipas: Vec::with_capacity(FOUND),
        }
    }
}
