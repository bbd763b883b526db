//! The kernel's side: the file descriptor, its ioctls and its messages.

use core::ffi::c_void;
use core::fmt;
use core::mem::MaybeUninit;
use core::ops::Range;

use linux_raw_sys::general::{
    _UFFDIO_API, _UFFDIO_REGISTER, _UFFDIO_UNREGISTER, _UFFDIO_WAKE, _UFFDIO_WRITEPROTECT,
    PAGE_IS_WRITTEN, PM_SCAN_CHECK_WPASYNC, PM_SCAN_WP_MATCHING, UFFD_API, UFFD_EVENT_PAGEFAULT,
    UFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFD_FEATURE_WP_ASYNC, UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
    UFFD_FEATURE_WP_UNPOPULATED, UFFD_PAGEFAULT_FLAG_WP, UFFD_USER_MODE_ONLY, UFFDIO,
    UFFDIO_REGISTER_MODE_WP, page_region, pm_scan_arg, uffd_msg, uffdio_api, uffdio_range,
    uffdio_register, uffdio_writeprotect,
};
use rustix::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Updater, ioctl, opcode};
use rustix::mm::{Advice, UserfaultfdFlags, madvise};

use super::error::OpenError;

/// `UFFDIO_WRITEPROTECT_MODE_WP` of `<linux/userfaultfd.h>`: protect. Without it: open, and wake.
const MODE_PROTECT: u64 = 1;

const API: Opcode = opcode::read_write::<uffdio_api>(UFFDIO as u8, _UFFDIO_API as u8);
const REGISTER: Opcode =
    opcode::read_write::<uffdio_register>(UFFDIO as u8, _UFFDIO_REGISTER as u8);
const UNREGISTER: Opcode = opcode::read::<uffdio_range>(UFFDIO as u8, _UFFDIO_UNREGISTER as u8);
const WAKE: Opcode = opcode::read::<uffdio_range>(UFFDIO as u8, _UFFDIO_WAKE as u8);
const WRITEPROTECT: Opcode =
    opcode::read_write::<uffdio_writeprotect>(UFFDIO as u8, _UFFDIO_WRITEPROTECT as u8);
/// `USERFAULTFD_IOC_NEW` of `<linux/userfaultfd.h>`, on `/dev/userfaultfd`.
const NEW: Opcode = opcode::none(UFFDIO as u8, 0);
/// `PAGEMAP_SCAN` of `<linux/fs.h>`, on `/proc/self/pagemap`.
const PAGEMAP_SCAN: Opcode = opcode::read_write::<pm_scan_arg>(b'f', 16);

/// Whose writes may wait for a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Access {
    /// Everyone's: a vCPU's under KVM, and those of system calls, such as `read` into guest memory.
    Full,
    /// Only this program's own stores (`UFFD_USER_MODE_ONLY`). On a protected page a system call
    /// fails with `EFAULT`, and so does `KVM_RUN`. What an ordinary user gets, unless
    /// `vm.unprivileged_userfaultfd` is 1 or `/dev/userfaultfd` is open to that user.
    UserModeOnly,
}

/// What a kernel may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum KernelFeature {
    /// Write protection of anonymous memory: Linux 5.7 on x86-64, 6.10 on arm64.
    WriteProtection,
    /// The same of shared memory (memfd, tmpfs) and hugetlbfs: Linux 5.19.
    SharedMemory,
    /// Protection of pages that were never touched: Linux 6.4.
    Unpopulated,
    /// Write faults that the kernel settles itself: Linux 6.7.
    Async,
    /// `PAGEMAP_SCAN`: Linux 6.7.
    PagemapScan,
    /// `MADV_POPULATE_READ`, in place of [`Unpopulated`](Self::Unpopulated): Linux 5.14.
    Populate,
}

impl KernelFeature {
    const fn bit(self) -> u64 {
        match self {
            Self::WriteProtection => UFFD_FEATURE_PAGEFAULT_FLAG_WP as u64,
            Self::SharedMemory => UFFD_FEATURE_WP_HUGETLBFS_SHMEM as u64,
            Self::Unpopulated => UFFD_FEATURE_WP_UNPOPULATED as u64,
            Self::Async => UFFD_FEATURE_WP_ASYNC as u64,
            Self::PagemapScan | Self::Populate => 0,
        }
    }
}

impl fmt::Display for KernelFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WriteProtection => "userfaultfd write protection",
            Self::SharedMemory => "userfaultfd write protection of shared memory (Linux 5.19)",
            Self::Unpopulated => "userfaultfd write protection of untouched pages (Linux 6.4)",
            Self::Async => "userfaultfd's asynchronous write protection (Linux 6.7)",
            Self::PagemapScan => "PAGEMAP_SCAN (Linux 6.7)",
            Self::Populate => "MADV_POPULATE_READ (Linux 5.14)",
        })
    }
}

/// Some of the [`KernelFeature`]s that have a bit in `UFFDIO_API`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Features(u64);

impl Features {
    pub fn of(features: &[KernelFeature]) -> Self {
        Self(
            features
                .iter()
                .fold(0, |bits, feature| bits | feature.bit()),
        )
    }

    pub fn with(self, features: &[KernelFeature]) -> Self {
        Self(self.0 | Self::of(features).0)
    }

    pub const fn has(self, feature: KernelFeature) -> bool {
        self.0 & feature.bit() == feature.bit()
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// A userfaultfd of this process: close-on-exec, and non-blocking, since `poll` reports an error on
/// one that blocks.
#[derive(Debug)]
pub(super) struct Uffd {
    fd: OwnedFd,
    pub access: Access,
    pub features: Features,
}

impl Uffd {
    /// Opens one with those of the `wanted` features that the kernel has.
    ///
    /// The handshake fails on a feature that the kernel lacks, and succeeds once only, so that
    /// another descriptor asks first what there is.
    pub fn open(access: Access, wanted: Features) -> Result<Self, OpenError> {
        let offered = handshake(&open_fd(access)?, Features(0))?;
        let features = offered.and(wanted);
        let fd = open_fd(access)?;
        handshake(&fd, features)?;
        Ok(Self {
            fd,
            access,
            features,
        })
    }

    /// Registers `range`; the ioctls that it allows come back.
    pub fn register(&self, range: &Range<u64>) -> Result<(), Errno> {
        let mut register = uffdio_register {
            range: uffd_range(range),
            mode: u64::from(UFFDIO_REGISTER_MODE_WP),
            ioctls: 0,
        };
        // SAFETY: the opcode takes this structure. Registering changes no memory.
        unsafe { ioctl(&self.fd, Updater::<REGISTER, _>::new(&mut register)) }?;
        if register.ioctls & (1 << _UFFDIO_WRITEPROTECT) == 0 {
            let _ = self.unregister(range);
            return Err(Errno::INVAL);
        }
        Ok(())
    }

    pub fn unregister(&self, range: &Range<u64>) -> Result<(), Errno> {
        let mut range = uffd_range(range);
        // SAFETY: the opcode takes this structure. It opens the range and wakes who waits.
        unsafe { ioctl(&self.fd, Updater::<UNREGISTER, _>::new(&mut range)) }
    }

    /// Protects `range`, or opens it and wakes who waits for it.
    pub fn set(&self, range: &Range<u64>, writable: bool) -> Result<(), Errno> {
        let mut arg = uffdio_writeprotect {
            range: uffd_range(range),
            mode: if writable { 0 } else { MODE_PROTECT },
        };
        // SAFETY: the opcode takes this structure. The kernel changes no byte of the range, only
        // whether a store to it goes through at once.
        unsafe { ioctl(&self.fd, Updater::<WRITEPROTECT, _>::new(&mut arg)) }
    }

    /// Lets who waits in `range` try again.
    pub fn wake(&self, range: &Range<u64>) -> Result<(), Errno> {
        let mut range = uffd_range(range);
        // SAFETY: the opcode takes this structure, and only wakes.
        unsafe { ioctl(&self.fd, Updater::<WAKE, _>::new(&mut range)) }
    }

    /// The faults that wait, as many as `messages` has room for; none where nobody waits.
    pub fn read<'b>(&self, messages: &'b mut Messages) -> Result<&'b [uffd_msg], Errno> {
        const SIZE: usize = size_of::<uffd_msg>();
        // SAFETY: the bytes of the messages, which may hold anything, as a place to read into.
        let bytes = unsafe {
            core::slice::from_raw_parts_mut(
                messages.0.as_mut_ptr().cast::<MaybeUninit<u8>>(),
                size_of_val(&messages.0),
            )
        };
        let read = match rustix::io::read(&self.fd, bytes) {
            Ok((read, _)) => read.len(),
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(error) => return Err(error),
        };
        let whole = &messages.0[..read / SIZE];
        // SAFETY: the kernel wrote these, whole messages only; each is plain numbers.
        Ok(unsafe { core::slice::from_raw_parts(whole.as_ptr().cast::<uffd_msg>(), whole.len()) })
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Room for what one `read` takes.
pub(super) struct Messages([MaybeUninit<uffd_msg>; 16]);

impl Messages {
    pub const fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; 16])
    }
}

/// Where the write to a protected page was, if that is what the message tells.
pub(super) fn write_fault(message: &uffd_msg) -> Option<u64> {
    if u32::from(message.event) != UFFD_EVENT_PAGEFAULT {
        return None;
    }
    let arg = message.arg;
    // SAFETY: this event carries this variant; every variant is plain numbers.
    let fault = unsafe { arg.pagefault };
    (fault.flags & u64::from(UFFD_PAGEFAULT_FLAG_WP) != 0).then_some(fault.address)
}

const fn uffd_range(range: &Range<u64>) -> uffdio_range {
    uffdio_range {
        start: range.start,
        len: range.end - range.start,
    }
}

fn open_fd(access: Access) -> Result<OwnedFd, OpenError> {
    let common = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
    let flags = match access {
        Access::Full => common,
        Access::UserModeOnly => common | UserfaultfdFlags::from_bits_retain(UFFD_USER_MODE_ONLY),
    };
    // SAFETY: the descriptor is kept private, and changes no more than this module says.
    match unsafe { rustix::mm::userfaultfd(flags) } {
        Ok(fd) => Ok(fd),
        Err(Errno::NOSYS) => Err(OpenError::NotInKernel),
        // The device asks for a file permission in place of a capability.
        Err(Errno::PERM) => open_by_device(flags).ok_or(OpenError::NoPermission { access }),
        Err(error) => Err(OpenError::call("userfaultfd", error)),
    }
}

/// `/dev/userfaultfd`, Linux 6.1: a descriptor for whoever may open the file.
fn open_by_device(flags: UserfaultfdFlags) -> Option<OwnedFd> {
    let flags_of_open = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::open("/dev/userfaultfd", flags_of_open, Mode::empty()).ok()?;
    // SAFETY: see `NewFd`.
    unsafe { ioctl(device, NewFd(flags)) }.ok()
}

/// `USERFAULTFD_IOC_NEW`, with the flags of the new descriptor.
struct NewFd(UserfaultfdFlags);

// SAFETY: the opcode takes the flags by value, changes nothing in this process and returns a
// new descriptor, which nobody else has.
unsafe impl Ioctl for NewFd {
    type Output = OwnedFd;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        NEW
    }

    fn as_ptr(&mut self) -> *mut c_void {
        core::ptr::without_provenance_mut(self.0.bits() as usize)
    }

    unsafe fn output_from_ptr(fd: IoctlOutput, _: *mut c_void) -> rustix::io::Result<OwnedFd> {
        // SAFETY: the call succeeded, so this is its new descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// Agrees with the kernel on `features`; returns what it has.
fn handshake(fd: &OwnedFd, features: Features) -> Result<Features, OpenError> {
    let mut api = uffdio_api {
        api: u64::from(UFFD_API),
        features: features.0,
        ioctls: 0,
    };
    // SAFETY: the opcode takes this structure.
    unsafe { ioctl(fd, Updater::<API, _>::new(&mut api)) }
        .map_err(|error| OpenError::call("UFFDIO_API", error))?;
    Ok(Features(api.features))
}

/// `/proc/self/pagemap`, for its scan.
#[derive(Debug)]
pub(super) struct Pagemap(OwnedFd);

impl Pagemap {
    pub fn open() -> Result<Self, OpenError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/proc/self/pagemap", flags, Mode::empty()).map_err(|error| {
            OpenError::NoPagemap {
                errno: error.raw_os_error(),
            }
        })?;
        let pagemap = Self(fd);
        // An empty scan, to know whether there is such a thing.
        match pagemap.scan(&(0..0), &mut []) {
            Ok(_) => Ok(pagemap),
            Err(Errno::NOTTY) => Err(OpenError::MissingFeature {
                feature: KernelFeature::PagemapScan,
            }),
            Err(error) => Err(OpenError::call("PAGEMAP_SCAN", error)),
        }
    }

    /// Protects what was written in `range`, each page in the same step that finds it, until
    /// `found` is full: how many of `found` were filled, and where it stopped.
    pub fn scan(
        &self,
        range: &Range<u64>,
        found: &mut [page_region],
    ) -> Result<(usize, u64), Errno> {
        let written = u64::from(PAGE_IS_WRITTEN);
        let vec = if found.is_empty() {
            0
        } else {
            found.as_mut_ptr().expose_provenance() as u64
        };
        let arg = pm_scan_arg {
            size: size_of::<pm_scan_arg>() as u64,
            // The check makes memory that is not registered an error: it would be "written" always.
            flags: u64::from(PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC),
            start: range.start,
            end: range.end,
            walk_end: 0,
            vec,
            vec_len: found.len() as u64,
            max_pages: 0,
            category_inverted: 0,
            category_mask: written,
            category_anyof_mask: 0,
            return_mask: written,
        };
        // SAFETY: `vec` and `vec_len` are those of `found`, borrowed until the call is over.
        unsafe { ioctl(&self.0, Scan(arg)) }
    }
}

/// The scan: its argument in, the number of regions and where it stopped out.
struct Scan(pm_scan_arg);

// SAFETY: the opcode takes a `pm_scan_arg`; the kernel writes its `walk_end`, and as many regions
// to `vec` as `vec_len` says.
unsafe impl Ioctl for Scan {
    type Output = (usize, u64);

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        PAGEMAP_SCAN
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut self.0).cast()
    }

    unsafe fn output_from_ptr(
        filled: IoctlOutput,
        arg: *mut c_void,
    ) -> rustix::io::Result<(usize, u64)> {
        // SAFETY: the pointer that `as_ptr` gave.
        let arg = unsafe { &*arg.cast::<pm_scan_arg>() };
        Ok((filled as usize, arg.walk_end))
    }
}

/// Makes every page of `range` present, without writing to it: Linux 5.14. An older one refuses even
/// an empty range.
pub(super) fn populate(range: &Range<u64>) -> Result<(), Errno> {
    let start = core::ptr::with_exposed_provenance_mut(range.start as usize);
    let len = (range.end - range.start) as usize;
    // SAFETY: it reads each page, which changes no byte; where nothing is mapped it fails.
    unsafe { madvise(start, len, Advice::LinuxPopulateRead) }
}

/// Bytes in a page of this kernel.
pub(super) fn page_size() -> u64 {
    rustix::param::page_size() as u64
}
