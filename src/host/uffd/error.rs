//! What can go wrong, with what to do about it.

use core::fmt;

use rustix::io::Errno;

use super::{Access, KernelFeature};

/// Why memory cannot be tracked. Nothing is protected then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum OpenError {
    /// This kernel was built without userfaultfd (`CONFIG_USERFAULTFD`).
    NotInKernel,
    /// This user may not have a userfaultfd of this kind.
    NoPermission {
        /// The kind.
        access: Access,
    },
    /// The kernel is too old for it, was configured without it, or it does not exist on this
    /// architecture.
    MissingFeature {
        /// What it lacks.
        feature: KernelFeature,
    },
    /// `/proc/self/pagemap` cannot be opened.
    NoPagemap {
        /// The number of the error.
        errno: i32,
    },
    /// There is no mapping to track.
    NoMapping,
    /// A mapping that cannot be tracked.
    Mapping {
        /// Its guest physical address.
        ipa: u64,
        /// Its address in this process.
        host: u64,
        /// Its length, in bytes.
        len: u64,
        /// Why.
        why: Unfit,
    },
    /// A system call failed in a way that is not expected of it.
    Call {
        /// The call.
        call: &'static str,
        /// The number of the error.
        errno: i32,
    },
}

/// What makes a mapping unfit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Unfit {
    /// It has no bytes.
    Empty,
    /// An address or the length is no multiple of the page.
    Unaligned {
        /// Bytes in a page.
        page_size: u64,
    },
    /// It ends past the address space.
    Overflow,
    /// It overlaps another one, in the guest or in this process.
    Overlap,
    /// Nothing is mapped there, or a file is, or it begins or ends within a page of hugetlbfs.
    NotMemory,
    /// Another userfaultfd has it.
    Taken,
    /// It is shared memory that was opened for reading only.
    ReadOnly,
}

impl OpenError {
    pub(super) const fn call(call: &'static str, error: Errno) -> Self {
        Self::Call {
            call,
            errno: error.raw_os_error(),
        }
    }
}

/// The text of an error's number.
struct Os(i32);

impl fmt::Display for Os {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInKernel => f.write_str(
                "this kernel has no userfaultfd: boot one that is built with CONFIG_USERFAULTFD",
            ),
            Self::NoPermission {
                access: Access::Full,
            } => f.write_str(
                "no permission for a userfaultfd that sees the kernel's own writes, which KVM needs: \
                 run with CAP_SYS_PTRACE, or allow this user to open /dev/userfaultfd, or set \
                 vm.unprivileged_userfaultfd to 1; without KVM, Access::UserModeOnly needs none of it",
            ),
            Self::NoPermission {
                access: Access::UserModeOnly,
            } => f.write_str(
                "not even a userfaultfd for this program's own stores is permitted: \
                 a seccomp filter, such as a container's, must let the call userfaultfd through",
            ),
            Self::MissingFeature { feature } => {
                write!(f, "this kernel has no {feature}: use a newer one")
            }
            Self::NoPagemap { errno } => write!(
                f,
                "/proc/self/pagemap: {}; mount /proc, and make a process that changed its user \
                 dumpable again, or open this before it changes",
                Os(*errno)
            ),
            Self::NoMapping => f.write_str("no mapping was given"),
            Self::Mapping {
                ipa,
                host,
                len,
                why,
            } => write!(
                f,
                "the mapping of {len:#x} bytes at {host:#x} (guest {ipa:#x}) {why}"
            ),
            Self::Call { call, errno } => write!(f, "{call} failed: {}", Os(*errno)),
        }
    }
}

impl core::error::Error for OpenError {}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("is empty"),
            Self::Unaligned { page_size } => {
                write!(f, "is not aligned to the page of {page_size} bytes")
            }
            Self::Overflow => f.write_str("ends past the address space"),
            Self::Overlap => f.write_str("overlaps another one"),
            Self::NotMemory => f.write_str(
                "is not mapped as a whole, or is mapped from a file, or begins or ends within a huge page: \
                 only anonymous memory, shared memory (memfd, tmpfs) and whole pages of hugetlbfs can be \
                 protected",
            ),
            Self::Taken => f.write_str(
                "is registered with another userfaultfd: unregister it there, or drop its tracker",
            ),
            Self::ReadOnly => {
                f.write_str("is shared memory that was opened for reading: open it for writing")
            }
        }
    }
}

/// Why a permission was not changed, or what was written not found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ProtectError {
    /// Part of the range is in none of the mappings.
    NoMapping {
        /// Its first guest physical address.
        start: u64,
        /// The guest physical address after its last.
        end: u64,
    },
    /// Nobody serves the faults, so that a store to a protected page would wait for ever.
    NoHandler,
    /// This is a child process. Its memory is a copy, and is not tracked.
    Forked {
        /// The process that is tracked.
        tracked: u32,
    },
    /// The memory is gone: unmapped, moved, or mapped anew since.
    Gone {
        /// Its first address in this process.
        start: u64,
        /// The address after its last.
        end: u64,
    },
    /// Part of a page of hugetlbfs was to be protected or opened.
    PartOfHugePage {
        /// The first address in this process of that part.
        start: u64,
        /// The address after its last.
        end: u64,
    },
    /// A system call failed in a way that is not expected of it.
    Call {
        /// First address in this process of what it was for.
        start: u64,
        /// The address after the last.
        end: u64,
        /// The number of the error.
        errno: i32,
    },
}

impl fmt::Display for ProtectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMapping { start, end } => write!(
                f,
                "no mapping was given for all of guest {start:#x}..{end:#x}"
            ),
            Self::NoHandler => f.write_str(
                "no thread serves the write faults: spawn a UffdHandler before the memory is armed, \
                 and keep it until it is disarmed",
            ),
            Self::Forked { tracked } => write!(
                f,
                "this process is a fork of process {tracked}, whose memory is tracked: \
                 harvest there"
            ),
            Self::Gone { start, end } => write!(
                f,
                "{start:#x}..{end:#x} of this process is not what was registered: it was unmapped, \
                 moved or mapped anew; make a new tracker over the mappings that there are"
            ),
            Self::PartOfHugePage { start, end } => write!(
                f,
                "{start:#x}..{end:#x} of this process is a part of a huge page, which can be protected \
                 as a whole alone: take the regions that the protection makes itself, or give them its \
                 geometry"
            ),
            Self::Call { start, end, errno } => {
                write!(f, "{start:#x}..{end:#x} of this process: {}", Os(*errno))
            }
        }
    }
}

impl core::error::Error for ProtectError {}
