//! The steps of `cargo xtask test`. A new check is a new line here.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::coverage;
use crate::demo;
use crate::matrix::Matrix;
use crate::process::{Counts, Output, capture_side_by_side, capture_with_progress, describe};
use crate::repo::Repo;

/// The toolchain that Cargo.toml names as the oldest, as rustup names it.
pub const OLDEST_RUST: &str = concat!(env!("CARGO_PKG_RUST_VERSION"), ".0");

pub fn all<'a>(repo: &'a Repo, matrix: &Matrix, full: bool) -> Result<Vec<Step<'a>>> {
    let step = |name, what| Step::new(repo, name, what);
    let host = matrix.widest("host")?;
    let el2 = matrix.widest("aarch64-unknown-none")?;
    let apple = matrix.widest("aarch64-apple-darwin")?;
    // Its own build directory: other flags would rebuild everything in the common one.
    let loom = repo.target_dir.join("loom");
    let loom = format!("test --release --test loom --target-dir {}", loom.display());
    let model = coverage::target_dir(repo);
    let model = format!("--features hvf --target-dir {}", model.display());
    let miri = "+nightly miri test --lib --test oracle --test slots";
    let miri_tracker = "+nightly miri test --test tracker";
    // Without unsafe code of its own the tracker is the same to both models, and it takes half the time.
    let miri_tree = if full { " --test tracker" } else { "" };
    let miri_tree = format!("{miri}{miri_tree}");
    let miri_c = "+nightly miri test --features capi,alloc --test capi";
    let seeds = if full { "-Zmiri-many-seeds=0..8" } else { "" };
    // The demo boots its own program.
    let programs = matrix.programs().into_iter();
    let others = programs.filter(|name| *name != demo::PROGRAM);

    Ok(vec![
        step("fmt", "rustfmt has nothing to change").cargo("fmt --all --check"),
        step("clippy", "no lint, on any target and set of features")
            .xtask("matrix --only clippy")
            .cargo("clippy --package xtask --package pugmark-bench --package pugmark-parts --all-targets -- -D warnings"),
        step("docs", "the documentation builds without a warning")
            .set("RUSTDOCFLAGS", "-D warnings")
            .cargo(&format!("doc --no-deps {host}"))
            .cargo(&format!("doc --no-deps {el2}"))
            .cargo(&format!("doc --no-deps {apple}")),
        step("tests", "all tests that run on this machine")
            .xtask("matrix --only test")
            .cargo("test --package xtask")
            // A hundred million writes.
            .cargo("test --release --features std --test slots_stress")
            .cargo("test --release --package pugmark-bench"),
        step(
            "hvf",
            "the layer over Hypervisor.framework, on a model of it",
        )
        .showing(coverage::REPORT)
        .xtask("coverage")
        .set("RUSTFLAGS", coverage::MODEL)
        .set("RUSTDOCFLAGS", coverage::MODEL)
        .cargo(&format!("clippy {model} --test hvf -- -D warnings"))
        .cargo(&format!("test {model} --doc host::hvf")),
        step("loom", "every interleaving within the bound")
            .set("RUSTFLAGS", "--cfg loom")
            .set("LOOM_MAX_PREEMPTIONS", if full { "4" } else { "3" })
            .cargo(&loom),
        step("miri", "no undefined behaviour, two aliasing models")
            .side_by_side()
            .set("MIRIFLAGS", seeds)
            .cargo(miri_tracker)
            .cargo(miri)
            .cargo(miri_c)
            .set("MIRIFLAGS", &format!("-Zmiri-tree-borrows {seeds}"))
            .cargo(&miri_tree)
            .cargo(miri_c)
            // Memory as weak as the language allows, for the one rendezvous that loom cannot model:
            // it takes SeqCst for less than it is.
            .set("RUSTFLAGS", coverage::MODEL)
            .set("MIRIFLAGS", "-Zmiri-many-seeds=0..8")
            .cargo("+nightly miri test --features hvf --test hvf pause::a_vcpu_and_a_pause"),
        step("msrv", "the oldest Rust that Cargo.toml promises")
            .cargo(&format!("+{OLDEST_RUST} check {host}"))
            .cargo(&format!("+{OLDEST_RUST} check {el2}"))
            .cargo(&format!("+{OLDEST_RUST} check {apple}")),
        step("matrix", "every target, every set of features").xtask("matrix --only check,build"),
        step("counts", "instructions of the hot paths, as recorded").xtask("counts"),
        step("footprint", "bytes of code and of state, as recorded; no panic linked")
            .xtask("footprint"),
        step("demo", "no written page is lost, on either CPU model").xtask("demo"),
        others.fold(
            step("qemu", "the other bare-metal programs and tests"),
            |step, name| step.xtask(&format!("qemu {name}")),
        ),
        step("wasm", "nothing is torn between two threads of WebAssembly").xtask("wasm"),
        step("wrong-order", "with mark before grant, pages must be lost")
            .xtask("demo --wrong-order --cpu max"),
        step(
            "linux",
            "no page that Linux writes is lost, and it migrates while it runs",
        )
        .xtask("demo --guest linux --short --controller on")
        .xtask("demo --guest linux --misbehaving"),
    ])
}

/// A few commands under one title.
pub struct Step<'a> {
    repo: &'a Repo,
    pub name: &'static str,
    pub what: &'static str,
    /// What the commands that follow find in their environment.
    environment: Vec<(&'static str, String)>,
    pub commands: Vec<Command>,
    /// Lines that begin so are shown, and not logged only.
    shown: Option<&'static str>,
    /// As many commands at a time as there are cores: for those that use one each.
    side_by_side: bool,
}

impl<'a> Step<'a> {
    fn new(repo: &'a Repo, name: &'static str, what: &'static str) -> Self {
        Self {
            repo,
            name,
            what,
            environment: Vec::new(),
            commands: Vec::new(),
            shown: None,
            side_by_side: false,
        }
    }

    fn side_by_side(mut self) -> Self {
        self.side_by_side = true;
        self
    }

    fn showing(mut self, prefix: &'static str) -> Self {
        self.shown = Some(prefix);
        self
    }

    fn set(mut self, key: &'static str, value: &str) -> Self {
        self.environment.push((key, value.trim().into()));
        self
    }

    fn cargo(self, args: &str) -> Self {
        let command = self.repo.cargo(args);
        self.command(command)
    }

    fn xtask(self, args: &str) -> Self {
        let command = self.repo.xtask(args);
        self.command(command)
    }

    fn command(mut self, mut command: Command) -> Self {
        let environment = self.environment.iter();
        command.envs(environment.map(|(key, value)| (key, value)));
        self.commands.push(command);
        self
    }

    /// Runs the commands, all of them whatever becomes of each, and logs what they say.
    pub fn run(&mut self, log: &Path) -> Result<Counts> {
        let start = Instant::now();
        let mut counts = Counts::default();
        let mut log_text = String::new();
        let mut finished = |command: &Command, output: &Output, took: Duration| {
            counts += tell(command, output, took, self.shown, log);
            let text = output.lines.join("\n");
            log_text += &format!("$ {}\n{text}\n\n", describe(command));
        };
        if self.side_by_side {
            capture_side_by_side(&mut self.commands, &mut finished)?;
        } else {
            for command in &mut self.commands {
                let start = Instant::now();
                let output = capture_with_progress(command)?;
                finished(command, &output, start.elapsed());
            }
        }
        fs::write(log, log_text).with_context(|| log.display().to_string())?;
        println!("  {counts}, {}", seconds(start.elapsed()));
        Ok(counts)
    }
}

/// Shows how a command ended, and counts what passed.
fn tell(
    command: &Command,
    output: &Output,
    took: Duration,
    shown: Option<&str>,
    log: &Path,
) -> Counts {
    let result = Counts::of(output);
    let verdict = if result.failed == 0 { "ok" } else { "FAILED" };
    println!("  {verdict:7}{:>6}  {}", seconds(took), describe(command));
    if result.failed > 0 {
        output.telling().for_each(|line| println!("{line}"));
        println!("  {}; all of it is in {}", output.ending(), log.display());
    } else if let Some(prefix) = shown {
        let shown = output.lines.iter().filter(|line| line.contains(prefix));
        shown.for_each(|line| println!("         {line}"));
    }
    result
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f32())
}
