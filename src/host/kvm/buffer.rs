//! [`Bits`]: where the kernel writes a slot's log.

use core::ops::{Deref, DerefMut};
use core::ptr::{self, NonNull};

use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// A bit for each page of a slot, right before a page that nobody can access.
///
/// KVM writes as many bits as the slot has pages, and asks nobody how many there is room for. Where
/// the slot is larger than was said, the guard makes that an error of the call, and not a write to
/// whatever is behind.
#[derive(Debug)]
pub(super) struct Bits {
    mapping: NonNull<u8>,
    mapped: usize,
    /// The first word: the last one ends where the guard begins.
    start: NonNull<u64>,
    words: usize,
}

// SAFETY: memory of its own, like a box.
unsafe impl Send for Bits {}
// SAFETY: as above.
unsafe impl Sync for Bits {}

impl Bits {
    pub fn new(words: usize, page_size: usize) -> Result<Self, Errno> {
        let bytes = words * size_of::<u64>();
        let guard = bytes.next_multiple_of(page_size);
        let mapped = guard + page_size;
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let mapping =
            unsafe { mmap_anonymous(ptr::null_mut(), mapped, rights, MapFlags::PRIVATE) }?;
        let mapping = NonNull::new(mapping.cast::<u8>()).ok_or(Errno::NOMEM)?;
        let this = Self {
            mapping,
            mapped,
            // SAFETY: within the mapping, and a multiple of 8 bytes from its start.
            start: unsafe { mapping.add(guard - bytes) }.cast(),
            words,
        };
        let none = MprotectFlags::empty();
        // SAFETY: the last page of our own mapping, to which there is no reference.
        unsafe { mprotect(mapping.add(guard).as_ptr().cast(), page_size, none) }?;
        Ok(this)
    }
}

impl Deref for Bits {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        // SAFETY: as many words of our own mapping, zero or written since.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl DerefMut for Bits {
    fn deref_mut(&mut self) -> &mut [u64] {
        // SAFETY: as above, and borrowed alone.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Bits {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and the last use of it.
        let unmapped = unsafe { munmap(self.mapping.as_ptr().cast(), self.mapped) };
        debug_assert!(unmapped.is_ok(), "it is mapped");
    }
}
