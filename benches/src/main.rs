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

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;

use harness::Bench;
use pictures::{PICTURES, Picture};
use report::{BAD_INPUT, Event, Outcome};
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
    /// Only this row, here and not in processes of its own
    #[arg(long, hide = true)]
    row: Option<String>,
}

/// More time for a row makes its medians no better.
const LONGEST: Duration = Duration::from_secs(20);
/// Where in memory a process has what it measures makes a difference, of up to a half: two addresses that
/// differ by a multiple of 4 KiB, a line that is shared. So several measure a row, and the one in the
/// middle counts.
const PROCESSES: u32 = 3;
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

    fn measure(self, each: Duration, quick: bool) -> Result<Event> {
        let time = each * self.rows();
        Ok(match self {
            Self::Row(row) if quick => Event::Measured(Box::new(Bench::quick(time).measure(row))),
            Self::Row(row) => Event::Measured(Box::new(in_the_middle(row, time)?)),
            Self::Picture(picture) => {
                Event::Plotted(Box::new((picture.measure)(&Bench::new(time))))
            }
        })
    }
}

/// What the process in the middle found, by its ratio.
fn in_the_middle(row: &Row, time: Duration) -> Result<Outcome> {
    let each = time / PROCESSES;
    let outcomes = (0..PROCESSES).map(|_| by_a_process(row.name, each));
    let mut outcomes = outcomes.collect::<Result<Vec<_>>>()?;
    outcomes.sort_by(|one, other| ratio(one).total_cmp(&ratio(other)));
    Ok(outcomes.swap_remove(PROCESSES as usize / 2))
}

/// To the limit, or where there is none to the first peer.
fn ratio(outcome: &Outcome) -> f64 {
    let mut others = outcome.limit.iter().chain(&outcome.peers);
    others.next().map_or(outcome.us, |other| other.ratio)
}

fn by_a_process(row: &str, time: Duration) -> Result<Outcome> {
    let seconds = time.as_secs_f32().to_string();
    let output = Command::new(std::env::current_exe()?)
        .args(["--row", row, "--seconds", &seconds])
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("the row {row} by a process of its own"))?;
    ensure!(output.status.success(), "the row {row}: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn main() -> Result<()> {
    let args = Args::parse();
    let budget = Duration::try_from_secs_f32(args.seconds)?;
    if let Some(name) = &args.row {
        let row = ROWS.iter().find(|row| row.name == name);
        let row = row.with_context(|| format!("no row `{name}`"))?;
        println!(
            "{}",
            serde_json::to_string(&Bench::new(budget).measure(row))?
        );
        return Ok(());
    }
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
        say(&item.measure(each, args.quick)?)?;
    }
    Ok(())
}

fn say(event: &Event) -> Result<()> {
    println!("{}", serde_json::to_string(event)?);
    Ok(())
}
