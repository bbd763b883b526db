//! The guest's translation tables, which live in tracked memory like all that it has, and the
//! classes that make the table walk write to them.
//!
//! Beside the identity map there is an alias window, mapped page by page with the access flag clear
//! and, in its second half, read-only but for the dirty bit modifier. A CPU with FEAT_HAFDBS
//! updates such descriptors itself, in the middle of a load, a store or a fetch. On one without,
//! the guest takes a fault at EL1 and updates them with a store.

use core::{
    arch::global_asm,
    ptr::{read_volatile, write_volatile},
};

use aarch64_paging::descriptor::El1Attributes;

use super::{Job, WALKER_SLOT, Window, expect, expect_value, pointer};
use crate::hypervisor::layout::{
    BLOCK_SIZE, GUEST_ALIAS_LEVEL_2, GUEST_LEVEL_2, GUEST_ROOT, PAGE_SIZE, REGION_SIZE, REGIONS,
    VCPUS, image,
};

/// Level 3 tables of each class.
const TABLES: usize = 8;
/// The tables whose pages are read and executed.
pub const ACCESS_TABLES: Window = Window::run(WALKER_SLOT, TABLES);
/// The tables whose pages are written.
pub const DIRTY_TABLES: Window = Window::run(ACCESS_TABLES.page(TABLES), TABLES);
/// Those pages.
pub const DIRTY_PAGES: Window = Window::run(DIRTY_TABLES.page(TABLES), 48);

/// Where the alias window begins, at the fifth GiB: one entry of the root is its own.
const ALIAS: u64 = 4 << 30;
/// Its size: a block for each table.
const ALIAS_SIZE: u64 = 2 * TABLES as u64 * BLOCK_SIZE;
/// Descriptors that a round uses in each table. Every round uses fresh ones, because the guest
/// would have to write to a table to clear its flags.
const ACCESSES: usize = 4;
/// The one of them that is executed.
const FETCHED: usize = 3;
const WRITES: usize = DIRTY_PAGES.pages / TABLES;

const TABLE: El1Attributes = El1Attributes::VALID.union(El1Attributes::TABLE_OR_PAGE);
const MEMORY: El1Attributes = El1Attributes::VALID
    .union(El1Attributes::INNER_SHAREABLE)
    .union(El1Attributes::UXN);
const CODE: El1Attributes = MEMORY.union(El1Attributes::READ_ONLY);
const DATA: El1Attributes = MEMORY.union(El1Attributes::PXN);

/// Writes the tables, as a boot loader would, before the guest runs. `rounds` is how many there
/// will be.
pub fn build(rounds: usize) {
    set(GUEST_ROOT, 1, GUEST_LEVEL_2, TABLE);
    set(
        GUEST_ROOT,
        (ALIAS >> 30) as usize,
        GUEST_ALIAS_LEVEL_2,
        TABLE,
    );

    let image = image();
    for block in (image.start & !(BLOCK_SIZE - 1)..image.end).step_by(BLOCK_SIZE as usize) {
        identity(block, CODE);
    }
    for region in REGIONS {
        for block in (region..region + REGION_SIZE).step_by(BLOCK_SIZE as usize) {
            identity(block, DATA);
        }
    }

    for table in 0..TABLES {
        let access = ACCESS_TABLES.page(table);
        set(GUEST_ALIAS_LEVEL_2, table, access, TABLE);
        for n in 0..rounds * ACCESSES {
            match n % ACCESSES {
                FETCHED => page(access, n, landing_page(), CODE),
                k => {
                    let target = DIRTY_PAGES.page(table * 3 + k);
                    page(access, n, target, DATA | El1Attributes::READ_ONLY);
                }
            }
        }
        let dirty = DIRTY_TABLES.page(table);
        set(GUEST_ALIAS_LEVEL_2, TABLES + table, dirty, TABLE);
        for n in 0..rounds * WRITES {
            let target = DIRTY_PAGES.page(n % WRITES * TABLES + table);
            let clean = El1Attributes::READ_ONLY | El1Attributes::DBM;
            page(dirty, n, target, DATA | clean);
        }
    }
}

fn identity(block: u64, attributes: El1Attributes) {
    let index = (block >> 21 & 0x1ff) as usize;
    set(
        GUEST_LEVEL_2,
        index,
        block,
        attributes | El1Attributes::ACCESSED,
    );
}

fn page(table: u64, index: usize, target: u64, attributes: El1Attributes) {
    set(
        table,
        index,
        target,
        attributes | El1Attributes::TABLE_OR_PAGE,
    );
}

fn set(table: u64, index: usize, target: u64, attributes: El1Attributes) {
    let descriptor = target | attributes.bits() as u64;
    // SAFETY: a table is a page of the guest's RAM, which nothing else uses before the guest runs.
    unsafe { write_volatile(pointer(table).add(index), descriptor) };
}

/// Touches fresh pages through the alias window, by three loads and a fetch for each table; in every
/// other one the fetch comes first. Only the tables change.
pub(super) fn access_flag(job: &Job) -> u64 {
    for table in (job.vcpu..TABLES).step_by(VCPUS) {
        for k in 0..ACCESSES {
            let fetch_first = (table / VCPUS).is_multiple_of(2);
            let k = if fetch_first { FETCHED - k } else { k };
            let index = job.round as usize * ACCESSES + k;
            let address = ALIAS + table as u64 * BLOCK_SIZE + index as u64 * PAGE_SIZE;
            let descriptor = pointer(ACCESS_TABLES.page(table)).wrapping_add(index);
            if k == FETCHED {
                let code = address + landing_address() % PAGE_SIZE;
                // SAFETY: the alias window maps the page of `landing` here, which is a function of
                // this type.
                let landing: extern "C" fn() -> u64 =
                    unsafe { core::mem::transmute(pointer(code)) };
                expect_value(descriptor, landing(), LANDED);
            } else {
                // SAFETY: the alias window maps a page of guest RAM here.
                unsafe { read_volatile(pointer(address)) };
            }
            // SAFETY: as in `set`, but now the walker may change it.
            let now = unsafe { read_volatile(descriptor) };
            expect_value(descriptor, now & AF, AF);
        }
    }
    job.credit_for_all()
}

/// Writes to pages through the alias window: the pages change, and so do the tables.
pub(super) fn dirty_state(job: &Job) -> u64 {
    // Of the pages that each table maps in this round, every other one is this vCPU's.
    let mine = || (0..DIRTY_PAGES.pages).filter(|n| n / TABLES % VCPUS == job.vcpu);
    let index = |n| job.round as usize * WRITES + n / TABLES;

    job.repeat(|pass| {
        for n in mine() {
            let block = ALIAS + (TABLES + n % TABLES) as u64 * BLOCK_SIZE;
            let address = pointer(block + index(n) as u64 * PAGE_SIZE);
            // SAFETY: the alias window maps page `n` here, and it is this vCPU's own.
            unsafe { write_volatile(address, job.value(pass)) };
            expect(pointer(DIRTY_PAGES.page(n)), job.value(pass));
        }
    });
    for n in mine() {
        let descriptor = pointer(DIRTY_TABLES.page(n % TABLES)).wrapping_add(index(n));
        // SAFETY: as in `set`, but now the walker may change it.
        let now = unsafe { read_volatile(descriptor) };
        expect_value(descriptor, now & (AF | AP_READ_ONLY), AF);
    }
    // Both write to every table, so the first takes the credit for them.
    let tables = if job.vcpu == 0 { TABLES } else { 0 };
    (tables + mine().count()) as u64
}

const AF: u64 = El1Attributes::ACCESSED.bits() as u64;
const AP_READ_ONLY: u64 = El1Attributes::READ_ONLY.bits() as u64;
/// What `landing` returns.
const LANDED: u64 = 0x1a4d;

unsafe extern "C" {
    /// The guest's exception vectors.
    static guest_vectors: u8;
    /// A function that fits in a page, called through the alias window.
    fn landing() -> u64;
}

/// What `VBAR_EL1` is to be.
pub fn vectors() -> u64 {
    (&raw const guest_vectors).addr() as u64
}

fn landing_address() -> u64 {
    landing as *const () as usize as u64
}

fn landing_page() -> u64 {
    landing_address() & !(PAGE_SIZE - 1)
}

// A data or instruction abort in the alias window is an access flag fault or a write to a clean
// page: set the flag, or make the page writable. Anything else is for the hypervisor to report.
global_asm!(
    r#"
    .section .text.guest_vectors, "ax"
    .balign 0x800
    .global guest_vectors
guest_vectors:
    .rept 4
    .balign 0x80
    b guest_lost
    .endr
    .balign 0x80
    b guest_sync
    .rept 11
    .balign 0x80
    b guest_lost
    .endr

guest_sync:
    stp x0, x1, [sp, #-32]!
    stp x2, x3, [sp, #16]
    mrs x0, esr_el1
    ubfx x1, x0, #26, #6
    and x1, x1, #~4             // 0x25: a data abort at EL1, 0x21: an instruction abort
    cmp x1, #0x21
    b.ne 9f
    mrs x2, far_el1
    mov x3, #{alias}
    sub x3, x2, x3
    mov x1, #{alias_size}
    cmp x3, x1
    b.hs 9f
    lsr x3, x3, #12
    movz x1, #{tables_high}, lsl #16
    movk x1, #{tables_low}
    add x3, x1, x3, lsl #3      // the descriptor
    ldr x1, [x3]
    ubfx x0, x0, #2, #4
    cmp x0, #2                  // the access flag
    b.eq 1f
    cmp x0, #3                  // a permission
    b.ne 9f
    tbz x1, #51, 9f             // not ours to open
    and x1, x1, #~(1 << 7)
    str x1, [x3]
    dsb ishst
    lsr x2, x2, #12
    tlbi vaae1is, x2
    b 2f
1:  orr x1, x1, #(1 << 10)      // an entry without it is in no TLB
    str x1, [x3]
2:  dsb ish
    isb
    ldp x2, x3, [sp, #16]
    ldp x0, x1, [sp], #32
    eret
9:  ldp x2, x3, [sp, #16]
    ldp x0, x1, [sp], #32
guest_lost:
    mov x0, #{lost}
    hvc #0
    b guest_lost

    .balign 64
    .global landing
landing:
    mov x0, #{landed}
    ret
"#,
    alias = const ALIAS,
    alias_size = const ALIAS_SIZE,
    tables_high = const WALKER_SLOT >> 16,
    tables_low = const WALKER_SLOT & 0xffff,
    lost = const crate::hypervisor::hypercall::LOST_MY_WAY,
    landed = const LANDED,
);
