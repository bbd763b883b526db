//! The project's own commands. `cargo xtask --help` lists them.

mod bench;
mod budget;
mod counts;
mod coverage;
mod defmt_log;
mod demo;
mod elf;
mod footprint;
mod golden;
mod header;
mod heatmap;
mod linux;
mod machine;
mod matrix;
mod picture;
mod process;
mod qemu;
mod repo;
mod run_elf;
mod setup;
mod steps;
mod test;
mod trace;
mod wasm;

use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
/// The project's own commands.
///
/// Each one first sets up what it needs and is not there yet (Rust targets, toolchains, QEMU, Node), and
/// says so before it does it. Exit status: 0 when all went well, 1 when something failed, 2 when
/// something is missing that this program cannot install, or what it was given cannot be used.
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Test(test::Args),
    Qemu(qemu::Args),
    Matrix(matrix::Args),
    Bench(bench::Args),
    Counts(counts::Args),
    Footprint(footprint::Args),
    Coverage(coverage::Args),
    Wasm(wasm::Args),
    Trace(trace::Args),
    Header(header::Args),
    RunElf(run_elf::Args),
}

fn main() -> ExitCode {
    let repo = match repo::Repo::find() {
        Ok(repo) => repo,
        Err(error) => return report(&error),
    };
    let outcome = match Cli::parse().command {
        Command::Demo(args) => demo::run(&repo, &args),
        Command::Test(args) => test::run(&repo, &args),
        Command::Qemu(args) => qemu::run(&repo, &args),
        Command::Matrix(args) => matrix::run(&repo, &args),
        Command::Bench(args) => bench::run(&repo, &args),
        Command::Counts(args) => counts::run(&repo, &args),
        Command::Footprint(args) => footprint::run(&repo, &args),
        Command::Coverage(args) => coverage::run(&repo, &args),
        Command::Wasm(args) => wasm::run(&repo, &args),
        Command::Trace(args) => trace::run(&args),
        Command::Header(args) => header::run(&repo, &args),
        Command::RunElf(args) => run_elf::run(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => report(&error),
    }
}

fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("xtask: {error:#}");
    if error.is::<setup::Missing>() || error.is::<BadInput>() {
        ExitCode::from(2)
    } else {
        ExitCode::FAILURE
    }
}

/// What a person gave cannot be used. The errors below it, if there are any, say why.
#[derive(Debug)]
pub struct BadInput(pub String);

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadInput {}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_well_formed() {
        super::Cli::command().debug_assert();
    }
}
