//! Neighbours at once, by the vectors that every x86-64 program has.

use core::arch::x86_64::__m128i;

use super::{HINTS, RUN};
use crate::slots::hints::{ChunkHints, SlotHints};
use crate::slots::words::{BLOCK, WORD};
use crate::sync::{AtomicUsize, HintByte};

/// A block of words, in registers.
pub(in crate::slots) struct Block([__m128i; 4]);

impl Block {
    #[inline]
    pub(in crate::slots) fn load(words: &[AtomicUsize; BLOCK]) -> Self {
        let (a, b, c, d);
        // SAFETY: 64 bytes are loaded, as so many relaxed loads would: an aligned word of a vector is
        // not torn, and to x86 a vector's load is ordered as any.
        unsafe {
            core::arch::asm!(
                "movdqu {a}, [{from}]",
                "movdqu {b}, [{from} + 16]",
                "movdqu {c}, [{from} + 32]",
                "movdqu {d}, [{from} + 48]",
                from = in(reg) words,
                a = out(xmm_reg) a,
                b = out(xmm_reg) b,
                c = out(xmm_reg) c,
                d = out(xmm_reg) d,
                options(nostack, preserves_flags, readonly),
            );
        }
        Self([a, b, c, d])
    }

    #[inline]
    pub(in crate::slots) fn store(self, into: &mut [usize; BLOCK]) {
        // SAFETY: both are 64 bytes, without padding.
        *into = unsafe { core::mem::transmute::<[__m128i; 4], [usize; BLOCK]>(self.0) };
    }
}

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

/// Which of the hints are [written](ChunkHints::written): a bit each.
#[inline]
pub(super) fn written(hints: &[ChunkHints; HINTS]) -> u32 {
    let (low, high): (u32, u32);
    // SAFETY: loads the 64 bytes of the hints, as relaxed loads would.
    unsafe {
        core::arch::asm!(
            "movdqu {a}, [{hints}]",
            "movdqu {b}, [{hints} + 16]",
            "movdqu {c}, [{hints} + 32]",
            "movdqu {d}, [{hints} + 48]",
            // The other byte of each pair goes.
            "psllw {a}, 8",
            "psllw {b}, 8",
            "psllw {c}, 8",
            "psllw {d}, 8",
            "packsswb {a}, {b}",
            "packsswb {c}, {d}",
            "pxor {b}, {b}",
            "pcmpeqb {a}, {b}",
            "pcmpeqb {c}, {b}",
            "pmovmskb {low:e}, {a}",
            "pmovmskb {high:e}, {c}",
            hints = in(reg) hints,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            low = out(reg) low,
            high = out(reg) high,
            options(nostack, preserves_flags, readonly),
        );
    }
    !(low | high << 16)
}

/// Which of a chunk's slots have their hint set: a bit each.
#[inline]
pub(in crate::slots) fn set(hints: &SlotHints) -> u64 {
    let (a, b, c, d): (u32, u32, u32, u32);
    // SAFETY: loads the 64 bytes of the hints, as relaxed loads would.
    unsafe {
        core::arch::asm!(
            "pxor {zero}, {zero}",
            "movdqu {x}, [{hints}]",
            "movdqu {y}, [{hints} + 16]",
            "pcmpeqb {x}, {zero}",
            "pcmpeqb {y}, {zero}",
            "pmovmskb {a:e}, {x}",
            "pmovmskb {b:e}, {y}",
            "movdqu {x}, [{hints} + 32]",
            "movdqu {y}, [{hints} + 48]",
            "pcmpeqb {x}, {zero}",
            "pcmpeqb {y}, {zero}",
            "pmovmskb {c:e}, {x}",
            "pmovmskb {d:e}, {y}",
            hints = in(reg) hints,
            zero = out(xmm_reg) _,
            x = out(xmm_reg) _,
            y = out(xmm_reg) _,
            a = out(reg) a,
            b = out(reg) b,
            c = out(reg) c,
            d = out(reg) d,
            options(nostack, preserves_flags, readonly),
        );
    }
    !(u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32 | u64::from(d) << 48)
}

/// Clears the hints. [`HintByte::cleared`] must be called after.
#[inline]
pub(in crate::slots) fn clear(hints: &[HintByte; RUN]) {
    // SAFETY: stores to the 8 bytes of the hints, as relaxed stores would: no byte is torn, and to x86
    // this store is ordered as any.
    unsafe {
        core::arch::asm!(
            "mov qword ptr [{hints}], 0",
            hints = in(reg) hints,
            options(nostack, preserves_flags),
        );
    }
}
