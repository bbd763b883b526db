//! Stores of general registers.

use core::arch::asm;

use super::{Job, expect, expect_value};
use crate::hypervisor::layout::{PAGE_SIZE, VCPUS};

pub fn str(job: &Job) -> u64 {
    job.write_pages(|page, value| {
        // SAFETY: the page is this vCPU's own.
        unsafe { asm!("str {v}, [{p}]", p = in(reg) page, v = in(reg) value, options(nostack)) };
        expect(page, value);
    })
}

/// Each round has a byte of its own, so any value but zero shows.
pub fn strb(job: &Job) -> u64 {
    job.write_pages(|page, value| {
        let word = page.wrapping_add(job.round as usize);
        let value = value % 255 + 1;
        // SAFETY: the page is this vCPU's own.
        unsafe { asm!("strb {v:w}, [{p}]", p = in(reg) word, v = in(reg) value, options(nostack)) };
        expect(word, value);
    })
}

pub fn stp(job: &Job) -> u64 {
    job.write_pages(|page, value| {
        // SAFETY: the page is this vCPU's own.
        unsafe {
            asm!("stp {v}, {v}, [{p}]", p = in(reg) page, v = in(reg) value, options(nostack))
        };
        expect(page, value);
        expect(page.wrapping_add(1), value);
    })
}

/// A retried store must not move its base register twice.
pub fn pre_index(job: &Job) -> u64 {
    job.write_pages(|page, value| {
        let mut base = page;
        // SAFETY: the page is this vCPU's own, and has a second word.
        unsafe {
            asm!("str {v}, [{p}, #8]!", p = inout(reg) base, v = in(reg) value, options(nostack))
        };
        expect_value(page, base.addr() as u64, page.addr() as u64 + 8);
        expect(base, value);
    })
}

pub fn post_index(job: &Job) -> u64 {
    job.write_pages(|page, value| {
        let mut base = page;
        // SAFETY: the page is this vCPU's own.
        unsafe {
            asm!("str {v}, [{p}], #8", p = inout(reg) base, v = in(reg) value, options(nostack))
        };
        expect_value(page, base.addr() as u64, page.addr() as u64 + 8);
        expect(page, value);
    })
}

/// One instruction, two pages: the second half may fault when the first is open already.
pub fn straddle(job: &Job) -> u64 {
    // Pairs of pages, every other one this vCPU's.
    let pairs = || {
        let even = job.all_pages().map(|(_, page)| page).step_by(2);
        even.enumerate().skip(job.vcpu).step_by(VCPUS)
    };
    job.repeat(|pass| {
        for (n, page) in pairs() {
            let boundary = page.wrapping_byte_add(PAGE_SIZE as usize);
            straddle_once(n / VCPUS % 3, boundary, job.value(pass));
        }
    });
    2 * pairs().count() as u64
}

fn straddle_once(kind: usize, boundary: *mut u64, value: u64) {
    // SAFETY: both pages are the caller's own. Normal memory takes unaligned accesses while
    // SCTLR_EL1.A is 0.
    unsafe {
        match kind {
            0 => {
                asm!("stur {v}, [{p}, #-4]", p = in(reg) boundary, v = in(reg) value, options(nostack))
            }
            1 => {
                asm!("stp {v}, {v}, [{p}, #-8]", p = in(reg) boundary, v = in(reg) value, options(nostack))
            }
            _ => asm!(
                "dup {q}.2d, {v}",
                "stur {q:q}, [{p}, #-8]",
                p = in(reg) boundary,
                v = in(reg) value,
                q = out(vreg) _,
                options(nostack),
            ),
        }
    }
    let half = u64::from(u32::MAX);
    let (below, above) = match kind {
        0 => (value & !half, value & half),
        _ => (value, value),
    };
    expect(boundary.wrapping_sub(1), below);
    expect(boundary, above);
}
