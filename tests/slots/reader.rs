//! What a descend visits, copies and reports.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;

use pugmark::slots::{Descent, Reader, Seen, SlotWriter, chunk_words, mirror_words, seqlock};
use pugmark::{AtomicU32, AtomicUsize, StaticArena};

const STRIDE: usize = 16;
/// A reader looks at the hints of 32 chunks at a time, keeps up to 64 chunks that are hinted, and looks
/// for slots in groups of some chunks. Under Miri, which has no vectors, it is the groups alone.
const CHUNKS: usize = if cfg!(miri) { 6 } else { 100 };
const SLOTS: usize = CHUNKS * 64;

type Arena = StaticArena<CHUNKS, { chunk_words(STRIDE) }>;
type Mirror = [usize; mirror_words(SLOTS, STRIDE)];
type Inline = pugmark::slots::Inline<CHUNKS, { chunk_words(STRIDE) }>;

fn reader(arena: &Arena) -> Reader<'_, Inline, [Seen; CHUNKS], Mirror> {
    Reader::new(
        arena,
        [Seen::ZERO; CHUNKS],
        [0; mirror_words(SLOTS, STRIDE)],
    )
    .unwrap()
}

fn writers(arena: &Arena) -> Vec<SlotWriter<'_>> {
    let mut owner = arena.owner().unwrap();
    (0..SLOTS).map(|_| owner.allocate().unwrap()).collect()
}

/// Descends; returns the ranges in slots.
fn descend(
    reader: &mut Reader<'_, Inline, [Seen; CHUNKS], Mirror>,
) -> (Descent, Vec<(usize, usize)>) {
    let mut ranges = Vec::new();
    let descent = reader.descend(|offset, bytes| {
        assert_eq!((offset % STRIDE, bytes.len() % STRIDE), (0, 0));
        ranges.push((offset / STRIDE, bytes.len() / STRIDE));
    });
    (descent, ranges)
}

/// The version of a slot; its writer is gone.
fn version(writer: SlotWriter<'_>) -> &AtomicU32 {
    // SAFETY: the address of a version in the arena that the writer borrows.
    unsafe { AtomicU32::from_ptr(writer.into_binding().version) }
}

#[test]
fn neighbours_come_as_one() {
    let arena = Arena::new();
    let mut writers = writers(&arena);
    let mut reader = reader(&arena);
    assert_eq!(descend(&mut reader), (Descent::default(), vec![]));
    // Over the borders of chunks; the first and the last.
    let (last, but_one) = (SLOTS - 1, SLOTS - 2);
    let written = [0, 14, 15, 16, 17, 40, 62, 63, 64, 255, 256, but_one, last];
    for index in written {
        writers[index].write(&[index as u8; STRIDE]).unwrap();
    }
    let (descent, ranges) = descend(&mut reader);
    let expected = [(0, 1), (14, 4), (40, 1), (62, 3), (255, 2), (but_one, 2)];
    assert_eq!(ranges, expected);
    let counts = (descent.visited, descent.updated, descent.torn);
    assert_eq!(counts, (written.len(), written.len(), 0));
    for index in written {
        let bytes = &reader.mirror()[index * STRIDE..][..STRIDE];
        assert_eq!(bytes, [index as u8; STRIDE]);
    }
    assert_eq!(descend(&mut reader), (Descent::default(), vec![]));
}

#[test]
fn each_slot_is_found_alone() {
    let arena = Arena::new();
    let mut writers = writers(&arena);
    let mut reader = reader(&arena);
    for index in (0..SLOTS).step_by(if cfg!(miri) { 150 } else { 1 }) {
        writers[index].write(&[1; STRIDE]).unwrap();
        assert_eq!(descend(&mut reader).1, [(index, 1)]);
    }
}

#[test]
fn runs_of_each_length_leave_the_others() {
    let arena = Arena::new();
    let mut writers = writers(&arena);
    let mut reader = reader(&arena);
    for len in (1..=40).step_by(if cfg!(miri) { 13 } else { 1 }) {
        let start = len * 13 % 90;
        // One apart, on both sides.
        let beside = [start, start + 1 + len + 1];
        for index in (start + 2..start + 1 + len).chain(beside) {
            writers[index].write(&[len as u8; STRIDE]).unwrap();
        }
        let run = (len > 1).then_some((start + 2, len - 1));
        let expected = [Some((beside[0], 1)), run, Some((beside[1], 1))];
        let expected: Vec<_> = expected.into_iter().flatten().collect();
        assert_eq!(descend(&mut reader).1, expected);
        assert_eq!(descend(&mut reader), (Descent::default(), vec![]));
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn all_slots_are_one_range() {
    let arena = Arena::new();
    let mut writers = writers(&arena);
    let mut reader = reader(&arena);
    for writer in &mut writers {
        writer.write(&[1; STRIDE]).unwrap();
        writer.write(&[2; STRIDE]).unwrap();
    }
    let (descent, ranges) = descend(&mut reader);
    assert_eq!((descent.updated, ranges), (SLOTS, vec![(0, SLOTS)]));
    assert!(reader.mirror().iter().all(|&byte| byte == 2));
}

#[test]
fn torn_keeps_the_last_value_and_is_tried_again() {
    let arena = Arena::new();
    let mut writers = writers(&arena);
    let mut reader = reader(&arena);
    for writer in &mut writers[4..7] {
        writer.write(&[1; STRIDE]).unwrap();
    }
    descend(&mut reader);
    for writer in &mut writers[4..7] {
        writer.write(&[2; STRIDE]).unwrap();
    }
    let id = writers[5].id();
    let version = version(writers.swap_remove(5));
    let odd = seqlock::begin(version);
    // The others of its chunk are not held up.
    let (descent, ranges) = descend(&mut reader);
    assert_eq!((descent.visited, descent.updated, descent.torn), (3, 2, 1));
    assert_eq!(ranges, [(4, 1), (6, 1)]);
    assert_eq!(reader.value(id), Some([1; STRIDE].as_slice()));
    // Without a new hint.
    for _ in 0..2 {
        let (descent, ranges) = descend(&mut reader);
        assert_eq!((descent.visited, descent.updated, descent.torn), (1, 0, 1));
        assert_eq!(ranges, []);
    }
    // Even without one: the reader's own is enough.
    seqlock::end(version, odd);
    let (descent, ranges) = descend(&mut reader);
    assert_eq!(
        (descent.updated, descent.torn, ranges),
        (1, 0, vec![(5, 1)])
    );
    assert_eq!(reader.value(id), Some([2; STRIDE].as_slice()));
}

#[test]
fn a_dead_writer_is_recovered() {
    let arena = Arena::new();
    let mut reader = reader(&arena);
    let mut owner = arena.owner().unwrap();
    let mut writer = owner.allocate().unwrap();
    let id = writer.id();
    writer.write(&[1; STRIDE]).unwrap();
    descend(&mut reader);
    let binding = writer.into_binding();
    // SAFETY: the version and the payload of a slot whose only writer this is.
    unsafe {
        seqlock::begin(AtomicU32::from_ptr(binding.version));
        AtomicUsize::from_ptr(binding.payload.cast()).store(99, Relaxed);
    }
    assert_eq!(descend(&mut reader).0, Descent::default());
    // SAFETY: the writer from before is not used any more.
    let mut writer = unsafe { owner.recover(id.index()) }.unwrap();
    assert_eq!(writer.id(), id);
    for _ in 0..2 {
        assert_eq!(descend(&mut reader).0.torn, 1, "until it writes");
    }
    assert_eq!(reader.value(id), Some([1; STRIDE].as_slice()));
    writer.write(&[2; STRIDE]).unwrap();
    let (descent, ranges) = descend(&mut reader);
    assert_eq!(
        (descent.updated, descent.torn, ranges),
        (1, 0, vec![(0, 1)])
    );
    assert_eq!(reader.value(id), Some([2; STRIDE].as_slice()));
}

/// Between the value and the hint the writer was killed.
#[test]
#[cfg_attr(
    miri,
    ignore = "takes minutes; the same paths are in the tests beside it"
)]
fn rescan_finds_what_was_not_hinted() {
    let arena = Arena::new();
    let mut reader = reader(&arena);
    let writers = writers(&arena);
    descend(&mut reader);
    for (index, writer) in writers.into_iter().enumerate() {
        let version = version(writer);
        if index % 50 == 0 {
            let odd = seqlock::begin(version);
            seqlock::end(version, odd);
        }
    }
    assert_eq!(descend(&mut reader), (Descent::default(), vec![]));
    reader.rescan();
    let expected: Vec<_> = (0..SLOTS).step_by(50).map(|index| (index, 1)).collect();
    assert_eq!(descend(&mut reader).1, expected);
}

#[test]
fn a_new_reader_sees_every_value() {
    let arena = Arena::new();
    let mut writers = writers(&arena);
    let written = [3, 90, 191];
    for index in written {
        writers[index].write(&[1; STRIDE]).unwrap();
    }
    for _ in 0..2 {
        let mut reader = reader(&arena);
        let (descent, ranges) = descend(&mut reader);
        assert_eq!((descent.updated, descent.torn), (3, 0));
        assert_eq!(ranges, written.map(|index| (index, 1)));
        assert_eq!(descend(&mut reader), (Descent::default(), vec![]));
    }
}

#[test]
fn what_a_sink_left_is_found_next_time() {
    let arena = Arena::new();
    let mut writers = writers(&arena);
    let mut reader = reader(&arena);
    for writer in writers.iter_mut().step_by(2) {
        writer.write(&[1; STRIDE]).unwrap();
    }
    let died = catch_unwind(AssertUnwindSafe(|| {
        reader.descend(|_, _| panic!("no more"))
    }));
    assert!(died.is_err());
    let (descent, _) = descend(&mut reader);
    assert!(descent.updated > 0);
    for writer in writers.iter().step_by(2) {
        assert_eq!(reader.value(writer.id()), Some([1; STRIDE].as_slice()));
    }
}

#[test]
fn versions_wrap_around_under_a_reader() {
    let arena = Arena::new();
    let mut reader = reader(&arena);
    let mut owner = arena.owner().unwrap();
    let writer = owner.allocate().unwrap();
    let id = writer.id();
    version(writer).store(u32::MAX - 2, Relaxed);
    // SAFETY: the one from before is gone.
    let mut writer = unsafe { owner.recover(id.index()) }.unwrap();
    for value in 1..=4 {
        writer.write(&[value; STRIDE]).unwrap();
        assert_eq!(descend(&mut reader).0.updated, 1, "write {value}");
        assert_eq!(reader.value(id), Some([value; STRIDE].as_slice()));
    }
}

/// A value that wrapped around to version zero is one that a new reader must see too.
#[test]
fn version_zero_is_seen_by_a_new_reader() {
    let arena = Arena::new();
    let mut owner = arena.owner().unwrap();
    let mut writer = owner.allocate().unwrap();
    let id = writer.id();
    writer.write(&[5; STRIDE]).unwrap();
    version(writer).store(0, Relaxed);
    let mut reader = reader(&arena);
    assert_eq!(descend(&mut reader).1, [(0, 1)]);
    assert_eq!(reader.value(id), Some([5; STRIDE].as_slice()));
}

/// What a dead writer left whole and without a hint is found with its recovery.
#[test]
fn recovery_finds_what_was_not_hinted() {
    let arena = Arena::new();
    let mut reader = reader(&arena);
    let mut owner = arena.owner().unwrap();
    let writer = owner.allocate().unwrap();
    let id = writer.id();
    descend(&mut reader);
    let version = version(writer);
    let odd = seqlock::begin(version);
    seqlock::end(version, odd);
    assert_eq!(descend(&mut reader), (Descent::default(), vec![]));
    // SAFETY: the one from before is gone.
    let _writer = unsafe { owner.recover(id.index()) }.unwrap();
    assert_eq!(descend(&mut reader).1, [(0, 1)]);
    assert_eq!(reader.value(id), Some([0; STRIDE].as_slice()));
}
