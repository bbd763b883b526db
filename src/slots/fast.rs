//! What only assembly says: the copy of large payloads ([`read_fast`](super::seqlock::read_fast)),
//! the prefetch, and relaxed loads and stores of neighbours by vectors.

use super::hints::ChunkHints;
use super::words::Words;

// Kernels are built without SSE: they, too, get the loads and stores one by one.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(any(miri, loom))))]
#[path = "fast/sse2.rs"]
mod vectors;
#[cfg(any(miri, loom, not(all(target_arch = "x86_64", target_feature = "sse2"))))]
#[path = "fast/portable.rs"]
mod vectors;

pub(super) use crate::prefetch::to_read as prefetch;
pub(super) use vectors::{Block, clear, set, store};

/// Copies the payload out into `bytes`, which is as long.
#[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
#[inline]
pub(super) fn load(payload: Words<'_>, bytes: &mut [u8]) {
    debug_assert_eq!(payload.len(), bytes.len());
    // Where the destination lies 1 to 31 bytes further in its page of 4 KiB than the source in its own,
    // a Zen 4's microcode, which a memcpy uses as well, takes 95 to 1,150 ns for 4 KiB, and not 44. Words
    // take 109 there.
    let further = bytes.as_ptr().addr().wrapping_sub(payload.as_ptr().addr()) % 4096;
    if (1..32).contains(&further) {
        payload.load(bytes);
        return;
    }
    // SAFETY: reads and writes `bytes.len()` bytes, which both sides have. The source may change
    // meanwhile: to the compiler this is opaque code, to the machine an ordinary copy. The
    // direction flag is clear, as the ABI of `asm!` has it.
    unsafe {
        core::arch::asm!(
            "rep movsb",
            inout("rcx") bytes.len() => _,
            inout("rsi") payload.as_ptr() => _,
            inout("rdi") bytes.as_mut_ptr() => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Copies the payload out into `bytes`, which is as long.
#[cfg(all(target_arch = "aarch64", not(any(miri, loom))))]
#[inline]
pub(super) fn load(payload: Words<'_>, bytes: &mut [u8]) {
    /// Bytes that a turn of the loop copies.
    const TURN: usize = 64;

    let len = bytes.len() / TURN * TURN;
    if len != 0 {
        // SAFETY: reads and writes `len` bytes, which both sides have; `len` is a multiple of what a
        // turn copies, and not zero. The source may change meanwhile: to the compiler this is opaque
        // code, to the machine ordinary loads.
        unsafe {
            core::arch::asm!(
                "2:",
                "ldp {a}, {b}, [{from}]",
                "ldp {c}, {d}, [{from}, #16]",
                "stp {a}, {b}, [{to}]",
                "stp {c}, {d}, [{to}, #16]",
                "ldp {a}, {b}, [{from}, #32]",
                "ldp {c}, {d}, [{from}, #48]",
                "stp {a}, {b}, [{to}, #32]",
                "stp {c}, {d}, [{to}, #48]",
                "add {from}, {from}, #64",
                "add {to}, {to}, #64",
                "cmp {from}, {end}",
                "b.ne 2b",
                from = inout(reg) payload.as_ptr() => _,
                to = inout(reg) bytes.as_mut_ptr() => _,
                end = in(reg) payload.as_ptr().wrapping_add(len),
                a = out(reg) _,
                b = out(reg) _,
                c = out(reg) _,
                d = out(reg) _,
                options(nostack),
            );
        }
    }
    payload.from(len).load(&mut bytes[len..]);
}

/// Copies the payload out into `bytes`, which is as long.
#[cfg(any(miri, loom, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub(super) fn load(payload: Words<'_>, bytes: &mut [u8]) {
    payload.load(bytes);
}

/// Hints of slots that are cleared together.
pub(super) const RUN: usize = 8;

/// Hints of chunks that are looked at together.
pub(super) const HINTS: usize = 32;

/// Which of the hints, [`HINTS`] or fewer, are [written](ChunkHints::written): a bit each.
#[inline]
pub(super) fn written(hints: &[ChunkHints]) -> u32 {
    if let Ok(hints) = hints.try_into() {
        return vectors::written(hints);
    }
    written_one_by_one(hints)
}

#[inline]
fn written_one_by_one(hints: &[ChunkHints]) -> u32 {
    let bits = hints.iter().enumerate();
    bits.fold(0, |mask, (i, hints)| {
        mask | u32::from(hints.written.is_set()) << i
    })
}
