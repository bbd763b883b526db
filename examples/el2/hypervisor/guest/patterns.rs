//! Where a guest writes matters as much as how.

use core::arch::asm;

use super::{Job, scalar};
use crate::hypervisor::layout::PAGE_SIZE;

/// A page here and there: a block grant costs 512 pages to find one.
pub fn sparse(job: &Job) -> u64 {
    scalar::str(job)
}

/// Every byte of every page: a block grant saves 511 faults.
pub fn dense(job: &Job) -> u64 {
    job.write_pages(|page, value| {
        // SAFETY: the page is this vCPU's own.
        unsafe {
            asm!(
                "2: stp {v}, {v}, [{p}]",
                "stp {v}, {v}, [{p}, #16]",
                "stp {v}, {v}, [{p}, #32]",
                "stp {v}, {v}, [{p}, #48]",
                "add {p}, {p}, #64",
                "cmp {p}, {end}",
                "b.ne 2b",
                p = inout(reg) page => _,
                end = in(reg) page.wrapping_byte_add(PAGE_SIZE as usize),
                v = in(reg) value,
                options(nostack),
            )
        };
    })
}

/// The same few pages from both vCPUs, until the controller has had enough of it.
pub fn hot(job: &Job) -> u64 {
    /// Passes between two questions whether it is enough.
    const PASSES: u64 = 256;

    job.repeat(|pass| {
        for turn in 0..PASSES {
            let value = job.value(pass * PASSES + turn);
            for (_, page) in job.all_pages() {
                // SAFETY: each vCPU has a word of its own in these pages.
                unsafe {
                    let word = page.wrapping_add(job.vcpu);
                    asm!("str {v}, [{p}]", p = in(reg) word, v = in(reg) value, options(nostack));
                }
            }
        }
    });
    job.credit_for_all()
}
