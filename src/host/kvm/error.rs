//! What can go wrong, with what to do about it.

use core::fmt;

use rustix::io::Errno;

/// Why KVM's log cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SetUpError {
    /// This KVM has no dirty ring.
    NoRing,
    /// A ring of this many entries cannot be.
    RingEntries {
        /// Entries asked for.
        entries: u32,
        /// The fewest: a page of them.
        least: u32,
        /// The most that this KVM offers.
        most: u32,
    },
    /// The ring was asked for too late, or twice.
    TooLate,
    /// This vCPU has no ring of this size.
    Vcpu {
        /// The number of the error.
        errno: i32,
    },
    /// A memory slot that cannot be tracked.
    Slot {
        /// Its number.
        slot: u32,
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

/// What makes a memory slot unfit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Unfit {
    /// It has no bytes.
    Empty,
    /// Its address or its size is no multiple of the page.
    Unaligned {
        /// Bytes in a page.
        page_size: u64,
    },
    /// It ends past the address space.
    Overflow,
    /// It is there twice.
    Twice,
}

impl SetUpError {
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

impl fmt::Display for SetUpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRing => {
                f.write_str("this KVM has no dirty ring (Linux 5.11, x86-64 or arm64): use the log")
            }
            Self::RingEntries {
                entries,
                least,
                most,
            } => write!(
                f,
                "a ring of {entries} entries cannot be: take a power of two from {least} to {most}"
            ),
            Self::TooLate => {
                f.write_str("the ring can be had once, before the VM's first vCPU is created")
            }
            Self::Vcpu { errno } => write!(
                f,
                "this vCPU's ring cannot be mapped: {}; is it a vCPU of the VM of this ring?",
                Os(*errno)
            ),
            Self::Slot { slot, why } => write!(f, "memory slot {slot:#x} {why}"),
            Self::Call { call, errno } => write!(f, "{call} failed: {}", Os(*errno)),
        }
    }
}

impl core::error::Error for SetUpError {}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("is empty"),
            Self::Unaligned { page_size } => {
                write!(f, "is not aligned to the page of {page_size} bytes")
            }
            Self::Overflow => f.write_str("ends past the address space"),
            Self::Twice => f.write_str("is there twice, by its number or its addresses"),
        }
    }
}

/// Why KVM did not tell what was written. What may have left its log was told of all the same: of a
/// slot whose log may be lost every page, of an unknown slot every page that is tracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum KvmError {
    /// The slot is gone, or was set without `KVM_MEM_LOG_DIRTY_PAGES`.
    NotLogged {
        /// Its number.
        slot: u32,
    },
    /// The slot has another size than was said.
    SlotSize {
        /// Its number.
        slot: u32,
    },
    /// The VM uses dirty rings, which have no log.
    RingInUse,
    /// The VM belongs to another process: this one was forked from it.
    Forked,
    /// No slot that KVM logs was given for a part of the range: writes there would be seen by nobody.
    NoSlot {
        /// The first guest physical address of the range.
        start: u64,
        /// The guest physical address after its last.
        end: u64,
    },
    /// The guest wrote to a logged slot that nobody told of, or past the end of one.
    UnknownSlot {
        /// Its number.
        slot: u32,
    },
    /// A system call failed in a way that is not expected of it.
    Call {
        /// The call.
        call: &'static str,
        /// The number of the error.
        errno: i32,
    },
}

impl fmt::Display for KvmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLogged { slot } => write!(
                f,
                "KVM keeps no log of memory slot {slot:#x}: set it with KVM_MEM_LOG_DIRTY_PAGES"
            ),
            Self::SlotSize { slot } => write!(
                f,
                "memory slot {slot:#x} has another size than was said: make a new log for it"
            ),
            Self::RingInUse => f.write_str("this VM uses dirty rings: use DirtyRing"),
            Self::Forked => f.write_str(
                "the VM belongs to the process that this one was forked from: harvest there",
            ),
            Self::NoSlot { start, end } => write!(
                f,
                "no memory slot was given for all of guest {start:#x}..{end:#x}: give the log or the \
                 ring each slot that a region lies in"
            ),
            Self::UnknownSlot { slot } => write!(
                f,
                "the guest wrote to memory slot {slot:#x} where the ring knows of none: add it, with \
                 the size that KVM was told"
            ),
            Self::Call { call, errno } => write!(f, "{call} failed: {}", Os(*errno)),
        }
    }
}

impl core::error::Error for KvmError {}
