//! A C process writes slots and marks pages, each in a thread, while we descend and drain.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use pugmark::capi::Bitmap;
use pugmark::slots::bytes_for;
use pugmark::{AtomicUsize, BorrowedArena, DirtyBitmap, SlotBinding, words_for};

use crate::program::programs;
use crate::shared_memory::SharedMemory;

// These, `Shared` and the values are in program.c too.
const SLOTS: usize = 1000;
const SLOT_WORDS: usize = 8;
const PAGES: usize = 5000;

const STRIDE: usize = SLOT_WORDS * size_of::<usize>();
const ROUNDS: usize = 10_000;
const PASSES: u32 = 2_000;

#[repr(C)]
struct Shared {
    start: usize,
    bitmap: Bitmap,
    slots: [SlotBinding; SLOTS],
    pages: [AtomicU32; PAGES],
}

/// The memory, up to the arena.
#[repr(C)]
struct Memory {
    shared: Shared,
    words: [AtomicUsize; words_for(PAGES)],
}

/// The round of a value, every word of which says it.
fn round_of(slot: usize, value: &[u8]) -> usize {
    let (words, rest) = value.as_chunks();
    let words = words.iter().map(|word| usize::from_ne_bytes(*word));
    let rounds = words.enumerate().map(|(index, word)| {
        let place = slot * SLOT_WORDS + index;
        let all = SLOTS * SLOT_WORDS;
        assert_eq!((word - place) % all, 0, "slot {slot}, word {index}: {word}");
        (word - place) / all
    });
    let rounds: Vec<usize> = rounds.collect();
    assert!(
        rest.is_empty() && rounds.iter().all(|round| *round == rounds[0]),
        "torn: {rounds:?}"
    );
    rounds[0]
}

#[test]
fn rust_finds_what_c_writes_and_marks() {
    for program in programs() {
        find(program);
    }
}

fn find(program: &Path) {
    // And what its alignment may skip.
    let arena_bytes = bytes_for(SLOTS, STRIDE) + 64;
    let memory = SharedMemory::new(size_of::<Memory>() + arena_bytes);
    let at = memory.start().cast::<Memory>();
    // SAFETY: in the memory, which is zero, and shared with nobody yet.
    let arena = unsafe {
        let start = at.add(1).cast();
        BorrowedArena::in_memory(start, arena_bytes, SLOTS, STRIDE).expect("enough memory")
    };
    // SAFETY: zeros are atomics, which is all that is accessed from here on.
    let (words, pages) = unsafe { (&(*at.as_ptr()).words, &(*at.as_ptr()).shared.pages) };
    let dirty = DirtyBitmap::with_storage(words.as_slice(), PAGES).expect("enough words");

    let mut owner = arena.owner().expect("nobody else has it");
    let mut reader = arena.boxed_reader().expect("nobody else has it");
    let writers: Vec<_> = (0..SLOTS)
        .map(|_| owner.allocate().expect("a slot"))
        .collect();
    let ids: Vec<_> = writers.iter().map(|writer| writer.id()).collect();
    for (index, writer) in writers.into_iter().enumerate() {
        // SAFETY: as above; C is not there yet.
        unsafe { (&raw mut (*at.as_ptr()).shared.slots[index]).write(writer.into_binding()) };
    }
    // SAFETY: as above.
    unsafe {
        (&raw mut (*at.as_ptr()).shared.bitmap).write(Bitmap::from(&dirty));
        (&raw mut (*at.as_ptr()).shared.start).write(at.as_ptr().addr());
    }

    let mut command = Command::new(program);
    command.arg("write").arg(memory.path());
    command.args([ROUNDS.to_string(), PASSES.to_string()]);
    let mut child = command.spawn().expect("the program runs");

    let mut rounds = [0; SLOTS];
    let mut found = vec![0; PAGES];
    let (mut updated, mut torn, mut drained) = (0, 0, 0);
    loop {
        // Before the last look, so that everything comes before it.
        let ended = child.try_wait().expect("a child");
        let descent = reader.descend(|offset, bytes| {
            for (index, value) in bytes.chunks(STRIDE).enumerate() {
                let slot = offset / STRIDE + index;
                let round = round_of(slot, value);
                assert!(
                    round > rounds[slot],
                    "slot {slot}: {round} after {}",
                    rounds[slot]
                );
                rounds[slot] = round;
            }
        });
        updated += descent.updated;
        torn += descent.torn;
        dirty.drain_bits(|page| {
            found[page] = pages[page].load(Relaxed);
            drained += 1;
        });
        if let Some(status) = ended {
            assert!(status.success(), "{}: {status}", program.display());
            break;
        }
    }
    println!(
        "{}: {updated} of {} values read, {torn} tries torn, 0 accepted; {drained} marks drained",
        program.display(),
        ROUNDS * SLOTS
    );
    assert_eq!(rounds, [ROUNDS; SLOTS]);
    assert!(ids.iter().all(|id| reader.value(*id).is_some()));
    assert!(found.iter().all(|pass| *pass == PASSES), "a mark was lost");
    assert!(
        words.iter().all(|word| word.load(Relaxed) == 0),
        "a mark is not in the summary"
    );
}
