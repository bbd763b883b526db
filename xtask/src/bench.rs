//! `bench`: what pugmark costs, against the limit and against its peers.

mod plot;
#[path = "../../benches/src/report.rs"]
mod report;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::BadInput;
use crate::process::{ask, capture, capture_with_progress};
use crate::repo::Repo;
use report::{BAD_INPUT, Event, Outcome, Picture};

const PACKAGE: &str = "pugmark-bench";

#[derive(clap::Args)]
/// Measure what pugmark costs: against the limit of the hardware, and against its peers.
///
/// Each row is a piece of work that pugmark, the limit (a memcpy; a drain that knows where the dirty
/// pages are) and the peers do in turn, round after round, in one process. A ratio is the median of
/// those of the rounds; the range beside it has the middle half of them. Where memory lies makes a
/// difference, so three such processes measure a row, and the one in the middle counts; with --quick, one.
/// Times are those of the thread, so that what else runs on the machine does little harm. A goal that is missed is red, and
/// no failure: times are not tests.
///
/// Plots are measured as well: what a drain takes for how much is dirty and for how much RAM there is,
/// and what marks take that meet.
///
/// Builds benches/ with the peers first. Takes about ten minutes. The table is also written as
/// Markdown, to target/bench.md, and the plots as pictures beside it.
pub struct Args {
    /// About a minute: few rounds, less exact, and no plots
    #[arg(long, conflicts_with = "publish")]
    quick: bool,
    /// Only the rows and plots whose names begin so, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    only: Vec<String>,
    /// Name the rows and plots, and measure nothing
    #[arg(long)]
    list: bool,
    /// Write what was found here, for tools
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table here, and the pictures beside it, and not to target/bench.md
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write them to docs/bench.md, for others to read
    #[arg(long, conflicts_with_all = ["markdown", "only"])]
    publish: bool,
}

/// What `--json` writes.
#[derive(Serialize)]
struct Report {
    date: String,
    cpu: String,
    rust: String,
    quick: bool,
    rows: Vec<Outcome>,
    pictures: Vec<Picture>,
}

pub fn run(repo: &Repo, args: &Args) -> Result<bool> {
    println!("building {PACKAGE} and the peers");
    let mut build = repo.cargo("build --profile bench --package");
    let built = capture_with_progress(build.arg(PACKAGE))?;
    ensure!(
        built.success(),
        "{PACKAGE} does not build:\n{}",
        built.lines.join("\n")
    );
    // Cargo puts what it builds with the profile `bench` where that of `release` is.
    let program = repo.target_dir.join("release").join(PACKAGE);
    let mut bench = std::process::Command::new(program);
    bench.args(["--seconds", if args.quick { "20" } else { "360" }]);
    if args.quick {
        bench.arg("--quick");
    }
    if !args.only.is_empty() {
        bench.arg("--only").arg(args.only.join(","));
    }
    if args.list {
        return Ok(bench.arg("--list").status()?.success());
    }

    let (rows, pictures) = measure(&mut bench)?;
    let report = Report {
        date: ask("date", &["-u", "+%Y-%m-%d"]).map_or_else(String::new, trimmed),
        cpu: cpu(),
        rust: ask("rustc", &["--version"]).map_or_else(String::new, trimmed),
        quick: args.quick,
        rows,
        pictures,
    };
    println!("\n{}", table::terminal(&report.rows));
    println!("{}", table::measured(&report));

    let folder = if args.publish {
        repo.root.join("docs")
    } else {
        repo.target_dir.clone()
    };
    let markdown = args
        .markdown
        .clone()
        .unwrap_or_else(|| folder.join("bench.md"));
    let write = |file: &Path, bytes: &[u8]| {
        fs::write(file, bytes).with_context(|| file.display().to_string())?;
        println!("wrote {}", repo.shown(file));
        anyhow::Ok(())
    };
    let mut files = Vec::new();
    for picture in &report.pictures {
        let name = picture.name.replacen("plot", "bench", 1) + ".png";
        let png = plot::png(picture, &table::measured(&report))?;
        write(&markdown.with_file_name(&name), &png)?;
        files.push(name);
    }
    write(&markdown, table::markdown(&report, &files).as_bytes())?;
    if let Some(file) = &args.json {
        write(
            file,
            (serde_json::to_string_pretty(&report)? + "\n").as_bytes(),
        )?;
    }
    Ok(true)
}

/// Runs the bench, and shows how far it is.
fn measure(bench: &mut std::process::Command) -> Result<(Vec<Outcome>, Vec<Picture>)> {
    let bar = ProgressBar::new(0);
    let style = "  [{pos}/{len}] {bar:30} {elapsed} {wide_msg}";
    bar.set_style(ProgressStyle::with_template(style)?.progress_chars("━╸ "));
    bar.enable_steady_tick(Duration::from_millis(200));
    let (mut rows, mut pictures) = (Vec::new(), Vec::new());
    let output = capture(bench, None, |line| {
        match line.and_then(|line| serde_json::from_str(line).ok()) {
            Some(Event::Begun {
                row,
                work,
                number,
                of,
            }) => {
                bar.set_length(of as u64);
                bar.set_position(number as u64 - 1);
                bar.set_message(work);
                if bar.is_hidden() {
                    println!("  [{number}/{of}] {row}");
                }
            }
            Some(Event::Measured(outcome)) => rows.push(*outcome),
            Some(Event::Plotted(picture)) => pictures.push(*picture),
            None => {}
        }
    })?;
    bar.finish_and_clear();
    let lines = output.lines.iter();
    let said: Vec<&str> = lines
        .map(String::as_str)
        .filter(|line| !line.starts_with('{'))
        .collect();
    let said = said.join("\n");
    if output.status.and_then(|status| status.code()) == Some(BAD_INPUT) {
        bail!(BadInput(said));
    }
    ensure!(
        output.success(),
        "the bench failed ({}):\n{said}",
        output.ending()
    );
    Ok((rows, pictures))
}

/// The CPU, as it calls itself.
fn cpu() -> String {
    let linux = || {
        let info = fs::read_to_string("/proc/cpuinfo").ok()?;
        let line = info.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.into())
    };
    let macos = || ask("sysctl", &["-n", "machdep.cpu.brand_string"]);
    let name = linux().or_else(macos);
    name.map_or_else(|| std::env::consts::ARCH.into(), trimmed)
}

fn trimmed(text: String) -> String {
    text.trim().into()
}
