//! Memory that two processes share, over a memfd.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::{NonNull, null_mut};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

pub struct SharedMemory {
    file: File,
    start: NonNull<u8>,
    len: usize,
}

impl SharedMemory {
    /// `len` bytes, all zero.
    pub fn new(len: usize) -> Self {
        let memory = memfd_create("pugmark", MemfdFlags::CLOEXEC).expect("a memfd");
        let file = File::from(memory);
        file.set_len(len as u64).expect("memory");
        Self::map(file)
    }

    /// What another process has, by its [`path`](Self::path).
    pub fn open(path: impl AsRef<Path>) -> Self {
        let file = File::options().read(true).write(true).open(path);
        Self::map(file.expect("the other process's memory"))
    }

    fn map(file: File) -> Self {
        let len = file.metadata().expect("its size").len() as usize;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping takes no memory that is in use.
        let start = unsafe { mmap(null_mut(), len, access, MapFlags::SHARED, &file, 0) };
        let start = NonNull::new(start.expect("a mapping").cast()).expect("an address");
        Self { file, start, len }
    }

    /// Another mapping of the same, at another address.
    pub fn map_again(&self) -> Self {
        Self::map(self.file.try_clone().expect("a file descriptor"))
    }

    /// Where another process finds it, while this one is there.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Where it is in this process.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// The address in this mapping of what is at `pointer` in one that starts at `start`.
    pub fn here<T>(&self, pointer: *mut T, start: usize) -> *mut T {
        let offset = pointer.addr() - start;
        assert!(offset < self.len);
        self.start.as_ptr().wrapping_add(offset).cast()
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and nobody uses what was in it after this.
        unsafe { munmap(self.start.as_ptr().cast(), self.len) }.expect("munmap");
    }
}
