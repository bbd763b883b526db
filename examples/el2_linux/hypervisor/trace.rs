//! The trace: which pages each harvest delivered, for whoever wants to play it back.
//!
//! All numbers are LEB128, without sign. After the magic bytes: the size of a page, the number of the
//! first page (its address in pages), how many pages there are. Then records, until the file ends:
//!
//! - `0`, a harvest: microseconds since the one before (the first: since the trace began);
//!   how many runs; of each run the pages between it and the one before (the first: from the first
//!   page), and its length in pages.
//! - `1`, a phase begins: the length of its name, and its name.

use core::time::Duration;

use heapless::Vec;
use spin::Mutex;

use super::{
    console::{self, die},
    layout::{GUEST_PAGES, PAGE_SIZE, RAM},
    phase::Phase,
    sleep,
};

const MAGIC: &[u8] = b"pugtrace1\n";
const HARVEST: u64 = 0;
const PHASE: u64 = 1;

/// Written at once, if there is as much.
const CHUNK: usize = 16 << 10;
/// What a harvest may take: at most every other page is a run, two numbers of three bytes each.
const LARGEST: usize = GUEST_PAGES / 2 * 6 + 32;

type Bytes = Vec<u8, { 4 * LARGEST }>;

struct Trace {
    /// Of the harvest that is under way: first page and length.
    runs: Vec<(u32, u32), { GUEST_PAGES / 2 }>,
    bytes: Bytes,
    last: Duration,
}

static TRACE: Mutex<Trace> = Mutex::new(Trace {
    runs: Vec::new(),
    bytes: Vec::new(),
    last: Duration::ZERO,
});

/// Begins the file, and forgets what was harvested before.
pub fn begin(now: Duration) {
    let mut trace = TRACE.lock();
    trace.last = now;
    trace.runs.clear();
    trace.bytes.clear();
    put(&mut trace.bytes, MAGIC);
    for number in [PAGE_SIZE, RAM / PAGE_SIZE, GUEST_PAGES as u64] {
        put_number(&mut trace.bytes, number);
    }
}

/// `phase` begins.
pub fn begin_phase(phase: Phase) {
    let bytes = &mut TRACE.lock().bytes;
    let name = phase.name();
    put_number(bytes, PHASE);
    put_number(bytes, name.len() as u64);
    put(bytes, name.as_bytes());
}

/// Adds a run to the harvest that is under way. They come in ascending order.
pub fn add(first: usize, pages: usize) {
    let (first, pages) = (first as u32, pages as u32);
    let runs = &mut TRACE.lock().runs;
    // A run that a full batch cut in two comes in two.
    if let Some((start, len)) = runs.last_mut()
        && *start + *len == first
    {
        *len += pages;
    } else if runs.push((first, pages)).is_err() {
        die(format_args!("more runs in a harvest than there can be"));
    }
}

/// The harvest is over.
pub fn end_epoch(now: Duration) {
    sleep::until(|| {
        let bytes = &TRACE.lock().bytes;
        bytes.capacity() - bytes.len() >= LARGEST
    });
    let Trace { runs, bytes, last } = &mut *TRACE.lock();
    let since = now.saturating_sub(*last);
    *last = now;
    put_number(bytes, HARVEST);
    put_number(bytes, since.as_micros() as u64);
    put_number(bytes, runs.len() as u64);
    let mut end = 0;
    for &(first, pages) in &*runs {
        put_number(bytes, (first - end).into());
        put_number(bytes, pages.into());
        end = first + pages;
    }
    runs.clear();
}

/// Writes out what has gathered, if that is much.
pub fn flush() {
    write_from(CHUNK);
}

/// Writes out all of it.
pub fn flush_all() {
    write_from(1);
}

fn write_from(least: usize) {
    let bytes = &mut TRACE.lock().bytes;
    if bytes.len() >= least {
        console::trace(bytes);
        bytes.clear();
    }
}

fn put(bytes: &mut Bytes, more: &[u8]) {
    if bytes.extend_from_slice(more).is_err() {
        die(format_args!("the trace has no room left"));
    }
}

fn put_number(bytes: &mut Bytes, mut number: u64) {
    loop {
        let low = number as u8 & 0x7f;
        number >>= 7;
        if number == 0 {
            return put(bytes, &[low]);
        }
        put(bytes, &[low | 0x80]);
    }
}
