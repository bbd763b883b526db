//! `run-elf`: boots an ELF file; one that carries tests is booted once for each of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::defmt_log;
use crate::elf::{self, Test};
use crate::machine::Machine;
use crate::process::{Counts, Output, capture, capture_decoded};

pub const PROGRAM_LIMIT: Duration = Duration::from_secs(300);
const TEST_LIMIT: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
/// Boot one ELF file in QEMU: cargo's runner for the bare-metal targets.
///
/// .cargo/config.toml names it, so that `cargo test --target TARGET --test NAME` and `cargo run
/// --target TARGET --example NAME` just work. A program with embedded tests is booted once for
/// each of them; another one once, and its exit status is passed on.
pub struct Args {
    /// The target that the file was built for
    #[arg(long)]
    target: String,
    /// The CPU model (as QEMU names it)
    #[arg(long)]
    cpu: Option<String>,
    /// Show what passing tests print, too
    #[arg(long)]
    nocapture: bool,
    elf: PathBuf,
    /// Run only the tests whose name contains this
    filter: Option<String>,
}

pub fn run(args: &Args) -> Result<bool> {
    let machine = Machine::of(&args.target)?;
    let cpu = args.cpu.as_deref().unwrap_or(machine.cpus[0]);
    let Some(mut tests) = elf::tests(&args.elf)? else {
        return Ok(run_program(machine, cpu, &args.elf)?.success());
    };
    if let Some(filter) = &args.filter {
        tests.retain(|test| test.name.contains(filter));
    }
    let counts = run_tests(machine, cpu, &args.elf, &tests, args.nocapture)?;
    Ok(counts.failed == 0)
}

/// Boots a program and shows what it prints or logs, line by line.
pub fn run_program(machine: &Machine, cpu: &str, elf: &Path) -> Result<Output> {
    let mut boot = machine.boot(cpu, elf, &[]);
    let show = |line: Option<&str>| {
        if let Some(line) = line {
            println!("{line}");
        }
    };
    let output = match defmt_log::decoder(elf)? {
        Some(decoder) => capture_decoded(&mut boot, Some(PROGRAM_LIMIT), decoder, show)?,
        None => capture(&mut boot, Some(PROGRAM_LIMIT), show)?,
    };
    if !output.success() {
        println!("qemu: {}", output.ending());
    }
    Ok(output)
}

/// Boots a program once for each of `tests`; what it prints has the form of Rust's own harness.
pub fn run_tests(
    machine: &Machine,
    cpu: &str,
    elf: &Path,
    tests: &[Test],
    show_all: bool,
) -> Result<Counts> {
    let (count, target) = (tests.len(), machine.target);
    println!("running {count} tests on {target} ({cpu})");
    let mut counts = Counts::default();
    let mut ignored = 0;
    for test in tests {
        if test.ignored {
            println!("test {} ... ignored", test.name);
            ignored += 1;
            continue;
        }
        let address = test.address.to_string();
        let limit = test.timeout_seconds.map_or(TEST_LIMIT, Duration::from_secs);
        let mut boot = machine.boot(cpu, elf, &["run_addr", &address]);
        let output = capture(&mut boot, Some(limit), |_| {})?;
        // A test that should panic must end, and not well; one that hangs did not panic.
        let passed = match output.status {
            Some(status) => status.success() != test.should_panic,
            None => false,
        };
        counts += Counts::one(passed);
        let verdict = if passed { "ok" } else { "FAILED" };
        println!("test {} ... {verdict}", test.name);
        if show_all || !passed {
            output.lines.iter().for_each(|line| println!("    {line}"));
        }
        if !passed {
            println!("    qemu: {}", output.ending());
        }
    }
    let Counts { passed, failed } = counts;
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored");
    Ok(counts)
}
