//! What the report says: one JSON object a line, phase by phase.

use core::time::Duration;

use aarch64_cpu::registers::{CNTFRQ_EL0, Readable};

use super::{
    arguments::Arguments,
    console, cpu, harvester,
    layout::{GUEST_PAGES, RAM, VCPUS},
    migration,
    phase::Phase,
    tracking::tracker,
    truth::Findings,
    vcpu,
};

/// The first line.
pub fn start(arguments: &Arguments) {
    console::report(format_args!(
        r#""start":{{"controller":"{}","base":{RAM},"pages":{GUEST_PAGES},"vcpus":{VCPUS}}}"#,
        arguments.controller.name(),
    ));
}

/// The counts at some moment.
pub struct Snapshot {
    now: Duration,
    faults: usize,
    step_downs: usize,
    retries: u64,
    ticks: u64,
}

impl Snapshot {
    /// At this one.
    pub fn take() -> Self {
        let counters = tracker().counters();
        let (retries, ticks) = vcpu::totals();
        Self {
            now: cpu::now(),
            faults: counters.faults,
            step_downs: counters.step_downs,
            retries,
            ticks,
        }
    }
}

/// The phases so far.
pub struct Phases {
    /// The one that the guest is in.
    current: Phase,
    findings: Findings,
    faults: usize,
    harvests: u32,
}

impl Phases {
    /// The guest is about to boot.
    pub const fn new() -> Self {
        Self {
            current: Phase::BOOT,
            findings: Findings::NONE,
            faults: 0,
            harvests: 0,
        }
    }

    /// The guest is in `phase` from now on.
    pub fn begin(&mut self, phase: Phase) {
        self.current = phase;
    }

    /// Reports the phase between the two snapshots.
    pub fn end(&mut self, began: &Snapshot, ended: &Snapshot, findings: Findings) {
        let sizes = harvester::sizes();
        let faults = ended.faults.wrapping_sub(began.faults);
        let el2 = u128::from(ended.ticks - began.ticks) * 1_000_000 / u128::from(CNTFRQ_EL0.get());
        let Findings {
            written,
            reported,
            lost,
            over,
        } = findings;
        console::report(format_args!(
            concat!(
                r#""phase":{{"name":"{}","ms":{},"written":{},"reported":{},"lost":{},"over":{},"#,
                r#""faults":{},"retries":{},"harvests":{},"harvest_pages_median":{},"#,
                r#""harvest_pages_max":{},"el2_us":{},"step_downs":{}}}"#,
            ),
            self.current,
            ended.now.saturating_sub(began.now).as_millis(),
            written,
            reported,
            lost,
            over,
            faults,
            ended.retries - began.retries,
            sizes.harvests,
            sizes.median(),
            sizes.max,
            el2,
            ended.step_downs.wrapping_sub(began.step_downs),
        ));
        self.findings += findings;
        self.faults += faults;
        self.harvests += sizes.harvests;
    }

    /// The last line, where nothing went wrong but for pages that may be lost.
    pub fn end_all(&self, reason: &str) {
        let Findings {
            written,
            reported,
            lost,
            ..
        } = self.findings;
        console::report(format_args!(
            concat!(
                r#""end":{{"reason":"{}","written":{},"reported":{},"lost":{},"#,
                r#""faults":{},"harvests":{}}}"#,
            ),
            reason, written, reported, lost, self.faults, self.harvests,
        ));
    }

    /// Whether every page that was written was found, and the migration's copy is right.
    pub fn is_right(&self) -> bool {
        self.findings.lost == 0 && migration::differing() == 0
    }
}
