//! A line's words at once, by the vectors that every x86-64 program has.

use super::LINE_WORDS;
use crate::sync::AtomicUsize;

#[inline]
pub(super) fn marked(line: &[AtomicUsize; LINE_WORDS]) -> usize {
    let clean: u32;
    // SAFETY: loads the 64 bytes of the line, as eight SeqCst loads would: no machine tears an
    // aligned word of a vector, x86 keeps every load behind the locked swap of the summary, and so
    // does the compiler, to which this may read any memory.
    unsafe {
        core::arch::asm!(
            "movdqu {a}, [{line}]",
            "movdqu {b}, [{line} + 16]",
            "movdqu {c}, [{line} + 32]",
            "movdqu {d}, [{line} + 48]",
            // Which halves of words are zero: a byte each, in the end.
            "pxor {t}, {t}",
            "pcmpeqd {a}, {t}",
            "pcmpeqd {b}, {t}",
            "pcmpeqd {c}, {t}",
            "pcmpeqd {d}, {t}",
            "packssdw {a}, {b}",
            "packssdw {c}, {d}",
            "packsswb {a}, {c}",
            // Both halves of which words are: a pair of bytes, then a bit each.
            "pcmpeqd {t}, {t}",
            "pcmpeqw {a}, {t}",
            "packsswb {a}, {a}",
            "pmovmskb {clean:e}, {a}",
            line = in(reg) line,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            t = out(xmm_reg) _,
            clean = out(reg) clean,
            options(nostack, preserves_flags, readonly),
        );
    }
    // Of two copies, the lower.
    usize::from(!clean as u8)
}
