//! A flight recorder: events in RAM, of which only the lines that changed are sent.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use pugmark::{AtomicUsize, DirtyBitmap, words_for};

pub const LINES: usize = 32;
const LINE_WORDS: usize = 16;
pub const LINE_BYTES: usize = LINE_WORDS * size_of::<u32>();
const EVENT_WORDS: usize = 4;

static RECORDER: [AtomicU32; LINES * LINE_WORDS] =
    [const { AtomicU32::new(0) }; LINES * LINE_WORDS];
/// A bit for each line that was written and not yet sent.
static DIRTY: DirtyBitmap<[AtomicUsize; words_for(LINES)]> = DirtyBitmap::new(LINES);

/// Records what happened at a tick: for the interrupt.
pub fn record(tick: u32) {
    // Somewhere, so that the lines that change are neither all nor always the same.
    let events = RECORDER.chunks_exact(EVENT_WORDS);
    let event = tick.wrapping_mul(0x9e37_79b1) as usize >> 16 & (events.len() - 1);
    for (word, at) in (event * EVENT_WORDS..).take(EVENT_WORDS).enumerate() {
        RECORDER[at].store(tick + word as u32, Relaxed);
    }
    // After the event: whoever takes this mark sees it.
    DIRTY
        .mark(event * EVENT_WORDS / LINE_WORDS)
        .expect("a line of the recorder");
}

/// The other side's copy.
pub struct Received([u32; LINES * LINE_WORDS]);

impl Received {
    pub const NOTHING: Self = Self([0; LINES * LINE_WORDS]);

    /// Takes the lines that were marked. An event that comes in the middle marks its line again.
    pub fn take_dirty_lines(&mut self) -> usize {
        let mut lines = 0;
        DIRTY.drain_runs(|run| {
            lines += run.len;
            let words = run.start * LINE_WORDS..run.end() * LINE_WORDS;
            for (received, word) in self.0[words.clone()].iter_mut().zip(&RECORDER[words]) {
                *received = word.load(Relaxed);
            }
        });
        lines
    }

    /// How many lines are not the recorder's.
    pub fn lines_that_differ(&self) -> usize {
        let recorder = RECORDER.chunks_exact(LINE_WORDS);
        let pairs = recorder.zip(self.0.chunks_exact(LINE_WORDS));
        let differ = pairs.filter(|(line, received)| {
            let words = line.iter().map(|word| word.load(Relaxed));
            !words.eq(received.iter().copied())
        });
        differ.count()
    }
}
