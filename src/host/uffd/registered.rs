//! Mappings that are registered with a userfaultfd: what both forms of tracking stand on.

use core::ops::Range;

use alloc::vec::Vec;

use rustix::io::Errno;

use super::error::{OpenError, ProtectError, Unfit};
use super::mapping::{Mapping, Mappings};
use super::sys::{self, Access, Features, KernelFeature, Uffd};
use crate::{BoxedRegion, PageGeometry, RegionError};

/// A block: what one entry of a level-2 page table maps with pages of 4 KiB, on x86-64, Arm and
/// RISC-V alike.
const BLOCK: u64 = 2 << 20;

/// Registered until it is dropped.
#[derive(Debug)]
pub(super) struct Registered {
    uffd: Uffd,
    mappings: Mappings,
    /// Bytes in a page of each mapping that is registered, which are all once made: the kernel's own,
    /// or more in hugetlbfs.
    page_sizes: Vec<u64>,
    page_size: u64,
    /// The process that is tracked. A child that it forks inherits the descriptor, which keeps
    /// acting on the memory of the parent.
    process: u32,
}

impl Registered {
    pub fn new(
        mappings: impl IntoIterator<Item = Mapping>,
        access: Option<Access>,
        required: &[KernelFeature],
        welcome: &[KernelFeature],
    ) -> Result<Self, OpenError> {
        let wanted = Features::of(required).with(welcome);
        let page_size = sys::page_size();
        let mappings = Mappings::new(mappings, page_size)?;
        let uffd = match access {
            Some(access) => Uffd::open(access, wanted)?,
            None => match Uffd::open(Access::Full, wanted) {
                Err(OpenError::NoPermission { .. }) => Uffd::open(Access::UserModeOnly, wanted)?,
                opened => opened?,
            },
        };
        let missing = required.iter().find(|one| !uffd.features.has(**one));
        if let Some(&feature) = missing {
            return Err(OpenError::MissingFeature { feature });
        }
        // Without the first one, `set` needs the second.
        if !uffd.features.has(KernelFeature::Unpopulated) && sys::populate(&(0..0)).is_err() {
            let feature = KernelFeature::Populate;
            return Err(OpenError::MissingFeature { feature });
        }
        // Made first: if one mapping is unfit, its drop unregisters those before it.
        let mut this = Self {
            uffd,
            mappings,
            page_sizes: Vec::new(),
            page_size,
            process: std::process::id(),
        };
        while let Some(mapping) = this.mappings.all().get(this.page_sizes.len()) {
            let registered = this.uffd.register(&mapping.hosts());
            registered.map_err(|error| this.unfit(mapping, error))?;
            this.page_sizes.push(this.page_of(mapping));
        }
        Ok(this)
    }

    /// Bytes in a page of `mapping`, which was just registered and so is open all over: hugetlbfs alone
    /// refuses to open a part of a page.
    fn page_of(&self, mapping: &Mapping) -> u64 {
        let Range { start, end } = mapping.hosts();
        let mut page = self.page_size;
        while page < end - start && self.uffd.set(&(start..start + page), true) == Err(Errno::INVAL)
        {
            page *= 2;
        }
        page
    }

    fn unfit(&self, mapping: &Mapping, error: Errno) -> OpenError {
        let shared = KernelFeature::SharedMemory;
        let why = match error {
            Errno::BUSY => Unfit::Taken,
            Errno::PERM => Unfit::ReadOnly,
            // Without the feature shared memory is refused as a file is.
            Errno::INVAL if !self.has(shared) => {
                return OpenError::MissingFeature { feature: shared };
            }
            Errno::INVAL => Unfit::NotMemory,
            error => return OpenError::call("UFFDIO_REGISTER", error),
        };
        let (ipas, hosts) = (mapping.ipas(), mapping.hosts());
        OpenError::Mapping {
            ipa: ipas.start,
            host: hosts.start,
            len: ipas.end - ipas.start,
            why,
        }
    }

    pub const fn uffd(&self) -> &Uffd {
        &self.uffd
    }

    pub const fn mappings(&self) -> &Mappings {
        &self.mappings
    }

    /// The guest physical addresses of the page around `ipa`.
    pub fn page_around(&self, ipa: u64) -> Range<u64> {
        let mut mappings = self.mappings.all().iter().zip(&self.page_sizes);
        let mapping = mappings.find(|(mapping, _)| mapping.ipas().contains(&ipa));
        // A mapping begins with a page.
        let (base, page) = mapping.map_or((0, self.page_size), |(mapping, page)| {
            (mapping.ipas().start, *page)
        });
        let start = ipa - (ipa - base) % page;
        start..start + page
    }

    /// See [`UffdProtection::geometry`](super::UffdProtection::geometry).
    pub fn geometry(&self) -> PageGeometry {
        let largest = self.page_sizes.iter().copied().max();
        geometry_of(largest.unwrap_or(self.page_size))
    }

    /// A region for each mapping.
    pub fn regions(&self) -> Result<Vec<BoxedRegion>, RegionError> {
        let region = |(mapping, page): (&Mapping, &u64)| {
            let Range { start, end } = mapping.ipas();
            BoxedRegion::boxed(start, end - start, geometry_of(*page))
        };
        let mappings = self.mappings.all().iter();
        mappings.zip(&self.page_sizes).map(region).collect()
    }

    pub const fn has(&self, feature: KernelFeature) -> bool {
        self.uffd.features.has(feature)
    }

    /// Whether this is still the process that is tracked, and not a child of it.
    pub fn is_ours(&self) -> bool {
        std::process::id() == self.process
    }

    /// Refuses in a child: what it did would be done to the parent's memory.
    pub fn refuse_child(&self) -> Result<(), ProtectError> {
        if self.is_ours() {
            return Ok(());
        }
        Err(ProtectError::Forked {
            tracked: self.process,
        })
    }

    /// Protects the guest physical addresses `ipas`, or opens them and wakes who waits there.
    ///
    /// To be [refused in a child](Self::refuse_child) before.
    pub fn set(&self, ipas: &Range<u64>, writable: bool) -> Result<(), ProtectError> {
        if ipas.is_empty() {
            return Ok(());
        }
        self.mappings.each_host_range(ipas, |hosts| {
            // Else the kernel would protect the pages that are there, and skip those that are not:
            // their first write would go unseen.
            if !writable && !self.has(KernelFeature::Unpopulated) {
                sys::populate(&hosts).map_err(|error| failed(&hosts, error))?;
            }
            let set = self.uffd.set(&hosts, writable);
            set.map_err(|error| failed(&hosts, error))
        })
    }
}

fn geometry_of(page: u64) -> PageGeometry {
    // Both are powers of two.
    PageGeometry::new(page, BLOCK.max(page)).unwrap_or(PageGeometry::X86_64)
}

/// What a failed call on `hosts` means.
pub(super) fn failed(hosts: &Range<u64>, error: Errno) -> ProtectError {
    let Range { start, end } = *hosts;
    match error {
        // NOENT and NOMEM: not registered, or nothing there. PERM: the same, of the scan.
        Errno::NOENT | Errno::NOMEM | Errno::PERM => ProtectError::Gone { start, end },
        // The kernel's own pages are whole, see `Mappings::new`.
        Errno::INVAL => ProtectError::PartOfHugePage { start, end },
        error => ProtectError::Call {
            start,
            end,
            errno: error.raw_os_error(),
        },
    }
}

impl Drop for Registered {
    /// Explicitly, as a child may keep the descriptor open: then its close here would leave the
    /// memory protected, with nobody to open it.
    fn drop(&mut self) {
        if self.is_ours() {
            // Those alone: before Linux 6.17 anyone's memory can be unregistered.
            for mapping in self.mappings.all().iter().take(self.page_sizes.len()) {
                // An error says that it is gone.
                let _ = self.uffd.unregister(&mapping.hosts());
            }
        }
    }
}
