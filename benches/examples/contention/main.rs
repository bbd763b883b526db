//! What becomes of the fault path at 64 and 256 vCPUs: which cache lines bounce, and what that costs.
//!
//! ```sh
//! cargo run --release -p pugmark-bench --example contention            # the tables of docs/contention.md
//! cargo run --release -p pugmark-bench --example contention -- measure # the model against this machine
//! ```

mod machine;
mod measure;
mod tracker;

use machine::{Costs, Outcome};
use tracker::{Layout, Pattern, Setting};

fn main() {
    if std::env::args().nth(1).as_deref() == Some("measure") {
        measure::against_the_model();
        return;
    }
    println!("a fault costs so many times what it does alone (its grant: 1 µs)");
    heading();
    for pattern in Pattern::ALL {
        for layout in Layout::ALL {
            for per_second in [1_000, 10_000, 100_000] {
                row(pattern, layout, per_second);
            }
        }
    }
    println!(
        "\ntransfers a fault, 256 vCPUs, 1,000 faults a second each: counts, leaves, summary, blocks"
    );
    for pattern in Pattern::ALL {
        let setting = Setting {
            vcpus: 256,
            pattern,
            layout: Layout::TwoLines,
            think: 1e6,
            grant: 1_000.0,
        };
        let kinds = tracker::by_kind(&tracker::simulate(setting, Costs::LITERATURE));
        println!("{:30} {kinds:.2?}", format!("{pattern:?}"));
    }
}

const VCPUS: [usize; 4] = [1, 2, 64, 256];

fn heading() {
    print!("{:30} {:>8}", "", "faults/s");
    VCPUS
        .iter()
        .for_each(|vcpus| print!(" | {vcpus:>4} vCPUs            "));
    println!(
        "\n{:39} {}",
        "",
        " | times transfers busiest".repeat(VCPUS.len())
    );
}

fn row(pattern: Pattern, layout: Layout, per_second: u32) {
    print!("{:30} {per_second:>8} ", format!("{pattern:?}, {layout:?}"));
    for vcpus in VCPUS {
        let setting = Setting {
            vcpus,
            pattern,
            layout,
            think: 1e9 / f64::from(per_second),
            grant: 1_000.0,
        };
        let outcome = tracker::simulate(setting, Costs::LITERATURE);
        let transfers: f64 = tracker::by_kind(&outcome).iter().sum();
        let Outcome {
            handler, busiest, ..
        } = outcome;
        let alone = tracker::alone(setting, Costs::LITERATURE);
        print!(
            " | {:>5.2} {transfers:>9.2} {:>6.1}%",
            handler / alone,
            100.0 * busiest
        );
    }
    println!();
}
