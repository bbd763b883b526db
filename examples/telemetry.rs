//! One thread writes slots as fast as it can; another takes what changed, sixty times a second.
//!
//! `cargo run --release --example telemetry --features std`
//!
//! Neither waits for the other. Each value carries a checksum, so that a torn one that was accepted
//! would be seen: the last line says that there was none, and how much less was copied than by
//! reading everything each time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use pugmark::{BoxedArena, SlotWriter};

#[derive(Parser)]
/// One thread writes slots as fast as it can; another takes what changed, sixty times a second.
///
/// In a terminal it shows what each descend found, elsewhere a line a second. It ends by itself, with
/// a line that sums up; exit status 1 if a torn value was accepted.
struct Args {
    /// How long
    #[arg(long, default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// How many slots, of 64 bytes each
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    slots: u32,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// What a slot holds. The last word is the checksum of the others.
type Value = [u64; 8];

const FRAME: Duration = Duration::from_nanos(1_000_000_000 / 60);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let slots = args.slots as usize;

    // 1. The arena: its owner allocates each slot, and so gets the one writer that it has.
    let arena = BoxedArena::boxed(slots, size_of::<Value>())?;
    let mut owner = arena.owner().ok_or("somebody else is the owner")?;
    let writers: Result<Vec<_>, _> = (0..slots).map(|_| owner.allocate()).collect();
    let writers = writers?;
    let mut reader = arena.boxed_reader()?;

    let stop = AtomicBool::new(false);
    let writes = AtomicU64::new(0);
    let mut total = Frame::new(slots);
    let mut frames = 0;
    thread::scope(|scope| {
        // 2. The writer: another thread, or an interrupt handler, or another process.
        scope.spawn(|| write_all_the_time(writers, &stop, &writes));

        // 3. The reader, here.
        let mut view = View::new(slots);
        let start = Instant::now();
        while start.elapsed() < args.seconds {
            let mut frame = Frame::new(slots);
            let descent = reader.descend(|offset, bytes| frame.take(offset, bytes));
            frame.updated = descent.updated;
            frame.torn = descent.torn;

            frames += 1;
            total.add(&frame);
            view.show(&frame, &total, writes.load(Relaxed), start.elapsed());
            let next = FRAME * frames;
            thread::sleep(next.saturating_sub(start.elapsed()));
        }
        stop.store(true, Relaxed);
        view.bar.finish();
    });

    let all = frames as usize * slots * size_of::<Value>();
    println!(
        "{} writes, {frames} descends: {} values in {} ranges; {} torn, read later; {} torn accepted; \
         copied {} of {}, saved {:.1} %",
        HumanCount(writes.into_inner()),
        HumanCount(total.updated as u64),
        HumanCount(total.ranges as u64),
        total.torn,
        total.wrong,
        HumanBytes(total.bytes as u64),
        HumanBytes(all as u64),
        saved(total.bytes, all),
    );
    if total.wrong > 0 {
        return Err("a torn value was accepted".into());
    }
    Ok(())
}

/// Writes a few neighbours again and again, then their next ones, round and round; and now and then
/// a slot elsewhere.
fn write_all_the_time(mut writers: Vec<SlotWriter<'_>>, stop: &AtomicBool, writes: &AtomicU64) {
    const WINDOW: usize = 1024;
    let mut time = 0_usize;
    while !stop.load(Relaxed) {
        for _ in 0..WINDOW {
            // A full window in 100 µs or less; it moves on by a sixteenth of it.
            let (window, place) = (time / WINDOW, time % WINDOW);
            let slot = match place {
                // Any other: the multiplier of Knuth's multiplicative hashing.
                0 if window.is_multiple_of(64) => time.wrapping_mul(2_654_435_761) >> 8,
                _ => window / 256 * (WINDOW / 16) + place,
            };
            let slot = slot % writers.len();
            let written = writers[slot].write_value(&value(slot, time));
            debug_assert!(written.is_ok(), "a value is as large as a slot");
            time += 1;
        }
        writes.store(time as u64, Relaxed);
    }
}

/// What is written to `slot` at this `time`.
fn value(slot: usize, time: usize) -> Value {
    let mut value: Value = std::array::from_fn(|i| (time * 8 + i) as u64);
    value[0] = slot as u64;
    value[7] = checksum(&value);
    value
}

fn checksum(value: &Value) -> u64 {
    let words = value[..7].iter();
    words.fold(1, |sum, word| (sum ^ word).rotate_left(9).wrapping_mul(5))
}

/// What one descend found, or all.
struct Frame {
    updated: usize,
    torn: usize,
    ranges: usize,
    bytes: usize,
    /// Values whose checksum is wrong.
    wrong: usize,
    /// How many slots of each part of the arena were updated.
    map: Vec<usize>,
    /// Slots of a part.
    part: usize,
}

/// Columns of the map.
const COLUMNS: usize = 64;

impl Frame {
    fn new(slots: usize) -> Self {
        Self {
            updated: 0,
            torn: 0,
            ranges: 0,
            bytes: 0,
            wrong: 0,
            map: vec![0; COLUMNS],
            part: slots.div_ceil(COLUMNS),
        }
    }

    /// Takes a range that changed: an uploader would copy it on.
    fn take(&mut self, offset: usize, bytes: &[u8]) {
        self.ranges += 1;
        self.bytes += bytes.len();
        let first = offset / size_of::<Value>();
        for (slot, bytes) in (first..).zip(bytes.chunks_exact(size_of::<Value>())) {
            let value: Value = bytemuck::pod_read_unaligned(bytes);
            let is_right = value[7] == checksum(&value) && value[0] == slot as u64;
            self.wrong += usize::from(!is_right);
            self.map[slot / self.part] += 1;
        }
    }

    fn add(&mut self, other: &Self) {
        self.updated += other.updated;
        self.torn += other.torn;
        self.ranges += other.ranges;
        self.bytes += other.bytes;
        self.wrong += other.wrong;
    }

    /// A character for each part.
    fn picture(&self) -> String {
        let shade = |updated: &usize| match updated * 4 / self.part {
            _ if *updated == 0 => '·',
            0 => '░',
            1 => '▒',
            2 | 3 => '▓',
            _ => '█',
        };
        self.map.iter().map(shade).collect()
    }
}

fn saved(copied: usize, all: usize) -> f64 {
    100.0 - 100.0 * copied as f64 / all as f64
}

/// The live view, or a line a second.
struct View {
    bar: ProgressBar,
    all: usize,
    /// Whole seconds that were told of.
    told: u64,
}

impl View {
    fn new(slots: usize) -> Self {
        let bar = ProgressBar::no_length();
        bar.set_draw_target(ProgressDrawTarget::stdout_with_hz(60));
        bar.set_style(
            ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        let all = slots * size_of::<Value>();
        println!(
            "{} slots of {} bytes, {}; one writer, one reader at 60 Hz\n",
            HumanCount(slots as u64),
            size_of::<Value>(),
            HumanBytes(all as u64),
        );
        Self { bar, all, told: 0 }
    }

    fn show(&mut self, frame: &Frame, total: &Frame, writes: u64, elapsed: Duration) {
        let speed = writes as f64 / elapsed.as_secs_f64() / 1e6;
        if !self.bar.is_hidden() {
            self.bar.set_message(format!(
                "  {:5.1} s    {} writes, {speed:.1} M a second\n\
                 \x20 updated    {:>9}   torn {:>3}   ranges {:>5}\n\
                 \x20 copied     {:>9}   saved {:5.1} % of a full copy\n\
                 \x20 in all     {:>9} values   {} torn, {} torn accepted\n\n\
                 \x20 {}\n\
                 \x20 slots updated:  · none  ░ some  ▒ a quarter  ▓ half  █ all",
                elapsed.as_secs_f64(),
                HumanCount(writes),
                HumanCount(frame.updated as u64),
                frame.torn,
                frame.ranges,
                HumanBytes(frame.bytes as u64).to_string(),
                saved(frame.bytes, self.all),
                HumanCount(total.updated as u64),
                total.torn,
                total.wrong,
                frame.picture(),
            ));
        } else if elapsed.as_secs() > self.told {
            self.told = elapsed.as_secs();
            println!(
                "{:3} s  {speed:.1} M writes a second  updated {}  torn {}  ranges {}  saved {:.1} %",
                self.told,
                frame.updated,
                frame.torn,
                frame.ranges,
                saved(frame.bytes, self.all),
            );
        }
    }
}
