//! Memory that threads write and a snapshot reads, at once.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes of a chunk: as large as any host's page, and as aligned.
const CHUNK: usize = 64 << 10;
const WORD: usize = size_of::<u64>();

#[repr(align(65536))]
struct Chunk([AtomicU64; CHUNK / WORD]);

/// Words that are only ever read and written one by one, so that a copy that races with a write
/// is a mix of old and new words, and nothing worse.
pub struct Memory(Box<[Chunk]>);

impl Memory {
    /// At least `bytes` bytes. A quarter is zero, as in many a guest.
    pub fn new(bytes: u64) -> Self {
        let chunks = bytes.div_ceil(CHUNK as u64);
        let chunk = |_| Chunk([const { AtomicU64::new(0) }; CHUNK / WORD]);
        let this = Self((0..chunks).map(chunk).collect());
        for word in 0..this.len() / WORD {
            if !(word * WORD / CHUNK).is_multiple_of(4) {
                this.store(word, word as u64 | 1 << 63);
            }
        }
        this
    }

    pub fn as_ptr(&self) -> *const u8 {
        self.0.as_ptr().cast()
    }

    /// In bytes.
    pub fn len(&self) -> usize {
        self.0.len() * CHUNK
    }

    pub fn store(&self, word: usize, value: u64) {
        self.0[word * WORD / CHUNK].0[word % (CHUNK / WORD)].store(value, Relaxed);
    }

    /// Copies from `offset`, which is a multiple of a word, as is the length.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let first = offset / CHUNK;
        let mut words = self.0[first].0[offset % CHUNK / WORD..].iter();
        let mut next = first + 1;
        for bytes in into.chunks_exact_mut(WORD) {
            let word = words.next().unwrap_or_else(|| {
                words = self.0[next].0.iter();
                next += 1;
                words.next().expect("a chunk has words")
            });
            bytes.copy_from_slice(&word.load(Relaxed).to_ne_bytes());
        }
    }

    /// The first byte, of those from `offset` on, that is another in `bytes`.
    pub fn first_difference(&self, offset: usize, bytes: &[u8]) -> Option<usize> {
        let mut here = vec![0; bytes.len()];
        self.read(offset, &mut here);
        let differs = here.iter().zip(bytes).position(|(a, b)| a != b);
        differs.map(|at| offset + at)
    }
}
