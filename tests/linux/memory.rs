//! Memory that is mapped for a test.
#![allow(dead_code, reason = "each test uses a part")]

use std::{io, ptr};

pub const PAGE: usize = 4096;

/// What a mapping is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Anonymous,
    /// Shared memory: a memfd.
    Shared,
    /// Anonymous, and may be run.
    Executable,
}

pub const TRACKABLE: [Kind; 2] = [Kind::Anonymous, Kind::Shared];

/// A mapping until it is dropped. Every access is a store or a load of one byte or word that the
/// compiler does not see through, or a system call.
#[derive(Debug)]
pub struct Memory {
    start: *mut u8,
    pub len: usize,
}

// SAFETY: it is plain memory that outlives every borrow of `self`; all access is through raw pointers.
unsafe impl Send for Memory {}
// SAFETY: as above; volatile accesses of single bytes or words that no test takes for ordered.
unsafe impl Sync for Memory {}

impl Memory {
    pub fn new(kind: Kind, len: usize) -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        match kind {
            Kind::Anonymous => Self::map(len, protection, libc::MAP_PRIVATE | ANONYMOUS, -1),
            Kind::Executable => {
                let protection = protection | libc::PROT_EXEC;
                Self::map(len, protection, libc::MAP_PRIVATE | ANONYMOUS, -1)
            }
            Kind::Shared => {
                // SAFETY: the name is a C string.
                let fd = unsafe { libc::memfd_create(c"pugmark".as_ptr(), libc::MFD_CLOEXEC) };
                assert!(fd >= 0);
                // SAFETY: a descriptor of our own, closed once it is mapped.
                unsafe {
                    assert_eq!(libc::ftruncate(fd, len as libc::off_t), 0);
                    let memory = Self::map(len, protection, libc::MAP_SHARED, fd);
                    libc::close(fd);
                    memory
                }
            }
        }
    }

    pub fn map(len: usize, protection: i32, flags: i32, fd: i32) -> Self {
        Self::try_map(len, protection, flags, fd).expect("there is room")
    }

    pub fn try_map(len: usize, protection: i32, flags: i32, fd: i32) -> io::Result<Self> {
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            start: start.cast(),
            len,
        })
    }

    pub fn start(&self) -> *const u8 {
        self.start
    }

    pub fn address(&self) -> u64 {
        self.start.addr() as u64
    }

    pub fn page(&self, page: usize) -> *mut u8 {
        assert!(page * PAGE < self.len);
        self.start.wrapping_add(page * PAGE)
    }

    pub fn store(&self, page: usize, byte: u8) {
        // SAFETY: inside the mapping.
        unsafe { self.page(page).write_volatile(byte) }
    }

    pub fn load(&self, page: usize) -> u8 {
        // SAFETY: inside the mapping.
        unsafe { self.page(page).read_volatile() }
    }

    pub fn store_word(&self, word: usize, value: u64) {
        debug_assert!(word * 8 < self.len);
        // SAFETY: inside the mapping, and aligned.
        unsafe { self.start.cast::<u64>().add(word).write_volatile(value) }
    }

    /// The kernel copies `into.len()` bytes from `offset` on: others may write meanwhile.
    pub fn copy_out(&self, offset: usize, into: &mut [u8]) {
        assert!(offset + into.len() <= self.len);
        let local = libc::iovec {
            iov_base: into.as_mut_ptr().cast(),
            iov_len: into.len(),
        };
        let remote = libc::iovec {
            iov_base: self.start.wrapping_add(offset).cast(),
            iov_len: into.len(),
        };
        // SAFETY: both are as long as they say; the kernel writes to the slice that is borrowed.
        let copied = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
        assert_eq!(copied, into.len() as isize);
    }

    pub fn unmap(&self, offset: usize, len: usize) {
        assert!(offset + len <= self.len);
        // SAFETY: a part of our own mapping, which the test does not touch again.
        let unmapped = unsafe { libc::munmap(self.start.add(offset).cast(), len) };
        assert_eq!(unmapped, 0);
    }
}

const ANONYMOUS: i32 = libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: our own mapping; where a part is gone already, that is no error.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}
