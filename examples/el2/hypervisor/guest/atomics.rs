//! Exclusives, and the atomics of FEAT_LSE. None of their syndromes describes the transfer
//! (`ISV` = 0); they are retried like any other store.

use core::{arch::asm, ptr::read_volatile};

use super::{Job, expect, expect_value};
use crate::hypervisor::layout::VCPUS;

/// Adds with LDXR and STXR. The exit clears the monitor, so a STXR that faulted fails once.
fn add_exclusive(word: *mut u64, addend: u64) {
    // SAFETY: the callers pass an aligned word of guest memory that is only ever changed atomically
    // or by this vCPU alone.
    unsafe {
        asm!(
            "2: ldxr {old}, [{p}]",
            "add {old}, {old}, {addend}",
            "stxr {failed:w}, {old}, [{p}]",
            "cbnz {failed:w}, 2b",
            p = in(reg) word,
            addend = in(reg) addend,
            old = out(reg) _,
            failed = out(reg) _,
            options(nostack),
        )
    };
}

pub fn exclusive(job: &Job) -> u64 {
    job.write_pages(|page, _| {
        let old = read(page);
        add_exclusive(page, 3);
        expect(page, old + 3);
    })
}

pub fn cas(job: &Job) -> u64 {
    job.write_pages(|page, value| {
        let old = read(page);
        let mut found = old;
        // SAFETY: the page is this vCPU's own; the class runs where FEAT_LSE is.
        unsafe {
            asm!(
                ".arch_extension lse",
                "cas {found}, {v}, [{p}]",
                p = in(reg) page, v = in(reg) value, found = inout(reg) found, options(nostack),
            )
        };
        expect_value(page, found, old);
        expect(page, value);
    })
}

pub fn ldadd(job: &Job) -> u64 {
    job.write_pages(|page, _| {
        let old = read(page);
        let found: u64;
        // SAFETY: as above.
        unsafe {
            asm!(
                ".arch_extension lse",
                "ldadd {one}, {found}, [{p}]",
                p = in(reg) page, one = in(reg) 1u64, found = out(reg) found, options(nostack),
            )
        };
        expect_value(page, found, old);
        expect(page, old + 1);
    })
}

pub fn swp(job: &Job) -> u64 {
    job.write_pages(|page, value| {
        let old = read(page);
        let found: u64;
        // SAFETY: as above.
        unsafe {
            asm!(
                ".arch_extension lse",
                "swp {v}, {found}, [{p}]",
                p = in(reg) page, v = in(reg) value, found = out(reg) found, options(nostack),
            )
        };
        expect_value(page, found, old);
        expect(page, value);
    })
}

/// Both vCPUs add to one word of each page. Each also counts its own additions there, and the round
/// after sees that none was lost.
pub fn shared(job: &Job) -> u64 {
    const WORDS: usize = 1 + VCPUS;
    // The words of this round, and those that stand still in it.
    let [this, before] = [0, 1].map(|n| (job.round as usize + n) % 2 * WORDS);
    let word = |page: *mut u64, n| page.wrapping_add(n);

    for (_, page) in job.all_pages() {
        let own = (1..WORDS).map(|n| read(word(page, before + n))).sum();
        expect(word(page, before), own);
    }
    job.repeat(|_| {
        for (_, page) in job.all_pages() {
            add_exclusive(word(page, this), 1);
            add_exclusive(word(page, this + 1 + job.vcpu), 1);
        }
    });
    job.credit_for_all()
}

fn read(word: *const u64) -> u64 {
    // SAFETY: an aligned word of this vCPU's own page.
    unsafe { read_volatile(word) }
}
