//! `demo`: the example hypervisor on every CPU model, its output as it comes.

use anyhow::{Context, Result};

use crate::matrix::Matrix;
use crate::repo::Repo;
use crate::{golden, machine::Machine, qemu, run_elf, setup};

/// The example that this command shows.
pub const PROGRAM: &str = "el2";

#[derive(clap::Args)]
/// Boot the example hypervisor (examples/el2) in QEMU and show that no written page is lost.
///
/// The last line of each run says how many of the pages that the guest wrote were lost. The
/// command fails if any was, or if what should not vary is not as in examples/el2/el2.out.
pub struct Args {
    /// The CPU model: with hardware dirty flags, LSE atomics and SVE (max) or without (cortex-a53)
    #[arg(long, default_value = "both", value_parser = ["max", "cortex-a53", "both"])]
    cpu: String,
    /// Build the tracker so that it marks before it grants, which is wrong: then pages are lost,
    /// and the command fails if none is
    #[arg(long)]
    wrong_order: bool,
}

pub fn run(repo: &Repo, args: &Args) -> Result<bool> {
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
    let wanted = |cpu: &&&str| args.cpu == "both" || args.cpu == **cpu;
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
