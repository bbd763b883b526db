//! `coverage`: how much of the layer over Hypervisor.framework its model runs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::process::{Counts, Output, ask, capture_with_progress, describe};
use crate::repo::Repo;
use crate::setup;

#[derive(clap::Args)]
/// Run the tests of the `hvf` feature on the model of Hypervisor.framework, and print their coverage.
///
/// Nothing here runs macOS, so what the model does not run nobody ran: less than 95 % of the lines
/// in src/host/hvf is a failure.
pub struct Args {}

/// The layer, and the share of its lines that must run, in percent.
const LAYER: &str = "src/host/hvf";
const LEAST: f64 = 95.0;

/// What the tests have to say of themselves begins so.
pub const REPORT: &str = "model: ";

/// What makes the crate link to the model; the tests of the model need it too.
pub const MODEL: &str = "--cfg pugmark_hvf_model";

/// The build directory for all that is built so.
pub fn target_dir(repo: &Repo) -> PathBuf {
    repo.target_dir.join("hvf-model")
}

/// What reads the counters.
pub fn toolchain() -> setup::Toolchain {
    setup::Toolchain {
        components: vec!["llvm-tools"],
        ..Default::default()
    }
}

pub fn run(repo: &Repo, _: &Args) -> Result<bool> {
    setup::ensure(&setup::Needs {
        toolchains: vec![toolchain()],
        ..Default::default()
    })?;
    let tests = build(repo)?;
    let profile = target_dir(repo).join("hvf.profraw");
    let mut command = Command::new(&tests);
    command.arg("--show-output");
    let output = capture_with_progress(command.env("LLVM_PROFILE_FILE", &profile))?;
    let mut counts = Counts::of(&output);
    let is_of_interest = |line: &&String| counts.failed > 0 || line.starts_with(REPORT);
    let lines = output.lines.iter().filter(is_of_interest);
    lines.for_each(|line| println!("  {line}"));
    println!();

    let merged = profile.with_extension("profdata");
    let mut merge = llvm_tool("llvm-profdata")?;
    merge.args(["merge", "--sparse", "-o"]).arg(&merged);
    succeed(merge.arg(&profile))?;
    let mut export = llvm_tool("llvm-cov")?;
    export.args(["export", "--summary-only", "--instr-profile"]);
    export.arg(&merged).arg(&tests);
    let export = succeed(export.arg("--sources").arg(repo.root.join(LAYER)))?;

    let export: Export = serde_json::from_str(&export.lines.concat()).context("llvm-cov")?;
    let files = export.data.into_iter().flat_map(|data| data.files);
    let mut total = Lines::default();
    println!("  {:<32}{:>8}{:>8}", "", "lines", "run");
    for file in files {
        let Lines { count, covered } = file.summary.lines;
        total.count += count;
        total.covered += covered;
        let name = repo.shown(file.filename.as_ref());
        println!("  {name:<32}{count:>8}{covered:>8}");
    }
    ensure!(total.count > 0, "llvm-cov reports nothing of {LAYER}");
    let percent = 100.0 * total.covered as f64 / total.count as f64;
    let Lines { count, covered } = total;
    println!(
        "\n  {REPORT}ran {covered} of {count} lines in {LAYER}, {percent:.1} %; \
         {LEAST} % are asked for"
    );

    counts += Counts::one(percent >= LEAST);
    println!("\n{counts}");
    Ok(counts.failed == 0)
}

/// Builds the tests with counters in them. Optimised: they make some ten million stores.
fn build(repo: &Repo) -> Result<PathBuf> {
    let mut command = repo.cargo("test --release --no-run --features hvf --test hvf");
    command.args(["--message-format", "json-render-diagnostics"]);
    command.arg("--target-dir").arg(target_dir(repo));
    command.env("RUSTFLAGS", format!("{MODEL} -Cinstrument-coverage"));
    // Build scripts have counters too, and would leave their files wherever they run.
    let scripts = target_dir(repo).join("scripts");
    command.env("LLVM_PROFILE_FILE", scripts.join("%p.profraw"));
    let output = succeed(&mut command)?;
    if scripts.exists() {
        fs::remove_dir_all(&scripts)?;
    }
    let mut artifacts = output.lines.iter().filter_map(|line| {
        let artifact: Artifact = serde_json::from_str(line).ok()?;
        artifact.executable
    });
    artifacts.next_back().context("cargo built no test")
}

/// A tool that rustup installed beside the compiler.
fn llvm_tool(name: &str) -> Result<Command> {
    let libraries = ask("rustc", &["--print", "target-libdir"]).context("rustc")?;
    let tools = PathBuf::from(libraries.trim()).with_file_name("bin");
    Ok(Command::new(tools.join(name)))
}

/// Runs what must succeed.
fn succeed(command: &mut Command) -> Result<Output> {
    let output = capture_with_progress(command)?;
    ensure!(
        output.success(),
        "`{}` failed:\n{}",
        describe(command),
        output.lines.join("\n")
    );
    Ok(output)
}

#[derive(Deserialize)]
struct Artifact {
    executable: Option<PathBuf>,
}

/// What `llvm-cov export` says.
#[derive(Deserialize)]
struct Export {
    data: Vec<Data>,
}

#[derive(Deserialize)]
struct Data {
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    filename: String,
    summary: Summary,
}

#[derive(Deserialize)]
struct Summary {
    lines: Lines,
}

#[derive(Default, Deserialize)]
struct Lines {
    count: u64,
    covered: u64,
}
