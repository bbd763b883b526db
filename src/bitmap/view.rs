//! [`View`]: the bitmap without its storage.

use core::ops::Range;
use core::slice;

use super::access::Access;
use super::look::marked;
use super::{LINE_BITS, LINE_WORDS, MAX_BITS, OutOfRange, StorageTooSmall, WORD_BITS, words_for};
use crate::prefetch;
use crate::sync::{
    AtomicUsize,
    Ordering::{Relaxed, SeqCst},
    fence_after_fill, fill,
};

const LINE_BYTES: usize = LINE_BITS / 8;

/// The bitmap without its storage: one body of code, whatever the storage is.
///
/// The constructor saw enough words. Should a hand-written `AsRef` give fewer later, then each
/// access to what is missing is an [`OutOfRange`], not a panic.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(super) words: &'a [AtomicUsize],
    pub(super) bits: usize,
}

impl<'a> View<'a> {
    pub(crate) fn new(words: &'a [AtomicUsize], bits: usize) -> Result<Self, StorageTooSmall> {
        let needed = words_for(bits);
        let given = words.len();
        if given < needed || bits > MAX_BITS {
            return Err(StorageTooSmall { needed, given });
        }
        Ok(Self { words, bits })
    }

    /// Of a bitmap that was made with enough words.
    #[inline]
    pub(super) fn of(words: &'a [AtomicUsize], bits: usize) -> Self {
        Self { words, bits }
    }

    #[cfg(all(feature = "capi", not(loom)))]
    pub(crate) fn words(self) -> &'a [AtomicUsize] {
        self.words
    }

    fn out_of_range(self, index: usize) -> OutOfRange {
        OutOfRange {
            index,
            len: self.bits,
        }
    }

    /// Where the summary begins: how many leaf words there are.
    #[inline]
    #[expect(
        clippy::manual_div_ceil,
        reason = "half the instructions: MAX_BITS leaves room"
    )]
    fn leaf_words(self) -> usize {
        (self.bits + WORD_BITS - 1) / WORD_BITS
    }

    /// The word with the summary bit of `line`.
    #[inline]
    pub(super) fn summary_of(self, line: usize) -> Option<&'a AtomicUsize> {
        self.words.get(self.leaf_words() + line / WORD_BITS)
    }

    #[inline]
    pub(crate) fn mark(self, bit: usize) -> Result<bool, OutOfRange> {
        let line = bit / LINE_BITS;
        let leaf = self.words.get(bit / WORD_BITS);
        let (true, Some(leaf), Some(summary)) = (bit < self.bits, leaf, self.summary_of(line))
        else {
            return Err(self.out_of_range(bit));
        };
        let mask = 1 << (bit % WORD_BITS);
        // Unconditional, and SeqCst: see "Why nothing is lost". As a bool of one bit this is a
        // single `lock bts` on x86; the whole previous word would be a compare-and-swap loop.
        let was_clear = leaf.fetch_or(mask, SeqCst) & mask == 0;
        announce(summary, 1 << (line % WORD_BITS));
        Ok(was_clear)
    }

    /// One path for what lies in one word, as most that a device writes does; another for the rest.
    #[inline]
    pub(crate) fn mark_range(self, bits: Range<usize>) -> Result<(), OutOfRange> {
        let word = bits.start / WORD_BITS;
        let mask = self.mask_within(word, &bits);
        match mask.and_then(|mask| self.mark_within(word, mask)) {
            Some(()) => Ok(()),
            None => self.mark_any_range(bits),
        }
    }

    #[inline(never)]
    fn mark_any_range(self, bits: Range<usize>) -> Result<(), OutOfRange> {
        let Range { start, end } = bits;
        if start > end || end > self.bits {
            return Err(self.out_of_range(start.max(end) - 1));
        }
        if start == end {
            return Ok(());
        }
        let (leaves, summary) = self
            .words
            .split_at_checked(self.leaf_words())
            .unwrap_or_default();
        let missing = self.out_of_range(end - 1);
        mark_leaves(leaves, start, end - 1).ok_or(missing)?;
        // All leaves before the summary of any: a drainer that has seen a summary bit finds them.
        let lines = start / LINE_BITS..(end - 1) / LINE_BITS + 1;
        with_masks(summary, lines, announce).ok_or(missing)
    }

    /// Marks each of `ranges`; with one read-modify-write for neighbours that share a word. What is
    /// out of range is left out.
    pub(crate) fn mark_ranges(self, ranges: impl Iterator<Item = Range<usize>>) {
        let mut ranges = ranges.peekable();
        while let Some(first) = ranges.next() {
            let word = first.start / WORD_BITS;
            let Some(mut gathered) = self.mask_within(word, &first) else {
                let _ = self.mark_any_range(first);
                continue;
            };
            // Nothing is called in here, so that all of it stays in registers.
            while let Some(mask) = ranges.peek().and_then(|next| self.mask_within(word, next)) {
                gathered |= mask;
                ranges.next();
            }
            self.mark_word(word, gathered);
        }
    }

    /// The bits of leaf `word` that `bits` are, if they are some of those and no others.
    #[inline]
    fn mask_within(self, word: usize, bits: &Range<usize>) -> Option<usize> {
        let last = bits.end.wrapping_sub(1);
        let within = bits.start / WORD_BITS == word && last / WORD_BITS == word;
        let mask = from(bits.start) & up_to(last);
        (within && bits.start <= last && last < self.bits).then_some(mask)
    }

    /// Marks `bits` of leaf word `word`. The caller has them from a bitmap of the same length.
    pub(crate) fn mark_word(self, word: usize, bits: usize) {
        let marked = self.mark_within(word, bits);
        debug_assert!(marked.is_some(), "word {word} is from a longer bitmap");
    }

    /// Marks `bits` of leaf word `word`; `None` where the storage has no such word.
    #[inline]
    fn mark_within(self, word: usize, bits: usize) -> Option<()> {
        let line = word / LINE_WORDS;
        let (leaf, summary) = (self.words.get(word)?, self.summary_of(line)?);
        let line = 1 << (line % WORD_BITS);
        if bits == usize::MAX && !is_announced(summary, line) {
            fill(slice::from_ref(leaf));
            summary.fetch_or(line, SeqCst);
        } else {
            // The previous word is not used, so that this is one plain `lock or` on x86.
            leaf.fetch_or(bits, SeqCst);
            announce(summary, line);
        }
        Some(())
    }

    /// Sets the summary bit of `line`, whose leaves are marked.
    pub(super) fn announce_line(self, line: usize) {
        if let Some(summary) = self.summary_of(line) {
            announce(summary, 1 << (line % WORD_BITS));
        }
    }

    #[inline]
    pub(crate) fn is_marked(self, bit: usize) -> Result<bool, OutOfRange> {
        match self.words.get(bit / WORD_BITS) {
            Some(leaf) if bit < self.bits => Ok(leaf.load(SeqCst) & (1 << (bit % WORD_BITS)) != 0),
            _ => Err(self.out_of_range(bit)),
        }
    }

    pub(super) fn rebuild_summary(self) {
        for line in 0..self.bits.div_ceil(LINE_BITS) {
            if marked(self.line(line)) != 0 {
                self.announce_line(line);
            }
        }
    }

    /// The summary words.
    pub(super) fn summary(self) -> &'a [AtomicUsize] {
        let summary = self.leaf_words()..words_for(self.bits);
        self.words.get(summary).unwrap_or_default()
    }

    /// The leaf words of `line`: none, if the bitmap has no such line.
    #[inline]
    pub(super) fn line(self, line: usize) -> &'a [AtomicUsize] {
        let first = line * LINE_WORDS;
        let end = self.leaf_words().min(first + LINE_WORDS);
        self.words.get(first..end).unwrap_or_default()
    }

    /// Tells the caches that `line` is about to be visited.
    #[inline]
    pub(super) fn prefetch<A: Access>(self, line: usize) {
        let ask = if A::TAKES {
            // Of lines that another core has marked, the swap would have to ask again otherwise: for
            // a drain behind a marker on another core half the time.
            prefetch::to_write
        } else {
            prefetch::to_read
        };
        let first = self.words.as_ptr().wrapping_add(line * LINE_WORDS);
        let last = first.wrapping_add(LINE_WORDS - 1);
        ask(first);
        // Where the storage does not begin at a cache line, each line of leaves lies in two.
        if (first.addr() ^ last.addr()) / LINE_BYTES != 0 {
            ask(last);
        }
    }

    /// The bits of leaf `word` that the bitmap has: all, but for the last word. Whatever a foreign
    /// writer put past the end is not seen.
    #[inline]
    pub(super) fn valid(self, word: usize) -> usize {
        if word < self.bits / WORD_BITS {
            return usize::MAX;
        }
        !(usize::MAX << (self.bits % WORD_BITS))
    }
}

/// Marks the bits from `first` to `last` of `leaves`; `None` if they go past those, and none is marked.
#[inline]
fn mark_leaves(leaves: &[AtomicUsize], first: usize, last: usize) -> Option<()> {
    let words = leaves.get(first / WORD_BITS..=last / WORD_BITS)?;
    let (last_word, mut words) = words.split_last()?;
    let (from, up_to) = (from(first), up_to(last));
    match words.split_first() {
        None => _ = last_word.fetch_or(from & up_to, SeqCst),
        Some((first_word, whole)) => {
            if from != usize::MAX {
                first_word.fetch_or(from, SeqCst);
                words = whole;
            }
            fill(words);
            last_word.fetch_or(up_to, SeqCst);
            if !words.is_empty() {
                fence_after_fill();
            }
        }
    }
    Some(())
}

/// Calls `visit` for each word in which some of `bits` lie, with the mask of those. `bits` is not
/// empty; `None` if it goes past the words, and nothing was visited.
#[inline]
fn with_masks(
    words: &[AtomicUsize],
    bits: Range<usize>,
    mut visit: impl FnMut(&AtomicUsize, usize),
) -> Option<()> {
    let last = bits.end - 1;
    let words = words.get(bits.start / WORD_BITS..=last / WORD_BITS)?;
    let mut mask = from(bits.start);
    let (last_word, words) = words.split_last()?;
    for word in words {
        visit(word, mask);
        mask = usize::MAX;
    }
    visit(last_word, mask & up_to(last));
    Some(())
}

/// Of the word with `bit` in it, `bit` and all above.
#[inline]
const fn from(bit: usize) -> usize {
    usize::MAX << (bit % WORD_BITS)
}

/// Of the word with `bit` in it, `bit` and all below.
#[inline]
const fn up_to(bit: usize) -> usize {
    usize::MAX >> (WORD_BITS - 1 - bit % WORD_BITS)
}

/// Whether the summary bit looked set a moment ago. If not, it is worth a read-modify-write without a
/// second look.
#[inline]
pub(super) fn is_announced(summary: &AtomicUsize, mask: usize) -> bool {
    // Relaxed: either answer is right at any time.
    summary.load(Relaxed) & mask != 0
}

/// Sets the bits `mask` of a summary word, once the leaves of those lines are marked.
#[inline]
pub(super) fn announce(summary: &AtomicUsize, mask: usize) {
    // The load keeps the line shared between markers; it comes after the leaf's `fetch_or`, or after the
    // fence behind its store, in the one order of SeqCst. The store side is needed only when a bit is clear.
    if summary.load(SeqCst) & mask != mask {
        summary.fetch_or(mask, SeqCst);
    }
}
