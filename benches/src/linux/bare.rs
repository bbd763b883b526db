//! userfaultfd and `PAGEMAP_SCAN`, as somebody calls them who wants nothing else.

use std::ffi::c_void;
use std::ops::Range;

use linux_raw_sys::general::{
    _UFFDIO_API, _UFFDIO_REGISTER, _UFFDIO_WRITEPROTECT, PAGE_IS_WRITTEN, PM_SCAN_CHECK_WPASYNC,
    PM_SCAN_WP_MATCHING, UFFD_API, UFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFD_USER_MODE_ONLY, UFFDIO,
    UFFDIO_REGISTER_MODE_WP, page_region, pm_scan_arg, uffd_msg, uffdio_api, uffdio_range,
    uffdio_register, uffdio_writeprotect,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Updater, ioctl, opcode};
use rustix::mm::{UserfaultfdFlags, userfaultfd};

use super::Memory;

const API: Opcode = opcode::read_write::<uffdio_api>(UFFDIO as u8, _UFFDIO_API as u8);
const REGISTER: Opcode =
    opcode::read_write::<uffdio_register>(UFFDIO as u8, _UFFDIO_REGISTER as u8);
const WRITEPROTECT: Opcode =
    opcode::read_write::<uffdio_writeprotect>(UFFDIO as u8, _UFFDIO_WRITEPROTECT as u8);
const PAGEMAP_SCAN: Opcode = opcode::read_write::<pm_scan_arg>(b'f', 16);

/// A memory whose writes wait for a handler. Dropped, it is open.
pub struct Uffd(OwnedFd);

impl Uffd {
    pub fn new(memory: &Memory) -> Result<Self> {
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
        let own_stores = UserfaultfdFlags::from_bits_retain(UFFD_USER_MODE_ONLY);
        // SAFETY: it registers memory of the bench only, which waits for the bench's own handlers.
        let fd = unsafe { userfaultfd(flags).or_else(|_| userfaultfd(flags | own_stores)) }?;
        let mut api = uffdio_api {
            api: u64::from(UFFD_API),
            features: u64::from(UFFD_FEATURE_PAGEFAULT_FLAG_WP),
            ioctls: 0,
        };
        // SAFETY: the opcode takes this structure.
        unsafe { ioctl(&fd, Updater::<API, _>::new(&mut api)) }?;
        let mut register = uffdio_register {
            range: range_of(&memory.addresses()),
            mode: u64::from(UFFDIO_REGISTER_MODE_WP),
            ioctls: 0,
        };
        // SAFETY: the opcode takes this structure.
        unsafe { ioctl(&fd, Updater::<REGISTER, _>::new(&mut register)) }?;
        Ok(Self(fd))
    }

    pub fn protect(&self, range: &Range<u64>) {
        self.set(range, 1);
    }

    /// Who waits goes on.
    pub fn open(&self, range: &Range<u64>) {
        self.set(range, 0);
    }

    fn set(&self, range: &Range<u64>, mode: u64) {
        let range = range_of(range);
        let mut arg = uffdio_writeprotect { range, mode };
        // SAFETY: the opcode takes this structure, and changes no byte of memory.
        let set = unsafe { ioctl(&self.0, Updater::<WRITEPROTECT, _>::new(&mut arg)) };
        set.expect("the range is registered");
    }

    /// Sleeps until there is a fault, or for 20 ms.
    pub fn wait(&self) {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let longest = Timespec {
            tv_sec: 0,
            tv_nsec: 20_000_000,
        };
        let _ = poll(&mut fds, Some(&longest));
    }

    /// The addresses of up to `N` writes that wait.
    pub fn faults<const N: usize>(&self, each: impl FnMut(u64)) {
        const SIZE: usize = size_of::<uffd_msg>();
        const { assert!(SIZE == 32) };
        let mut messages = [[0_u8; SIZE]; N];
        let read = match rustix::io::read(&self.0, messages.as_flattened_mut()) {
            Ok(read) => read,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(error) => panic!("read of faults: {error}"),
        };
        // After 16 bytes of what kind of fault it is.
        let address = |message: &[u8; SIZE]| bytemuck::pod_read_unaligned(&message[16..24]);
        messages[..read / SIZE].iter().map(address).for_each(each);
    }
}

fn range_of(range: &Range<u64>) -> uffdio_range {
    uffdio_range {
        start: range.start,
        len: range.end - range.start,
    }
}

/// The log of memory that somebody has registered for the asynchronous form.
pub struct Pagemap(OwnedFd);

impl Pagemap {
    pub fn open() -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open("/proc/self/pagemap", flags, Mode::empty()).map(Self)
    }

    /// The written runs of `range`, protected again in the same step.
    pub fn scan(&self, range: Range<u64>, mut each: impl FnMut(Range<u64>)) {
        let none = || page_region {
            start: 0,
            end: 0,
            categories: 0,
        };
        let mut found: [page_region; 512] = std::array::from_fn(|_| none());
        let mut start = range.start;
        while start < range.end {
            let written = u64::from(PAGE_IS_WRITTEN);
            let arg = pm_scan_arg {
                size: size_of::<pm_scan_arg>() as u64,
                flags: u64::from(PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC),
                start,
                end: range.end,
                walk_end: 0,
                vec: found.as_mut_ptr().expose_provenance() as u64,
                vec_len: found.len() as u64,
                max_pages: 0,
                category_inverted: 0,
                category_mask: written,
                category_anyof_mask: 0,
                return_mask: written,
            };
            // SAFETY: the kernel fills no more of `found` than there is.
            let scanned = unsafe { ioctl(&self.0, Scan(arg)) };
            let (filled, next) = scanned.expect("the range is registered");
            found[..filled]
                .iter()
                .for_each(|run| each(run.start..run.end));
            start = next;
        }
    }
}

struct Scan(pm_scan_arg);

// SAFETY: the opcode takes a `pm_scan_arg`, whose `walk_end` the kernel writes.
unsafe impl Ioctl for Scan {
    /// Regions filled, and where it stopped.
    type Output = (usize, u64);

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        PAGEMAP_SCAN
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut self.0).cast()
    }

    unsafe fn output_from_ptr(filled: IoctlOutput, arg: *mut c_void) -> Result<(usize, u64)> {
        // SAFETY: the pointer that `as_ptr` gave.
        let arg = unsafe { &*arg.cast::<pm_scan_arg>() };
        Ok((filled as usize, arg.walk_end))
    }
}
