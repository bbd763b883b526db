//! What would go out by radio: the samples and the lines that changed since the last time.

use pugmark::SlotId;
use pugmark::slots::{Inline, Reader, Seen, chunk_words, mirror_words};

use super::STRIDE;
use super::interrupt;
use super::recorder::Received;
use super::sample::{self, CHANNELS, Sample};

pub const MIRROR_WORDS: usize = mirror_words(64, STRIDE);

pub type SampleReader = Reader<
    'static,
    Inline<1, { chunk_words(STRIDE) }>,
    &'static mut [Seen; 1],
    &'static mut [usize; MIRROR_WORDS],
>;

pub struct Downlink {
    reader: SampleReader,
    /// A slot for each channel.
    ids: [SlotId; CHANNELS],
    /// The other side's copy of the recorder.
    pub received: &'static mut Received,
    pub sent: Sent,
    /// Values that the reader took for whole, and that are not.
    pub broken: u32,
    /// Values that were written before a descend began, and were not there after it.
    pub late: u32,
}

#[derive(Default)]
pub struct Sent {
    pub turns: u32,
    samples: usize,
    ranges: usize,
    torn: usize,
    lines: usize,
}

impl Downlink {
    pub fn new(
        reader: SampleReader,
        ids: [SlotId; CHANNELS],
        received: &'static mut Received,
    ) -> Self {
        Self {
            reader,
            ids,
            received,
            sent: Sent::default(),
            broken: 0,
            late: 0,
        }
    }

    /// One turn of the main loop.
    pub fn send(&mut self) {
        let ticks = interrupt::ticks();
        let Self { sent, broken, .. } = self;
        let descent = self.reader.descend(|offset, bytes| {
            sent.ranges += 1;
            let values = bytes.chunks_exact(STRIDE);
            for (channel, value) in (offset / STRIDE..).zip(values) {
                *broken += u32::from(!sample::is_whole(channel as u32, value));
            }
        });
        sent.turns += 1;
        sent.samples += descent.updated;
        sent.torn += descent.torn;
        sent.lines += self.received.take_dirty_lines();

        // One channel a turn, for a check of all would take longer than the turn.
        let channel = self.sent.turns as usize % CHANNELS;
        let is_late = self.last_number(channel) < interrupt::last_sample(channel, ticks);
        self.late += u32::from(is_late && descent.torn == 0);
    }

    /// The number of the last sample that was sent; 0 without any.
    fn last_number(&self, channel: usize) -> u32 {
        let sample: Option<Sample> = self.reader.value_as(self.ids[channel]);
        sample.map_or(0, |sample| sample[0])
    }

    /// The channels of which the last sample was not sent, when so many ticks are over.
    pub fn channels_lost(&self, ticks: u32) -> usize {
        let is_lost =
            |channel: &usize| self.last_number(*channel) != interrupt::last_sample(*channel, ticks);
        (0..CHANNELS).filter(is_lost).count()
    }
}

impl defmt::Format for Sent {
    fn format(&self, f: defmt::Formatter) {
        defmt::write!(
            f,
            "{=u32} turns; {=usize} samples in {=usize} ranges, {=usize} torn; {=usize} lines",
            self.turns,
            self.samples,
            self.ranges,
            self.torn,
            self.lines,
        );
    }
}
