//! The C functions called from Rust, for Miri, which runs no C.

use pugmark::capi::{Bitmap, Status, pugmark_mark, pugmark_mark_range, pugmark_slot_write};
use pugmark::slots::{Reader, Seen, chunk_words, mirror_words};
use pugmark::{DirtyBitmap, StaticArena};

#[test]
fn a_mark_is_in_the_next_drain() {
    let dirty = DirtyBitmap::boxed(10_000);
    let bitmap = Bitmap::from(&dirty);
    // SAFETY: the bitmap is there.
    unsafe {
        assert_eq!(pugmark_mark(&bitmap, 9_999), Status::Ok);
        assert_eq!(pugmark_mark_range(&bitmap, 500, 100), Status::Ok);
        assert_eq!(pugmark_mark(&bitmap, 10_000), Status::OutOfRange);
    }
    let mut runs = Vec::new();
    dirty.drain_runs(|run| runs.push((run.start, run.len)));
    assert_eq!(runs, [(500, 100), (9_999, 1)]);
    assert!(dirty.is_clean());
}

#[test]
fn a_write_is_in_the_next_descend() {
    static ARENA: StaticArena<1, { chunk_words(16) }> = StaticArena::new();
    let mut owner = ARENA.owner().expect("nobody else has it");
    let mirror = [0; mirror_words(64, 16)];
    let mut reader = Reader::new(&ARENA, [Seen::ZERO; 1], mirror).expect("nobody else has it");
    reader.descend(|_, _| ());

    let writer = owner.allocate().expect("a slot");
    let id = writer.id();
    let binding = writer.into_binding();
    let value = *b"sixteen bytes of";
    // SAFETY: the arena is there, and nobody else writes.
    let status = unsafe { pugmark_slot_write(&binding, value.as_ptr().cast(), value.len()) };
    assert_eq!(status, Status::Ok);
    assert_eq!(reader.descend(|_, _| ()).updated, 1);
    assert_eq!(reader.value(id), Some(&value[..]));
}
