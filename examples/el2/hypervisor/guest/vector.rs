//! Stores of vector registers. What they leave in memory also proves that an exit gives every
//! vector register back, to its last bit: the store that is retried stores it.

use core::arch::asm;

use super::{Job, expect, expect_value};

pub fn simd(job: &Job) -> u64 {
    job.write_pages(|page, value| {
        let high: u64;
        // SAFETY: the page is this vCPU's own; 128 bytes of it are written.
        unsafe {
            asm!(
                "dup v16.2d, {v}",
                "mov v17.16b, v16.16b",
                "mov v18.16b, v16.16b",
                "mov v19.16b, v16.16b",
                "st1 {{v16.2d, v17.2d, v18.2d, v19.2d}}, [{p}]",
                "str q18, [{p}, #64]",
                "stp q16, q17, [{p}, #80]",
                "str d19, [{p}, #112]",
                "umov {high}, v19.d[1]",
                p = in(reg) page,
                v = in(reg) value,
                high = out(reg) high,
                out("v16") _, out("v17") _, out("v18") _, out("v19") _,
                options(nostack),
            )
        };
        expect_value(page, high, value);
        for word in 0..15 {
            expect(page.wrapping_add(word), value);
        }
    })
}

pub fn sve(job: &Job) -> u64 {
    job.write_pages(|page, value| {
        let bytes: usize;
        // SAFETY: the page is this vCPU's own; a vector has at most 256 bytes, and three are
        // written. The class runs where FEAT_SVE is.
        unsafe {
            asm!(
                ".arch_extension sve",
                "ptrue p0.b",
                "rdvl {bytes}, #1",
                "dup z16.d, {v}",
                "mov z17.d, z16.d",
                "st1d {{z16.d}}, p0, [{p}]",
                "st1b {{z17.b}}, p0, [{p}, #1, mul vl]",
                "str z16, [{p}, #2, mul vl]",
                p = in(reg) page,
                v = in(reg) value,
                bytes = out(reg) bytes,
                out("v16") _, out("v17") _, out("p0") _,
                options(nostack),
            )
        };
        for word in 0..3 * bytes / 8 {
            expect(page.wrapping_add(word), value);
        }
    })
}
