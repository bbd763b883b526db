//! The program itself.

#[cfg(all(feature = "kvm", target_arch = "x86_64"))]
mod cpl3;
mod files;
#[cfg(all(feature = "kvm", target_arch = "x86_64"))]
mod guest;
mod memory;
mod run;
mod screen;
mod workload;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(name = "pugmark-snap", args_conflicts_with_subcommands = true)]
/// Live snapshots of memory: a base, and diffs of what was written since
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::Options,
}

#[derive(Subcommand)]
enum Command {
    /// Run a workload, snapshot it live, restore and compare (without a command: this)
    Run(run::Options),
    /// Say what is in a file, or in each file of a folder
    Info { path: PathBuf },
    /// Check every byte of a file, or of a folder's chain
    Verify { path: PathBuf },
    /// Write the memory of a checkpoint to a file: the regions, one after the other
    Restore(Restore),
    /// Make one base of a folder's base and diffs
    Merge { folder: PathBuf },
}

#[derive(Args)]
struct Restore {
    folder: PathBuf,
    image: PathBuf,
    /// The checkpoint; the last one unless given
    #[arg(long, value_name = "NUMBER")]
    at: Option<u64>,
}

pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match act(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pugmark-snap: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is as it should be.
fn act(arguments: Arguments) -> Result<bool, Box<dyn Error>> {
    match arguments.command.unwrap_or(Command::Run(arguments.run)) {
        Command::Run(options) => return run::run(&options),
        Command::Info { path } => files::info(&path)?,
        Command::Verify { path } => files::verify(&path)?,
        Command::Restore(Restore { folder, image, at }) => files::restore(&folder, &image, at)?,
        Command::Merge { folder } => files::merge(&folder)?,
    }
    Ok(true)
}
