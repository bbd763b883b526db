//! The arena in any order of allocate, free, write, descend, die and recover, against the oracle.

use std::sync::atomic::Ordering::Relaxed;

use proptest::collection::vec;
use proptest::prelude::*;
use pugmark::slots::{Reader, Seen, SlotId, SlotWriter, Storage, WORD, mirror_words, seqlock};
use pugmark::slots::{bytes_for, chunk_words};
use pugmark::{Arena, AtomicU32, AtomicUsize, BorrowedArena, StaticArena};

use crate::oracle::{Oracle, runs};

#[derive(Debug, Clone, Copy)]
enum Op {
    Allocate,
    Free(usize),
    Write(usize, u8),
    /// Its writer dies after this many words of its write.
    Die(usize, usize),
    Drop(usize),
    Recover(usize),
    Descend,
    Rescan,
    NewReader,
    NewOwner,
}

fn op() -> impl Strategy<Value = Op> {
    let slot = any::<usize>;
    prop_oneof![
        8 => Just(Op::Allocate),
        3 => slot().prop_map(Op::Free),
        12 => (slot(), any::<u8>()).prop_map(|(slot, value)| Op::Write(slot, value)),
        1 => (slot(), 0..4_usize).prop_map(|(slot, words)| Op::Die(slot, words)),
        1 => slot().prop_map(Op::Drop),
        2 => slot().prop_map(Op::Recover),
        5 => Just(Op::Descend),
        1 => Just(Op::Rescan),
        1 => Just(Op::NewReader),
        1 => Just(Op::NewOwner),
    ]
}

/// Follows `ops`, and compares at each descend.
fn follow<S: Storage>(arena: &Arena<S>, ops: &[Op]) {
    let (capacity, stride) = (arena.capacity(), arena.stride());
    let mut oracle = Oracle::new(capacity);
    let mut owner = Some(arena.owner().unwrap());
    let new_reader = || {
        let seen = vec![Seen::ZERO; capacity / 64];
        let mirror = vec![0xee; mirror_words(capacity, stride)];
        Reader::new(arena, seen, mirror).unwrap()
    };
    let mut reader = Some(new_reader());
    let mut writers: Vec<SlotWriter<'_>> = Vec::new();
    let mut gone: Vec<usize> = Vec::new();
    let mut ids: Vec<SlotId> = Vec::new();
    let pick = |n: usize, len: usize| (len != 0).then(|| n % len.max(1));
    for &op in ops {
        let owner_now = owner.as_mut().unwrap();
        match op {
            Op::Allocate => {
                let allocated = owner_now.allocate();
                let expected = oracle.allocate();
                let id = allocated.as_ref().ok().map(SlotWriter::id);
                assert_eq!(id.map(|id| (id.index(), id.generation())), expected);
                ids.extend(id);
                writers.extend(allocated);
            }
            Op::Free(n) => {
                if let Some(n) = pick(n, writers.len()) {
                    let writer = writers.swap_remove(n);
                    oracle.free(writer.id().index());
                    owner_now.free(writer).unwrap();
                }
            }
            Op::Write(n, value) => {
                if let Some(n) = pick(n, writers.len()) {
                    writers[n].write(&vec![value; stride]).unwrap();
                    oracle.write(writers[n].id().index(), value);
                }
            }
            Op::Die(n, words) => {
                if let Some(n) = pick(n, writers.len()) {
                    let writer = writers.swap_remove(n);
                    oracle.die(writer.id().index());
                    gone.push(writer.id().index());
                    die(writer, words);
                }
            }
            Op::Drop(n) => {
                if let Some(n) = pick(n, writers.len()) {
                    gone.push(writers.swap_remove(n).id().index());
                }
            }
            Op::Recover(n) => {
                if let Some(n) = pick(n, gone.len()) {
                    let index = gone.swap_remove(n);
                    // SAFETY: its writer is dead, or dropped.
                    let writer = unsafe { owner_now.recover(index) }.unwrap();
                    assert_eq!(writer.id().generation(), oracle.slots[index].uses);
                    writers.push(writer);
                }
            }
            Op::Descend => {
                let reader = reader.as_mut().unwrap();
                let mut ranges = Vec::new();
                let mut copy = Vec::new();
                let descent = reader.descend(|offset, bytes| {
                    ranges.push((offset / stride, bytes.len() / stride));
                    copy.push((offset, bytes.to_vec()));
                });
                let updated = oracle.descend();
                assert_eq!(ranges, runs(&updated));
                assert_eq!(descent.updated, updated.len());
                assert!(descent.torn <= oracle.dead());
                assert!(descent.visited >= descent.updated + descent.torn);
                for (offset, bytes) in copy {
                    assert_eq!(bytes, reader.mirror()[offset..][..bytes.len()]);
                }
                for &id in &ids {
                    let value = oracle.value(id).map(|value| vec![value; stride]);
                    assert_eq!(reader.value(id), value.as_deref(), "{id:?}");
                }
            }
            Op::Rescan => reader.as_ref().unwrap().rescan(),
            Op::NewReader => {
                drop(reader.take());
                reader = Some(new_reader());
                for slot in &mut oracle.slots {
                    slot.mirrored = None;
                    slot.is_new = true;
                }
            }
            Op::NewOwner => {
                drop(owner.take());
                owner = arena.owner();
            }
        }
        let owner = owner.as_ref().unwrap();
        if !cfg!(miri) {
            assert_eq!(owner.allocated(), oracle.allocated());
        }
    }
}

/// Begins a write, and leaves it after so many words.
fn die(writer: SlotWriter<'_>, words: usize) {
    let binding = writer.into_binding();
    // SAFETY: the addresses of a slot whose only writer this was.
    unsafe {
        seqlock::begin(AtomicU32::from_ptr(binding.version));
        for word in 0..words.min(binding.stride / WORD) {
            let word = binding.payload.cast::<usize>().add(word);
            AtomicUsize::from_ptr(word).store(usize::MAX, Relaxed);
        }
    }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: if cfg!(miri) { 1 } else { 300 },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    vec(op(), 0..if cfg!(miri) { 30 } else { 600 })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn inside_itself(ops in ops()) {
        follow(&StaticArena::<2, { chunk_words(16) }>::new(), &ops);
    }

    /// A block of words, of which a reader makes a case of its own.
    #[test]
    fn of_one_block(ops in ops()) {
        follow(&StaticArena::<1, { chunk_words(8 * WORD) }>::new(), &ops);
    }

    #[test]
    fn borrowed(ops in ops(), words in 1..20_usize, skew in 0..64_usize) {
        let stride = words * WORD;
        let mut memory = vec![0xaa; bytes_for(128, stride) + 128];
        follow(&BorrowedArena::borrowed(&mut memory[skew..], 128, stride).unwrap(), &ops);
    }
}

#[cfg(feature = "alloc")]
proptest! {
    #![proptest_config(config())]

    #[test]
    fn growing(ops in ops(), words in 1..20_usize) {
        follow(&pugmark::BoxedArena::boxed(150, words * WORD).unwrap(), &ops);
    }
}
