//! The guest's memory: real memory of this process, and a permission for each page.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::{BAD_ARGUMENT, lock};

/// One page of the second stage of translation.
///
/// An access holds the lock from its check of the permission until it is done, and a change of the
/// permission takes it too: when the change is over, so is every access that went by the old one, as
/// after a TLB invalidation.
#[derive(Default)]
pub struct Page(Mutex<Entry>);

#[derive(Default)]
pub struct Entry {
    flags: u64,
    /// The guest has accessed it since it was mapped.
    touched: bool,
}

/// Why an access did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Translation,
    Permission,
}

impl Page {
    pub fn set(&self, flags: u64) {
        lock(&self.0).flags = flags;
    }

    pub fn flags(&self) -> u64 {
        lock(&self.0).flags
    }

    /// Permission for an access that needs `flags`, for as long as the guard lives.
    pub fn access(&self, flags: u64) -> Result<MutexGuard<'_, Entry>, Fault> {
        let mut entry = lock(&self.0);
        let first = !std::mem::replace(&mut entry.touched, true);
        match entry.flags & flags == flags {
            true => Ok(entry),
            false if first => Err(Fault::Translation),
            false => Err(Fault::Permission),
        }
    }
}

/// Memory of this process that is mapped into the guest.
pub struct Mapping {
    words: &'static [AtomicU64],
    ipa: u64,
    page_size: u64,
    pages: Vec<Page>,
}

impl Mapping {
    /// # Safety
    ///
    /// `words` points to `size` bytes, accessed by atomics of 64 bits, for as long as this lives.
    pub unsafe fn new(
        words: *const AtomicU64,
        ipa: u64,
        size: usize,
        flags: u64,
        page_size: u64,
    ) -> Result<Self, u32> {
        let aligned = (ipa | size as u64).is_multiple_of(page_size);
        if !aligned || size == 0 {
            return Err(BAD_ARGUMENT);
        }
        let pages = size as u64 / page_size;
        let page = || {
            Page(Mutex::new(Entry {
                flags,
                touched: false,
            }))
        };
        Ok(Self {
            // SAFETY: the caller says so.
            words: unsafe { std::slice::from_raw_parts(words, size / 8) },
            ipa,
            page_size,
            pages: (0..pages).map(|_| page()).collect(),
        })
    }

    fn end(&self) -> u64 {
        self.ipa + self.pages.len() as u64 * self.page_size
    }

    fn holds(&self, ipa: u64) -> bool {
        (self.ipa..self.end()).contains(&ipa)
    }

    pub fn page(&self, ipa: u64) -> &Page {
        &self.pages[((ipa - self.ipa) / self.page_size) as usize]
    }

    pub fn store(&self, ipa: u64, value: u64) {
        self.words[((ipa - self.ipa) / 8) as usize].store(value, Relaxed);
    }
}

type Mappings = Arc<Vec<Arc<Mapping>>>;

/// All that is mapped.
pub struct Memory {
    pub page_size: u64,
    mappings: RwLock<Mappings>,
}

impl Memory {
    pub fn new(page_size: u64) -> Self {
        Self {
            page_size,
            mappings: RwLock::default(),
        }
    }

    pub fn mappings(&self) -> Mappings {
        let mappings = self.mappings.read();
        mappings.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn add(&self, mapping: Mapping) -> Result<(), u32> {
        let mut mappings = self
            .mappings
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let overlaps = |old: &Arc<Mapping>| mapping.ipa < old.end() && old.ipa < mapping.end();
        if mappings.iter().any(overlaps) {
            return Err(super::ERROR);
        }
        Arc::make_mut(&mut mappings).push(Arc::new(mapping));
        Ok(())
    }

    /// The mapping that holds `ipa`, out of those that a vCPU took when it entered.
    pub fn find(mappings: &[Arc<Mapping>], ipa: u64) -> Option<&Mapping> {
        let mut holding = mappings.iter().filter(|mapping| mapping.holds(ipa));
        holding.next().map(|mapping| &**mapping)
    }

    /// The page at `ipa`.
    pub fn page_at(&self, ipa: u64) -> Option<PageRef> {
        let mappings = self.mappings();
        let mapping = mappings.iter().find(|mapping| mapping.holds(ipa))?.clone();
        Some(PageRef { mapping, ipa })
    }

    /// The pages of a call; what it may not be asked for is `HV_BAD_ARGUMENT`.
    pub fn pages(&self, ipa: u64, size: usize) -> Result<Vec<PageRef>, u32> {
        let size = size as u64;
        let end = ipa.checked_add(size).ok_or(BAD_ARGUMENT)?;
        if size == 0 || !(ipa | size).is_multiple_of(self.page_size) {
            return Err(BAD_ARGUMENT);
        }
        let pages = (ipa..end).step_by(self.page_size as usize);
        let pages = pages.map(|ipa| self.page_at(ipa).ok_or(BAD_ARGUMENT));
        pages.collect()
    }
}

/// A page of a mapping that is kept alive.
pub struct PageRef {
    mapping: Arc<Mapping>,
    ipa: u64,
}

impl std::ops::Deref for PageRef {
    type Target = Page;

    fn deref(&self) -> &Page {
        self.mapping.page(self.ipa)
    }
}
