//! What the tracker costs with a [`CostModel`], on recorded and on made-up traces, against those who
//! know the trace beforehand. No time is measured: the costs are those of the model, so that a ratio
//! is the same on every machine.
//!
//! `cargo test --release --features alloc --test adaptive -- --nocapture` prints a table.
#![cfg(all(feature = "alloc", not(any(target_os = "none", miri, loom))))]

mod replay;
#[path = "../traces/mod.rs"]
#[allow(dead_code, reason = "who reads a trace does not write it")]
mod traces;
mod workloads;

use std::time::Duration;

use pugmark::{CostModel, StepDown};
use replay::{Known, Policy, with_page_size};
use traces::Trace;

/// Each preset with the page of its host.
const MODELS: [(&str, CostModel, u64); 4] = [
    ("HVF_MEMORY", CostModel::HVF_MEMORY, 16 << 10),
    ("HVF_PACKED", CostModel::HVF_PACKED, 16 << 10),
    ("UFFD_MEMORY", CostModel::UFFD_MEMORY, 4 << 10),
    ("UFFD_PACKED", CostModel::UFFD_PACKED, 4 << 10),
];

/// At most so many times what the best fixed granule of each block costs, on every trace.
const TO_BEST_FIXED: f64 = 1.1;
/// At most so many times what the best granule of each block and epoch costs, on recorded traces.
const TO_CLAIRVOYANT: f64 = 1.25;

fn recorded() -> [(&'static str, Trace); 2] {
    let full: &[u8] = include_bytes!("../traces/linux-full.bin");
    let short: &[u8] = include_bytes!("../traces/linux-short.bin");
    [("linux-full", full), ("linux-short", short)]
        .map(|(name, bytes)| (name, Trace::read(bytes).expect("a trace")))
}

/// The ratios to the best fixed granule and to the clairvoyant.
fn ratios(model_name: &str, name: &str, trace: &Trace, model: CostModel) -> [f64; 2] {
    let Known {
        best_fixed,
        clairvoyant,
    } = replay::known(trace, model);
    let cost = replay::cost(trace, model, Policy::CostModel);
    let ratios = [best_fixed, clairvoyant].map(|other| cost as f64 / other as f64);
    println!(
        "{model_name:11} {name:15} {:.3} to the best fixed, {:.3} to the clairvoyant",
        ratios[0], ratios[1]
    );
    ratios
}

#[test]
fn recorded_traces_cost_little_more_than_for_the_clairvoyant() {
    for (model_name, model, page_size) in MODELS {
        for (name, trace) in recorded() {
            let trace = with_page_size(&trace, page_size);
            let [fixed, clairvoyant] = ratios(model_name, name, &trace, model);
            assert!(fixed <= TO_BEST_FIXED, "{model_name}, {name}: {fixed}");
            assert!(
                clairvoyant <= TO_CLAIRVOYANT,
                "{model_name}, {name}: {clairvoyant}"
            );
        }
    }
}

#[test]
fn made_up_traces_cost_little_more_than_with_the_best_fixed_granule() {
    for (model_name, model, page_size) in MODELS {
        for workload in workloads::ALL {
            let (name, trace) = (workload.name, workload.trace(page_size));
            let [fixed, _] = ratios(model_name, name, &trace, model);
            let about = workload.about;
            assert!(
                fixed <= TO_BEST_FIXED,
                "{model_name}, {name} ({about}): {fixed}"
            );
        }
    }
}

/// Nobody decides better by chance: the goals are out of reach of each rule that does not learn.
#[test]
fn no_simpler_rule_reaches_the_goals() {
    let few = StepDown {
        threshold: 5,
        window: Duration::from_secs(1),
        ..StepDown::DEFAULT
    };
    let rules = [
        Policy::Coarse,
        Policy::Fine,
        Policy::StepDown(StepDown::DEFAULT),
        Policy::StepDown(few),
    ];
    let (_, model, page_size) = MODELS[2];
    let [(_, trace), _] = recorded();
    let trace = with_page_size(&trace, page_size);
    let known = replay::known(&trace, model);
    for rule in rules {
        let cost = replay::cost(&trace, model, rule) as f64;
        let ratio = cost / known.clairvoyant as f64;
        println!("{rule:?}: {ratio:.3} to the clairvoyant");
        assert!(ratio > TO_CLAIRVOYANT, "{rule:?}: {ratio}");
    }
}
