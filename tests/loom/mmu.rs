//! A software MMU, as weak as the hardware's.
//!
//! A page is one word: bit 0 is the permission to write, the rest counts what a vCPU stored there.
//! So a store is a compare-and-swap that checks the permission and stores in one step. That is the
//! hardware's promise to `protect`: when the TLB invalidation and its barrier are over, no store
//! that used the old permission is still under way. What a device wrote is a word of its own, with
//! plain stores: it knows no permission, and its stores may be seen late.
//!
//! All accesses are relaxed: the library must bring every order that it needs. Stale permissions
//! are not modelled. A stale "no" is one more fault; a stale "yes" after `protect` is what
//! `WriteProtect` forbids.

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use pugmark::WriteProtect;

pub const PAGE: u64 = 4096;
pub const BASE: u64 = 0x4000_0000;

/// The guest physical address of `page`.
pub fn ipa(page: usize) -> u64 {
    BASE + page as u64 * PAGE
}

/// The pages of `range`, which are whole.
pub fn pages(range: Range<u64>) -> Range<usize> {
    let page = |address: u64| ((address - BASE) / PAGE) as usize;
    page(range.start)..page(range.end)
}

const WRITABLE: usize = 1;
const STORE: usize = 2;

#[derive(Debug)]
struct Page {
    guest: AtomicUsize,
    device: AtomicUsize,
}

/// What a page holds: stores by vCPUs, and by a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    pub guest: usize,
    pub device: usize,
}

/// The store was refused: a write fault.
#[derive(Debug)]
pub struct Fault;

/// What the host says when it fails.
#[derive(Debug, PartialEq, Eq)]
pub struct Failed;

#[derive(Debug)]
pub struct Mmu {
    pages: Vec<Page>,
    /// Whether the next call fails. Only one thread of a model makes that call, so loom need not
    /// know of them.
    fail_protect: AtomicBool,
    fail_unprotect: AtomicBool,
}

impl Mmu {
    /// All pages open, as before tracking begins.
    pub fn new(pages: usize) -> Self {
        let open = |_| Page {
            guest: AtomicUsize::new(WRITABLE),
            device: AtomicUsize::new(0),
        };
        Self {
            pages: (0..pages).map(open).collect(),
            fail_protect: AtomicBool::new(false),
            fail_unprotect: AtomicBool::new(false),
        }
    }

    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// A vCPU's store.
    pub fn store(&self, page: usize) -> Result<(), Fault> {
        let cell = &self.pages[page].guest;
        let mut seen = WRITABLE;
        while seen & WRITABLE != 0 {
            match cell.compare_exchange(seen, seen + STORE, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
        Err(Fault)
    }

    /// A device's store: nobody else writes its word.
    pub fn device_store(&self, page: usize) {
        self.pages[page].device.store(1, Relaxed);
    }

    pub fn copy(&self, page: usize) -> Content {
        Content {
            guest: self.pages[page].guest.load(Relaxed) / STORE,
            device: self.pages[page].device.load(Relaxed),
        }
    }

    pub fn open_page(&self, page: usize) -> Result<(), Failed> {
        self.pages[page].guest.fetch_or(WRITABLE, Relaxed);
        fail_if(&self.fail_unprotect)
    }

    pub fn protect_page(&self, page: usize) -> Result<(), Failed> {
        self.pages[page].guest.fetch_and(!WRITABLE, Relaxed);
        fail_if(&self.fail_protect)
    }

    /// Lets the next `protect` fail.
    pub fn fail_next_protect(&self) {
        self.fail_protect.store(true, Relaxed);
    }

    /// Lets the next `unprotect` fail.
    pub fn fail_next_unprotect(&self) {
        self.fail_unprotect.store(true, Relaxed);
    }
}

fn fail_if(flag: &AtomicBool) -> Result<(), Failed> {
    match flag.swap(false, Relaxed) {
        true => Err(Failed),
        false => Ok(()),
    }
}

/// A call that fails has changed its first page, and none of the others.
impl WriteProtect for Mmu {
    type Error = Failed;

    fn protect(&self, range: Range<u64>) -> Result<(), Failed> {
        pages(range).try_for_each(|page| self.protect_page(page))
    }

    fn unprotect(&self, range: Range<u64>) -> Result<(), Failed> {
        pages(range).try_for_each(|page| self.open_page(page))
    }
}
