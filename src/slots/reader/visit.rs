//! Reads the slots of a line that changed.
//!
//! # Whose value it is
//!
//! A slot's generation changes only while its version is odd, from [`seqlock::begin`] to the end of
//! the first write, and then the owner sets the line's hint `reused`. So the reader needs to load
//! no generation as long as the hint is not set:
//!
//! - It looks at an even version, of a write of generation *g*. That the hint was set for *g*
//!   happened before the write ended, and so before the look. If the hint is not set after the look,
//!   the reader has taken it since, and has loaded *g*, or a later one.
//! - It has loaded a later one: then the version was odd before that, and the confirmation, which
//!   comes after, does not find the one looked at.

use super::ahead::Touched;
use super::seen::{SeenLine, has_value};
use crate::slots::seqlock;
use crate::slots::words::{BLOCK, Words};
use crate::sync::{AtomicU32, AtomicUsize, Ordering::Relaxed};

/// What was found in a line: a bit a slot.
#[derive(Default)]
pub(super) struct Found {
    pub(super) updated: u32,
    pub(super) torn: u32,
}

/// Reads the slots of a line that changed into `values`, of `stride` words each: one try a slot.
#[inline]
pub(super) fn visit(
    touched: &Touched<'_>,
    stride: usize,
    mut seen: SeenLine<'_>,
    values: &mut [usize],
    scratch: &mut [usize],
) -> Found {
    let line = touched.line();
    let payload = touched.payload(stride);
    let mut found = Found::default();
    let mut changed = touched.changed;
    while changed != 0 {
        let slot = changed.trailing_zeros() as usize;
        changed &= changed - 1;
        let version = &line.versions[slot];
        let looked = seqlock::look(version);
        // Between the look and the confirmation: see the module.
        if touched.hints.reused.is_set() {
            seen.renew(line, touched.hints);
        }
        if looked & 1 != 0 {
            if has_value(seen.versions[slot]) {
                found.torn |= 1 << slot;
            } else {
                // The end of the first write will change the version, and leave a hint.
                seen.versions[slot] = looked;
            }
            continue;
        }
        let payload = &payload[slot * stride..][..stride];
        let value = &mut values[slot * stride..][..stride];
        if !copy_whole(version, looked, payload, value, scratch) {
            found.torn |= 1 << slot;
            continue;
        }
        seen.versions[slot] = looked;
        found.updated |= 1 << slot;
    }
    found
}

/// Copies `payload` into `value`, if it is whole; if not, `value` stays as it was.
#[inline]
fn copy_whole(
    version: &AtomicU32,
    looked: u32,
    payload: &[AtomicUsize],
    value: &mut [usize],
    scratch: &mut [usize],
) -> bool {
    // What fits into registers waits there: at 64 bytes a slot a tenth of the whole descend.
    if let Ok(payload) = <&[AtomicUsize; BLOCK]>::try_from(payload) {
        let new: [usize; BLOCK] = core::array::from_fn(|i| payload[i].load(Relaxed));
        let is_whole = seqlock::confirm(version, looked);
        if is_whole {
            value.copy_from_slice(&new);
        }
        return is_whole;
    }
    copy_long(version, looked, payload, value, scratch)
}

/// Not inlined, to leave the registers to the short one.
#[inline(never)]
fn copy_long(
    version: &AtomicU32,
    looked: u32,
    payload: &[AtomicUsize],
    value: &mut [usize],
    scratch: &mut [usize],
) -> bool {
    // The last value waits in the scratch. The other way round, with the new one there, the second
    // copy would wait for the stores of the first.
    scratch.copy_from_slice(value);
    Words::new(payload).load_words(value);
    let is_whole = seqlock::confirm(version, looked);
    if !is_whole {
        value.copy_from_slice(scratch);
    }
    is_whole
}
