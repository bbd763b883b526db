//! `qemu NAME`: builds and boots one bare-metal program, and compares with its golden output.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::elf::Size;
use crate::matrix::{Matrix, Row};
use crate::process::Counts;
use crate::repo::{Program, Repo};
use crate::{elf, golden, machine::Machine, run_elf, setup};

#[derive(clap::Args)]
/// Boot one bare-metal program in QEMU and compare its output with the golden file beside it.
///
/// The program is an example or a test. features/matrix.json says on which targets, and with
/// which features, it runs; each CPU model of the target's machine is taken in turn.
///
/// The golden file is NAME.out beside the program's main file: examples/el2/el2.out. It is the
/// output line for line, where `…` in a line stands for any text (what varies from run to run, or
/// with the CPU model), and a line that is only `…` for any number of lines.
///
/// A program made of embedded tests has no golden file: it is booted once for each test.
pub struct Args {
    name: String,
    /// Only this target
    #[arg(long)]
    target: Option<String>,
    /// Only this CPU model (as QEMU names it)
    #[arg(long)]
    cpu: Option<String>,
    /// Rewrite the golden file from what the program prints; lines that match keep their `…`
    #[arg(long)]
    bless: bool,
}

pub fn run(repo: &Repo, args: &Args) -> Result<bool> {
    let matrix = Matrix::read(repo)?;
    let program = repo.program(&args.name)?;
    let target = args.target.as_deref();
    let wanted = |row: &&Row| target.is_none_or(|target| row.target == target);
    let rows: Vec<&Row> = matrix.rows_with(&args.name).filter(wanted).collect();
    let none = "features/matrix.json has no such row for that program";
    ensure!(!rows.is_empty(), none);
    setup::ensure(&setup::Needs {
        toolchains: vec![setup::targets(rows.iter().map(|row| row.target.clone()))],
        qemu: true,
    })?;

    let mut counts = Counts::default();
    for row in rows {
        let machine = Machine::of(&row.target)?;
        let elf = build(repo.cargo("build"), &program, row)?;
        let size = Size::of(&elf)?;
        let cpus = match &args.cpu {
            Some(cpu) => vec![cpu.as_str()],
            None => machine.cpus.to_vec(),
        };
        for cpu in cpus {
            counts += match elf::tests(&elf)? {
                Some(tests) => run_elf::run_tests(machine, cpu, &elf, &tests, false)?,
                None => {
                    println!("{} on {} ({cpu}): {size}", args.name, row.target);
                    let output = run_elf::run_program(machine, cpu, &elf)?;
                    let same = golden::check(&program.golden, &output.lines, args.bless)?;
                    Counts::one(output.success() && same)
                }
            };
        }
    }
    println!("{counts}");
    Ok(counts.failed == 0)
}

/// Builds one program as its row says and returns the ELF file. `cargo` may carry more arguments.
pub fn build(mut cargo: Command, program: &Program, row: &Row) -> Result<PathBuf> {
    let name = program.name;
    cargo.args(["--release", "--message-format=json-render-diagnostics"]);
    cargo.args(["--target", &row.target, program.kind.flag(), name]);
    cargo.args(row.features_flag());
    let output = cargo.stderr(Stdio::inherit()).output()?;
    let success = output.status.success();
    ensure!(success, "{name} does not build for {}", row.target);
    let messages = String::from_utf8_lossy(&output.stdout);
    let executable = messages.lines().filter_map(executable_of).next_back();
    executable.with_context(|| format!("cargo named no executable for {name}"))
}

/// The executable that a line of cargo's JSON messages tells of.
fn executable_of(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    message["executable"].as_str().map(PathBuf::from)
}
