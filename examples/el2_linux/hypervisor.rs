//! The first core: brings the others up, and at each phase of the guest's work stops the world and
//! judges.

mod arguments;
mod bell;
#[path = "../el2/hypervisor/boot.rs"]
mod boot;
mod console;
#[allow(dead_code, reason = "the other example uses the rest of it")]
#[path = "../el2/hypervisor/cpu.rs"]
mod cpu;
mod gate;
mod harvester;
mod image;
mod layout;
#[allow(dead_code, reason = "the other example uses the rest of it")]
#[path = "../el2/hypervisor/memory.rs"]
mod memory;
mod migration;
mod phase;
mod psci;
mod registers;
mod report;
mod sizes;
mod sleep;
#[path = "../el2/hypervisor/syndrome.rs"]
mod syndrome;
mod trace;
mod tracking;
mod truth;
mod vcpu;
#[cfg(pugmark_wrong_order)]
#[path = "../el2/hypervisor/wrong_order.rs"]
mod wrong_order;

use core::time::Duration;

use arguments::Arguments;
use bell::Event;
use console::die;
use cpu::Features;
use layout::{DEVICE_TREE, FIRST_CORE, KERNEL, VCPUS};
use phase::Phase;
use report::{Phases, Snapshot};
use truth::Findings;

/// The core that harvests. The judge's is 0; the vCPUs' are the guest's to say.
const HARVESTER: usize = 1;

fn run() -> ! {
    let features = Features::read();
    cpu::open_vectors(features);
    let arguments = Arguments::read();
    console::open(&arguments.out);
    image::check();

    tracking::init(arguments.controller);
    tracking::activate();
    gate::init();
    boot::start(HARVESTER, move || harvester::run(features));
    for vcpu in 0..VCPUS {
        boot::start(FIRST_CORE as usize + vcpu, move || {
            vcpu::run(vcpu, features)
        });
    }
    report::start(&arguments);

    // Before the guest runs: a new tracker has every page marked, so the first harvest is all of
    // memory, and the copy of it becomes what it is.
    checkpoint();
    let mut phases = Phases::new();
    trace::begin(cpu::now());
    trace::begin_phase(Phase::BOOT);
    harvester::sizes();
    migration::order_in(Phase::BOOT, &arguments);
    harvester::resume();
    let mut began = Snapshot::take();
    if vcpu::turn_on(0, KERNEL, DEVICE_TREE).is_err() {
        die(format_args!("the first vCPU runs already"));
    }

    loop {
        let event = next_event();
        let gate = gate::close();
        let ended = Snapshot::take();
        phases.end(&began, &ended, checkpoint());
        match event {
            Event::Phase(phase) => {
                phases.begin(phase);
                trace::begin_phase(phase);
                migration::order_in(phase, &arguments);
            }
            Event::PowerOff => finish(&phases, &arguments),
            Event::Reset => {
                trace::flush_all();
                phases.end_all("reset");
                die(format_args!("the guest panicked: it asked for a reset"));
            }
        }
        harvester::resume();
        began = Snapshot::take();
        drop(gate);
        bell::answer();
    }
}

/// Waits for news of the guest, and writes the trace meanwhile.
fn next_event() -> Event {
    loop {
        if let Some(event) = bell::event() {
            return event;
        }
        trace::flush();
        sleep::nap(Duration::from_millis(1));
    }
}

/// With the world stopped: the final harvest, and the truth. The harvester stands still until it is
/// resumed. The tracker is not armed afresh: that would close a page which a wrong order of steps
/// left open and unmarked, before it shows as lost in a later phase.
fn checkpoint() -> Findings {
    harvester::finish();
    let mut findings = truth::check(truth::FIRST_HALF);
    findings += harvester::findings();
    findings
}

/// The guest has powered off.
fn finish(phases: &Phases, arguments: &Arguments) -> ! {
    trace::flush_all();
    phases.end_all("power off");
    if let Some(phase) = arguments.migrate
        && !migration::is_done()
    {
        die(format_args!("the guest had no phase {phase} to migrate in"));
    }
    console::exit(if phases.is_right() { 0 } else { 1 })
}
