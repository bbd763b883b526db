//! The timer interrupt: the sensors' driver. It waits for nobody.

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering::*};

use cortex_m::Peripherals;
use cortex_m::peripheral::{SCB, SYST, syst::SystClkSource};
use cortex_m_rt::exception;
use critical_section::Mutex;
use pugmark::SlotWriter;
use pugmark::slots::{Read, UNSEEN};

use super::SET_POINT;
use super::recorder;
use super::sample::{self, CHANNELS, SET_POINT_SOURCE, Sample};

/// The timer stops itself after this tick; the first is 1.
pub const LAST_TICK: u32 = 20_000;
/// Cycles of the core from tick to tick. A prime, to meet the main loop everywhere in its turn.
const PERIOD: u32 = 1301;

/// The ticks that are over.
static TICKS: AtomicU32 = AtomicU32::new(0);
/// Set-points that were taken for whole, and are not.
static BROKEN: AtomicU32 = AtomicU32::new(0);
/// From the main loop to the first tick.
static HANDOVER: Mutex<Cell<Option<Driver>>> = Mutex::new(Cell::new(None));

struct Driver {
    writers: [SlotWriter<'static>; CHANNELS],
    timer: SYST,
    tick: u32,
    /// The tick of each sensor's next sample.
    due: [u32; CHANNELS],
    set_point: Sample,
    set_point_seen: u32,
    set_points: u32,
    set_points_torn: u32,
}

/// Ticks between two samples of a sensor: the first has one each time, the others ever fewer.
const fn interval(channel: usize) -> u32 {
    1 + (channel * channel) as u32
}

/// The tick of a sensor's last sample when so many ticks are over; 0 before the first.
pub const fn last_sample(channel: usize, ticks: u32) -> u32 {
    ticks - ticks % interval(channel)
}

pub fn ticks() -> u32 {
    // Acquire: all that those ticks wrote is seen.
    TICKS.load(Acquire)
}

pub fn broken() -> u32 {
    BROKEN.load(Relaxed)
}

pub fn start(writers: [SlotWriter<'static>; CHANNELS]) {
    let mut timer = Peripherals::take().expect("nobody else has them").SYST;
    timer.set_clock_source(SystClkSource::Core);
    timer.set_reload(PERIOD - 1);
    timer.clear_current();
    timer.enable_interrupt();
    timer.enable_counter();
    let driver = Driver {
        writers,
        timer,
        tick: 0,
        due: core::array::from_fn(interval),
        set_point: sample::of(SET_POINT_SOURCE, 0),
        set_point_seen: UNSEEN,
        set_points: 0,
        set_points_torn: 0,
    };
    critical_section::with(|section| HANDOVER.borrow(section).set(Some(driver)));
}

#[exception]
fn SysTick() {
    static mut DRIVER: Option<Driver> = None;

    if DRIVER.is_none() {
        *DRIVER = critical_section::with(|section| HANDOVER.borrow(section).take());
    }
    if let Some(driver) = DRIVER {
        driver.tick();
    }
}

impl Driver {
    fn tick(&mut self) {
        self.tick += 1;
        self.take_set_point();
        let sensors = self.writers.iter_mut().zip(&mut self.due);
        for (channel, (writer, due)) in sensors.enumerate() {
            if *due == self.tick {
                *due += interval(channel);
                let sample = sample::of(channel as u32, self.tick);
                writer.write_value(&sample).expect("a slot fits a sample");
            }
        }
        recorder::record(self.tick);
        if self.tick == LAST_TICK {
            self.stop();
        }
        // Release: after all that this tick wrote.
        TICKS.store(self.tick, Release);
    }

    fn stop(&mut self) {
        self.timer.disable_counter();
        self.timer.disable_interrupt();
        // The next one may be waiting already.
        SCB::clear_pendst();
        defmt::info!(
            "interrupt: stopped at tick {=u32}; {=u32} set-points taken, {=u32} met in mid-write",
            self.tick,
            self.set_points,
            self.set_points_torn,
        );
    }

    /// One try: where this interrupted the main loop's write, another one would find it no further.
    /// The last set-point then holds until the next tick.
    fn take_set_point(&mut self) {
        let mut new = self.set_point;
        match SET_POINT.read_if_changed(&mut self.set_point_seen, &mut new) {
            Read::Updated { .. } => {
                let is_whole = new == sample::of(SET_POINT_SOURCE, new[0]);
                BROKEN.store(broken() + u32::from(!is_whole), Relaxed);
                self.set_point = new;
                self.set_points += 1;
            }
            Read::Torn => self.set_points_torn += 1,
            Read::Unchanged => {}
        }
    }
}
