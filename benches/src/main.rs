//! What pugmark costs: against the limit of the hardware, and against what one would use instead.
//!
//! `cargo xtask bench` runs it and makes a table. By itself it prints a JSON object a line: see
//! [`report`].

mod harness;
mod improved;
#[cfg(target_os = "linux")]
mod linux;
mod pictures;
mod prefetch;
mod random;
mod report;
mod rows;

use std::time::Duration;

use anyhow::Result;
use clap::Parser;

use harness::Bench;
use pictures::{PICTURES, Picture};
use report::{BAD_INPUT, Event};
use rows::{ROWS, Row};

#[derive(Parser)]
/// Measure, and print what was found as JSON, a line at a time. `cargo xtask bench` makes a table of
/// it.
struct Args {
    /// How long the rows may take together, but for what each must
    #[arg(long, value_name = "SECONDS", default_value_t = 360.0)]
    seconds: f32,
    /// Three rounds of each row will do, and no plots
    #[arg(long)]
    quick: bool,
    /// Only the rows and plots whose names begin so, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    only: Vec<String>,
    /// Name the rows and plots, and measure nothing
    #[arg(long)]
    list: bool,
}

/// More time for a row makes its medians no better.
const LONGEST: Duration = Duration::from_secs(20);
/// A picture has as much time as so many rows: it has more to measure.
const ROWS_OF_A_PICTURE: u32 = 3;

/// Something to be measured.
#[derive(Clone, Copy)]
enum Item {
    Row(&'static Row),
    Picture(&'static Picture),
}

impl Item {
    fn name(self) -> &'static str {
        match self {
            Self::Row(row) => row.name,
            Self::Picture(picture) => picture.name,
        }
    }

    fn work(self) -> &'static str {
        match self {
            Self::Row(row) => row.work,
            Self::Picture(picture) => picture.work,
        }
    }

    /// As how many rows it counts.
    fn rows(self) -> u32 {
        match self {
            Self::Row(_) => 1,
            Self::Picture(_) => ROWS_OF_A_PICTURE,
        }
    }

    fn measure(self, each: Duration, quick: bool) -> Event {
        let time = each * self.rows();
        let bench = if quick {
            Bench::quick(time)
        } else {
            Bench::new(time)
        };
        match self {
            Self::Row(row) => Event::Measured(Box::new(bench.measure(row))),
            Self::Picture(picture) => Event::Plotted(Box::new((picture.measure)(&bench))),
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let budget = Duration::try_from_secs_f32(args.seconds)?;
    let pictures = PICTURES.iter().map(Item::Picture).filter(|_| !args.quick);
    let mut items: Vec<Item> = ROWS.iter().map(Item::Row).chain(pictures).collect();
    for start in &args.only {
        if !items.iter().any(|item| item.name().starts_with(start)) {
            let names: Vec<&str> = items.iter().map(|item| item.name()).collect();
            println!("no row `{start}`; the rows are {}", names.join(", "));
            std::process::exit(BAD_INPUT);
        }
    }
    if !args.only.is_empty() {
        let is_wanted = |item: &Item| {
            let mut only = args.only.iter();
            only.any(|start| item.name().starts_with(start))
        };
        items.retain(is_wanted);
    }
    if args.list {
        for item in items {
            println!("{:24} {}", item.name(), item.work());
        }
        return Ok(());
    }
    let rows: u32 = items.iter().map(|item| item.rows()).sum();
    let each = (budget / rows).min(LONGEST);
    for (index, item) in items.iter().enumerate() {
        say(&Event::Begun {
            row: item.name().into(),
            work: item.work().into(),
            number: index + 1,
            of: items.len(),
        })?;
        say(&item.measure(each, args.quick))?;
    }
    Ok(())
}

fn say(event: &Event) -> Result<()> {
    println!("{}", serde_json::to_string(event)?);
    Ok(())
}
