//! Slots as plain addresses.

use std::ptr::NonNull;

use pugmark::slots::{CHUNK_SLOTS, Reader, Seen, bytes_for, chunk_words, mirror_words};
use pugmark::{BorrowedArena, SlotBinding, StaticArena};

#[test]
fn writes_through_addresses_are_found() {
    static ARENA: StaticArena<2, { chunk_words(24) }> = StaticArena::new();
    let mut owner = ARENA.owner().unwrap();
    let mut reader = Reader::new(&ARENA, [Seen::ZERO; 2], [0; mirror_words(128, 24)]).unwrap();
    let writers = (0..100).map(|_| owner.allocate().unwrap());
    let (ids, bindings): (Vec<_>, Vec<_>) = writers.map(|w| (w.id(), w.into_binding())).unzip();
    for (id, binding) in ids.iter().zip(&bindings) {
        assert_eq!((id.index(), binding.stride), (binding.index(), 24));
        for given in [0, 23, 25] {
            // SAFETY: the only writer of a slot of `ARENA`.
            let refused = unsafe { binding.write(&vec![9; given]) }.unwrap_err();
            assert_eq!((refused.needed, refused.given), (24, given));
        }
    }
    // From another thread, and as a copy.
    let last = bindings[99];
    let write = move |byte| {
        // SAFETY: as above.
        unsafe { last.write(&[byte; 24]) }.unwrap();
    };
    std::thread::spawn(move || write(7)).join().unwrap();
    let mut ranges = Vec::new();
    let descent = reader.descend(|offset, bytes| ranges.push((offset, bytes.to_vec())));
    assert_eq!((descent.updated, descent.torn), (1, 0));
    assert_eq!(ranges, [(99 * 24, vec![7; 24])]);
    assert_eq!(reader.value(ids[99]), Some([7; 24].as_slice()));
}

/// The layout that `in_memory` documents, for one who computes addresses.
#[test]
fn the_addresses_are_as_documented() {
    const STRIDE: usize = 16;
    let mut memory = vec![0; bytes_for(128, STRIDE) + 63];
    let base = memory.as_ptr() as usize;
    let base = base.next_multiple_of(64);
    let arena = BorrowedArena::borrowed(&mut memory, 128, STRIDE).unwrap();
    let mut owner = arena.owner().unwrap();
    let chunk_bytes = 3 * 4 * CHUNK_SLOTS + CHUNK_SLOTS * STRIDE;
    for index in 0..128 {
        let writer = owner.allocate().unwrap();
        let SlotBinding {
            version,
            payload,
            hint,
            chunk_hint,
            chunk,
            slot,
            ..
        } = writer.into_binding();
        let in_chunk = index % CHUNK_SLOTS;
        assert_eq!(
            (chunk as usize, slot as usize),
            (index / CHUNK_SLOTS, in_chunk)
        );
        let start = base + index / CHUNK_SLOTS * chunk_bytes;
        assert_eq!(version as usize, start + 4 * in_chunk);
        let payloads = start + 3 * 4 * CHUNK_SLOTS;
        assert_eq!(payload as usize, payloads + in_chunk * STRIDE);
        let hints = base + 2 * chunk_bytes;
        assert_eq!(hint as usize, hints + index);
        assert_eq!(chunk_hint as usize, hints + 128 + 2 * (index / CHUNK_SLOTS));
    }
}

#[test]
fn the_generation_after_the_last_is_the_first() {
    let bytes = bytes_for(64, 16);
    let mut memory = vec![0; bytes + 63];
    let skipped = memory.as_ptr().align_offset(64);
    let memory: NonNull<u8> = NonNull::from(&mut memory[skipped..]).cast();
    // SAFETY: so many bytes, which nothing else accesses but below.
    let arena = unsafe { BorrowedArena::in_memory(memory, bytes, 64, 16) }.unwrap();
    let mut owner = arena.owner().unwrap();
    let _lost = owner.allocate().unwrap();
    // SAFETY: the slot's generation, behind 64 versions, which nobody else accesses now.
    unsafe { memory.cast::<u32>().add(CHUNK_SLOTS).write(u32::MAX) };
    // SAFETY: the writer is not used.
    let writer = unsafe { owner.recover(0) }.unwrap();
    owner.free(writer).unwrap();
    let writer = owner.allocate().unwrap();
    assert_eq!(writer.id().generation(), 1);

    let mut reader = Reader::new(&arena, [Seen::ZERO], [0xdead; mirror_words(64, 16)]).unwrap();
    assert_eq!(reader.value(writer.id()), None);
    let descent = reader.descend(|_, _| {});
    assert_eq!((descent.torn, reader.value(writer.id())), (0, None));
}
