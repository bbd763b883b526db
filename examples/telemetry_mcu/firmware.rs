//! The main loop: sends what changed, and in the end compares with what was written.

mod board;
mod downlink;
mod interrupt;
mod recorder;
mod sample;

use cortex_m_rt::entry;
use defmt::{info, println};
use pugmark::slots::{Reader, Seen, chunk_words};
use pugmark::{Slot, StaticArena};

use downlink::{Downlink, MIRROR_WORDS};
use interrupt::LAST_TICK;
use sample::{CHANNELS, SET_POINT_SOURCE, Sample};

const STRIDE: usize = size_of::<Sample>();

/// A slot for each sensor: the interrupt writes. One chunk, of 64 slots, is the least.
static SAMPLES: StaticArena<1, { chunk_words(STRIDE) }> = StaticArena::new();

/// What the interrupt shall aim at: the main loop writes.
static SET_POINT: Slot<Sample> = Slot::new(sample::of(SET_POINT_SOURCE, 0));

/// How often the main loop tells how far it is.
const REPORTS: u32 = 4;

#[entry]
fn main() -> ! {
    // The attribute makes each of these a `&'static mut`.
    static mut SEEN: [Seen; 1] = [Seen::ZERO];
    static mut MIRROR: [usize; MIRROR_WORDS] = [0; MIRROR_WORDS];
    static mut RECEIVED: recorder::Received = recorder::Received::NOTHING;

    println!("pugmark on a microcontroller: an interrupt writes, the main loop sends what changed");
    println!(
        "{=usize} sensors in slots of {=usize} bytes, a recorder of {=usize} lines of {=usize} bytes",
        CHANNELS,
        STRIDE,
        recorder::LINES,
        recorder::LINE_BYTES,
    );
    let mut owner = SAMPLES.owner().expect("nobody else has it");
    let writers = core::array::from_fn(|_| owner.allocate().expect("there are 64"));
    let ids = writers.each_ref().map(|writer| writer.id());
    let reader = Reader::new(&SAMPLES, SEEN, MIRROR).expect("both are of the arena's size");
    let mut set_point = SET_POINT.writer().expect("nobody else has it");
    let mut downlink = Downlink::new(reader, ids, RECEIVED);

    interrupt::start(writers);
    for report in 1..=REPORTS {
        while interrupt::ticks() < LAST_TICK / REPORTS * report {
            downlink.send();
            set_point.write(&sample::of(SET_POINT_SOURCE, downlink.sent.turns));
        }
        info!("main loop: {}", downlink.sent);
    }
    // The interrupt has stopped by itself: what is not found now is lost.
    downlink.send();

    let broken = downlink.broken + interrupt::broken();
    let late = downlink.late;
    let lost_channels = downlink.channels_lost(LAST_TICK);
    let lost_lines = downlink.received.lines_that_differ();
    println!("torn values accepted: {=u32}", broken);
    println!("values found late: {=u32}", late);
    println!("last samples lost: {=usize}", lost_channels);
    println!("recorder lines lost: {=usize}", lost_lines);
    board::exit(broken == 0 && late == 0 && lost_channels == 0 && lost_lines == 0)
}
