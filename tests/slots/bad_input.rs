//! What must be refused: by an error, and with nothing changed.

use pugmark::slots::{ArenaError, CHUNK_SLOTS, Reader, ReaderError, Seen, WORD, bytes_for};
use pugmark::slots::{chunk_words, mirror_words};
use pugmark::{BorrowedArena, StaticArena};

type Small = StaticArena<1, { chunk_words(16) }>;

#[test]
fn a_stride_that_is_no_number_of_words() {
    for stride in [0, 1, WORD - 1, WORD + 1, 3 * WORD + WORD / 2] {
        let mut memory = [0; 4096];
        let refused = BorrowedArena::borrowed(&mut memory, 1, stride).unwrap_err();
        assert_eq!(refused, ArenaError::Stride { stride });
        assert_eq!(bytes_for(1, stride), usize::MAX);
    }
}

#[test]
fn more_than_can_be_counted() {
    let most = usize::MAX / WORD * WORD;
    for (slots, stride) in [
        (1, most),
        (usize::MAX, WORD),
        (1 << 31, WORD),
        (most / 2, 64),
    ] {
        let refused = BorrowedArena::borrowed(&mut [], slots, stride).unwrap_err();
        assert_eq!(refused, ArenaError::TooLarge { slots, stride });
        assert_eq!(bytes_for(slots, stride), usize::MAX);
    }
}

#[test]
fn too_little_memory() {
    let bytes = bytes_for(65, 24);
    let mut memory = vec![0_u64; bytes.div_ceil(8) + 16];
    let memory: &mut [u8] = bytemuck::cast_slice_mut(&mut memory);
    for start in (0..64).step_by(8) {
        let skipped = memory[start..].as_ptr().align_offset(64);
        let needed = bytes + skipped;
        for given in [0, skipped, needed - 1] {
            let memory = &mut memory[start..][..given];
            let refused = BorrowedArena::borrowed(memory, 65, 24).unwrap_err();
            assert_eq!(refused, ArenaError::MemoryTooSmall { needed, given });
        }
        let memory = &mut memory[start..][..needed];
        let arena = BorrowedArena::borrowed(memory, 65, 24).unwrap();
        assert_eq!((arena.capacity(), arena.stride()), (128, 24));
    }
}

#[test]
fn a_full_arena() {
    let arena = Small::new();
    let mut owner = arena.owner().unwrap();
    let mut writers: Vec<_> = (0..CHUNK_SLOTS)
        .map(|_| owner.allocate().unwrap())
        .collect();
    for _ in 0..2 {
        assert_eq!(owner.allocate().unwrap_err().allocated, CHUNK_SLOTS);
    }
    assert_eq!(owner.allocated(), CHUNK_SLOTS);
    let freed = writers.remove(9);
    let old = freed.id();
    owner.free(freed).unwrap();
    let new = owner.allocate().unwrap().id();
    assert_eq!(
        (new.index(), new.generation()),
        (old.index(), old.generation() + 1)
    );
    assert!(owner.allocate().is_err());
}

#[test]
fn a_writer_of_a_use_that_is_over() {
    let arena = Small::new();
    let mut owner = arena.owner().unwrap();
    let first = owner.allocate().unwrap();
    // SAFETY: the first one writes no more. That it is freed below breaks the contract; it must not
    // break the list of free slots.
    let second = unsafe { owner.recover(first.id().index()) }.unwrap();
    owner.free(first).unwrap();
    let second = owner.free(second).unwrap_err().writer;
    let third = owner.allocate().unwrap();
    let second = owner.free(second).unwrap_err().writer;
    assert_eq!((second.id().index(), third.id().index()), (0, 0));
    assert_eq!(owner.allocate().unwrap().id().index(), 1);
}

#[test]
fn another_length_than_the_stride() {
    let arena = Small::new();
    let mut owner = arena.owner().unwrap();
    let mut reader = Reader::new(&arena, [Seen::ZERO], [0; mirror_words(64, 16)]).unwrap();
    let mut writer = owner.allocate().unwrap();
    writer.write(&[1; 16]).unwrap();
    for given in [0, 15, 17, 32] {
        let refused = writer.write(&vec![2; given]).unwrap_err();
        assert_eq!((refused.needed, refused.given), (16, given));
    }
    assert!(writer.write_value(&2_u64).is_err());
    assert_eq!(reader.descend(|_, _| ()).updated, 1);
    assert_eq!(reader.value(writer.id()), Some([1; 16].as_slice()));
    assert_eq!(reader.value_as::<[u64; 3]>(writer.id()), None);
}

#[test]
fn a_writer_of_another_arena_comes_back() {
    let (ours, other) = (Small::new(), Small::new());
    let (mut owner, mut others) = (ours.owner().unwrap(), other.owner().unwrap());
    let mine = owner.allocate().unwrap();
    let foreign = others.allocate().unwrap();
    assert_eq!(mine.id(), foreign.id(), "its id alone would fit");
    let refused = owner.free(foreign).unwrap_err();
    assert_eq!(owner.allocated(), 1);
    // It still is what it was.
    let mut foreign = refused.writer;
    foreign.write(&[3; 16]).unwrap();
    others.free(foreign).unwrap();
    owner.free(mine).unwrap();
    assert_eq!((owner.allocated(), others.allocated()), (0, 0));
}

#[test]
fn recovering_what_is_not_allocated() {
    let arena = Small::new();
    let mut owner = arena.owner().unwrap();
    let writer = owner.allocate().unwrap();
    owner.free(writer).unwrap();
    for index in [0, 1, CHUNK_SLOTS - 1, CHUNK_SLOTS, 1 << 20, usize::MAX] {
        // SAFETY: no slot has a writer.
        let refused = unsafe { owner.recover(index) }.unwrap_err();
        assert_eq!(refused.index, index);
    }
}

#[test]
fn one_owner_and_one_reader() {
    let arena = Small::new();
    let seen = || [Seen::ZERO];
    let mirror = || [0; mirror_words(64, 16)];
    let owner = arena.owner().unwrap();
    assert!(arena.owner().is_none());
    drop(owner);
    assert!(arena.owner().is_some());
    let reader = Reader::new(&arena, seen(), mirror()).unwrap();
    let refused = Reader::new(&arena, seen(), mirror()).unwrap_err();
    assert_eq!(refused, ReaderError::Claimed);
    drop(reader);
    assert!(Reader::new(&arena, seen(), mirror()).is_ok());
}

#[test]
fn a_reader_with_too_little_storage() {
    let arena = Small::new();
    let words = mirror_words(64, 16);
    assert_eq!(words, 65 * 16 / WORD);
    let refused = Reader::new(&arena, [], vec![0; words]).unwrap_err();
    assert_eq!(
        refused,
        ReaderError::SeenTooSmall {
            needed: 1,
            given: 0
        }
    );
    let refused = Reader::new(&arena, [Seen::ZERO], vec![0; words - 1]).unwrap_err();
    let given = words - 1;
    assert_eq!(
        refused,
        ReaderError::MirrorTooSmall {
            needed: words,
            given
        }
    );
    // A refusal claims nothing.
    assert!(Reader::new(&arena, [Seen::ZERO], vec![0; words]).is_ok());
}

#[test]
fn ids_that_do_not_fit() {
    let (arena, larger) = (Small::new(), StaticArena::<2, { chunk_words(16) }>::new());
    let (mut owner, mut others) = (arena.owner().unwrap(), larger.owner().unwrap());
    let mut reader = Reader::new(&arena, [Seen::ZERO], [0; mirror_words(64, 16)]).unwrap();
    let mut writer = owner.allocate().unwrap();
    let id = writer.id();
    assert_eq!(reader.value(id), None, "nothing is written");
    writer.write(&[1; 16]).unwrap();
    assert_eq!(reader.value(id), None, "nothing is read");
    reader.descend(|_, _| ());
    assert!(reader.value(id).is_some());
    owner.free(writer).unwrap();
    assert!(reader.value(id).is_some(), "as of the last descend");
    reader.descend(|_, _| ());
    assert_eq!(reader.value(id), None, "freed");
    let again = owner.allocate().unwrap();
    assert_eq!(again.id().index(), id.index());
    reader.descend(|_, _| ());
    assert_eq!([id, again.id()].map(|id| reader.value(id)), [None, None]);
    // An index that this arena does not have.
    let last = (0..2 * CHUNK_SLOTS)
        .map(|_| others.allocate().unwrap())
        .last();
    assert_eq!(reader.value(last.unwrap().id()), None);
}
