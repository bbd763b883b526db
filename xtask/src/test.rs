//! `test`: every check that the project has, in steps.

use std::fs;

use anyhow::{Result, ensure};

use crate::coverage;
use crate::matrix::Matrix;
use crate::process::{Counts, describe};
use crate::repo::Repo;
use crate::setup;
use crate::steps::{self, OLDEST_RUST, Step};

#[derive(clap::Args)]
/// Run every check that the project has, as CI does.
///
/// Each step shows its commands, how long they took, and how many checks and tests passed. A step
/// that fails shows what it said of the failure and does not stop the later ones; the whole output
/// of every step is in target/xtask-logs. The last line is `N passed, N failed`.
pub struct Args {
    /// Search deeper where a step is bounded: loom, Miri
    #[arg(long)]
    full: bool,
    /// Run only these steps, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "STEP")]
    only: Vec<String>,
    /// Show the steps and their commands, and run nothing
    #[arg(long)]
    list: bool,
}

pub fn run(repo: &Repo, args: &Args) -> Result<bool> {
    let matrix = Matrix::read(repo)?;
    let mut steps = steps::all(repo, &matrix, args.full)?;
    for name in &args.only {
        let known: Vec<&str> = steps.iter().map(|step| step.name).collect();
        ensure!(
            known.contains(&&**name),
            "no step `{name}`; the steps are {}",
            known.join(", ")
        );
    }
    if !args.only.is_empty() {
        steps.retain(|step| args.only.iter().any(|name| name == step.name));
    }
    if args.list {
        for step in &steps {
            println!("{:12} {}", step.name, step.what);
            let commands = step.commands.iter().map(describe);
            commands.for_each(|command| println!("{:12}   {command}", ""));
        }
        return Ok(true);
    }
    set_up(&steps, &matrix)?;

    let logs = repo.target_dir.join("xtask-logs");
    fs::create_dir_all(&logs)?;
    let total = steps.len();
    let mut counts = Counts::default();
    for (index, step) in steps.iter_mut().enumerate() {
        println!("\n[{}/{total}] {}: {}", index + 1, step.name, step.what);
        counts += step.run(&logs.join(format!("{}.log", step.name)))?;
    }
    println!("\n{counts}");
    Ok(counts.failed == 0)
}

/// Installs what the chosen steps need, before the first of them starts.
fn set_up(steps: &[Step], matrix: &Matrix) -> Result<()> {
    let chosen = |names: &[&str]| steps.iter().any(|step| names.contains(&step.name));
    let mut toolchains = vec![setup::Toolchain {
        components: vec!["rustfmt", "clippy"],
        ..setup::targets(matrix.targets())
    }];
    if chosen(&["miri"]) {
        toolchains.push(setup::nightly(vec!["miri", "rust-src"]));
    }
    if chosen(&["wasm"]) {
        toolchains.push(setup::nightly(vec!["rust-src"]));
    }
    if chosen(&["msrv"]) {
        toolchains.push(setup::Toolchain {
            name: Some(OLDEST_RUST),
            ..setup::targets(["aarch64-unknown-none".into(), "aarch64-apple-darwin".into()])
        });
    }
    if chosen(&["hvf"]) {
        toolchains.push(coverage::toolchain());
    }
    let qemu = chosen(&["counts", "demo", "qemu", "linux", "wrong-order"]);
    setup::ensure(&setup::Needs { toolchains, qemu })?;
    if chosen(&["wasm"]) {
        setup::ensure_node()?;
    }
    if chosen(&["counts"]) && cfg!(target_os = "linux") {
        setup::ensure_valgrind()?;
    }
    Ok(())
}
