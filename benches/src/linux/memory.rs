use std::ops::Range;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

const WORD: usize = size_of::<u64>();

/// A private mapping, every page of it present and none of them huge: a huge page would be split by
/// whoever comes first, and the others would find it done.
pub struct Memory {
    words: NonNull<AtomicU64>,
    pages: usize,
    page_size: usize,
}

// SAFETY: it is a mapping that is this value's alone, and a slice of atomics.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    pub fn new(pages: usize) -> Self {
        let page_size = rustix::param::page_size();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let len = pages * page_size;
        // SAFETY: a new mapping, anywhere.
        let start = unsafe { mmap_anonymous(null_mut(), len, access, MapFlags::PRIVATE) };
        let start = start.expect("there is memory");
        // SAFETY: the mapping just made; the advice changes no byte.
        unsafe { madvise(start, len, Advice::LinuxNoHugepage) }.expect("advice is taken");
        let this = Self {
            words: NonNull::new(start.cast()).expect("no mapping is at zero"),
            pages,
            page_size,
        };
        (0..pages).for_each(|page| this.page(page)[0].store(1, Relaxed));
        this
    }

    pub fn pages(&self) -> usize {
        self.pages
    }

    pub fn len(&self) -> usize {
        self.pages * self.page_size
    }

    pub fn page_size(&self) -> usize {
        self.page_size
    }

    pub fn as_ptr(&self) -> *const u8 {
        self.words.as_ptr().cast()
    }

    /// Where it is.
    pub fn addresses(&self) -> Range<u64> {
        let start = self.words.as_ptr().expose_provenance() as u64;
        start..start + self.len() as u64
    }

    /// The addresses of one page.
    pub fn addresses_of(&self, page: usize) -> Range<u64> {
        let start = self.addresses().start + (page * self.page_size) as u64;
        start..start + self.page_size as u64
    }

    /// The page of an address.
    pub fn page_of(&self, address: u64) -> usize {
        (address - self.addresses().start) as usize / self.page_size
    }

    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is that long and aligned, lives as long as this, and is accessed as
        // atomics, but for `copy_still`.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.len() / WORD) }
    }

    pub fn page(&self, page: usize) -> &[AtomicU64] {
        let words = self.page_size / WORD;
        &self.words()[page * words..][..words]
    }

    /// Copies `pages` of `from`, which may be written meanwhile.
    pub fn copy_live(&self, from: &Self, pages: Range<usize>) {
        for page in pages {
            let words = self.page(page).iter().zip(from.page(page));
            words.for_each(|(to, from)| to.store(from.load(Relaxed), Relaxed));
        }
    }

    /// Copies `pages` of `from` as fast as can be.
    ///
    /// # Safety
    ///
    /// Nobody writes to these pages meanwhile, and nobody accesses those of this memory.
    pub unsafe fn copy_still(&self, from: &Self, pages: Range<usize>) {
        let words = self.page_size / WORD;
        let source = &from.words()[pages.start * words..pages.end * words];
        let target = &self.words()[pages.start * words..pages.end * words];
        // SAFETY: two mappings, as long as that; atomics may be changed through a shared
        // reference, and by the caller's word nobody else accesses them.
        unsafe {
            let target = target.as_ptr().cast_mut();
            source.as_ptr().copy_to_nonoverlapping(target, source.len());
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping made by `new`, which nobody borrows any more.
        let unmapped = unsafe { munmap(self.words.as_ptr().cast(), self.len()) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}
