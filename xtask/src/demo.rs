//! `demo`: the example hypervisor on every CPU model, its output as it comes.

use anyhow::{Context, Result, bail};

use clap::ValueEnum;

use crate::matrix::Matrix;
use crate::repo::Repo;
use crate::{BadInput, golden, linux, machine::Machine, qemu, run_elf, setup};

/// The example that this command shows, unless Linux is the guest.
pub const PROGRAM: &str = "el2";

#[derive(clap::Args)]
/// Boot an example hypervisor in QEMU and show that no written page is lost.
///
/// By default it is examples/el2, whose guest writes with every class of store. The last line of
/// each run says how many of the pages that the guest wrote were lost. The command fails if any was,
/// or if what should not vary is not as in examples/el2/el2.out.
///
/// With --guest linux it is examples/el2_linux, and the guest is an unmodified Linux: Debian's kernel
/// and busybox, fetched through apt and kept in target/linux-guest. It is harvested while it boots
/// and works, and migrated while it runs; each phase of its work is a line of the table. The reports
/// (report.jsonl), the traces (trace.bin), the consoles (console.txt) and the heat map (heatmap.png)
/// stay in target/linux-guest. The command fails if a page was lost or the migrated memory differs.
pub struct Args {
    /// What runs under the hypervisor
    #[arg(long, value_enum, default_value_t)]
    guest: Guest,
    #[command(flatten)]
    stores: Stores,
    #[command(flatten)]
    linux: linux::demo::Linux,
}

#[derive(Clone, Copy, Default, PartialEq, ValueEnum)]
enum Guest {
    /// Every class of store, on two CPU models
    #[default]
    Stores,
    /// Linux
    Linux,
}

#[derive(clap::Args, Default, PartialEq)]
#[command(next_help_heading = "With --guest stores")]
pub struct Stores {
    /// The CPU model: with hardware dirty flags, LSE atomics and SVE (max) or without (cortex-a53).
    /// By default each in turn
    #[arg(long, value_parser = ["max", "cortex-a53", "both"])]
    cpu: Option<String>,
    /// Build the tracker so that it marks before it grants, which is wrong: then pages are lost,
    /// and the command fails if none is
    #[arg(long)]
    wrong_order: bool,
}

pub fn run(repo: &Repo, args: &Args) -> Result<bool> {
    let other = match args.guest {
        Guest::Stores if args.linux != Default::default() => "--guest linux",
        Guest::Linux if args.stores != Stores::default() => "--guest stores",
        Guest::Stores => return run_stores(repo, &args.stores),
        Guest::Linux => return linux::demo::run(repo, &args.linux),
    };
    bail!(BadInput(format!(
        "an option that was given goes with {other}"
    )))
}

fn run_stores(repo: &Repo, args: &Stores) -> Result<bool> {
    let matrix = Matrix::read(repo)?;
    let row = matrix.rows_with(PROGRAM).next();
    let row = row.context("features/matrix.json has no row for the demo")?;
    setup::ensure(&setup::Needs {
        toolchains: vec![setup::targets([row.target.clone()])],
        qemu: true,
    })?;

    let program = repo.program(PROGRAM)?;
    println!("building examples/{PROGRAM} for {}", row.target);
    let mut cargo = repo.cargo("build");
    if args.wrong_order {
        println!("with mark and grant in the wrong order: losing pages is what is expected");
        // `--config` adds to the target's flags, where RUSTFLAGS would replace them.
        let flag = r#"rustflags=["--cfg","pugmark_wrong_order"]"#;
        cargo.args(["--config", &format!("target.{}.{flag}", row.target)]);
        let own = repo.target_dir.join("wrong-order");
        cargo.arg("--target-dir").arg(own);
    }
    let elf = qemu::build(cargo, &program, row)?;

    let machine = Machine::of(&row.target)?;
    let mut all_well = true;
    let mut lost_in_all = 0;
    let cpu = args.cpu.as_deref().unwrap_or("both");
    let wanted = |model: &&&str| cpu == "both" || cpu == **model;
    for cpu in machine.cpus.iter().filter(wanted) {
        println!("\n== {PROGRAM} on QEMU, -cpu {cpu}\n");
        let output = run_elf::run_program(machine, cpu, &elf)?;
        let last = output.lines.iter().rev().find(|line| !line.is_empty());
        let Some(lost) = last.and_then(|line| lost_pages(line)) else {
            println!("\nthe last line does not say how many pages were lost");
            return Ok(false);
        };
        lost_in_all += lost;
        all_well &= output.success() && lost == 0;
        if !args.wrong_order {
            all_well &= golden::check(&program.golden, &output.lines, false)?;
        }
    }
    if args.wrong_order {
        println!("\nin the wrong order {lost_in_all} pages were lost; 0 would be a failure");
        return Ok(lost_in_all > 0);
    }
    Ok(all_well)
}

/// `lost 3 of 12345 written pages; …` is 3.
fn lost_pages(line: &str) -> Option<u64> {
    let (lost, rest) = line.strip_prefix("lost ")?.split_once(" of ")?;
    rest.contains(" written pages").then(|| lost.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::lost_pages;

    #[test]
    fn the_last_line_is_read() {
        let line = "lost 0 of 12345 written pages; 20000 reported; 99 faults; 100 harvests";
        assert_eq!(lost_pages(line), Some(0));
        assert_eq!(lost_pages(&line.replace("lost 0", "lost 17")), Some(17));
        assert_eq!(lost_pages("panicked"), None);
    }
}
