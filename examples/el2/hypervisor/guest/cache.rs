//! Cache maintenance by address. `DC ZVA` is a store in all but name. Maintenance instructions say
//! "write" in their syndrome (`CM` = 1 sets `WnR`), so they open and mark a page: more than was
//! asked, and safe, where skipping them would drop the operation.

use core::arch::asm;

use super::{Job, Window, expect};
use crate::hypervisor::{layout::PAGE_SIZE, memory};

/// The pages that are zeroed.
pub const ZEROED: Window = Window::run(super::slot(11), super::SLOT);
/// Rounds that `zero` can tell apart: the largest zeroing block that CPUs have is 512 bytes here.
pub const ZERO_ROUNDS: u64 = 8;
const ZERO_STRIDE: usize = 512;

/// Fills the pages, so that zeroes show.
pub fn fill() {
    for n in 0..ZEROED.len() {
        let page = ZEROED.page(n);
        for word in (page..page + PAGE_SIZE).step_by(8) {
            memory::write(word, !0);
        }
    }
}

pub fn zero(job: &Job) -> u64 {
    job.write_pages(|page, _| {
        let block = page.wrapping_byte_add(job.round as usize * ZERO_STRIDE);
        // SAFETY: the page is this vCPU's own, and the block lies within it.
        unsafe { asm!("dc zva, {}", in(reg) block, options(nostack)) };
        // The smallest zeroing block in use is 64 bytes.
        for word in 0..8 {
            expect(block.wrapping_add(word), 0);
        }
    })
}

pub fn maintenance(job: &Job) -> u64 {
    job.write_pages(|page, value| {
        // SAFETY: the page is this vCPU's own. Under stage 2, DC IVAC cleans too (the architecture
        // makes it DC CIVAC while HCR_EL2.VM is 1), so no store is dropped.
        unsafe {
            asm!(
                "dc civac, {p}",
                "dc ivac, {p}",
                "str {v}, [{p}]",
                "dc civac, {p}",
                "dc ivac, {p}",
                "dsb ish",
                p = in(reg) page,
                v = in(reg) value,
                options(nostack),
            )
        };
        expect(page, value);
    })
}
