//! Tables from a `static`, for a hypervisor without an allocator.

use core::{
    cell::UnsafeCell,
    ptr::{self, NonNull},
};

use ::aarch64_paging::{
    descriptor::{PhysicalAddress, Stage2Attributes},
    paging::{PAGE_SIZE, PageTable, Translation},
};

use super::TableSource;
use crate::sync::{AtomicBool, Ordering};

type Table = PageTable<Stage2Attributes>;

// Physical addresses of the tables are counted in pages.
const _: () = assert!(size_of::<Table>() == PAGE_SIZE);

/// Room for `N` tables of 4 KiB, to be put in a `static`. It is all zero, so it lies in `.bss`.
///
/// One table is the root; each further one splits a descriptor of the level above. A VM that maps
/// `g` GiB by 2 MiB blocks takes `1 + g` tables, and one more for each block that is split.
#[derive(Debug)]
pub struct TablePool<const N: usize> {
    tables: UnsafeCell<[Table; N]>,
    taken: AtomicBool,
}

// SAFETY: the tables are reached only through a `PooledTables`, and `taken` lets one exist at most.
unsafe impl<const N: usize> Sync for TablePool<N> {}

impl<const N: usize> TablePool<N> {
    /// An unused pool.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            tables: UnsafeCell::new([const { PageTable::EMPTY }; N]),
            taken: AtomicBool::new(false),
        }
    }

    /// The tables, where the hypervisor's own addresses are physical ones (an identity map).
    ///
    /// `None` while somebody has them; a drop gives them back.
    pub fn take(&'static self) -> Option<PooledTables> {
        self.take_at(PhysicalAddress(self.tables.get().addr()))
    }

    /// The tables, where the first of them lies at this physical address and the others follow it.
    ///
    /// `None` while somebody has them; a drop gives them back.
    pub fn take_at(&'static self, physical: PhysicalAddress) -> Option<PooledTables> {
        // Acquire pairs with the Release in the drop of the last owner: what it wrote to the tables
        // happened before what the new one writes.
        if self.taken.swap(true, Ordering::Acquire) {
            return None;
        }
        Some(PooledTables {
            first: NonNull::new(self.tables.get())?.cast(),
            physical,
            len: N,
            fresh: 0,
            freed: None,
            used: 0,
            taken: &self.taken,
        })
    }
}

impl<const N: usize> Default for TablePool<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// The tables of a [`TablePool`], for [`Mapping::new`](super::aarch64_paging::Mapping::new).
#[derive(Debug)]
pub struct PooledTables {
    first: NonNull<Table>,
    physical: PhysicalAddress,
    len: usize,
    /// The first table that was never handed out.
    fresh: usize,
    /// The tables that came back, a list through their first words.
    freed: Option<NonNull<Table>>,
    used: usize,
    taken: &'static AtomicBool,
}

// SAFETY: it is the only way to tables that are `'static` and that any thread may use.
unsafe impl Send for PooledTables {}

// SAFETY: through `&self` it computes addresses and reads numbers; no table is touched.
unsafe impl Sync for PooledTables {}

impl PooledTables {
    /// How many tables are in use.
    pub const fn used(&self) -> usize {
        self.used
    }
}

impl Translation<Stage2Attributes> for PooledTables {
    /// # Panics
    ///
    /// If none is left. [`Stage2Protection`](super::Stage2Protection) asks before it splits, so this
    /// can only happen while the VM's memory is being mapped.
    fn allocate_table(&mut self) -> (NonNull<Table>, PhysicalAddress) {
        let table = if let Some(table) = self.freed {
            // SAFETY: a table in the list is ours alone, and `deallocate_table` wrote its link.
            self.freed = unsafe { table.cast::<Option<NonNull<Table>>>().read() };
            table
        } else {
            assert!(
                self.fresh < self.len,
                "all {} page tables are in use",
                self.len
            );
            // SAFETY: `fresh` is an index into the pool's array.
            let table = unsafe { self.first.add(self.fresh) };
            self.fresh += 1;
            table
        };
        self.used += 1;
        // SAFETY: the table is in nobody's hands, and zero is an empty table.
        unsafe { ptr::write_bytes(table.as_ptr(), 0, 1) };
        let offset = table.addr().get() - self.first.addr().get();
        (table, self.physical + offset)
    }

    unsafe fn deallocate_table(&mut self, table: NonNull<Table>) {
        // SAFETY: the caller hands back a table that `allocate_table` gave it. It is larger than a
        // link, and aligned to its own size.
        unsafe { table.cast().write(self.freed) };
        self.freed = Some(table);
        self.used -= 1;
    }

    fn physical_to_virtual(&self, physical: PhysicalAddress) -> NonNull<Table> {
        // For an address that is not one of our tables this is a pointer that nobody may use, as
        // for any other safe function that makes one.
        let offset = physical.0.wrapping_sub(self.physical.0);
        NonNull::new(self.first.as_ptr().wrapping_byte_add(offset)).unwrap_or(self.first)
    }
}

impl TableSource for PooledTables {
    fn available(&self) -> usize {
        self.len - self.used
    }
}

impl Drop for PooledTables {
    fn drop(&mut self) {
        // Release: see `take_at`.
        self.taken.store(false, Ordering::Release);
    }
}

#[cfg(feature = "defmt")]
impl<const N: usize> defmt::Format for TablePool<N> {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "TablePool({} tables)", N);
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for PooledTables {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "PooledTables({} of {} used)", self.used, self.len);
    }
}
