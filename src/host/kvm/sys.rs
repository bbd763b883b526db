//! The ioctls that kvm-ioctls does not have, or has with an allocation each time.

use core::ffi::c_void;
use core::ptr;

use kvm_bindings::{KVMIO, kvm_clear_dirty_log, kvm_dirty_log};
use kvm_ioctls::VmFd;
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Setter, ioctl, opcode};
use std::os::fd::AsRawFd;

use super::buffer::Bits;

const GET: Opcode = opcode::write::<kvm_dirty_log>(KVMIO as u8, 0x42);
const CLEAR: Opcode = opcode::read_write::<kvm_clear_dirty_log>(KVMIO as u8, 0xc0);
const RESET_RINGS: Opcode = opcode::none(KVMIO as u8, 0xc7);

/// Bytes in a page of this kernel, which is the page of KVM's logs.
pub(super) fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

pub(super) fn fd<T: AsRawFd>(of: &T) -> BorrowedFd<'_> {
    // SAFETY: it is open for as long as its owner is there, which is borrowed.
    unsafe { BorrowedFd::borrow_raw(of.as_raw_fd()) }
}

/// The log of `slot` into `bits`. Without manual protection this empties it.
pub(super) fn get_dirty_log(vm: &VmFd, slot: u32, bits: &mut Bits) -> Result<(), Errno> {
    let mut log = kvm_dirty_log {
        slot,
        ..Default::default()
    };
    log.__bindgen_anon_1.dirty_bitmap = bits.as_mut_ptr().cast();
    // SAFETY: the opcode takes this structure. The kernel writes a bit for each page of the slot;
    // should the slot be larger than `bits`, the guard behind them stops it.
    unsafe { ioctl(fd(vm), Setter::<GET, _>::new(log)) }
}

/// Empties the log of `slot` of those of its pages, from the first one of word `first` on, whose bit
/// is set in `bits`, and protects them again.
pub(super) fn clear_dirty_log(
    vm: &VmFd,
    slot: u32,
    first: usize,
    pages: usize,
    bits: &[u64],
) -> Result<(), Errno> {
    debug_assert!(bits.len() == pages.div_ceil(64));
    let mut clear = kvm_clear_dirty_log {
        slot,
        // A slot has fewer than 2^31 pages.
        num_pages: pages as u32,
        first_page: first as u64 * 64,
        ..Default::default()
    };
    clear.__bindgen_anon_1.dirty_bitmap = bits.as_ptr().cast_mut().cast();
    // SAFETY: the opcode takes this structure; the kernel reads a bit for each of the pages, and
    // writes nothing to this process.
    unsafe { ioctl(fd(vm), Setter::<CLEAR, _>::new(clear)) }
}

/// Protects again what was taken out of the VM's rings, and makes room in them: how many entries.
///
/// Where a signal waits, recent kernels stop early, and say how far they came. Of the entries that
/// they count then, the last few may never be protected. So no signal comes meanwhile.
pub(super) fn reset_dirty_rings(vm: &VmFd) -> Result<u64, Errno> {
    let _blocked = SignalsBlocked::new()?;
    // SAFETY: see `ResetRings`.
    unsafe { ioctl(fd(vm), ResetRings) }
}

/// `KVM_RESET_DIRTY_RINGS`: nothing in, the number of entries out.
struct ResetRings;

// SAFETY: the opcode takes nothing, and changes no memory of this process but the flags of ring
// entries that were given back.
unsafe impl Ioctl for ResetRings {
    type Output = u64;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        RESET_RINGS
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::null_mut()
    }

    unsafe fn output_from_ptr(entries: IoctlOutput, _: *mut c_void) -> rustix::io::Result<u64> {
        Ok(u64::try_from(entries).unwrap_or(0))
    }
}

/// Signals wait, those to this thread, until it is dropped.
struct SignalsBlocked {
    before: u64,
}

impl SignalsBlocked {
    fn new() -> Result<Self, Errno> {
        let before = set_signal_mask(u64::MAX)?;
        Ok(Self { before })
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        let restored = set_signal_mask(self.before);
        debug_assert!(restored.is_ok(), "it was set the same way");
    }
}

/// Sets which signals this thread blocks; returns those that it did.
///
/// The call itself: `pthread_sigmask` leaves out the two that glibc has for itself, and either would
/// interrupt as any other does.
fn set_signal_mask(mask: u64) -> Result<u64, Errno> {
    let mut before = 0_u64;
    // SAFETY: both are as large as is said; it changes what this thread blocks, and nothing else.
    let failed = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            &raw mut before,
            size_of::<u64>(),
        )
    };
    if failed == 0 {
        return Ok(before);
    }
    // SAFETY: this thread's own.
    Err(Errno::from_raw_os_error(unsafe {
        *libc::__errno_location()
    }))
}
