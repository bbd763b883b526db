//! `counts`: instructions and locked operations of the hot paths.

mod callgrind;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::budget::{Budget, Row};
use crate::machine::Machine;
use crate::matrix::Matrix;
use crate::process::{Counts, Output, capture, capture_with_progress};
use crate::repo::Repo;
use crate::{qemu, run_elf, setup};

/// The program that counts at EL2.
const PROGRAM: &str = "fault_counts";
const PACKAGE: &str = "pugmark-parts";

#[derive(clap::Args)]
/// Count the instructions of the hot paths, and hold them to benches/budget/counts.json.
///
/// On Linux callgrind counts, in programs for this machine: benches/parts runs each path a fixed
/// number of times on the same data. Locked operations are x86's, fences included. Every path is
/// the baseline's code: none chooses by what the CPU has, so all CPUs of an architecture give the same
/// counts.
///
/// On every machine QEMU counts the fault path at EL2 (examples/fault_counts.rs): one instruction at
/// a time, from the syndrome to the decision to resume, with a host that does nothing.
///
/// A count that moves by more than 2 % is a failure, and so is a fault of more than 150 instructions.
/// With another compiler than the recorded one 10 % are allowed. Times are never held: see
/// `cargo xtask bench`.
pub struct Args {
    /// Record what is counted now
    #[arg(long)]
    bless: bool,
}

pub fn run(repo: &Repo, args: &Args) -> Result<bool> {
    let mut budget = Budget::open(repo, "counts", "cargo xtask counts", args.bless)?;
    let mut counts = Counts::default();
    if cfg!(target_os = "linux") {
        setup::ensure_valgrind()?;
        let group = format!("{}, under callgrind", std::env::consts::ARCH);
        counts += budget.check(&group, &on_this_machine(repo)?);
    } else {
        println!("callgrind is for Linux: only the fault path at EL2 is counted here");
    }
    counts += budget.check("aarch64 at EL2, in QEMU", &at_el2(repo)?);
    budget.close(counts)?;
    println!("\n{counts}");
    Ok(counts.failed == 0)
}

fn on_this_machine(repo: &Repo) -> Result<Vec<Row>> {
    println!("building {PACKAGE}");
    let folder = repo.target_dir.join("counts");
    let mut build = repo.cargo("build --profile bench --bin counts --package");
    build.arg(PACKAGE).arg("--target-dir").arg(&folder);
    // Whoever sets flags of their own would count something else.
    build.env("CARGO_ENCODED_RUSTFLAGS", "");
    succeed(&mut build)?;
    println!("counting, with callgrind");
    let counted = folder.join("callgrind.out");
    succeed(&mut under_callgrind(
        &folder.join("release/counts"),
        &counted,
    ))?;
    let text = std::fs::read_to_string(&counted).with_context(|| repo.shown(&counted))?;
    callgrind::rows(&text)
}

fn under_callgrind(program: &Path, out: &Path) -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--collect-bus=yes"]);
    valgrind.args(["--compress-strings=no", "--compress-pos=no"]);
    valgrind.arg(format!("--callgrind-out-file={}", out.display()));
    valgrind.arg(program);
    valgrind
}

fn at_el2(repo: &Repo) -> Result<Vec<Row>> {
    let matrix = Matrix::read(repo)?;
    let row = matrix.row_with_unbooted(PROGRAM)?;
    setup::ensure(&setup::Needs {
        toolchains: vec![setup::targets([row.target.clone()])],
        qemu: true,
    })?;
    println!("building examples/{PROGRAM}.rs for {}", row.target);
    let elf = qemu::build(repo.cargo("build"), &repo.program(PROGRAM)?, row)?;
    let machine = Machine::of(&row.target)?;
    let mut boot = machine.boot(machine.cpus[0], &elf, &[]);
    // One instruction is one tick of the machine's clock, and nothing runs beside it.
    boot.args(["-icount", "shift=0", "-smp", "1"]);
    let output = capture(&mut boot, Some(run_elf::PROGRAM_LIMIT), |_| {})?;
    ensure!(output.success(), failure(&boot, &output));
    output.lines.iter().map(|line| row_of(line)).collect()
}

/// `fault-coarse-first 143`
fn row_of(line: &str) -> Result<Row> {
    let row = line.split_once(' ');
    let row = row.and_then(|(name, count)| Some((name.into(), count.parse().ok()?)));
    row.with_context(|| format!("`{line}` is no name and count"))
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = capture_with_progress(command)?;
    ensure!(output.success(), failure(command, &output));
    Ok(())
}

fn failure(command: &Command, output: &Output) -> String {
    let command = crate::process::describe(command);
    format!(
        "`{command}`: {}\n{}",
        output.ending(),
        output.lines.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::row_of;

    #[test]
    fn a_line_of_the_program_is_a_row() {
        let row = row_of("fault-fine-next 120").expect("a row");
        assert_eq!(row, ("fault-fine-next".into(), 120));
        assert!(row_of("panicked at …").is_err());
        assert!(row_of("").is_err());
    }
}
