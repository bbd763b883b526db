//! The protocol over bare cells: every length, every alignment of the caller's bytes, wrap-around.

use pugmark::AtomicU32;
use pugmark::slots::seqlock::{self, begin, confirm, end, look};
use pugmark::slots::{Read, UNSEEN, WORD, Words, WrongLength};

/// A payload of `len` bytes of `memory`, from its start.
fn payload(memory: &mut [usize], len: usize) -> Words<'_> {
    assert!(len <= size_of_val(memory));
    // SAFETY: aligned words, initialised, and exclusively borrowed for as long as the payload is.
    unsafe { Words::from_raw(memory.as_mut_ptr().cast(), len) }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + 3) as u8).collect()
}

#[test]
fn any_length_at_any_alignment() {
    let longest = if cfg!(miri) { 2 * WORD + 1 } else { 200 };
    for len in 0..=longest {
        for misaligned in (0..WORD).step_by(if cfg!(miri) { 3 } else { 1 }) {
            let mut memory = [usize::MAX; 64];
            let version = AtomicU32::new(0);
            let mut from = vec![0; misaligned];
            from.extend(bytes(len));
            let mut fast = vec![0xee; misaligned + len + 1];
            let mut into = fast.clone();
            let words = payload(&mut memory, len);
            assert_eq!(words.len(), len);
            seqlock::write(&version, words, &from[misaligned..]).unwrap();
            let read = &mut into[misaligned..][..len];
            let updated = Ok(Read::Updated { version: 2 });
            assert_eq!(seqlock::read(&version, words, UNSEEN, read), updated);
            let read = &mut fast[misaligned..][..len];
            assert_eq!(seqlock::read_fast(&version, words, UNSEEN, read), updated);
            assert_eq!(&into[misaligned..][..len], &from[misaligned..]);
            assert_eq!(into, fast);
            assert_eq!(into[misaligned + len], 0xee, "past the end of {len}");
            let memory: &[u8] = bytemuck::cast_slice(&memory);
            assert_eq!(&memory[..len], bytes(len), "in order");
            assert!(memory[len..].iter().all(|&byte| byte == 0xff), "past {len}");
        }
    }
}

#[test]
fn another_length_is_refused() {
    let mut memory = [7_usize; 2];
    let version = AtomicU32::new(2);
    let words = payload(&mut memory, 11);
    for given in [0, 10, 12, 16] {
        let mut bytes = vec![0xee; given];
        let refused = seqlock::write(&version, words, &bytes).unwrap_err();
        assert_eq!((refused.needed, refused.given), (11, given));
        let same = Err::<Read, WrongLength>(refused);
        assert_eq!(seqlock::read(&version, words, UNSEEN, &mut bytes), same);
        assert_eq!(
            seqlock::read_fast(&version, words, UNSEEN, &mut bytes),
            same
        );
        assert!(bytes.iter().all(|&byte| byte == 0xee));
    }
    assert_eq!(look(&version), 2);
    assert_eq!(memory, [7; 2]);
}

#[test]
fn odd_is_torn_and_the_same_is_unchanged() {
    let mut memory = [1_usize];
    let words = payload(&mut memory, WORD);
    let version = AtomicU32::new(0);
    let read = |seen| {
        let mut into = [0; WORD];
        seqlock::read(&version, words, seen, &mut into).unwrap()
    };
    assert_eq!(read(UNSEEN), Read::Updated { version: 0 });
    assert_eq!(read(0), Read::Unchanged);
    let odd = begin(&version);
    assert_eq!(odd, 1);
    for seen in [0, 1, 2] {
        assert_eq!(read(seen), Read::Torn);
    }
    assert!(!confirm(&version, 0));
    // A second writer takes over from the first, which died.
    assert_eq!(begin(&version), 1);
    end(&version, odd);
    assert_eq!(read(0), Read::Updated { version: 2 });
    assert!(confirm(&version, 2));
}

#[test]
fn the_version_wraps_around() {
    let mut memory = [0_usize];
    let words = payload(&mut memory, WORD);
    let version = AtomicU32::new(u32::MAX - 5);
    let mut seen = UNSEEN;
    let mut versions = Vec::new();
    for value in 1..=5_usize {
        seqlock::write(&version, words, &value.to_ne_bytes()).unwrap();
        let mut into = [0; WORD];
        let read = seqlock::read(&version, words, seen, &mut into).unwrap();
        let Read::Updated { version } = read else {
            panic!("{read:?} of write {value}");
        };
        assert_eq!(usize::from_ne_bytes(into), value);
        seen = version;
        versions.push(version);
    }
    assert_eq!(
        versions,
        [u32::MAX - 3, u32::MAX - 1, 0, 2, 4].map(|v| v & !1)
    );
}
