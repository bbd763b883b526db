//! Neighbours at once, by the vectors that every x86-64 program has.

use super::HINTS;
use crate::slots::chunk::LINE_SLOTS;
use crate::slots::hints::Hints;
use crate::slots::words::{BLOCK, WORD};
use crate::sync::{AtomicU32, AtomicUsize};

/// Stores a block of words.
#[inline]
pub(in crate::slots) fn store(words: &[AtomicUsize; BLOCK], bytes: &[u8; BLOCK * WORD]) {
    // SAFETY: 64 bytes are loaded from the one, and stored to the other, as so many relaxed stores
    // would: an aligned word of a vector is not torn, and to x86 a vector's store is ordered as any.
    unsafe {
        core::arch::asm!(
            "movdqu {a}, [{from}]",
            "movdqu {b}, [{from} + 16]",
            "movdqu {c}, [{from} + 32]",
            "movdqu {d}, [{from} + 48]",
            "movdqu [{to}], {a}",
            "movdqu [{to} + 16], {b}",
            "movdqu [{to} + 32], {c}",
            "movdqu [{to} + 48], {d}",
            from = in(reg) bytes,
            to = in(reg) words,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(nostack, preserves_flags),
        );
    }
}

/// Which of the hints are [written](Hints::written): a bit each.
#[inline]
pub(super) fn written(hints: &[Hints; HINTS]) -> u32 {
    let unset: u32;
    // SAFETY: loads the 32 bytes of the hints, as relaxed loads would.
    unsafe {
        core::arch::asm!(
            "movdqu {a}, [{hints}]",
            "movdqu {b}, [{hints} + 16]",
            // The other byte of each pair goes.
            "psllw {a}, 8",
            "psllw {b}, 8",
            "packsswb {a}, {b}",
            "pxor {b}, {b}",
            "pcmpeqb {a}, {b}",
            "pmovmskb {unset:e}, {a}",
            hints = in(reg) hints,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            unset = out(reg) unset,
            options(nostack, preserves_flags, readonly),
        );
    }
    unset ^ 0xffff
}

/// Which of the versions are not those seen: a bit each.
#[inline]
pub(in crate::slots) fn differing(
    versions: &[AtomicU32; LINE_SLOTS],
    seen: &[u32; LINE_SLOTS],
) -> u32 {
    let same: u32;
    // SAFETY: loads the 64 bytes of each. Those of the versions are relaxed loads of them: no machine
    // tears an aligned word of a vector.
    unsafe {
        core::arch::asm!(
            "movdqu {a}, [{versions}]",
            "movdqu {b}, [{versions} + 16]",
            "movdqu {c}, [{versions} + 32]",
            "movdqu {d}, [{versions} + 48]",
            "movdqu {t}, [{seen}]",
            "pcmpeqd {a}, {t}",
            "movdqu {t}, [{seen} + 16]",
            "pcmpeqd {b}, {t}",
            "movdqu {t}, [{seen} + 32]",
            "pcmpeqd {c}, {t}",
            "movdqu {t}, [{seen} + 48]",
            "pcmpeqd {d}, {t}",
            "packssdw {a}, {b}",
            "packssdw {c}, {d}",
            "packsswb {a}, {c}",
            "pmovmskb {same:e}, {a}",
            versions = in(reg) versions,
            seen = in(reg) seen,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            t = out(xmm_reg) _,
            same = out(reg) same,
            options(nostack, preserves_flags, readonly),
        );
    }
    same ^ 0xffff
}
