//! `matrix`: walks features/matrix.json, which says what is checked for which target and features.

use std::collections::BTreeSet;
use std::env;
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Deserialize;

use crate::process::{Counts, capture_with_progress, describe};
use crate::repo::Repo;
use crate::setup;

#[derive(clap::Args)]
/// Walk features/matrix.json: every target with every set of features.
///
/// Each row of the file names a target (`host` is this machine), a set of features, what to run
/// with them, and the bare-metal programs that they are for. A cell of the table shows `ok`, the
/// number of tests, or FAILED; what a failing command said follows the table.
pub struct Args {
    /// Run only these, separated by commas
    #[arg(long, value_delimiter = ',')]
    only: Vec<Job>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Job {
    /// cargo check: the library
    Check,
    /// cargo clippy: on the host everything, elsewhere the library and the row's programs
    Clippy,
    /// cargo build: the library
    Build,
    /// cargo test
    Test,
    /// cargo xtask qemu: each of the row's programs
    Qemu,
}

/// What is checked, as features/matrix.json says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    pub rows: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// A target triple, or `host`.
    pub target: String,
    /// Only where this is the operating system of the machine at hand, as Rust names it.
    os: Option<String>,
    pub features: Vec<String>,
    run: Vec<Job>,
    /// Bare-metal programs: examples and tests of that name.
    #[serde(default)]
    programs: Vec<String>,
    /// More of them, that need more than themselves to boot: linted here, booted by another command.
    #[serde(default)]
    unbooted: Vec<String>,
}

const HOST: &str = "host";

impl Matrix {
    pub fn read(repo: &Repo) -> Result<Self> {
        let path = repo.root.join("features/matrix.json");
        let text = std::fs::read_to_string(&path).context("features/matrix.json")?;
        let mut matrix: Self = serde_json::from_str(&text).context("features/matrix.json")?;
        let is_for_us = |row: &Row| row.os.as_deref().is_none_or(|os| os == env::consts::OS);
        matrix.rows.retain(is_for_us);
        Ok(matrix)
    }

    pub fn rows_with<'a>(&'a self, program: &'a str) -> impl Iterator<Item = &'a Row> {
        let names = move |row: &&Row| row.boots(program);
        self.rows.iter().filter(names)
    }

    /// The row of a program that another command boots.
    pub fn row_with_unbooted(&self, program: &str) -> Result<&Row> {
        let names = |row: &&Row| row.unbooted.iter().any(|name| name == program);
        let row = self.rows.iter().find(names);
        row.with_context(|| format!("features/matrix.json has no row for {program}"))
    }

    /// The names of all programs that boot by themselves.
    pub fn programs(&self) -> BTreeSet<&str> {
        let programs = self.rows.iter().flat_map(|row| &row.programs);
        programs.map(String::as_str).collect()
    }

    /// All targets but the host.
    pub fn targets(&self) -> BTreeSet<String> {
        let targets = self.rows.iter().map(|row| &row.target);
        targets.filter(|target| *target != HOST).cloned().collect()
    }

    /// The flags for a target with the largest set of features that it has a row for.
    pub fn widest(&self, target: &str) -> Result<String> {
        let rows = self.rows.iter().filter(|row| row.target == target);
        let row = rows.max_by_key(|row| row.features.len());
        let row = row.with_context(|| format!("features/matrix.json has no row for {target}"))?;
        Ok([row.target_flag(), row.features_flag()].concat().join(" "))
    }
}

impl Row {
    fn all_programs(&self) -> impl Iterator<Item = &String> {
        self.programs.iter().chain(&self.unbooted)
    }

    /// Whether its programs run without an operating system.
    pub fn is_bare_metal(&self) -> bool {
        self.target.contains("-none")
    }

    /// Whether `program` is booted with it.
    pub fn boots(&self, program: &str) -> bool {
        self.programs.iter().any(|name| name == program)
    }

    /// The target, for a person.
    fn target(&self) -> String {
        match self.target.as_str() {
            HOST => format!("host ({} {})", env::consts::ARCH, env::consts::OS),
            target => target.into(),
        }
    }

    /// The features, for a person.
    pub fn features(&self) -> String {
        match self.features.is_empty() {
            true => "(none)".into(),
            false => self.features.join(","),
        }
    }

    fn target_flag(&self) -> Vec<String> {
        match self.target.as_str() {
            HOST => Vec::new(),
            target => vec!["--target".into(), target.into()],
        }
    }

    pub fn features_flag(&self) -> Vec<String> {
        match self.features.is_empty() {
            true => Vec::new(),
            false => vec!["--features".into(), self.features.join(",")],
        }
    }

    fn commands(&self, repo: &Repo, job: Job) -> Result<Vec<Command>> {
        let mut command = match job {
            Job::Check => repo.cargo("check"),
            Job::Build => repo.cargo("build"),
            Job::Test => repo.cargo("test --no-fail-fast"),
            Job::Clippy if self.target == HOST => repo.cargo("clippy --all-targets"),
            Job::Clippy => repo.cargo("clippy --lib"),
            Job::Qemu => {
                let boot = |name| repo.xtask(&format!("qemu {name} --target {}", self.target));
                return Ok(self.programs.iter().map(boot).collect());
            }
        };
        command.args(self.target_flag()).args(self.features_flag());
        if job == Job::Clippy {
            for name in self.all_programs() {
                command.args([repo.program(name)?.kind.flag(), name]);
            }
            command.args(["--", "-D", "warnings"]);
        }
        Ok(vec![command])
    }
}

pub fn run(repo: &Repo, args: &Args) -> Result<bool> {
    let matrix = Matrix::read(repo)?;
    let wanted = |job: &Job| args.only.is_empty() || args.only.contains(job);
    let jobs = Job::value_variants().iter().copied().filter(wanted);
    let jobs: Vec<Job> = jobs.collect();
    setup::ensure(&setup::Needs {
        toolchains: vec![setup::Toolchain {
            components: vec!["clippy"],
            ..setup::targets(matrix.targets())
        }],
        qemu: jobs.contains(&Job::Qemu),
    })?;

    let widths = [Row::target, Row::features].map(|column| {
        let widths = matrix.rows.iter().map(|row| column(row).len() + 2);
        widths.max().unwrap_or(0)
    });
    let line = |target: &str, features: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>8}")).collect();
        println!("{target:0$}{features:1$}{cells}", widths[0], widths[1]);
    };
    let titles = jobs.iter().map(|job| format!("{job:?}").to_lowercase());
    line("target", "features", titles.collect());

    let mut total = Counts::default();
    let mut failures = Vec::new();
    for row in &matrix.rows {
        let mut cells = Vec::new();
        for job in &jobs {
            let commands = match row.run.contains(job) {
                true => row.commands(repo, *job)?,
                false => Vec::new(),
            };
            let mut counts = Counts::default();
            for mut command in commands {
                let output = capture_with_progress(&mut command)?;
                let result = Counts::of(&output);
                counts += result;
                if result.failed > 0 {
                    failures.push((describe(&command), output));
                }
            }
            total += counts;
            cells.push(cell(counts));
        }
        if cells.iter().any(|cell| cell != NOTHING) {
            line(&row.target(), &row.features(), cells);
        }
    }
    for (command, output) in &failures {
        println!("\nFAILED: {command}");
        output.telling().for_each(|line| println!("    {line}"));
    }
    println!("\n{total}");
    Ok(total.failed == 0)
}

const NOTHING: &str = "-";

fn cell(counts: Counts) -> String {
    match (counts.passed, counts.failed) {
        (0, 0) => NOTHING.into(),
        (1, 0) => "ok".into(),
        (passed, 0) => format!("{passed} ok"),
        _ => "FAILED".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_sound() -> Result<()> {
        let repo = Repo::find()?;
        let matrix = Matrix::read(&repo)?;
        for row in &matrix.rows {
            let boots = row.run.contains(&Job::Qemu);
            assert_eq!(boots, !row.programs.is_empty(), "{}", row.target);
            if boots {
                crate::machine::Machine::of(&row.target)?;
            }
        }
        // `qemu NAME --target TARGET` must mean one row.
        let mut seen = BTreeSet::new();
        for row in &matrix.rows {
            for name in row.all_programs() {
                assert!(seen.insert((&row.target, name)), "{name} twice");
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let row = |text: &str| serde_json::from_str::<Row>(text);
        assert!(row(r#"{"target":"host","features":[],"run":["check"]}"#).is_ok());
        assert!(row(r#"{"target":"host","features":[],"run":["chekc"]}"#).is_err());
        assert!(row(r#"{"target":"host","features":[],"run":[],"program":["a"]}"#).is_err());
    }

    #[test]
    fn a_row_becomes_a_command() -> Result<()> {
        let repo = Repo::find()?;
        let row: Row = serde_json::from_str(
            r#"{"target":"thumbv6m-none-eabi","features":["a","b"],"run":["check","clippy"]}"#,
        )?;
        let typed = |job| -> Result<Vec<String>> {
            Ok(row.commands(&repo, job)?.iter().map(describe).collect())
        };
        let target = "--target thumbv6m-none-eabi --features a,b";
        assert_eq!(typed(Job::Check)?, [format!("cargo check {target}")]);
        assert_eq!(
            typed(Job::Clippy)?,
            [format!("cargo clippy --lib {target} -- -D warnings")]
        );
        Ok(())
    }
}
