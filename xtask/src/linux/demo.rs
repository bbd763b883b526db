//! `demo --guest linux`: boots Linux under the tracker and shows what was found.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

use super::hypervisor::{self, REPORT, TRACE};
use super::report::{Event, Phase, Report, Tail};
use super::{ALL, Files, Guest, SHORT, Wish, is_trouble, layout, misbehaving, prepare, table};
use crate::matrix::Matrix;
use crate::process::watch;
use crate::repo::Repo;
use crate::trace::Trace;
use crate::{BadInput, heatmap};

/// The workload that is migrated while it runs.
const MIGRATED: &str = "random";

/// After this, a run hangs.
const LIMIT: Duration = Duration::from_secs(600);
/// What else the guest has to say when something went wrong.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How many lines of the console a failure shows.
const SHOWN: usize = 24;

#[derive(clap::Args, Debug, Default, PartialEq)]
#[command(next_help_heading = "With --guest linux")]
pub struct Linux {
    /// Boot, a fork storm and random writes only: less than a minute
    #[arg(long)]
    short: bool,
    /// Whether blocks step down to pages. `both`, the default, is one run each; `fine` has blocks of
    /// one page, for exact traces
    #[arg(long, value_name = "WHICH")]
    controller: Option<Choice>,
    /// Show the guest's console
    #[arg(long)]
    console: bool,
    /// The cores of the machine (default 4). The hypervisor takes two, and so does the guest
    #[arg(long, value_name = "N")]
    cores: Option<u64>,
    #[command(flatten)]
    files: Files,
    /// Instead of Linux, boot small guests that do what no guest should, and check what the hypervisor
    /// says of each and how it ends: less than a minute
    #[arg(long, conflicts_with_all = ["short", "controller", "console", "cores", "kernel", "busybox"])]
    misbehaving: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Choice {
    On,
    Off,
    Both,
    Fine,
}

impl Choice {
    /// The runs, as the hypervisor names them.
    fn runs(self) -> &'static [&'static str] {
        match self {
            Self::On => &["on"],
            Self::Off => &["off"],
            Self::Both => &["on", "off"],
            Self::Fine => &["fine"],
        }
    }
}

pub fn run(repo: &Repo, args: &Linux) -> Result<bool> {
    if args.misbehaving {
        return misbehaving::run(repo);
    }
    let matrix = Matrix::read(repo)?;
    let row = hypervisor::set_up(&matrix)?;

    let workloads: &[&str] = if args.short { &SHORT } else { &ALL };
    let wish = Wish {
        cores: layout::FIRST_CORE..layout::FIRST_CORE + layout::VCPUS,
        workloads,
        command_line: "",
    };
    let cores = args.cores.unwrap_or(wish.cores.end);
    let guest = prepare(repo, &args.files, &wish, hypervisor::machine(cores));
    let guest = guest.context(BadInput("the guest cannot be made ready".into()))?;
    let elf = hypervisor::build(repo, row)?;

    let choice = args.controller.unwrap_or(Choice::Both);
    let mut runs: Vec<(&str, Report, u64)> = Vec::new();
    for controller in choice.runs() {
        let first = runs.is_empty();
        let run = Run {
            repo,
            controller,
            workloads,
            migrates: first,
            folder: repo.target_dir.join("linux-guest").join(controller),
            console: args.console,
        };
        println!("\n== Linux under the tracker, controller {controller}\n");
        let (report, vcpus) = run.boot(hypervisor::machine(cores), &guest, &elf)?;
        if let Some(migration) = table::migration(&report) {
            println!("\n{migration}");
        }
        let trace = run.trace()?;
        if first {
            let picture = repo.target_dir.join("linux-guest/heatmap.png");
            fs::write(&picture, heatmap::png(&trace, &run.title())?)?;
            println!("\nheat map: {}", repo.shown(&picture));
        }
        runs.push((controller, report, vcpus));
    }

    println!("\n{}", table::OVER_REPORTED);
    let sums: Vec<(&str, Phase, u64)> = runs
        .iter()
        .map(|(controller, report, vcpus)| (*controller, report.sum(), *vcpus))
        .collect();
    if sums.len() > 1 {
        println!("\n{}", table::side_by_side(&sums));
    }
    let sum = |part: fn(&Phase) -> u64| sums.iter().map(|(_, sum, _)| part(sum)).sum::<u64>();
    let [lost, written] = [sum(|sum| sum.lost), sum(|sum| sum.written)];
    let mut migrations = runs.iter().filter_map(|run| run.1.migration.as_ref());
    let same = migrations.all(|migration| migration.differing == 0);
    println!("\nlost {lost} of {written} written pages");
    Ok(lost == 0 && same)
}

/// One boot of the guest.
struct Run<'a> {
    repo: &'a Repo,
    controller: &'a str,
    workloads: &'a [&'a str],
    migrates: bool,
    /// For what the hypervisor writes.
    folder: PathBuf,
    console: bool,
}

impl Run<'_> {
    /// Returns what was reported, and the number of vCPUs.
    fn boot(&self, mut qemu: Command, guest: &Guest, elf: &Path) -> Result<(Report, u64)> {
        let mut arguments = vec![format!("controller={}", self.controller)];
        if self.migrates {
            arguments.push(format!("migrate={MIGRATED}"));
        }
        hypervisor::load(&mut qemu, elf, &arguments, &self.folder, guest)?;

        let mut view = View::new(self.console, &self.folder.join(REPORT));
        println!("{}", table::title());
        let tick = Duration::from_millis(200);
        let output = watch(&mut qemu, Some(LIMIT), tick, |line| view.step(line))?;
        let console = output.lines.join("\n") + "\n";
        fs::write(self.folder.join("console.txt"), console)?;
        view.finish();
        let (report, vcpus) = (view.report, view.vcpus);
        let verdict = match (view.trouble, output.status) {
            (Some(trouble), _) => Err(trouble),
            (None, None) => Err(format!("stopped after {} s", LIMIT.as_secs())),
            (None, Some(status)) => check(&report, self.workloads, self.migrates, status.success())
                .map_err(|problem| format!("{problem} (QEMU: {status})")),
        };
        if let Err(problem) = verdict {
            let start = output.lines.len().saturating_sub(SHOWN);
            if !self.console && !output.lines.is_empty() {
                println!("\nthe last lines of the console:\n");
                let lines = output.lines[start..].iter();
                lines.for_each(|line| println!("  | {}", printable(line)));
            }
            println!();
            if let Some(message) = report.error {
                bail!(BadInput(message));
            }
            bail!(problem);
        }
        println!("{}", table::line(&report.sum(), vcpus));
        Ok((report, vcpus))
    }

    fn trace(&self) -> Result<Trace> {
        let file = self.folder.join(TRACE);
        let bytes = fs::read(&file).with_context(|| self.repo.shown(&file))?;
        let trace = Trace::read(&bytes).with_context(|| self.repo.shown(&file))?;
        ensure!(
            trace.phases().len() > self.workloads.len(),
            "{} lacks a phase",
            self.repo.shown(&file)
        );
        Ok(trace)
    }

    /// The title of the picture.
    fn title(&self) -> String {
        let what = match self.controller {
            "fine" => "Pages that Linux wrote",
            _ => "Pages that were reported as written by Linux",
        };
        format!("{what}, boot to power off")
    }
}

/// Whether a run came to its end, with all that was asked for. Lost pages are not looked for here.
fn check(report: &Report, workloads: &[&str], migrates: bool, success: bool) -> Result<(), String> {
    if let Some(message) = &report.error {
        return Err(message.clone());
    }
    match report.end.as_deref() {
        None => return Err("the hypervisor ended before the guest".into()),
        Some("power off") => {}
        Some(reason) => return Err(format!("the guest did not power off: {reason}")),
    }
    let names: Vec<&str> = report.phases.iter().map(|phase| &*phase.name).collect();
    for wanted in ["boot"].iter().chain(workloads) {
        if !names.contains(wanted) {
            return Err(format!("the phase `{wanted}` is not in the report"));
        }
    }
    match &report.migration {
        None if migrates => return Err("the migration did not end".into()),
        Some(migration) if migration.differing > 0 => return Ok(()),
        _ if report.sum().lost > 0 || success => return Ok(()),
        _ => {}
    }
    Err("the hypervisor failed, and does not say why".into())
}

/// What a person sees of a run while it goes on.
struct View {
    console: bool,
    spinner: ProgressBar,
    start: Instant,
    /// When the last line was printed.
    news: Instant,
    tail: Tail,
    report: Report,
    vcpus: u64,
    trouble: Option<String>,
    /// When the run is stopped because of the trouble.
    stop: Option<Instant>,
}

/// After how long without news a plain log gets a sign of life.
const QUIET: Duration = Duration::from_secs(60);

impl View {
    fn new(console: bool, report: &Path) -> Self {
        let spinner = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg:.dim}") {
            spinner.set_style(style);
        }
        spinner.enable_steady_tick(Duration::from_millis(200));
        Self {
            console,
            spinner,
            start: Instant::now(),
            news: Instant::now(),
            tail: Tail::new(report),
            report: Report::default(),
            vcpus: layout::VCPUS,
            trouble: None,
            stop: None,
        }
    }

    /// Takes a line of the console, if there is one, and what was reported meanwhile.
    fn step(&mut self, line: Option<&str>) -> ControlFlow<()> {
        if let Some(line) = line {
            let line = printable(line);
            if self.console {
                self.print(&self.dim(&format!("  | {line}")));
            }
            if is_trouble(&line) {
                self.trouble(format!("the guest is in trouble: {line}"));
            }
            self.spinner.set_message(line);
        }
        match self.tail.events() {
            Ok(events) => self.show(&events),
            Err(error) => self.trouble(format!("{error:#}")),
        }
        if self.spinner.is_hidden() && self.news.elapsed() >= QUIET {
            self.print(&format!("  … {} s", self.start.elapsed().as_secs()));
        }
        match self.stop {
            Some(stop) if Instant::now() >= stop => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn show(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::Start { vcpus } => self.vcpus = *vcpus,
                Event::Phase(phase) => {
                    self.print(&table::line(phase, self.vcpus));
                    if phase.lost > 0 {
                        self.print(&format!("LOST {} pages in {}", phase.lost, phase.name));
                    }
                }
                Event::Note(note) => self.print(&format!("note: {note}")),
                _ => {}
            }
            self.report.add(event);
        }
    }

    fn finish(&mut self) {
        match self.tail.last_events() {
            Ok(events) => self.show(&events),
            Err(error) => self.trouble(format!("{error:#}")),
        }
        self.spinner.finish_and_clear();
    }

    /// The first trouble is the one that counts.
    fn trouble(&mut self, what: String) {
        if self.trouble.is_none() {
            self.trouble = Some(what);
            self.stop = Some(Instant::now() + LAST_WORDS);
        }
    }

    fn print(&mut self, text: &str) {
        self.spinner.suspend(|| println!("{text}"));
        self.news = Instant::now();
    }

    fn dim(&self, text: &str) -> String {
        match self.spinner.is_hidden() {
            true => text.into(),
            false => format!("\x1b[2m{text}\x1b[0m"),
        }
    }
}

/// The line without what a terminal would obey.
fn printable(line: &str) -> String {
    line.replace('\t', " ")
        .chars()
        .filter(|letter| !letter.is_control())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::report::Migration;
    use super::*;

    /// Of a run in which all went well.
    fn report() -> Report {
        let phase = |name: &str| Phase {
            name: name.into(),
            ..Phase::default()
        };
        Report {
            phases: ["boot", "fork", "random", "end"].map(phase).into(),
            migration: Some(Migration {
                pause_us: 1,
                differing: 0,
            }),
            end: Some("power off".into()),
            ..Report::default()
        }
    }

    #[test]
    fn a_run_that_did_not_come_to_its_end_is_refused() {
        let complaint = |change: fn(&mut Report)| {
            let mut report = report();
            change(&mut report);
            check(&report, &SHORT, true, true).err().unwrap_or_default()
        };
        assert_eq!(complaint(|_| ()), "");
        assert!(complaint(|report| report.end = None).contains("before the guest"));
        assert!(complaint(|report| report.end = Some("reset".into())).contains("reset"));
        assert!(complaint(|report| _ = report.phases.remove(1)).contains("`fork`"));
        assert!(complaint(|report| report.migration = None).contains("migration"));
        let error = |report: &mut Report| report.error = Some("no core 3".into());
        assert_eq!(complaint(error), "no core 3");
        let mut without = report();
        without.migration = None;
        assert_eq!(check(&without, &SHORT, false, true), Ok(()));
        assert!(check(&without, &SHORT, false, false).is_err());
        without.phases[1].lost = 1;
        assert_eq!(check(&without, &SHORT, false, false), Ok(()));
    }

    #[test]
    fn trouble_ends_a_run_after_its_last_words() {
        let mut view = View::new(false, Path::new("/nonexistent"));
        assert!(view.step(Some("[    0.1] Booting Linux")).is_continue());
        assert!(view.step(Some("[    6.5] Kernel panic - no")).is_continue());
        assert!(view.step(Some("[    6.6] Call trace:")).is_continue());
        view.stop = Some(Instant::now());
        assert!(view.step(None).is_break());
        let trouble = view.trouble.unwrap_or_default();
        assert!(
            trouble.ends_with("[    6.5] Kernel panic - no"),
            "{trouble}"
        );
    }

    #[test]
    fn a_console_cannot_write_to_the_terminal() {
        assert_eq!(printable("a\tb\x1b[31m\u{7}\r"), "a b[31m");
    }
}
