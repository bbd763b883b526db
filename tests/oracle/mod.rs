//! A naive `DirtyBitmap`, one `bool` a bit, and random sequences that the real one must follow.
//!
//! It needs neither std nor a heap, so that the same sequences run on a host, at EL2 and on a
//! microcontroller with 16 KiB of memory.

use core::ops::Range;

use pugmark::bitmap::Exclusive;
use pugmark::{AtomicUsize, DirtyBitmap, LengthMismatch, OutOfRange, Run, words_for};

use core::sync::atomic::Ordering::SeqCst;

const WORD_BITS: usize = usize::BITS as usize;

/// Lengths around the borders of words, lines and summary words.
pub const LENGTHS: &[usize] = &[
    0, 1, 2, 31, 32, 33, 63, 64, 65, 511, 512, 513, 1023, 1024, 1025, 4096, 4097, 16_384, 16_385,
    32_768, 32_769,
];

/// splitmix64: the whole state is one word, and every seed is good.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not zero.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// One operation on a bitmap, with everything that it takes.
#[derive(Debug, Clone)]
pub enum Op {
    Mark(usize),
    MarkRange(Range<usize>),
    IsMarked(usize),
    DrainRuns,
    DrainBits,
    DrainWords,
    /// The sink refuses this run, counted from 0.
    TryDrainRuns {
        refused: usize,
    },
    Clear,
    /// From a bitmap of `len` bits; which ones are marked follows from the seed.
    MergeFrom {
        len: usize,
        seed: u64,
    },
    /// From a coarser bitmap of `len` bits.
    FoldFromCoarser {
        len: usize,
        ratio: usize,
        seed: u64,
    },
    /// A peer that shares the storage, and knows only of leaves, sets this bit; then a rescan.
    MarkByPeer(usize),
    /// A peer sets bits past the end, in the last leaf and in the summary.
    Scribble(u64),
}

impl Op {
    /// Any operation on a bitmap of `len` bits, those with bad indices and lengths included.
    pub fn random(rng: &mut Rng, len: usize) -> Self {
        match rng.below(100) {
            0..25 => Self::Mark(index(rng, len)),
            25..50 => Self::MarkRange(range(rng, len)),
            50..55 => Self::IsMarked(index(rng, len)),
            55..61 => Self::DrainRuns,
            61..67 => Self::DrainBits,
            67..73 => Self::DrainWords,
            73..83 => Self::TryDrainRuns {
                refused: rng.below(8),
            },
            83..85 => Self::Clear,
            85..90 => Self::MergeFrom {
                len: if rng.one_in(4) { index(rng, len) } else { len },
                seed: rng.next(),
            },
            90..95 => {
                let ratio = match rng.below(16) {
                    0 => 0,
                    1 => usize::MAX,
                    _ => 1 + rng.below(600),
                };
                let len = match coarse_len(len, ratio) {
                    Some(fits) if !rng.one_in(8) => fits,
                    _ => rng.below(len + 2),
                };
                let seed = rng.next();
                Self::FoldFromCoarser { len, ratio, seed }
            }
            95..98 => Self::MarkByPeer(index(rng, len)),
            _ => Self::Scribble(rng.next()),
        }
    }
}

/// Bits that stand for `ratio` bits each, of `len` in all.
fn coarse_len(len: usize, ratio: usize) -> Option<usize> {
    (ratio != 0).then(|| len.div_ceil(ratio))
}

/// Mostly in range, and near the borders.
fn index(rng: &mut Rng, len: usize) -> usize {
    match rng.below(20) {
        0 => len,
        1 => len + rng.below(130),
        2 => usize::MAX - rng.below(2),
        3..6 => (rng.below(len / WORD_BITS + 2) * WORD_BITS).wrapping_sub(rng.below(2)),
        _ => rng.below(len.max(1)),
    }
}

/// Short and long, empty and reversed, within the bitmap and across its end.
fn range(rng: &mut Rng, len: usize) -> Range<usize> {
    let start = index(rng, len);
    match rng.below(16) {
        0 => start..start,
        1 => start..start.saturating_sub(1 + rng.below(70)),
        2 => start..len,
        3 => start..len.saturating_add(1),
        4 => start..usize::MAX,
        5 => 0..len,
        6..11 => start..start.saturating_add(rng.below(4)),
        11..14 => start..start.saturating_add(rng.below(140)),
        _ => start..index(rng, len),
    }
}

/// The drains of a bitmap: shared with markers, or to oneself.
pub trait Drains {
    fn drain_runs(&mut self, sink: impl FnMut(Run));
    fn try_drain_runs<E>(&mut self, sink: impl FnMut(Run) -> Result<(), E>) -> Result<(), E>;
    fn drain_bits(&mut self, sink: impl FnMut(usize));
    fn drain_words(&mut self, sink: impl FnMut(usize, usize));
    fn clear(&mut self);
}

impl<S: AsRef<[AtomicUsize]>> Drains for &DirtyBitmap<S> {
    fn drain_runs(&mut self, sink: impl FnMut(Run)) {
        DirtyBitmap::drain_runs(self, sink);
    }

    fn try_drain_runs<E>(&mut self, sink: impl FnMut(Run) -> Result<(), E>) -> Result<(), E> {
        DirtyBitmap::try_drain_runs(self, sink)
    }

    fn drain_bits(&mut self, sink: impl FnMut(usize)) {
        DirtyBitmap::drain_bits(self, sink);
    }

    fn drain_words(&mut self, sink: impl FnMut(usize, usize)) {
        DirtyBitmap::drain_words(self, sink);
    }

    fn clear(&mut self) {
        DirtyBitmap::clear(self);
    }
}

impl Drains for Exclusive<'_> {
    fn drain_runs(&mut self, sink: impl FnMut(Run)) {
        Exclusive::drain_runs(self, sink);
    }

    fn try_drain_runs<E>(&mut self, sink: impl FnMut(Run) -> Result<(), E>) -> Result<(), E> {
        Exclusive::try_drain_runs(self, sink)
    }

    fn drain_bits(&mut self, sink: impl FnMut(usize)) {
        Exclusive::drain_bits(self, sink);
    }

    fn drain_words(&mut self, sink: impl FnMut(usize, usize)) {
        Exclusive::drain_words(self, sink);
    }

    fn clear(&mut self) {
        Exclusive::clear(self);
    }
}

/// What the bitmap should hold. `BITS` bounds its length; `WORDS` is `words_for(BITS)`, the storage
/// of the second bitmap that a merge or a fold reads.
pub struct Oracle<const BITS: usize, const WORDS: usize> {
    marked: [bool; BITS],
    len: usize,
}

impl<const BITS: usize, const WORDS: usize> Oracle<BITS, WORDS> {
    pub fn new(len: usize) -> Self {
        assert!(len <= BITS);
        Self {
            marked: [false; BITS],
            len,
        }
    }

    pub fn marked(&self) -> &[bool] {
        &self.marked[..self.len]
    }

    /// Does `op` to the bitmap and to the model, and compares what it said and what is left.
    /// `shared` is the bitmap's storage, where others can write to it.
    pub fn step<S: AsRef<[AtomicUsize]>>(
        &mut self,
        bitmap: &DirtyBitmap<S>,
        shared: Option<&[AtomicUsize]>,
        op: &Op,
    ) {
        match *op {
            Op::Mark(bit) => self.mark(bitmap, bit),
            Op::MarkRange(ref bits) => self.mark_range(bitmap, bits.clone()),
            Op::IsMarked(bit) => match bitmap.is_marked(bit) {
                Ok(marked) => assert_eq!(marked, self.marked()[bit]),
                Err(error) => self.expect_out_of_range(error, bit),
            },
            Op::DrainRuns
            | Op::DrainBits
            | Op::DrainWords
            | Op::TryDrainRuns { .. }
            | Op::Clear => self.drain(&mut { bitmap }, op),
            Op::MergeFrom { len, seed } => self.merge_from(bitmap, len, seed),
            Op::FoldFromCoarser { len, ratio, seed } => self.fold(bitmap, len, ratio, seed),
            Op::MarkByPeer(bit) => {
                if let Some(words) = shared.filter(|_| bit < self.len) {
                    words[bit / WORD_BITS].fetch_or(1 << (bit % WORD_BITS), SeqCst);
                    bitmap.rescan();
                    self.marked[bit] = true;
                }
            }
            Op::Scribble(garbage) => {
                if let Some(words) = shared {
                    scribble(words, self.len, garbage as usize);
                }
            }
        }
        self.compare(bitmap);
    }

    /// As [`step`](Self::step), for a bitmap that one has to oneself.
    pub fn step_alone<S: AsRef<[AtomicUsize]> + AsMut<[AtomicUsize]>>(
        &mut self,
        bitmap: &mut DirtyBitmap<S>,
        op: &Op,
    ) {
        match op {
            Op::DrainRuns
            | Op::DrainBits
            | Op::DrainWords
            | Op::TryDrainRuns { .. }
            | Op::Clear => {
                self.drain(&mut bitmap.exclusive(), op);
                self.compare(bitmap);
            }
            _ => self.step(bitmap, None, op),
        }
    }

    fn drain(&mut self, drains: &mut impl Drains, op: &Op) {
        match *op {
            Op::DrainRuns => {
                let mut expected = Runs::of(self.marked());
                drains.drain_runs(|run| assert_eq!(Some(run), expected.next()));
                assert_eq!(expected.next(), None, "a run was not drained");
                self.clear(0..self.len);
            }
            Op::DrainBits => {
                let mut expected = (0..self.len).filter(|&bit| self.marked[bit]);
                drains.drain_bits(|bit| assert_eq!(Some(bit), expected.next()));
                assert_eq!(expected.next(), None, "a bit was not drained");
                self.clear(0..self.len);
            }
            Op::DrainWords => {
                self.drain_words(drains);
                self.clear(0..self.len);
            }
            Op::TryDrainRuns { refused } => self.try_drain_runs(drains, refused),
            Op::Clear => {
                drains.clear();
                self.clear(0..self.len);
            }
            _ => unreachable!("{op:?} is no drain"),
        }
    }

    /// Compares every bit, and all that is derived from them.
    pub fn compare<S: AsRef<[AtomicUsize]>>(&self, bitmap: &DirtyBitmap<S>) {
        assert_eq!(bitmap.len(), self.len);
        assert_eq!(bitmap.is_empty(), self.len == 0);
        for (bit, &marked) in self.marked().iter().enumerate() {
            assert_eq!(bitmap.is_marked(bit), Ok(marked), "bit {bit}");
        }
        let count = self.marked().iter().filter(|&&marked| marked).count();
        assert_eq!(bitmap.count(), count);
        assert_eq!(bitmap.is_clean(), count == 0);
    }

    fn mark<S: AsRef<[AtomicUsize]>>(&mut self, bitmap: &DirtyBitmap<S>, bit: usize) {
        match bitmap.mark(bit) {
            Ok(newly) => {
                assert_eq!(newly, !self.marked()[bit]);
                self.marked[bit] = true;
            }
            Err(error) => self.expect_out_of_range(error, bit),
        }
    }

    fn mark_range<S: AsRef<[AtomicUsize]>>(&mut self, bitmap: &DirtyBitmap<S>, bits: Range<usize>) {
        match bitmap.mark_range(bits.clone()) {
            // Slicing refuses the same: past the end, or ending before the start.
            Ok(()) => self.marked[..self.len][bits].fill(true),
            Err(error) => {
                let last = bits.start.max(bits.end) - 1;
                assert!(
                    bits.start > bits.end || bits.end > self.len,
                    "{bits:?} was refused"
                );
                assert_eq!((error.index, error.len), (last, self.len));
            }
        }
    }

    fn drain_words(&self, drains: &mut impl Drains) {
        let mut expected = words_of(self.marked()).filter(|&(_, bits)| bits != 0);
        drains.drain_words(|word, bits| assert_eq!(Some((word, bits)), expected.next()));
        assert_eq!(expected.next(), None, "a word was not drained");
    }

    fn try_drain_runs(&mut self, drains: &mut impl Drains, refused: usize) {
        let mut expected = Runs::of(self.marked()).enumerate();
        let outcome = drains.try_drain_runs(|run| {
            let (n, expected) = expected.next().expect("a run too many");
            assert_eq!(run, expected);
            if n == refused { Err(run) } else { Ok(()) }
        });
        match outcome {
            // All before it were accepted; it and all after it stay.
            Err(run) => self.clear(0..run.start),
            Ok(()) => {
                assert_eq!(expected.next(), None, "a run was not drained");
                self.clear(0..self.len);
            }
        }
    }

    fn merge_from<S: AsRef<[AtomicUsize]>>(
        &mut self,
        bitmap: &DirtyBitmap<S>,
        len: usize,
        seed: u64,
    ) {
        let len = len.min(BITS);
        let other = some_marked::<WORDS>(len, seed);
        match bitmap.merge_from(&other) {
            Ok(()) => assert_eq!(len, self.len, "lengths that differ were accepted"),
            Err(LengthMismatch {
                from, into, ratio, ..
            }) => {
                assert_ne!(len, self.len);
                assert_eq!((from, into, ratio), (len, self.len, 1));
                return;
            }
        }
        for bit in 0..len {
            self.marked[bit] |= other.is_marked(bit) == Ok(true);
        }
    }

    fn fold<S: AsRef<[AtomicUsize]>>(
        &mut self,
        bitmap: &DirtyBitmap<S>,
        len: usize,
        ratio: usize,
        seed: u64,
    ) {
        let len = len.min(BITS);
        let coarser = some_marked::<WORDS>(len, seed);
        let fits = coarse_len(self.len, ratio) == Some(len);
        match coarser.fold_into_finer(bitmap, ratio) {
            Ok(()) => assert!(fits, "lengths that do not fit were accepted"),
            Err(LengthMismatch {
                from,
                into,
                ratio: r,
                ..
            }) => {
                assert!(!fits);
                assert_eq!((from, into, r), (len, self.len, ratio));
                return;
            }
        }
        for bit in 0..self.len {
            self.marked[bit] |= coarser.is_marked(bit / ratio) == Ok(true);
        }
    }

    fn clear(&mut self, bits: Range<usize>) {
        self.marked[bits].fill(false);
    }

    fn expect_out_of_range(&self, error: OutOfRange, index: usize) {
        assert!(index >= self.len, "index {index} was refused");
        assert_eq!((error.index, error.len), (index, self.len));
    }
}

/// A bitmap of `len` bits, of which the seed marks none, a few, or most.
fn some_marked<const WORDS: usize>(len: usize, seed: u64) -> DirtyBitmap<[AtomicUsize; WORDS]> {
    let bitmap = DirtyBitmap::new(len);
    let mut rng = Rng(seed);
    for _ in 0..rng.below(6) {
        let first = rng.below(len + 1);
        let end = len.min(first + 1 + rng.below(100));
        assert_eq!(bitmap.mark_range(first..end), Ok(()));
    }
    bitmap
}

/// Sets bits of `garbage` past the end of a bitmap of `len` bits: in what is left of its last leaf
/// word, and in the spare bits of its last summary word.
fn scribble(words: &[AtomicUsize], len: usize, garbage: usize) {
    let leaves = len.div_ceil(WORD_BITS);
    let lines = len.div_ceil(pugmark::bitmap::LINE_BITS);
    for (used, last) in [(len, leaves), (lines, words_for(len))] {
        if !used.is_multiple_of(WORD_BITS) {
            words[last - 1].fetch_or(garbage << (used % WORD_BITS), SeqCst);
        }
    }
}

/// Maximal runs of `true`, found a bit at a time.
pub struct Runs<'a> {
    marked: &'a [bool],
    next: usize,
}

impl<'a> Runs<'a> {
    pub fn of(marked: &'a [bool]) -> Self {
        Self { marked, next: 0 }
    }
}

impl Iterator for Runs<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        while !*self.marked.get(self.next)? {
            self.next += 1;
        }
        let start = self.next;
        while self.marked.get(self.next) == Some(&true) {
            self.next += 1;
        }
        let len = self.next - start;
        Some(Run { start, len })
    }
}

/// The leaf words that the bits make up, lowest bit first.
fn words_of(marked: &[bool]) -> impl Iterator<Item = (usize, usize)> + '_ {
    let word = |bits: &[bool]| {
        let set = |(i, &bit): (usize, &bool)| usize::from(bit) << i;
        bits.iter().enumerate().map(set).sum()
    };
    marked.chunks(WORD_BITS).map(word).enumerate()
}

/// Random operations on one bitmap that was clean.
pub fn follow<S: AsRef<[AtomicUsize]>, const BITS: usize, const WORDS: usize>(
    bitmap: &DirtyBitmap<S>,
    shared: Option<&[AtomicUsize]>,
    seed: u64,
    steps: usize,
) {
    let len = bitmap.len();
    let mut rng = Rng(seed);
    let mut oracle = Oracle::<BITS, WORDS>::new(len);
    oracle.compare(bitmap);
    for _ in 0..steps {
        oracle.step(bitmap, shared, &Op::random(&mut rng, len));
    }
}

/// Over an array that nobody else can reach: each drain is an exclusive one.
pub fn follow_alone<const BITS: usize, const WORDS: usize>(len: usize, seed: u64, steps: usize) {
    let mut bitmap = DirtyBitmap::<[AtomicUsize; WORDS]>::new(len);
    let mut rng = Rng(seed);
    let mut oracle = Oracle::<BITS, WORDS>::new(len);
    for _ in 0..steps {
        oracle.step_alone(&mut bitmap, &Op::random(&mut rng, len));
    }
}

/// Over an array that the bitmap owns.
pub fn follow_array<const BITS: usize, const WORDS: usize>(len: usize, seed: u64, steps: usize) {
    let bitmap = DirtyBitmap::<[AtomicUsize; WORDS]>::new(len);
    follow::<_, BITS, WORDS>(&bitmap, None, seed, steps);
}

/// Over a slice that it borrows, beside a peer who knows neither of the summary nor where the bitmap ends.
pub fn follow_slice<const BITS: usize, const WORDS: usize>(len: usize, seed: u64, steps: usize) {
    let words = [const { AtomicUsize::new(0) }; WORDS];
    let bitmap = DirtyBitmap::with_storage(&words[..], len).expect("room for BITS bits");
    follow::<_, BITS, WORDS>(&bitmap, Some(&words), seed, steps);
    // Behind the bitmap's own words nothing was touched.
    let mut rest = words[words_for(len)..].iter();
    assert!(rest.all(|word| word.load(SeqCst) == 0));
}
