//! What pugmark costs: against the limit of the hardware, and against what one would use instead.
//!
//! `cargo xtask bench` runs it and makes a table. By itself it prints a JSON object a line: see
//! [`report`].

mod harness;
mod improved;
#[cfg(target_os = "linux")]
mod linux;
mod prefetch;
mod random;
mod report;
mod rows;

use std::time::Duration;

use anyhow::Result;
use clap::Parser;

use harness::Bench;
use report::{BAD_INPUT, Event};
use rows::{ROWS, Row};

#[derive(Parser)]
/// Measure, and print what was found as JSON, a line at a time. `cargo xtask bench` makes a table of
/// it.
struct Args {
    /// How long the rows may take together, but for what each must
    #[arg(long, value_name = "SECONDS", default_value_t = 270.0)]
    seconds: f32,
    /// Only the rows whose names begin so, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    only: Vec<String>,
    /// Name the rows, and measure nothing
    #[arg(long)]
    list: bool,
}

/// More time for a row makes its medians no better.
const LONGEST: Duration = Duration::from_secs(20);

fn main() -> Result<()> {
    let args = Args::parse();
    let budget = Duration::try_from_secs_f32(args.seconds)?;
    for name in &args.only {
        if !ROWS.iter().any(|row| row.name.starts_with(name)) {
            let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
            println!("no row `{name}`; the rows are {}", names.join(", "));
            std::process::exit(BAD_INPUT);
        }
    }
    let wanted = |row: &&Row| {
        let mut only = args.only.iter();
        args.only.is_empty() || only.any(|name| row.name.starts_with(name))
    };
    let rows: Vec<&Row> = ROWS.iter().filter(wanted).collect();
    if args.list {
        rows.iter()
            .for_each(|row| println!("{:24} {}", row.name, row.work));
        return Ok(());
    }
    let each = (budget / rows.len() as u32).min(LONGEST);
    for (index, row) in rows.iter().enumerate() {
        say(&Event::Begun {
            row: row.name.into(),
            work: row.work.into(),
            number: index + 1,
            of: rows.len(),
        })?;
        let outcome = Bench::new(each).measure(row);
        say(&Event::Measured(Box::new(outcome)))?;
    }
    Ok(())
}

fn say(event: &Event) -> Result<()> {
    println!("{}", serde_json::to_string(event)?);
    Ok(())
}
