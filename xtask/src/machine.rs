//! The QEMU machine of each bare-metal target.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

pub struct Machine {
    pub target: &'static str,
    program: &'static str,
    args: &'static str,
    /// The CPU models to run on, where the machine leaves a choice.
    pub cpus: &'static [&'static str],
}

const MACHINES: [Machine; 3] = [
    Machine {
        target: "aarch64-unknown-none",
        program: "qemu-system-aarch64",
        args: "-machine virt,virtualization=on,gic-version=3 -smp 4 -m 512M -nic none",
        // With and without hardware access and dirty flags, LSE atomics and SVE.
        cpus: &["max", "cortex-a53"],
    },
    Machine {
        target: "thumbv7em-none-eabihf",
        program: "qemu-system-arm",
        // About one instruction a cycle of its 25 MHz: the same run each time.
        args: "-machine mps2-an386 -icount shift=5",
        cpus: &["cortex-m4"],
    },
    Machine {
        target: "thumbv6m-none-eabi",
        program: "qemu-system-arm",
        // The same, at 16 MHz.
        args: "-machine microbit -icount shift=6",
        cpus: &["cortex-m0"],
    },
];

impl Machine {
    pub fn of(target: &str) -> Result<&'static Self> {
        let mut machines = MACHINES.iter();
        machines
            .find(|machine| machine.target == target)
            .with_context(|| format!("no QEMU machine is defined for the target `{target}`"))
    }

    /// The command that boots `elf`; `words` are what the program reads as its command line.
    pub fn boot(&self, cpu: &str, elf: &Path, words: &[&str]) -> Command {
        let mut semihosting = String::from("enable=on,target=native");
        for word in words {
            semihosting += &format!(",arg={word}");
        }
        let mut command = Command::new(self.program);
        command.args(self.args.split_whitespace());
        command.args(["-cpu", cpu, "-nographic"]);
        command.args(["-semihosting-config", &semihosting]);
        command.arg("-kernel").arg(elf);
        command
    }
}
