//! What tracking costs with a [`CostModel`], by the model: nothing is timed, and each turn is the same.
//!
//! The traces are replayed through a real tracker, as in the tests; the limits know each trace before
//! it begins.

#[path = "../../../tests/adaptive/replay.rs"]
mod replay;
#[path = "../../../tests/adaptive/workloads.rs"]
#[allow(dead_code, reason = "the table has no room for what each is about")]
mod workloads;

use std::time::Duration;

use pugmark::{CostModel, StepDown};

use crate::harness::{Bench, Measured, Turn, limit, peer, us};
use crate::rows::{Row, traces};
use replay::{Known, Policy, with_page_size};
use traces::Trace;

const UNIT: &str = "trace, in the model's time";

pub const RECORDED_HVF_MEMORY: Row = Row {
    name: "adaptive-recorded-hvf-memory",
    work: "track a recorded Linux: 4.9 µs a fault, 1.7 µs a page of 16 KiB",
    unit: UNIT,
    measure: |_| recorded(CostModel::HVF_MEMORY, 16 << 10),
    note: None,
};

pub const RECORDED_HVF_PACKED: Row = Row {
    name: "adaptive-recorded-hvf-packed",
    work: "track a recorded Linux: 4.9 µs a fault, 11 µs a page of 16 KiB",
    unit: UNIT,
    measure: |_| recorded(CostModel::HVF_PACKED, 16 << 10),
    note: None,
};

pub const RECORDED_UFFD_MEMORY: Row = Row {
    name: "adaptive-recorded-uffd-memory",
    work: "track a recorded Linux: 6 µs a fault, 0.43 µs a page of 4 KiB",
    unit: UNIT,
    measure: |_| recorded(CostModel::UFFD_MEMORY, 4 << 10),
    note: None,
};

pub const RECORDED_UFFD_PACKED: Row = Row {
    name: "adaptive-recorded-uffd-packed",
    work: "track a recorded Linux: 6 µs a fault, 2.75 µs a page of 4 KiB",
    unit: UNIT,
    measure: |_| recorded(CostModel::UFFD_PACKED, 4 << 10),
    note: None,
};

pub const WORST_HVF_MEMORY: Row = Row {
    name: "adaptive-worst-hvf-memory",
    work: "track the worst of 21 traces: 4.9 µs a fault, 1.7 µs a page of 16 KiB",
    unit: UNIT,
    measure: |_| worst(CostModel::HVF_MEMORY, 16 << 10),
    note: None,
};

pub const WORST_HVF_PACKED: Row = Row {
    name: "adaptive-worst-hvf-packed",
    work: "track the worst of 21 traces: 4.9 µs a fault, 11 µs a page of 16 KiB",
    unit: UNIT,
    measure: |_| worst(CostModel::HVF_PACKED, 16 << 10),
    note: None,
};

pub const WORST_UFFD_MEMORY: Row = Row {
    name: "adaptive-worst-uffd-memory",
    work: "track the worst of 21 traces: 6 µs a fault, 0.43 µs a page of 4 KiB",
    unit: UNIT,
    measure: |_| worst(CostModel::UFFD_MEMORY, 4 << 10),
    note: None,
};

pub const WORST_UFFD_PACKED: Row = Row {
    name: "adaptive-worst-uffd-packed",
    work: "track the worst of 21 traces: 6 µs a fault, 2.75 µs a page of 4 KiB",
    unit: UNIT,
    measure: |_| worst(CostModel::UFFD_PACKED, 4 << 10),
    note: None,
};

/// As [`StepDown`] has it for few harvests a second.
const FEW_HARVESTS: StepDown = StepDown {
    threshold: 5,
    window: Duration::from_secs(1),
    ..StepDown::DEFAULT
};

fn recorded_traces(page_size: u64) -> impl Iterator<Item = Trace> {
    let full: &[u8] = include_bytes!("../../../tests/traces/linux-full.bin");
    let short: &[u8] = include_bytes!("../../../tests/traces/linux-short.bin");
    [full, short].into_iter().map(move |bytes| {
        let trace = Trace::read(bytes).expect("a trace");
        with_page_size(&trace, page_size)
    })
}

/// Of the recorded traces the one on which we are farthest from the clairvoyant.
fn recorded(model: CostModel, page_size: u64) -> Measured {
    let farthest = farthest(recorded_traces(page_size), model, |known| known.clairvoyant);
    let Known {
        clairvoyant,
        best_fixed,
    } = farthest.known;
    let [coarse, fine, step_down, few] = farthest.simpler_rules(model);
    rounds([
        limit(
            "the best granule of each block and epoch",
            fixed(clairvoyant),
        )
        .at_most(1.25),
        us(fixed(farthest.cost)),
        peer("the best granule of each block", fixed(best_fixed)),
        peer("every block coarse", fixed(coarse)),
        peer("every block fine", fixed(fine)),
        peer("StepDown, 32 faults in 100 ms", fixed(step_down)),
        peer("StepDown, 5 faults in 1 s", fixed(few)),
    ])
}

/// Of all traces the one on which we are farthest from the best fixed granules.
fn worst(model: CostModel, page_size: u64) -> Measured {
    let made_up = workloads::ALL.iter().map(|work| work.trace(page_size));
    let all = recorded_traces(page_size).chain(made_up);
    let farthest = farthest(all, model, |known| known.best_fixed);
    let [coarse, fine, step_down, few] = farthest.simpler_rules(model);
    rounds([
        limit(
            "the best granule of each block",
            fixed(farthest.known.best_fixed),
        )
        .at_most(1.1),
        us(fixed(farthest.cost)),
        peer("every block coarse", fixed(coarse)),
        peer("every block fine", fixed(fine)),
        peer("StepDown, 32 faults in 100 ms", fixed(step_down)),
        peer("StepDown, 5 faults in 1 s", fixed(few)),
    ])
}

/// Every round is the same, so as few as there may be.
fn rounds<const N: usize>(contenders: [crate::harness::Contender<'_>; N]) -> Measured {
    Bench::new(Duration::ZERO).rounds(contenders)
}

fn fixed(cost: u64) -> impl Fn() -> Turn {
    move || Turn::fixed(Duration::from_nanos(cost))
}

struct Farthest {
    trace: Trace,
    known: Known,
    cost: u64,
}

fn farthest(
    traces: impl Iterator<Item = Trace>,
    model: CostModel,
    from: impl Fn(Known) -> u64,
) -> Farthest {
    let replayed = traces.map(|trace| Farthest {
        known: replay::known(&trace, model),
        cost: replay::cost(&trace, model, Policy::CostModel),
        trace,
    });
    let ratio = |one: &Farthest| one.cost as f64 / from(one.known) as f64;
    replayed
        .max_by(|one, other| ratio(one).total_cmp(&ratio(other)))
        .expect("there are traces")
}

impl Farthest {
    fn simpler_rules(&self, model: CostModel) -> [u64; 4] {
        [
            Policy::Coarse,
            Policy::Fine,
            Policy::StepDown(StepDown::DEFAULT),
            Policy::StepDown(FEW_HARVESTS),
        ]
        .map(|rule| replay::cost(&self.trace, model, rule))
    }
}
