//! Reads a slot that is hinted.
//!
//! # Whose value it is
//!
//! A slot's generation changes only while its version is odd, from [`seqlock::begin`] to the end of
//! the first write, and then the owner sets the chunk's hint `reused`. So the reader needs to load
//! no generation as long as the hint is not set:
//!
//! - It looks at an even version, of a write of generation *g*. That the hint was set for *g*
//!   happened before the write ended, and so before the look. If the hint is not set after the look,
//!   the reader has cleared it since, and has loaded *g*, or a later one.
//! - It has loaded a later one: then the version was odd before that, and the confirmation, which
//!   comes after, does not find the one looked at.

use super::seen::{Seen, has_value};
use crate::slots::chunk::{CHUNK_SLOTS, Chunk};
use crate::slots::fast::{self, prefetch};
use crate::slots::hints::ChunkHints;
use crate::slots::seqlock;
use crate::slots::storage::Storage;
use crate::slots::words::{BLOCK, Words};
use crate::sync::{AtomicU32, AtomicUsize};

/// What was found in a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// What was seen before.
    Unchanged,
    /// No value any more, or none yet.
    NoValue,
    Torn,
    Updated,
}

/// Reads a slot of `chunk` into `value`, if it changed: one try.
#[inline(always)]
pub(super) fn visit(
    chunk: &Chunk,
    hints: &ChunkHints,
    slot: usize,
    seen: &mut Seen,
    value: &mut [usize],
    scratch: &mut [usize],
) -> Found {
    let version = &chunk.versions[slot];
    let looked = seqlock::look(version);
    // Between the look and the confirmation: see the module.
    if hints.reused.is_set() {
        seen.renew(chunk, hints);
    }
    if looked == seen.versions[slot] {
        return Found::Unchanged;
    }
    if looked & 1 != 0 {
        return without_value(looked, &mut seen.versions[slot]);
    }
    let stride = value.len();
    let payload = &chunk.payload[slot * stride..][..stride];
    if !copy_whole(version, looked, payload, value, scratch) {
        return Found::Torn;
    }
    seen.versions[slot] = looked;
    Found::Updated
}

#[cold]
fn without_value(looked: u32, seen: &mut u32) -> Found {
    if has_value(*seen) {
        return Found::Torn;
    }
    // The end of the first write will change the version, and leave a hint.
    *seen = looked;
    Found::NoValue
}

/// Asks for what is read and written of a slot, with `stride` words of payload.
#[inline]
pub(super) fn ask<A: Storage>(
    storage: &A,
    index: usize,
    stride: usize,
    seen: &[Seen],
    mirror: &[usize],
) {
    let (chunk, slot) = (index / CHUNK_SLOTS, index % CHUNK_SLOTS);
    let seen = seen
        .as_ptr()
        .wrapping_add(chunk)
        .cast::<u32>()
        .wrapping_add(slot);
    if let Some(chunk) = storage.chunk(chunk) {
        prefetch(&raw const chunk.versions[slot]);
        prefetch(chunk.payload.as_ptr().wrapping_add(slot * stride));
        prefetch(seen);
        let value = mirror.as_ptr().wrapping_add(index * stride);
        prefetch(value);
    }
}

/// Copies `payload` into `value`, if it is whole; if not, `value` stays as it was.
#[inline(always)]
fn copy_whole(
    version: &AtomicU32,
    looked: u32,
    payload: &[AtomicUsize],
    value: &mut [usize],
    scratch: &mut [usize],
) -> bool {
    // What fits into registers waits there: at 64 bytes a slot a tenth of the whole descend.
    if let (Ok(payload), Ok(value)) = (
        payload.try_into(),
        <&mut [usize; BLOCK]>::try_from(&mut *value),
    ) {
        let new = fast::Block::load(payload);
        let is_whole = seqlock::confirm(version, looked);
        if is_whole {
            new.store(value);
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
