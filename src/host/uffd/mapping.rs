//! [`Mapping`]: guest physical addresses to the addresses of this process.

use core::ops::Range;

use alloc::vec::Vec;

use super::error::{OpenError, ProtectError, Unfit};

/// A stretch of guest memory: where the guest sees it, and where this process has it mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Mapping {
    ipa: u64,
    host: u64,
    len: u64,
}

impl Mapping {
    /// `len` bytes at guest physical address `ipa`, which are mapped at `host`: what a VMM also
    /// tells `KVM_SET_USER_MEMORY_REGION`.
    ///
    /// All three are multiples of the host's page. Nothing is read or written through `host`.
    #[must_use]
    pub fn new(ipa: u64, host: *const u8, len: usize) -> Self {
        Self {
            ipa,
            host: host.addr() as u64,
            len: len as u64,
        }
    }

    /// Memory of this process itself, without a guest: its addresses stand for the guest physical
    /// ones.
    #[must_use]
    pub fn identity(host: *const u8, len: usize) -> Self {
        Self::new(host.addr() as u64, host, len)
    }

    /// The guest physical addresses.
    #[must_use]
    pub const fn ipas(&self) -> Range<u64> {
        // One that ends past the address space is refused where it is used.
        self.ipa..self.ipa.saturating_add(self.len)
    }

    /// The addresses in this process.
    #[must_use]
    pub const fn hosts(&self) -> Range<u64> {
        self.host..self.host.saturating_add(self.len)
    }

    /// The guest physical address of `host`, which is mapped here, or the mapping's end.
    pub(super) const fn to_ipa(self, host: u64) -> u64 {
        host - self.host + self.ipa
    }

    const fn to_host(self, ipa: u64) -> u64 {
        ipa - self.ipa + self.host
    }
}

/// Mappings in ascending order of guest physical address; none overlaps another on either side.
#[derive(Debug)]
pub(super) struct Mappings(Vec<Mapping>);

impl Mappings {
    pub fn new(
        mappings: impl IntoIterator<Item = Mapping>,
        page_size: u64,
    ) -> Result<Self, OpenError> {
        let mut all: Vec<Mapping> = mappings.into_iter().collect();
        if all.is_empty() {
            return Err(OpenError::NoMapping);
        }
        for mapping in &all {
            let Mapping { ipa, host, len } = *mapping;
            let unfit = if len == 0 {
                Some(Unfit::Empty)
            } else if !(ipa | host | len).is_multiple_of(page_size) {
                Some(Unfit::Unaligned { page_size })
            } else if ipa.checked_add(len).is_none() || host.checked_add(len).is_none() {
                Some(Unfit::Overflow)
            } else {
                None
            };
            if let Some(why) = unfit {
                return Err(OpenError::Mapping {
                    ipa,
                    host,
                    len,
                    why,
                });
            }
        }
        for addresses in [Mapping::hosts, Mapping::ipas] {
            all.sort_by_key(|mapping| addresses(mapping).start);
            for pair in all.windows(2) {
                if addresses(&pair[0]).end > addresses(&pair[1]).start {
                    let Mapping { ipa, host, len } = pair[1];
                    let why = Unfit::Overlap;
                    return Err(OpenError::Mapping {
                        ipa,
                        host,
                        len,
                        why,
                    });
                }
            }
        }
        Ok(Self(all))
    }

    pub fn all(&self) -> &[Mapping] {
        &self.0
    }

    /// The guest physical address of what this process has at `host`.
    pub fn ipa_of(&self, host: u64) -> Option<u64> {
        // A VM has a handful of mappings.
        let mapping = self.0.iter().find(|one| one.hosts().contains(&host))?;
        Some(mapping.to_ipa(host))
    }

    /// Calls `each` with the addresses in this process of `ipas`, mapping by mapping.
    ///
    /// Where a part of `ipas` is in no mapping, that is the error, and nothing was called.
    pub fn each_host_range(
        &self,
        ipas: &Range<u64>,
        mut each: impl FnMut(Range<u64>) -> Result<(), ProtectError>,
    ) -> Result<(), ProtectError> {
        let touched = || {
            let after = self.0.partition_point(|one| one.ipas().end <= ipas.start);
            let rest = self.0[after..].iter();
            rest.take_while(|one| one.ipa < ipas.end)
        };
        let mut next = ipas.start;
        for mapping in touched() {
            if mapping.ipa > next {
                break;
            }
            next = mapping.ipas().end;
        }
        if next < ipas.end {
            return Err(ProtectError::NoMapping {
                start: ipas.start,
                end: ipas.end,
            });
        }
        touched().try_for_each(|mapping| {
            let first = ipas.start.max(mapping.ipa);
            let end = ipas.end.min(mapping.ipas().end);
            each(mapping.to_host(first)..mapping.to_host(end))
        })
    }
}
