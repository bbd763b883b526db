//! An arena in WebAssembly memory that two threads share: a worker writes slots, the main thread
//! descends.
//!
//! Each thread has its own instance of this module, over the same memory. `test.mjs` runs them in
//! Node; `.cargo/config.toml` says how this is linked.

#![cfg(target_family = "wasm")]
#![no_std]

use core::panic::PanicInfo;
use core::slice;

use pugmark::slots::{Inline, Reader, Seen, chunk_words, mirror_words};
use pugmark::{SlotBinding, StaticArena};
use spin::Mutex;

const CHUNKS: usize = 4;
const SLOTS: usize = CHUNKS * 64;
const STRIDE: usize = 64;
const MIRROR_WORDS: usize = mirror_words(SLOTS, STRIDE);

type ArenaReader =
    Reader<'static, Inline<CHUNKS, { chunk_words(STRIDE) }>, [Seen; CHUNKS], [usize; MIRROR_WORDS]>;

static ARENA: StaticArena<CHUNKS, { chunk_words(STRIDE) }> = StaticArena::new();
/// The main thread's.
static READER: Mutex<Option<ArenaReader>> = Mutex::new(None);

// What the script gives.
#[link(wasm_import_module = "env")]
unsafe extern "C" {
    /// A slot, as plain addresses.
    safe fn bound(
        version: *mut u32,
        payload: *mut u8,
        hint: *mut u8,
        chunk_hint: *mut u8,
        stride: usize,
    );
    /// A part of the mirror that changed: where it is there, and its bytes.
    safe fn changed(offset: usize, bytes: *const u8, len: usize);
    safe fn descended(visited: usize, updated: usize, torn: usize);
}

/// On the main thread, once: allocates every slot, and tells the script of each.
#[unsafe(no_mangle)]
extern "C" fn start() {
    let mut owner = ARENA.owner().expect("nobody else has it");
    while let Ok(writer) = owner.allocate() {
        let binding = writer.into_binding();
        bound(
            binding.version,
            binding.payload,
            binding.hint,
            binding.chunk_hint,
            binding.stride,
        );
    }
    let (seen, mirror) = ([Seen::ZERO; CHUNKS], [0; MIRROR_WORDS]);
    *READER.lock() = Some(Reader::new(&ARENA, seen, mirror).expect("the arena's sizes"));
}

/// On the main thread.
#[unsafe(no_mangle)]
extern "C" fn descend() {
    let mut reader = READER.lock();
    let reader = reader.as_mut().expect("started");
    let descent = reader.descend(|offset, bytes| changed(offset, bytes.as_ptr(), bytes.len()));
    descended(descent.visited, descent.updated, descent.torn);
}

/// On the worker: writes `STRIDE` bytes to a slot of which it knows the addresses.
///
/// # Safety
///
/// They are a slot's, which only this thread writes; `bytes` are readable.
#[unsafe(no_mangle)]
unsafe extern "C" fn write(
    version: *mut u32,
    payload: *mut u8,
    hint: *mut u8,
    chunk_hint: *mut u8,
    bytes: *const u8,
) -> bool {
    let binding = SlotBinding {
        version,
        payload,
        hint,
        chunk_hint,
        stride: STRIDE,
        // Writing asks for the addresses alone.
        chunk: 0,
        slot: 0,
    };
    // SAFETY: the caller's.
    unsafe { binding.write(slice::from_raw_parts(bytes, STRIDE)).is_ok() }
}

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}
