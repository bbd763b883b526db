//! The guest's code, and the pages that each piece of it writes.

use std::arch::global_asm;
use std::ops::Range;

/// Where RAM begins, for the guest. Its code is in the first block.
pub const RAM: u64 = 0x4000_0000;
pub const BLOCK: u64 = 2 << 20;
pub const SIZE: u64 = 16 * BLOCK;
pub const PAGE: u64 = 16 << 10;

/// vCPUs, each with its thread.
pub const VCPUS: u64 = 2;

// Each loop stores x3 to x2 pages, from x0 on, x1 bytes apart, and ends with HVC. Writeback moves
// it on by 8 bytes a page, which 128 pages bear. The code runs wherever it is copied to. With its MMU off the guest's memory is Device memory, where exclusives, atomics
// and DC ZVA are not for certain; the el2 example has those.
global_asm!(
    ".macro each_page store:vararg",
    "1: \\store",
    "add x0, x0, x1",
    "subs x2, x2, #1",
    "b.ne 1b",
    "hvc #0",
    ".endm",
    ".p2align 2",
    "_guest_begin:",
    "_guest_str: each_page str x3, [x0]",
    "_guest_strb: each_page strb w3, [x0]",
    "_guest_stp: each_page stp x3, x3, [x0]",
    "_guest_pre: each_page str x3, [x0, #8]!",
    "_guest_post: each_page str x3, [x0], #8",
    "_guest_simd: dup v0.2d, x3",
    "each_page str q0, [x0]",
    "_guest_end:",
);

unsafe extern "C" {
    static guest_begin: u8;
    static guest_str: u8;
    static guest_strb: u8;
    static guest_stp: u8;
    static guest_pre: u8;
    static guest_post: u8;
    static guest_simd: u8;
    static guest_end: u8;
}

/// The code, as bytes to copy to [`RAM`].
pub fn code() -> &'static [u8] {
    let [begin, end] = [&raw const guest_begin, &raw const guest_end];
    // SAFETY: the two labels bound the code, which nobody writes.
    unsafe { std::slice::from_raw_parts(begin, end.addr() - begin.addr()) }
}

/// A kind of store, and the pages that it is to write.
pub struct Class {
    pub name: &'static str,
    /// `None`: the VMM itself writes, as a device does.
    entry: Option<*const u8>,
    /// All pages from one address to another, or each `stride` bytes.
    pub area: Range<u64>,
    pub stride: u64,
    /// Both vCPUs write to each page, each to its own half.
    shared: bool,
}

/// What a vCPU is to do: the registers that a loop takes.
#[derive(Clone, Copy)]
pub struct Job {
    pub entry: u64,
    pub first: u64,
    pub stride: u64,
    pub count: u64,
}

impl Class {
    /// The pages that it writes.
    pub fn pages(&self) -> impl Iterator<Item = u64> {
        self.area.clone().step_by(self.stride as usize)
    }

    pub const fn is_device(&self) -> bool {
        self.entry.is_none()
    }

    /// The share of a vCPU.
    pub fn job(&self, vcpu: u64) -> Option<Job> {
        let entry = RAM + (self.entry?.addr() - (&raw const guest_begin).addr()) as u64;
        let pages = (self.area.end - self.area.start) / self.stride;
        Some(match self.shared {
            true => Job {
                entry,
                first: self.area.start + vcpu * PAGE / 2,
                stride: self.stride,
                count: pages,
            },
            false => Job {
                entry,
                first: self.area.start + vcpu * self.stride,
                stride: VCPUS * self.stride,
                count: pages / VCPUS,
            },
        })
    }
}

/// All classes, a block or more each, above the code.
pub fn classes() -> Vec<Class> {
    let mut next = RAM + BLOCK;
    let mut class = |name, entry: Option<*const u8>, blocks: u64, stride, shared| {
        let area = next..next + blocks * BLOCK;
        next = area.end;
        Class {
            name,
            entry,
            area,
            stride,
            shared,
        }
    };
    let str = Some(&raw const guest_str);
    vec![
        class("STR", str, 1, PAGE, false),
        class("STRB", Some(&raw const guest_strb), 1, PAGE, false),
        class("STP", Some(&raw const guest_stp), 1, PAGE, false),
        class("STR, pre-index", Some(&raw const guest_pre), 1, PAGE, false),
        class(
            "STR, post-index",
            Some(&raw const guest_post),
            1,
            PAGE,
            false,
        ),
        class("SIMD STR", Some(&raw const guest_simd), 1, PAGE, false),
        class("two vCPUs on one page", str, 1, PAGE, true),
        class("device: the VMM writes", None, 1, PAGE, false),
        class("sparse: 2 pages a block", str, 4, BLOCK / 2, false),
        class("dense: 2 whole blocks", str, 2, PAGE, false),
    ]
}
