//! The first core: brings the others up, leads them through the rounds, and judges.

mod boot;
mod console;
mod cpu;
mod guest;
mod harvester;
mod hypercall;
mod idle;
mod layout;
mod memory;
mod pace;
mod report;
mod schedule;
mod syndrome;
mod tracking;
mod truth;
mod vcpu;
#[cfg(pugmark_wrong_order)]
mod wrong_order;

use spin::Mutex;

use console::die;
use cpu::Features;
use guest::{CLASSES, Class};
use layout::VCPUS;
use report::Table;
use tracking::tracker;
use truth::{Findings, Truth};

/// Rounds of all classes. Every other one begins at a clean checkpoint, where all blocks are coarse
/// again; those between find the blocks as the hot pattern left them, stepped down.
const ROUNDS: u64 = 4;

static TRUTH: Mutex<Truth> = Mutex::new(Truth::new());

/// Cores, by what they do.
const JUDGE: usize = 0;
const HARVESTER: usize = 1;
const FIRST_VCPU: usize = 2;

fn run() -> ! {
    let features = Features::read();
    cpu::open_vectors(features);
    console::open();
    report::title(features, ROUNDS);

    const { assert!(ROUNDS <= guest::MAX_ROUNDS) };
    guest::load(ROUNDS);
    tracking::init();
    tracking::activate();
    idle::init(FIRST_VCPU + VCPUS);
    idle::init_core();
    boot::start(HARVESTER, || harvester::run());
    for vcpu in 0..VCPUS {
        boot::start(FIRST_VCPU + vcpu, move || vcpu::run(vcpu, features));
    }

    let mut truth = TRUTH.lock();
    // Both vCPUs are up when they have done nothing once. A new tracker has every page marked, so
    // the first harvests copy all memory, as in a migration.
    schedule::run_guest(schedule::NO_CLASS, 0, || ());
    harvester::finish();
    truth.begin();
    harvester::resume();

    let mut table = Table::new();
    for round in 0..ROUNDS {
        let coarse = round % 2 == 0;
        if coarse {
            checkpoint();
        }
        let mut of_round = Findings::NONE;
        for (index, class) in CLASSES.iter().enumerate() {
            if class.needs.is_some_and(|(needed, _)| !features.has(needed)) {
                continue;
            }
            let (own, other) = run_class(index, class, round, &mut truth);
            table.classes[index] += own;
            table.other += other;
            of_round += own;
            of_round += other;
        }
        table.note_granules();
        report::round(round, coarse, &of_round);
    }
    table.other.lost += truth.check_destination();

    let lost = report::all(&table, &truth, features);
    console::exit(if lost == 0 { 0 } else { 1 })
}

/// A clean checkpoint: all that was written is known, so tracking may begin afresh.
fn checkpoint() {
    harvester::finish();
    if let Err(error) = tracker().arm() {
        die(format_args!("the tracker cannot be armed: {error}"));
    }
    harvester::resume();
}

/// Lets the guest run one class with the harvester at work, then compares: the pages of the class,
/// and all others.
fn run_class(index: usize, class: &Class, round: u64, truth: &mut Truth) -> (Findings, Findings) {
    pace::begin();
    let mut credit = schedule::run_guest(index as u64, round, || {
        if class.is_device() {
            write_as_device(round);
        }
    });
    if class.is_device() {
        credit += guest::DEVICE.len() as u64;
    }
    harvester::finish();
    let (own, other) = truth.check(class);
    harvester::resume();

    if own.written as u64 != credit {
        die(format_args!(
            "{}, round {round}: the guest wrote {credit} pages, and {} changed",
            class.name, own.written
        ));
    }
    (own, other)
}

/// What the VMM or a device writes does not fault, so the tracker is told: after the write.
fn write_as_device(round: u64) {
    for n in 0..guest::DEVICE.len() {
        let page = guest::DEVICE.page(n);
        memory::write(page, round + 1);
        if let Err(error) = tracker().mark_written(page..page + 8) {
            die(format_args!("{error}"));
        }
    }
}
