//! Bulk access to the guest's memory and to the two copies of it. None of it is memory that Rust
//! knows of: the guest may write to its own while the harvester copies, so the copy is made of
//! instructions that have no notion of a data race.

use core::arch::asm;

use super::layout::{DESTINATION, GUEST_PAGES, PAGE_SIZE, TRUTH, page_ipa};

/// Copies whole pages between addresses that do not overlap, 128 bytes at a time: in an emulator
/// a turn of a loop costs as much as what is in it.
pub fn copy(from: u64, to: u64, len: u64) {
    debug_assert!(len.is_multiple_of(PAGE_SIZE));
    // SAFETY: the callers pass whole pages of guest RAM and of its copies, which EL2's page table
    // maps, and of which Rust holds no reference.
    unsafe {
        asm!(
            "2: ldp {a:q}, {b:q}, [{from}]",
            "ldp {c:q}, {d:q}, [{from}, #32]",
            "ldp {e:q}, {f:q}, [{from}, #64]",
            "ldp {g:q}, {h:q}, [{from}, #96]",
            "add {from}, {from}, #128",
            "stp {a:q}, {b:q}, [{to}]",
            "stp {c:q}, {d:q}, [{to}, #32]",
            "stp {e:q}, {f:q}, [{to}, #64]",
            "stp {g:q}, {h:q}, [{to}, #96]",
            "add {to}, {to}, #128",
            "cmp {from}, {end}",
            "b.lo 2b",
            from = inout(reg) from => _,
            to = inout(reg) to => _,
            end = in(reg) from + len,
            a = out(vreg) _, b = out(vreg) _, c = out(vreg) _, d = out(vreg) _,
            e = out(vreg) _, f = out(vreg) _, g = out(vreg) _, h = out(vreg) _,
            options(nostack),
        )
    };
}

/// Whether two pages hold the same bytes.
pub fn same(one: u64, other: u64) -> bool {
    let differing: u64;
    // SAFETY: as in `copy`; nothing is written.
    unsafe {
        asm!(
            "movi {sum}.16b, #0",
            "2: ldp {a:q}, {b:q}, [{one}]",
            "ldp {c:q}, {d:q}, [{one}, #32]",
            "add {one}, {one}, #64",
            "ldp {e:q}, {f:q}, [{other}]",
            "ldp {g:q}, {h:q}, [{other}, #32]",
            "add {other}, {other}, #64",
            "eor {a}.16b, {a}.16b, {e}.16b",
            "eor {b}.16b, {b}.16b, {f}.16b",
            "eor {c}.16b, {c}.16b, {g}.16b",
            "eor {d}.16b, {d}.16b, {h}.16b",
            "orr {a}.16b, {a}.16b, {b}.16b",
            "orr {c}.16b, {c}.16b, {d}.16b",
            "orr {sum}.16b, {sum}.16b, {a}.16b",
            "orr {sum}.16b, {sum}.16b, {c}.16b",
            "cmp {one}, {end}",
            "b.lo 2b",
            "umaxv {sum:s}, {sum}.4s",
            "umov {differing:w}, {sum}.s[0]",
            one = inout(reg) one => _,
            other = inout(reg) other => _,
            end = in(reg) one + PAGE_SIZE,
            differing = out(reg) differing,
            sum = out(vreg) _,
            a = out(vreg) _, b = out(vreg) _, c = out(vreg) _, d = out(vreg) _,
            e = out(vreg) _, f = out(vreg) _, g = out(vreg) _, h = out(vreg) _,
            options(nostack, readonly),
        )
    };
    differing == 0
}

/// The place of guest page `index` in the destination.
pub const fn destination(index: usize) -> u64 {
    DESTINATION + index as u64 * PAGE_SIZE
}

/// The place of guest page `index` in the copy of the checkpoint before.
pub const fn truth(index: usize) -> u64 {
    TRUTH + index as u64 * PAGE_SIZE
}

/// Every guest page.
pub fn pages() -> impl Iterator<Item = (usize, u64)> {
    (0..GUEST_PAGES).map(|index| (index, page_ipa(index)))
}

/// Writes a word of guest memory, as a device would.
pub fn write(address: u64, value: u64) {
    // SAFETY: a word of the guest's RAM, which EL2's page table maps; no guest uses it meanwhile.
    unsafe { asm!("str {}, [{}]", in(reg) value, in(reg) address, options(nostack)) };
}
