//! The rows, from the fault path outwards.

use std::hint::black_box;

use pugmark::bitmap::BoxedWords;
use pugmark::slots::{Descent, Growing, Read, Reader, Seen, UNSEEN, Writer};
use pugmark::{BoxedArena, DirtyBitmap, Slot, SlotWriter};
use pugmark_parts::fault::{self, Exit, Kind, SIZE, Tracker};
use pugmark_parts::harvest::harvest;

type Bitmap = DirtyBitmap<BoxedWords>;
type Value = [u64; 8];
type BoxedReader<'a> = Reader<'a, Growing, Box<[Seen]>, Box<[usize]>>;

/// The pages of 64 GiB.
const PAGES: usize = 1 << 24;
const SLOTS: usize = 1 << 16;
/// Calls of a path that takes no more than some hundred instructions.
const CALLS: usize = 1000;

/// Functions that callgrind tells apart: by name, never inlined, called from here alone.
macro_rules! counted {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $result:ty $body:block)*) => {$(
        #[unsafe(no_mangle)]
        #[inline(never)]
        fn $name($($arg: $ty),*) -> $result {
            // SAFETY: no instruction, only a comment. It keeps the compiler from making one
            // function of two that say the same.
            unsafe {
                core::arch::asm!(
                    concat!("/* ", stringify!($name), " */"),
                    options(nomem, nostack, preserves_flags),
                );
            }
            $body
        }
    )*};
}

counted! {
    fn count_fault_coarse_first(tracker: &Tracker, exit: Exit) -> bool { handle(tracker, exit) }
    fn count_fault_coarse_again(tracker: &Tracker, exit: Exit) -> bool { handle(tracker, exit) }
    fn count_fault_fine_first(tracker: &Tracker, exit: Exit) -> bool { handle(tracker, exit) }
    fn count_fault_fine_next(tracker: &Tracker, exit: Exit) -> bool { handle(tracker, exit) }
    fn count_fault_fine_again(tracker: &Tracker, exit: Exit) -> bool { handle(tracker, exit) }
    fn count_fault_elsewhere(tracker: &Tracker, exit: Exit) -> bool { handle(tracker, exit) }

    fn count_harvest_nothing(tracker: &Tracker) -> usize { harvest(tracker) }
    fn count_harvest_scattered(tracker: &Tracker) -> usize { harvest(tracker) }
    fn count_harvest_runs(tracker: &Tracker) -> usize { harvest(tracker) }
    fn count_harvest_all(tracker: &Tracker) -> usize { harvest(tracker) }

    fn count_mark_first(bitmap: &Bitmap, bit: usize) -> bool { bitmap.mark(bit) == Ok(true) }
    fn count_mark_next(bitmap: &Bitmap, bit: usize) -> bool { bitmap.mark(bit) == Ok(true) }
    fn count_mark_range_512(bitmap: &Bitmap, first: usize) -> bool {
        bitmap.mark_range(first..first + 512).is_ok()
    }

    fn count_drain_nothing(bitmap: &Bitmap) -> usize { drain_bits(bitmap) }
    fn count_drain_scattered(bitmap: &Bitmap) -> usize { drain_bits(bitmap) }
    fn count_drain_runs(bitmap: &Bitmap) -> usize { drain_runs(bitmap) }
    fn count_drain_all(bitmap: &Bitmap) -> usize { drain_runs(bitmap) }

    fn count_slot_write_64(writer: &mut Writer<'_, Value>, value: &Value) -> () { writer.write(value) }
    fn count_slot_read_64(slot: &Slot<Value>, seen: &mut u32, into: &mut Value) -> Read {
        slot.read_if_changed(seen, into)
    }
    fn count_slot_unchanged_64(slot: &Slot<Value>, seen: &mut u32, into: &mut Value) -> Read {
        slot.read_if_changed(seen, into)
    }

    fn count_write_hint_first(writer: &mut SlotWriter<'_>, value: &Value) -> bool {
        writer.write_value(value).is_ok()
    }
    fn count_write_hint_again(writer: &mut SlotWriter<'_>, value: &Value) -> bool {
        writer.write_value(value).is_ok()
    }

    fn count_descend_nothing(reader: &mut BoxedReader<'_>) -> usize { descend(reader) }
    fn count_descend_scattered(reader: &mut BoxedReader<'_>) -> usize { descend(reader) }
    fn count_descend_runs(reader: &mut BoxedReader<'_>) -> usize { descend(reader) }
}

/// One function for all kinds of faults, as an exit handler is.
#[inline(never)]
fn handle(tracker: &Tracker, exit: Exit) -> bool {
    fault::handle(tracker, exit)
}

#[inline(always)]
fn drain_bits(bitmap: &Bitmap) -> usize {
    let mut bits = 0;
    bitmap.drain_bits(|bit| {
        black_box(bit);
        bits += 1;
    });
    bits
}

#[inline(always)]
fn drain_runs(bitmap: &Bitmap) -> usize {
    let mut bits = 0;
    bitmap.drain_runs(|run| bits += black_box(run).len);
    bits
}

#[inline(always)]
fn descend(reader: &mut BoxedReader<'_>) -> usize {
    let mut bytes = 0;
    let Descent { updated, .. } = reader.descend(|_, ranges| bytes += black_box(ranges).len());
    assert_eq!(bytes, updated * size_of::<Value>());
    updated
}

/// `count` of `0..of`, far from each other and in no order: the same ones each time.
fn scattered(count: usize, of: usize) -> impl Iterator<Item = usize> {
    // Odd, so that it goes through all of a power of two; about the golden ratio, so that it leaves
    // no large gaps.
    const STEP: usize = 0x9e37_79b1;
    assert!(of.is_power_of_two() && count <= of);
    (0..count).map(move |i| i.wrapping_mul(STEP) % of)
}

/// `count` runs of 64 in `0..of`, likewise.
fn runs(count: usize, of: usize) -> impl Iterator<Item = usize> {
    scattered(count, of / 64).map(|run| run * 64)
}

pub fn faults() {
    let tracker = fault::tracker();
    fault::each(&tracker, |kind, exit| match kind {
        Kind::CoarseFirst => count_fault_coarse_first(&tracker, exit),
        Kind::CoarseAgain => count_fault_coarse_again(&tracker, exit),
        Kind::FineFirst => count_fault_fine_first(&tracker, exit),
        Kind::FineNext => count_fault_fine_next(&tracker, exit),
        Kind::FineAgain => count_fault_fine_again(&tracker, exit),
        Kind::Elsewhere => count_fault_elsewhere(&tracker, exit),
    });
}

pub fn harvests() {
    let tracker = fault::tracker();
    tracker.arm().expect("the host does nothing");
    let pages = (SIZE / 4096) as usize;
    assert_eq!(count_harvest_nothing(&tracker), 0);
    let mark = |page: usize, pages: usize| {
        for region in tracker.regions() {
            let start = region.base() + page as u64 * 4096;
            let written = tracker.mark_written(start..start + pages as u64 * 4096);
            written.expect("it is tracked");
        }
    };
    scattered(pages / 128, pages).for_each(|page| mark(page, 1));
    assert_eq!(count_harvest_scattered(&tracker), 2 * pages / 128);
    runs(pages / 64 / 16, pages).for_each(|page| mark(page, 64));
    assert_eq!(count_harvest_runs(&tracker), 2 * pages / 16);
    mark(0, pages);
    assert_eq!(count_harvest_all(&tracker), 2 * pages);
}

pub fn marks() {
    let bitmap = DirtyBitmap::boxed(PAGES);
    for line in scattered(CALLS, PAGES / 512) {
        assert!(count_mark_first(&bitmap, line * 512 + 7));
        assert!(count_mark_next(&bitmap, line * 512 + 77));
    }
    bitmap.clear();
    for line in scattered(CALLS, PAGES / 512) {
        assert!(count_mark_range_512(&bitmap, line * 512));
    }
    assert_eq!(bitmap.count(), CALLS * 512);
}

pub fn drains() {
    let bitmap = DirtyBitmap::boxed(PAGES);
    assert_eq!(count_drain_nothing(&bitmap), 0);
    let few = PAGES / 10_000;
    scattered(few, PAGES).for_each(|page| assert_eq!(bitmap.mark(page), Ok(true)));
    assert_eq!(count_drain_scattered(&bitmap), few);
    let few = PAGES / 100 / 64;
    runs(few, PAGES).for_each(|page| assert_eq!(bitmap.mark_range(page..page + 64), Ok(())));
    assert_eq!(count_drain_runs(&bitmap), few * 64);
    assert_eq!(bitmap.mark_range(0..PAGES), Ok(()));
    assert_eq!(count_drain_all(&bitmap), PAGES);
}

pub fn slots() {
    let slot = Slot::new([0; 8]);
    let mut writer = slot.writer().expect("nobody else has it");
    let (mut seen, mut into) = (UNSEEN, [0; 8]);
    for time in 0..CALLS as u64 {
        let value = [time; 8];
        count_slot_write_64(&mut writer, &value);
        let read = count_slot_read_64(&slot, &mut seen, &mut into);
        assert!(matches!(read, Read::Updated { .. }) && into == value);
        let read = count_slot_unchanged_64(&slot, &mut seen, &mut into);
        assert_eq!(read, Read::Unchanged);
    }
}

pub fn hints() {
    with_arena(CALLS, |writers, reader| {
        for writer in writers.iter_mut() {
            assert!(count_write_hint_first(writer, &[1; 8]));
            assert!(count_write_hint_again(writer, &[2; 8]));
        }
        reader.descend(|_, _| {});
        let values = writers.iter().map(|writer| reader.value_as(writer.id()));
        assert!(values.into_iter().all(|value| value == Some([2_u64; 8])));
    });
}

pub fn descends() {
    with_arena(SLOTS, |writers, reader| {
        assert_eq!(count_descend_nothing(reader), 0);
        let mut write = |slot: usize| {
            let written = writers[slot].write_value(&[slot as u64; 8]);
            written.expect("as long as the stride");
        };
        scattered(SLOTS / 64, SLOTS).for_each(&mut write);
        assert_eq!(count_descend_scattered(reader), SLOTS / 64);
        runs(SLOTS / 64 / 16, SLOTS).for_each(|slot| (slot..slot + 64).for_each(&mut write));
        assert_eq!(count_descend_runs(reader), SLOTS / 16);
    });
}

/// An arena with all its slots allocated and seen.
fn with_arena(slots: usize, work: impl FnOnce(&mut [SlotWriter<'_>], &mut BoxedReader<'_>)) {
    let arena = BoxedArena::boxed(slots, size_of::<Value>()).expect("there is memory");
    let mut owner = arena.owner().expect("nobody else has it");
    let allocate = |_| owner.allocate().expect("there is room");
    let mut writers: Vec<SlotWriter> = (0..slots).map(allocate).collect();
    let mut reader = arena.boxed_reader().expect("nobody else has it");
    for writer in &mut writers {
        writer
            .write_value(&[0_u64; 8])
            .expect("as long as the stride");
    }
    assert_eq!(reader.descend(|_, _| {}).updated, slots);
    work(&mut writers, &mut reader);
}
