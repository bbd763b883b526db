//! [`DirtyRing`]: KVM's list of written pages of each vCPU.

use core::fmt;
use core::ops::{Deref, Range};
use core::ptr::{self, NonNull};

use alloc::vec::Vec;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kvm_bindings::{KVM_DIRTY_LOG_PAGE_OFFSET, kvm_dirty_gfn, kvm_enable_cap};
use kvm_ioctls::{VcpuFd, VmFd};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use super::error::{KvmError, SetUpError};
use super::offers::Offers;
use super::slots::{Slot, Slots};
use super::sys;
use crate::WriteProtect;
use crate::sync::{
    AtomicU32,
    Ordering::{Acquire, Release},
};

/// `KVM_DIRTY_GFN_F_DIRTY` of `<linux/kvm.h>`: the kernel wrote this entry.
const DIRTY: u32 = 1;
/// `KVM_DIRTY_GFN_F_RESET`: it was taken, and may be used again once its page is protected.
const RESET: u32 = 2;

/// How often a reset is made that is cut short: what cuts it short is over when the call returns.
const RESETS: usize = 16;

/// KVM's dirty ring, for a [`WriteTracker`](crate::WriteTracker) over it: its harvest empties the
/// rings of all vCPUs, at a cost that follows what was written.
///
/// `V` is a reference to the VM, or an `Arc` of it.
///
/// # A ring that is full
///
/// `KVM_RUN` then returns at once with `VcpuExit::Unsupported(KVM_EXIT_DIRTY_RING_FULL)`, until
/// somebody has made room: the vCPU's thread calls
/// [`WriteTracker::collect_log`](crate::WriteTracker::collect_log) and enters again. It may do so
/// while a harvest is open.
///
/// # What interrupts
///
/// Recent kernels stop in the middle of `KVM_RESET_DIRTY_RINGS` where a signal waits, and leave pages
/// unprotected that they have counted. So signals are blocked around it, on the thread that takes the
/// log. Some cannot be: `SIGSTOP`, a debugger, a cgroup or a system that is frozen, a live patch, and the
/// task work of an io_uring that this thread submits to. A reset that they cut short is made again, and
/// its pages are reported at each harvest from then on; one that they meet at its very end looks like
/// any other. **Let a thread take the log that uses no io_uring, and do not freeze it meanwhile.**
pub struct DirtyRing<V> {
    vm: V,
    entries: u32,
    page_size: u64,
    /// The process whose VM it is. A child that it forks shares the rings, but may not reset them.
    process: u32,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    slots: Slots,
    rings: Vec<Ring>,
    /// Taken out of the rings, and perhaps not protected again yet.
    pending: Vec<Range<u64>>,
    /// Entries that were taken out, and that no reset has counted yet.
    owed: u64,
    /// What a reset that was cut short may have left unprotected, for good: written at any time.
    open: Vec<Range<u64>>,
}

impl<V: Deref<Target = VmFd>> DirtyRing<V> {
    /// Asks for rings of `entries` entries, before the VM has a vCPU. Then comes
    /// [`add_vcpu`](Self::add_vcpu) for each vCPU, and [`add_slot`](Self::add_slot) for each slot.
    ///
    /// Let nobody else call `KVM_RESET_DIRTY_RINGS`: what it resets is missing here.
    ///
    /// A ring that is as large as the guest writes pages between two harvests is never full.
    ///
    /// # Errors
    ///
    /// [`SetUpError::NoRing`], [`SetUpError::RingEntries`] where the number is no power of two or out
    /// of bounds, [`SetUpError::TooLate`].
    pub fn new(vm: V, entries: u32) -> Result<Self, SetUpError> {
        const ENTRY: u32 = size_of::<kvm_dirty_gfn>() as u32;
        let page_size = sys::page_size();
        let offers = Offers::of(&vm);
        let (least, most) = ((page_size as u32) / ENTRY, offers.ring_entries);
        if most == 0 {
            return Err(SetUpError::NoRing);
        }
        if !entries.is_power_of_two() || !(least..=most).contains(&entries) {
            return Err(SetUpError::RingEntries {
                entries,
                least,
                most,
            });
        }
        let mut capability = kvm_enable_cap {
            cap: offers.ring_capability,
            ..Default::default()
        };
        capability.args[0] = u64::from(entries * ENTRY);
        vm.enable_cap(&capability).map_err(|error| {
            match Errno::from_raw_os_error(error.errno()) {
                Errno::INVAL | Errno::BUSY => SetUpError::TooLate,
                error => SetUpError::call("KVM_ENABLE_CAP", error),
            }
        })?;
        Ok(Self {
            vm,
            entries,
            page_size,
            process: std::process::id(),
            inner: Mutex::default(),
        })
    }

    /// Takes the ring of a vCPU in: once, since each entry is taken by one only.
    ///
    /// # Errors
    ///
    /// [`SetUpError::Vcpu`].
    pub fn add_vcpu(&self, vcpu: &VcpuFd) -> Result<(), SetUpError> {
        let ring = Ring::map(vcpu, self.entries, self.page_size);
        let ring = ring.map_err(|error| SetUpError::Vcpu {
            errno: error.raw_os_error(),
        })?;
        self.inner().rings.push(ring);
        Ok(())
    }

    /// Takes a memory slot in, before the guest runs.
    ///
    /// # Errors
    ///
    /// [`SetUpError::Slot`].
    pub fn add_slot(&self, slot: Slot) -> Result<(), SetUpError> {
        self.inner().slots.add(slot, self.page_size)
    }

    /// Entries in each ring.
    pub const fn entries(&self) -> u32 {
        self.entries
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // What a thread that panicked has taken out is in `pending`.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Moves what is in the rings to `pending`; the first slot that is not known is an error.
    fn empty_rings(&mut self, page_size: u64) -> Result<(), KvmError> {
        let mut outcome = Ok(());
        for ring in &mut self.rings {
            while let Some((number, page)) = ring.take() {
                self.owed += 1;
                let slot = self.slots.find(number);
                let Some(slot) = slot.filter(|slot| page < slot.pages(page_size)) else {
                    if outcome.is_ok() {
                        // It is out of the ring now: whichever page it is, it must be told of.
                        self.pending.push(0..u64::MAX);
                        outcome = Err(KvmError::UnknownSlot { slot: number });
                    }
                    continue;
                };
                let start = slot.ipa + page * page_size;
                match self.pending.last_mut() {
                    Some(last) if last.end == start => last.end += page_size,
                    _ => self.pending.push(start..start + page_size),
                }
            }
        }
        outcome
    }

    /// Has KVM protect all that was taken out of the rings.
    fn reset(&mut self, vm: &VmFd) -> Result<(), Errno> {
        for _ in 0..RESETS {
            let reset = sys::reset_dirty_rings(vm)?;
            self.owed = self.owed.saturating_sub(reset);
            if self.owed == 0 {
                return Ok(());
            }
            self.keep_open();
        }
        Err(Errno::INTR)
    }

    /// Nobody can tell which of the pending pages were left out.
    fn keep_open(&mut self) {
        self.open.extend(self.pending.iter().cloned());
        self.open.sort_unstable_by_key(|range| range.start);
        self.open.dedup_by(|next, last| {
            let joined = next.start <= last.end;
            if joined {
                last.end = last.end.max(next.end);
            }
            joined
        });
    }
}

impl<V: Deref<Target = VmFd>> WriteProtect for DirtyRing<V> {
    type Error = KvmError;

    /// Taking the log protects. This refuses what is in no slot, and so in no log.
    fn protect(&self, range: Range<u64>) -> Result<(), KvmError> {
        self.inner().slots.cover(range)
    }

    /// Nothing to do: KVM opens each page as it logs it.
    fn unprotect(&self, _: Range<u64>) -> Result<(), KvmError> {
        Ok(())
    }

    /// All of them: to protect is nothing but to look whether the log covers it.
    fn bridge(&self) -> usize {
        usize::MAX
    }

    fn take_log(&self, written: &mut dyn FnMut(&[Range<u64>])) -> Result<(), KvmError> {
        // Before anything is taken: the rings are the parent's too.
        if std::process::id() != self.process {
            return Err(KvmError::Forked);
        }
        let mut inner = self.inner();
        let taken = inner.empty_rings(self.page_size);
        // Protected again first: see `WriteProtect::take_log`.
        let reset = inner.reset(&self.vm);
        written(&inner.open);
        written(&inner.pending);
        match reset {
            Ok(()) => inner.pending.clear(),
            // Their pages can still be written unseen: they are told of again next time.
            Err(error) => {
                return Err(KvmError::Call {
                    call: "KVM_RESET_DIRTY_RINGS",
                    errno: error.raw_os_error(),
                });
            }
        }
        taken
    }
}

impl<V> fmt::Debug for DirtyRing<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirtyRing")
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

/// The ring of one vCPU, which the kernel fills and this process empties.
#[derive(Debug)]
struct Ring {
    start: NonNull<kvm_dirty_gfn>,
    entries: u32,
    /// Entries taken so far; it wraps.
    taken: u32,
    /// Who has it mapped: a child of fork has not.
    process: u32,
}

// SAFETY: a mapping of its own, and the entries are reached by whoever has `&mut` of it.
unsafe impl Send for Ring {}

impl Ring {
    fn map(vcpu: &VcpuFd, entries: u32, page_size: u64) -> Result<Self, Errno> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        let offset = u64::from(KVM_DIRTY_LOG_PAGE_OFFSET) * page_size;
        let len = Self::bytes(entries);
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe {
            mmap(
                ptr::null_mut(),
                len,
                rights,
                MapFlags::SHARED,
                sys::fd(vcpu),
                offset,
            )
        }?;
        let this = Self {
            start: NonNull::new(start.cast()).ok_or(Errno::NOMEM)?,
            entries,
            taken: 0,
            process: std::process::id(),
        };
        // Shared, so that a child's stores to it would be the parent's.
        // SAFETY: our own mapping; a child has nothing there, and `drop` knows.
        unsafe { madvise(start, len, Advice::LinuxDontFork) }?;
        // A vCPU without a ring, or with a smaller one, can be mapped all the same, and its entries
        // raise SIGBUS. Before Linux 5.14 nobody can tell.
        // SAFETY: it reads our own mapping.
        match unsafe { madvise(start, len, Advice::LinuxPopulateRead) } {
            Err(Errno::FAULT) => Err(Errno::FAULT),
            _ => Ok(this),
        }
    }

    const fn bytes(entries: u32) -> usize {
        entries as usize * size_of::<kvm_dirty_gfn>()
    }

    /// The oldest entry: the slot's number, and the page in it.
    fn take(&mut self) -> Option<(u32, u64)> {
        let at = (self.taken & (self.entries - 1)) as usize;
        // SAFETY: one of the entries of the mapping, whose number is a power of two.
        let entry = unsafe { self.start.add(at) }.as_ptr();
        // SAFETY: an aligned field of the entry. Both the kernel and we reach it by atomics only.
        let flags = unsafe { AtomicU32::from_ptr(&raw mut (*entry).flags) };
        // Acquire: the kernel wrote the entry before its flag.
        if flags.load(Acquire) & (DIRTY | RESET) != DIRTY {
            return None;
        }
        // SAFETY: while the flag says so the entry is ours to read.
        let found = unsafe {
            (
                ptr::read(&raw const (*entry).slot),
                ptr::read(&raw const (*entry).offset),
            )
        };
        // Release: read before the kernel may write it anew.
        flags.store(RESET, Release);
        self.taken = self.taken.wrapping_add(1);
        Some(found)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // A child may have something else there.
        if std::process::id() != self.process {
            return;
        }
        // SAFETY: our own mapping, and the last use of it.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), Self::bytes(self.entries)) };
        debug_assert!(unmapped.is_ok(), "it is mapped");
    }
}
