//! The bitmap against a naive one: every operation, every form of storage, every border.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize as Count,
    Ordering::{Acquire, Relaxed, Release},
};
use std::thread;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use pugmark::bitmap::LINE_BITS;
use pugmark::{AtomicUsize, DirtyBitmap, Run, words_for};

// `mod oracle;` alone would be this very file.
#[path = "oracle/ahead.rs"]
mod ahead;
#[path = "oracle/mod.rs"]
mod oracle;

use oracle::{LENGTHS, Op, Oracle, Rng, Runs};

/// The longest bitmap here: three summary words on a 64-bit host.
const BITS: usize = if cfg!(miri) { 600 } else { 70_000 };
const WORDS: usize = words_for(BITS);

type Model = Oracle<BITS, WORDS>;

/// Says which case it was when one fails.
struct Case(&'static str, usize, u64);

impl Drop for Case {
    fn drop(&mut self) {
        if thread::panicking() {
            let Self(storage, len, seed) = self;
            eprintln!("{storage} of {len} bits, seed {seed}");
        }
    }
}

/// Many seeds where the bitmap is short, few where each comparison is long.
fn for_each_case(storage: &'static str, follow: impl Fn(usize, u64, usize)) {
    let (budget, steps) = if cfg!(miri) {
        (1_000, 3)
    } else {
        (3_000_000, 100)
    };
    let lengths = LENGTHS.iter().copied().chain([70_000]);
    let step = if cfg!(miri) { 2 } else { 1 };
    for len in lengths.filter(|&len| len <= BITS).step_by(step) {
        let seeds = (budget / (steps * (len + 20))).clamp(1, 400);
        for seed in 0..seeds as u64 {
            let case = Case(storage, len, seed);
            follow(len, seed, steps);
            drop(case);
        }
    }
}

#[test]
fn an_array_agrees_with_the_oracle() {
    for_each_case("an array", oracle::follow_array::<BITS, WORDS>);
}

#[test]
fn an_array_to_oneself_agrees_with_the_oracle() {
    for_each_case("an array", oracle::follow_alone::<BITS, WORDS>);
}

#[test]
fn a_borrowed_slice_agrees_beside_a_foreign_writer() {
    for_each_case("a slice", oracle::follow_slice::<BITS, WORDS>);
}

#[cfg(feature = "alloc")]
#[test]
fn a_box_agrees_with_the_oracle() {
    for_each_case("a box", |len, seed, steps| {
        let bitmap = DirtyBitmap::boxed(len);
        oracle::follow::<_, BITS, WORDS>(&bitmap, None, seed, steps);
    });
}

#[test]
fn a_static_agrees_with_the_oracle() {
    static BITMAP: DirtyBitmap<[AtomicUsize; words_for(1000)]> = DirtyBitmap::new(1000);
    let steps = if cfg!(miri) { 4 } else { 200 };
    oracle::follow::<_, 1000, { words_for(1000) }>(&BITMAP, None, 1, steps);
}

// ---- properties, with shrinking

fn any_index(len: usize) -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => 0..len.max(1),
        1 => len..len + 130,
        1 => Just(usize::MAX),
    ]
}

fn any_op(len: usize) -> impl Strategy<Value = Op> {
    let range = (any_index(len), 0..200_usize)
        .prop_map(|(start, length)| start..start.saturating_add(length));
    let any_range = prop_oneof![
        6 => range,
        1 => any_index(len).prop_map(|end| 0..end),
        1 => (any_index(len), any_index(len)).prop_map(|(start, end)| start..end),
    ];
    let merge_len = prop_oneof![3 => Just(len), 1 => 0..len + 2];
    prop_oneof![
        4 => any_index(len).prop_map(Op::Mark),
        4 => any_range.prop_map(Op::MarkRange),
        1 => any_index(len).prop_map(Op::IsMarked),
        1 => Just(Op::DrainRuns),
        1 => Just(Op::DrainBits),
        1 => Just(Op::DrainWords),
        2 => (0..6_usize).prop_map(|refused| Op::TryDrainRuns { refused }),
        1 => Just(Op::Clear),
        1 => (merge_len, any::<u64>()).prop_map(|(len, seed)| Op::MergeFrom { len, seed }),
        1 => (0..len + 2, 0..600_usize, any::<u64>()).prop_map(|(len, ratio, seed)| {
            Op::FoldFromCoarser { len, ratio, seed }
        }),
        1 => (1..600_usize, any::<u64>()).prop_map(move |(ratio, seed)| {
            let len = len.div_ceil(ratio);
            Op::FoldFromCoarser { len, ratio, seed }
        }),
        1 => any_index(len).prop_map(Op::MarkByPeer),
        1 => any::<u64>().prop_map(Op::Scribble),
    ]
}

fn any_case() -> impl Strategy<Value = (usize, Vec<Op>)> {
    let longest = if cfg!(miri) { 300 } else { 2_000 };
    let len = prop_oneof![3 => 0..=longest, 1 => prop::sample::select(LENGTHS)];
    let len = len.prop_map(move |len: usize| len.min(longest));
    let ops = if cfg!(miri) { 8 } else { 40 };
    len.prop_flat_map(move |len| (Just(len), vec(any_op(len), 1..ops)))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 400 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_sequence_of_operations_agrees((len, ops) in any_case()) {
        let words = [const { AtomicUsize::new(0) }; WORDS];
        let bitmap = DirtyBitmap::with_storage(&words[..], len).expect("room");
        let mut oracle = Model::new(len);
        for op in &ops {
            oracle.step(&bitmap, Some(&words), op);
        }
    }

    #[test]
    fn with_storage_keeps_the_leaves_that_are_set(leaves in vec(any::<usize>(), 0..40), cut in 0..64_usize) {
        let len = (leaves.len() * usize::BITS as usize).saturating_sub(cut);
        let words: Vec<_> = leaves.iter().map(|&leaf| AtomicUsize::new(leaf)).collect();
        // Stale summary bits, or none at all: both are made good.
        for stale in [0, usize::MAX] {
            let mut words: Vec<_> = words.iter().map(|w| AtomicUsize::new(w.load(Relaxed))).collect();
            words.truncate(len.div_ceil(usize::BITS as usize));
            words.resize_with(words_for(len), || AtomicUsize::new(stale));
            let bitmap = DirtyBitmap::with_storage(words, len).expect("room");
            let set = |bit: usize| leaves[bit / usize::BITS as usize] >> (bit % usize::BITS as usize) & 1 == 1;
            let expected: Vec<_> = (0..len).filter(|&bit| set(bit)).collect();
            prop_assert_eq!(bitmap.count(), expected.len());
            let mut found = Vec::new();
            bitmap.drain_bits(|bit| found.push(bit));
            prop_assert_eq!(found, expected);
        }
    }
}

// ---- layout

/// The bytes of `words` as they lie in memory.
fn bytes_of(words: &[AtomicUsize]) -> Vec<u8> {
    words
        .iter()
        .flat_map(|word| word.load(Relaxed).to_ne_bytes())
        .collect()
}

#[cfg(target_endian = "little")]
#[test]
fn the_leaves_are_a_plain_little_endian_bitmap_and_the_summary_is_behind_them() {
    const LEN: usize = 1500;
    let words = [const { AtomicUsize::new(0) }; words_for(LEN)];
    let bitmap = DirtyBitmap::with_storage(&words[..], LEN).unwrap();
    let marked = [0, 9, 63, 64, 600, 1499];
    for bit in marked {
        assert_eq!(bitmap.mark(bit), Ok(true));
    }
    let leaves = LEN.div_ceil(usize::BITS as usize);
    let bytes = bytes_of(&words[..leaves]);
    let set = |&bit: &usize| bytes[bit / 8] & (1 << (bit % 8)) != 0;
    let found: Vec<_> = (0..LEN).filter(set).collect();
    assert_eq!(found, marked);

    // Bits 0 to 64 are in line 0, bit 600 in line 1 and bit 1499 in line 2.
    assert_eq!(bytes_of(&words[leaves..])[0], 0b111);
    bitmap.clear();
    assert!(words.iter().all(|word| word.load(Relaxed) == 0));
}

#[test]
fn words_for_counts_leaves_and_one_summary_bit_a_cache_line() {
    let word = usize::BITS as usize;
    assert_eq!(words_for(0), 0);
    assert_eq!(words_for(1), 2);
    assert_eq!(words_for(512), 512 / word + 1);
    assert_eq!(words_for(513), 512 / word + 2);
    // One summary word serves as many lines as it has bits.
    let full = 512 * word;
    assert_eq!(words_for(full), full / word + 1);
    assert_eq!(words_for(full + 1), full / word + 3);
}

// ---- bad input

#[test]
fn an_index_out_of_range_is_an_error_that_names_it() {
    let bitmap = DirtyBitmap::<[AtomicUsize; words_for(100)]>::new(100);
    for index in [100, 127, 128, 511, 512, 1 << 20, usize::MAX] {
        let error = bitmap.mark(index).unwrap_err();
        assert_eq!((error.index, error.len), (index, 100));
        assert_eq!(bitmap.is_marked(index), Err(error));
        assert_eq!(
            error.to_string(),
            format!("index {index} is out of range of a bitmap of 100 bits")
        );
    }
    let error = bitmap.mark_range(90..101).unwrap_err();
    assert_eq!((error.index, error.len), (100, 100));
    assert!(bitmap.is_clean(), "a refused range marked something");
}

#[test]
fn storage_too_small_is_an_error_that_names_both_sizes() {
    let needed = words_for(1000);
    let words: Vec<_> = (1..needed).map(|_| AtomicUsize::new(0)).collect();
    let error = DirtyBitmap::with_storage(words, 1000).unwrap_err();
    assert_eq!((error.needed, error.given), (needed, needed - 1));
    assert_eq!(
        error.to_string(),
        format!(
            "the bitmap needs {needed} words of storage and got {}",
            needed - 1
        )
    );
}

#[test]
fn more_bits_than_a_bitmap_can_have_are_refused() {
    use pugmark::bitmap::MAX_BITS;
    for bits in [MAX_BITS + 1, usize::MAX] {
        let error = DirtyBitmap::with_storage([AtomicUsize::new(0)], bits).unwrap_err();
        assert_eq!(error.given, 1);
    }
    assert!(MAX_BITS.is_multiple_of(pugmark::bitmap::LINE_BITS));
}

#[test]
#[should_panic = "words_for(bits) words"]
fn an_array_too_small_panics_in_new() {
    let _ = DirtyBitmap::<[AtomicUsize; 2]>::new(1000);
}

#[test]
fn lengths_that_do_not_fit_are_an_error_that_names_them() {
    let short = DirtyBitmap::<[AtomicUsize; words_for(100)]>::new(100);
    let long = DirtyBitmap::<[AtomicUsize; words_for(801)]>::new(801);
    assert_eq!(short.mark_range(0..100), Ok(()));

    let error = long.merge_from(&short).unwrap_err();
    assert_eq!((error.from, error.into, error.ratio), (100, 801, 1));
    let error = short.fold_into_finer(&long, 8).unwrap_err();
    assert_eq!((error.from, error.into, error.ratio), (100, 801, 8));
    assert_eq!(
        error.to_string(),
        "a bitmap of 100 bits does not fit one of 801 bits at 1:8"
    );
    assert!(short.fold_into_finer(&long, 0).is_err());
    assert!(long.is_clean(), "a refused merge marked something");
}

// ---- a sink that unwinds

/// Marks a few runs, lets a drain unwind at run `n`, and returns what is marked before and after.
fn unwinds_at(
    n: usize,
    drain: impl Fn(&DirtyBitmap<[AtomicUsize; WORDS]>, &dyn Fn()),
) -> [Vec<bool>; 2] {
    let len = 600;
    let bitmap = DirtyBitmap::<[AtomicUsize; WORDS]>::new(len);
    for bits in [3..5, 60..70, 90..92, 300..520, 521..522, 590..600] {
        assert_eq!(bitmap.mark_range(bits), Ok(()));
    }
    let state = || {
        (0..len)
            .map(|bit| bitmap.is_marked(bit) == Ok(true))
            .collect()
    };
    let before = state();
    let calls = Count::new(0);
    let sink = || {
        if calls.fetch_add(1, Relaxed) == n {
            // Without the message that `panic!` prints.
            std::panic::resume_unwind(Box::new(()));
        }
    };
    let unwound = catch_unwind(AssertUnwindSafe(|| drain(&bitmap, &sink)));
    assert!(unwound.is_err());
    [before, state()]
}

#[test]
fn a_sink_that_unwinds_keeps_its_run_and_all_after_it() {
    for n in 0..6 {
        let [before, after] = unwinds_at(n, |bitmap, sink| bitmap.drain_runs(|_| sink()));
        let left: Vec<_> = Runs::of(&before).skip(n).collect();
        assert_eq!(Runs::of(&after).collect::<Vec<_>>(), left);
    }
}

#[test]
fn a_sink_that_unwinds_keeps_its_word_and_all_after_it() {
    let words = |marked: &[bool]| {
        let words = marked.chunks(usize::BITS as usize);
        words
            .map(<[bool]>::to_vec)
            .filter(|word| word.contains(&true))
            .collect::<Vec<_>>()
    };
    for n in 0..6 {
        let [before, after] = unwinds_at(n, |bitmap, sink| bitmap.drain_words(|_, _| sink()));
        assert_eq!(words(&after), words(&before)[n..]);
    }
}

#[test]
fn a_sink_of_bits_that_unwinds_loses_none() {
    for n in [0, 1, 2, 13, 14, 100, 244] {
        let [before, after] = unwinds_at(n, |bitmap, sink| bitmap.drain_bits(|_| sink()));
        let nth = (0..before.len()).filter(|&bit| before[bit]).nth(n).unwrap();
        assert!(
            !after[..nth].contains(&true),
            "a bit that the sink had is marked"
        );
        assert_eq!(after[nth..], before[nth..]);
    }
}

// ---- the promise, with threads

/// What markers write before they mark: a version a bit and marker, so that a drain that came too
/// early, or a mark that was not delivered, shows as an old version.
struct Guest {
    bitmap: DirtyBitmap<[AtomicUsize; words_for(Guest::LEN)]>,
    written: [[AtomicU64; Self::LEN]; Self::MARKERS],
    /// The version whose mark has returned.
    marked: [[AtomicU64; Self::LEN]; Self::MARKERS],
    /// Marks that found their bit clear.
    newly: [Count; Self::LEN],
    markers_left: Count,
}

/// What a drainer saw of each bit and marker, and how often it was given the bit.
struct Mirror {
    seen: [[u64; Guest::LEN]; Guest::MARKERS],
    delivered: [usize; Guest::LEN],
}

impl Guest {
    /// Two lines, so that the summary has two bits; the last word is partial.
    const LEN: usize = if cfg!(miri) { 70 } else { 600 };
    const MARKERS: usize = if cfg!(miri) { 2 } else { 3 };
    const MARKS: usize = if cfg!(miri) { 300 } else { 200_000 };

    fn new() -> Self {
        Self {
            bitmap: DirtyBitmap::new(Self::LEN),
            written: [const { [const { AtomicU64::new(0) }; Self::LEN] }; Self::MARKERS],
            marked: [const { [const { AtomicU64::new(0) }; Self::LEN] }; Self::MARKERS],
            newly: [const { Count::new(0) }; Self::LEN],
            markers_left: Count::new(Self::MARKERS),
        }
    }

    /// Writes and marks random bits, a few of them hot.
    fn run_marker(&self, marker: usize) {
        let mut rng = Rng(marker as u64);
        for version in 1..=Self::MARKS as u64 {
            let bit = match rng.below(4) {
                0 => rng.below(Self::LEN),
                1 => Self::LEN - 1,
                _ => 60 + rng.below(8),
            };
            // Relaxed: the mark is what orders it before the drain.
            self.written[marker][bit].store(version, Relaxed);
            if self.bitmap.mark(bit) == Ok(true) {
                self.newly[bit].fetch_add(1, Relaxed);
            }
            // Release: a drainer that sees it begins after the mark.
            self.marked[marker][bit].store(version, Release);
        }
        self.markers_left.fetch_sub(1, Release);
    }

    fn is_over(&self) -> bool {
        self.markers_left.load(Acquire) == 0
    }

    fn copy(&self, mirror: &mut Mirror, bits: std::ops::Range<usize>) {
        for bit in bits {
            mirror.delivered[bit] += 1;
            for marker in 0..Self::MARKERS {
                mirror.seen[marker][bit] = self.written[marker][bit].load(Relaxed);
            }
        }
    }

    /// One drain, of a form that `rng` chooses.
    fn drain(&self, mirror: &mut Mirror, rng: &mut Rng) {
        match rng.below(4) {
            0 => self
                .bitmap
                .drain_bits(|bit| self.copy(mirror, bit..bit + 1)),
            1 => self.bitmap.drain_runs(|run| self.copy(mirror, run.range())),
            2 => self.bitmap.drain_words(|word, bits| {
                let word_bits = usize::BITS as usize;
                for bit in (0..word_bits).filter(|bit| bits >> bit & 1 == 1) {
                    let bit = word * word_bits + bit;
                    self.copy(mirror, bit..bit + 1);
                }
            }),
            _ => {
                let accept = |run: Run| {
                    self.copy(mirror, run.range());
                    Ok::<(), ()>(())
                };
                assert_eq!(self.bitmap.try_drain_runs(accept), Ok(()));
            }
        }
    }

    /// Of each bit and marker, some drainer saw the last version.
    fn check_last_versions(&self, mirrors: &[Box<Mirror>]) {
        for (marker, bits) in self.written.iter().enumerate() {
            for (bit, written) in bits.iter().enumerate() {
                let seen = mirrors.iter().map(|mirror| mirror.seen[marker][bit]).max();
                assert_eq!(
                    seen,
                    Some(written.load(Relaxed)),
                    "bit {bit} of marker {marker}"
                );
            }
        }
    }
}

impl Mirror {
    fn new() -> Self {
        Self {
            seen: [[0; Guest::LEN]; Guest::MARKERS],
            delivered: [0; Guest::LEN],
        }
    }
}

#[test]
fn a_mark_that_returned_before_a_drain_began_is_in_it() {
    let guest = Guest::new();
    let mut mirror = Mirror::new();
    let mut drains = 0_u32;
    let mut missed = 0_u32;
    thread::scope(|scope| {
        for marker in 0..Guest::MARKERS {
            let guest = &guest;
            scope.spawn(move || guest.run_marker(marker));
        }
        let mut rng = Rng(99);
        loop {
            let over = guest.is_over();
            let snapshot =
                |bits: &[AtomicU64; Guest::LEN]| bits.iter().map(|v| v.load(Acquire)).collect();
            let owed: Vec<Vec<u64>> = guest.marked.iter().map(snapshot).collect();
            guest.drain(&mut mirror, &mut rng);
            drains += 1;
            for (seen, owed) in mirror.seen.iter().zip(&owed) {
                missed += seen
                    .iter()
                    .zip(owed)
                    .filter(|(seen, owed)| seen < owed)
                    .count() as u32;
            }
            if over {
                break;
            }
            thread::yield_now();
        }
    });
    assert_eq!(missed, 0, "marks were missed in {drains} drains");
    assert!(guest.bitmap.is_clean());
    // Each change from clear to marked is one delivery.
    for (bit, newly) in guest.newly.iter().enumerate() {
        assert_eq!(mirror.delivered[bit], newly.load(Relaxed), "bit {bit}");
    }
}

#[test]
fn drainers_that_overlap_share_every_mark_between_them() {
    const DRAINERS: usize = 2;
    let guest = Guest::new();
    let mut mirrors = thread::scope(|scope| {
        for marker in 0..Guest::MARKERS {
            let guest = &guest;
            scope.spawn(move || guest.run_marker(marker));
        }
        let drainers = [(); DRAINERS].map(|()| {
            scope.spawn(|| {
                let mut mirror = Box::new(Mirror::new());
                let mut rng = Rng(7);
                while !guest.is_over() {
                    guest.drain(&mut mirror, &mut rng);
                    thread::yield_now();
                }
                mirror
            })
        });
        Vec::from(drainers.map(|drainer| drainer.join().unwrap()))
    });
    let mut last = Box::new(Mirror::new());
    guest.drain(&mut last, &mut Rng(0));
    mirrors.push(last);

    guest.check_last_versions(&mirrors);
    for (bit, newly) in guest.newly.iter().enumerate() {
        let delivered: usize = mirrors.iter().map(|mirror| mirror.delivered[bit]).sum();
        assert_eq!(delivered, newly.load(Relaxed), "bit {bit}");
    }
}

#[test]
fn a_run_that_a_sink_refuses_is_not_lost_to_markers_or_to_other_drainers() {
    let guest = Guest::new();
    let stop = AtomicBool::new(false);
    let mut mirrors = thread::scope(|scope| {
        let markers: Vec<_> = (0..Guest::MARKERS)
            .map(|marker| {
                let guest = &guest;
                scope.spawn(move || guest.run_marker(marker))
            })
            .collect();
        let drainers: Vec<_> = (0..2)
            .map(|seed| {
                let (guest, stop) = (&guest, &stop);
                scope.spawn(move || {
                    let mut mirror = Box::new(Mirror::new());
                    let mut rng = Rng(seed);
                    while !stop.load(Relaxed) {
                        let accept = |run: Run| {
                            if rng.one_in(3) {
                                return Err(run);
                            }
                            guest.copy(&mut mirror, run.range());
                            Ok(())
                        };
                        if guest.bitmap.try_drain_runs(accept).is_err() {
                            thread::yield_now();
                        }
                    }
                    mirror
                })
            })
            .collect();
        markers
            .into_iter()
            .for_each(|marker| marker.join().unwrap());
        stop.store(true, Relaxed);
        drainers
            .into_iter()
            .map(|drainer| drainer.join().unwrap())
            .collect::<Vec<_>>()
    });
    let mut last = Box::new(Mirror::new());
    guest.drain(&mut last, &mut Rng(0));
    mirrors.push(last);
    guest.check_last_versions(&mirrors);
}

// ---- the promise, two threads at a time, at the worst moment

/// Rounds in which two threads do one thing each at nearly the same time. `check` runs when both
/// are done. None of the three may panic: the other thread would wait for ever. Returns how many rounds it said `false` to, and how many there were.
fn race(
    left: impl Fn(u64) + Sync,
    mut right: impl FnMut(u64),
    mut check: impl FnMut(u64) -> bool,
) -> (u64, u64) {
    let rounds = if cfg!(miri) { 150 } else { 1_000_000 };
    let limit = Duration::from_millis(if cfg!(miri) { 60_000 } else { 1_500 });
    let [begun, done] = [(); 2].map(|()| AtomicU64::new(0));
    let wait_for = |counter: &AtomicU64, round| {
        for spins in 0_u32.. {
            let now = counter.load(Acquire);
            if now >= round {
                return now;
            }
            // The other thread may be off its core.
            match spins % 256 {
                255 => thread::yield_now(),
                _ => std::hint::spin_loop(),
            }
        }
        unreachable!("it spins on")
    };
    // One thread a little earlier, or the other.
    let delay = |round: u64, step: u64| (0..round * step % 31).for_each(|_| std::hint::spin_loop());
    let start = Instant::now();
    let mut failed = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1.. {
                if wait_for(&begun, round) == u64::MAX {
                    return;
                }
                delay(round, 7);
                left(round);
                done.store(round, Release);
            }
        });
        let mut round = 0;
        while round < rounds && (round % 256 != 0 || start.elapsed() < limit) {
            round += 1;
            begun.store(round, Release);
            delay(round, 11);
            right(round);
            wait_for(&done, round);
            failed += u64::from(!check(round));
        }
        begun.store(u64::MAX, Release);
        (failed, round)
    })
}

/// Two lines, so that a drain has more than one place to look.
fn two_lines() -> DirtyBitmap<[AtomicUsize; words_for(600)]> {
    DirtyBitmap::new(600)
}

/// A page is written, and then `bits`, of which one is set already, are marked.
fn store_before_a_mark(bits: std::ops::Range<usize>) {
    let bitmap = two_lines();
    let page = AtomicU64::new(0);
    let copy = AtomicU64::new(0);
    let drain = || bitmap.drain_runs(|_| copy.store(page.load(Relaxed), Relaxed));
    let set = bits.start;
    let _ = bitmap.mark(set);
    let (lost, rounds) = race(
        |round| {
            page.store(round, Relaxed);
            let _ = match bits.len() {
                1 => bitmap.mark(bits.start).map(drop),
                _ => bitmap.mark_range(bits.clone()),
            };
        },
        |_| drain(),
        |round| {
            drain();
            // For the next round.
            let _ = bitmap.mark(set);
            copy.load(Relaxed) == round
        },
    );
    assert_eq!(lost, 0, "pages lost in {rounds} rounds");
}

#[test]
fn a_store_before_a_mark_that_was_set_already_is_seen_by_a_later_drain() {
    store_before_a_mark(520..521);
}

#[test]
#[cfg_attr(
    miri,
    ignore = "tells nothing of stores: there are swaps in their place"
)]
fn a_store_before_a_whole_line_is_marked_is_seen_by_a_later_drain() {
    store_before_a_mark(0..LINE_BITS);
}

/// `range` is filled beside a drain, in a line whose summary bit is set because of bit 300, or is not.
fn fill_beside_a_drain(range: std::ops::Range<usize>, is_announced: bool) {
    let bitmap = two_lines();
    let delivered = [(); LINE_BITS].map(|()| Count::new(0));
    let drain = || {
        bitmap.drain_runs(|run| {
            let counts = delivered[run.range()].iter();
            counts.for_each(|count| _ = count.fetch_add(1, Relaxed));
        });
    };
    let announce = || {
        if is_announced {
            let _ = bitmap.mark(300);
        }
    };
    announce();
    let (lost, rounds) = race(
        |_| {
            let _ = bitmap.mark_range(range.clone());
        },
        |_| drain(),
        |_| {
            drain();
            announce();
            let counts = delivered.iter().enumerate();
            let wrong = counts.filter(|(bit, count)| match count.swap(0, Relaxed) {
                0 => range.contains(bit),
                1 => false,
                count => *bit != 300 || count != 2,
            });
            wrong.count() == 0
        },
    );
    assert_eq!(lost, 0, "words lost in {rounds} rounds");
}

#[test]
#[cfg_attr(
    miri,
    ignore = "takes minutes, and tells nothing of stores: there are swaps in their place"
)]
fn a_whole_line_beside_a_drain_is_in_it_or_in_the_next() {
    fill_beside_a_drain(0..LINE_BITS, true);
    fill_beside_a_drain(0..LINE_BITS, false);
}

#[test]
#[cfg_attr(
    miri,
    ignore = "takes minutes, and tells nothing of stores: there are swaps in their place"
)]
fn a_whole_word_beside_a_drain_is_in_it_or_in_the_next() {
    let word = usize::BITS as usize;
    fill_beside_a_drain(word..2 * word, true);
    fill_beside_a_drain(word..2 * word, false);
}

#[test]
fn a_mark_beside_a_drain_is_in_it_or_in_the_next() {
    let bitmap = two_lines();
    let delivered = Count::new(0);
    let drain = || {
        bitmap.drain_words(|_, bits| {
            delivered.fetch_add(bits.count_ones() as usize, Relaxed);
        });
    };
    let (lost, rounds) = race(
        |_| {
            let _ = bitmap.mark(520);
        },
        |_| drain(),
        |_| {
            drain();
            delivered.swap(0, Relaxed) == 1
        },
    );
    assert_eq!(lost, 0, "marks lost in {rounds} rounds");
}

#[test]
fn a_mark_beside_another_in_its_word_is_in_a_drain_that_follows_it() {
    let bitmap = two_lines();
    let found = AtomicBool::new(false);
    let (lost, rounds) = race(
        |_| {
            let _ = bitmap.mark(520);
        },
        |_| {
            let _ = bitmap.mark(521);
            bitmap.drain_bits(|bit| {
                found.fetch_or(bit == 521, Relaxed);
            });
        },
        |_| {
            bitmap.clear();
            found.swap(false, Relaxed)
        },
    );
    assert_eq!(lost, 0, "marks lost in {rounds} rounds");
}
