//! The hypervisor that runs Linux: built, and loaded into QEMU.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Guest, layout};
use crate::matrix::{Matrix, Row};
use crate::repo::Repo;
use crate::{qemu, setup};

/// Its name, in examples/.
pub const PROGRAM: &str = "el2_linux";

/// What it reports, and which pages each harvest delivered: files in the folder that it is given.
pub const REPORT: &str = "report.jsonl";
pub const TRACE: &str = "trace.bin";

/// Its row of features/matrix.json, with what that needs.
pub fn set_up(matrix: &Matrix) -> Result<&Row> {
    let row = matrix.row_with_unbooted(PROGRAM)?;
    setup::ensure(&setup::Needs {
        toolchains: vec![setup::targets([row.target.clone()])],
        qemu: true,
    })?;
    Ok(row)
}

pub fn build(repo: &Repo, row: &Row) -> Result<PathBuf> {
    println!("building examples/{PROGRAM} for {}", row.target);
    qemu::build(repo.cargo("build"), &repo.program(PROGRAM)?, row)
}

/// QEMU with the machine, but nothing to run yet.
pub fn machine(cores: u64) -> Command {
    let mut qemu = Command::new("qemu-system-aarch64");
    qemu.args("-machine virt,virtualization=on,gic-version=3".split(' '));
    // The architecture's own algorithm of pointer authentication is slow to emulate.
    qemu.args(["-cpu", "max,pauth-impdef=on"]);
    qemu.args("-nographic -nic none -no-reboot".split(' '));
    let memory = format!("{}M", layout::MACHINE_RAM_SIZE >> 20);
    qemu.args(["-smp", &cores.to_string(), "-m", &memory]);
    qemu
}

/// Has QEMU load the hypervisor `elf` with `arguments`, and the guest. What a run before left in
/// `folder` is removed.
pub fn load(
    qemu: &mut Command,
    elf: &Path,
    arguments: &[String],
    folder: &Path,
    guest: &Guest,
) -> Result<()> {
    fs::create_dir_all(folder)?;
    for file in [REPORT, TRACE] {
        let _ = fs::remove_file(folder.join(file));
    }
    // A path with a space or a comma could not be told.
    qemu.current_dir(folder);
    let mut words = format!("enable=on,target=native,arg={PROGRAM},arg=out=.");
    for argument in arguments {
        words += &format!(",arg={argument}");
    }
    qemu.args(["-semihosting-config", &words]);
    qemu.arg("-kernel").arg(elf);
    guest.load(qemu);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_as_large_as_the_layout_says() {
        let described = crate::process::describe(&machine(4));
        assert!(described.ends_with("-smp 4 -m 1024M"), "{described}");
    }
}
