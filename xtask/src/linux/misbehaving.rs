//! `demo --guest linux --misbehaving`: guests that do what no guest should, a few instructions each.
//! Of each it is known what the hypervisor is to say, line for line, and how it is to end.

mod code;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use dtoolkit::model::DeviceTree;

use super::hypervisor::{self, REPORT};
use super::report::{Event, Tail};
use super::{Guest, Placed, layout};
use crate::matrix::Matrix;
use crate::process::{Counts, watch};
use crate::repo::Repo;
use code::{Code, MAGIC};

/// After this, a guest hangs. It takes a second or two.
const LIMIT: Duration = Duration::from_secs(20);

const CPU_OFF: u64 = 0x8400_0002;
const CPU_ON: u64 = 0xc400_0003;
const AFFINITY_INFO: u64 = 0xc400_0004;
const SYSTEM_RESET: u64 = 0x8400_0009;
const FEATURES: u64 = 0x8400_000a;
/// Optional, and not there.
const SYSTEM_RESET2: u64 = 0x8400_0012;

/// The address after the machine's memory.
const NOWHERE: u64 = layout::MACHINE_RAM + layout::MACHINE_RAM_SIZE;

/// The guest's end, or the hypervisor's because of it.
const POWERED_OFF: i32 = 0;
const DIED: i32 = 2;

/// A guest, and what is to come of it.
struct Case {
    /// What it does.
    name: &'static str,
    image: Vec<u8>,
    device_tree: Vec<u8>,
    /// The cores of the machine.
    cores: u64,
    /// How each line of the report begins, after the first.
    said: Vec<String>,
    /// The hypervisor's exit status.
    status: i32,
}

impl Case {
    fn new(name: &'static str, code: &Code, said: &[&str], status: i32) -> Self {
        Self {
            name,
            image: code.image(),
            device_tree: DeviceTree::new().to_dtb(),
            cores: layout::FIRST_CORE + layout::VCPUS,
            said: said.iter().map(|line| (*line).to_owned()).collect(),
            status,
        }
    }

    /// A guest that does not get beyond the last instruction of `code`. If it did, it would power off.
    fn stopped(name: &'static str, code: Code, complaint: &str) -> Self {
        let said = format!("vCPU 0 at {:#x}{complaint}", code.last());
        Self::new(name, &code.off(), &[&said], DIED)
    }
}

fn cases() -> Vec<Case> {
    let first = layout::FIRST_CORE;
    let second = first + 1;
    let reads = " reads or runs what it may not, at 0x80000000";
    let doorbell = " rings with another store than one of 64 bits";
    let of_the_second = format!("vCPU 1 at {NOWHERE:#x}{reads}");

    // Of nine functions the last is one too many to be reported.
    let unknown = (1..8).fold(
        Code::new()
            .hvc(SYSTEM_RESET2, &[])
            .note(0)
            .hvc(SYSTEM_RESET2, &[])
            .note(1)
            .hvc(0, &[])
            .note(2),
        |code, function| code.hvc(function, &[]),
    );
    let unknown = unknown.note(3).ring().off();
    let by_smc = Code::new()
        .smc(FEATURES, &[CPU_OFF])
        .note(0)
        .smc(FEATURES, &[SYSTEM_RESET2])
        .note(1)
        .ring()
        .off();
    let turns_on = Code::new()
        // The hypervisor's own core, the one after the last, and one whose number is the second
        // vCPU's in 32 bits.
        .hvc(CPU_ON, &[first - 1, code::IDLE])
        .note(0)
        .hvc(CPU_ON, &[second + 1, code::IDLE])
        .note(1)
        .hvc(CPU_ON, &[second | 1 << 32, code::IDLE])
        .note(2)
        .hvc(CPU_ON, &[first, code::IDLE])
        .note(3)
        .hvc(CPU_ON, &[second, code::IDLE])
        .note(4)
        .hvc_until_zero(AFFINITY_INFO, &[second, 0])
        .hvc(CPU_ON, &[second, code::IDLE])
        .note(5)
        .ring()
        .off();
    let fetches = Code::new().hvc(CPU_ON, &[second, NOWHERE]).wait();
    let resets = Code::new().hvc(SYSTEM_RESET, &[]).wait();
    let leaves = Code::new().hvc(CPU_OFF, &[]).wait();

    let mut cases = vec![
        Case::stopped(
            "loads from where nothing is",
            Code::new().load(NOWHERE),
            reads,
        ),
        Case::stopped(
            "stores into the hypervisor's memory",
            Code::new().store(layout::MACHINE_RAM),
            " writes where nothing of its own is, at 0x40000000",
        ),
        Case::new(
            "has its second vCPU run where nothing is",
            &fetches,
            &[&of_the_second],
            DIED,
        ),
        Case::stopped(
            "writes a register that EL2 keeps",
            Code::new().write_scxtnum(),
            ": NotAnAbort { class: 24 }",
        ),
        Case::stopped(
            "rings with a byte",
            Code::new().store_byte(layout::DOORBELL),
            doorbell,
        ),
        Case::stopped(
            "rings with a pair",
            Code::new().store_pair(layout::DOORBELL),
            doorbell,
        ),
        Case::new(
            "calls what PSCI does not have",
            &unknown,
            &[
                r#"unknown call: {"function":"0x84000012"}"#,
                r#"unknown call: {"function":"0x0"}"#,
                r#"unknown call: {"function":"0x1"}"#,
                r#"unknown call: {"function":"0x2"}"#,
                r#"unknown call: {"function":"0x3"}"#,
                r#"unknown call: {"function":"0x4"}"#,
                r#"unknown call: {"function":"0x5"}"#,
                r#"unknown call: {"function":"0x6"}"#,
                "phase boot",
                "phase 1111",
                "power off",
            ],
            POWERED_OFF,
        ),
        Case::new(
            "calls by SMC",
            &by_smc,
            &["phase boot", "phase 01", "power off"],
            POWERED_OFF,
        ),
        Case::new(
            "turns on cores that are not there, or are on",
            &turns_on,
            &["phase boot", "phase 222404", "power off"],
            POWERED_OFF,
        ),
        Case::new(
            "turns its last core off",
            &leaves,
            &["the guest turned its last core off"],
            DIED,
        ),
        Case::new(
            "resets",
            &resets,
            &["phase boot", "reset", "the guest panicked"],
            DIED,
        ),
    ];
    // Of the last ones the guest is not at fault, but what was made ready for it.
    let unready = |name, said| Case::new(name, &Code::new().off(), &[said], DIED);
    let mut treeless = unready("has no device tree", "at 0x5fe00000 is no device tree");
    treeless.device_tree.clear();
    let mut headless = unready("has no magic number", "at 0x50000000 is no arm64 Image");
    headless.image[MAGIC] = 0;
    let mut small = unready("lacks a core", "core 3 does not start");
    small.cores -= 1;
    cases.extend([treeless, headless, small]);
    cases
}

pub fn run(repo: &Repo) -> Result<bool> {
    let matrix = Matrix::read(repo)?;
    let row = hypervisor::set_up(&matrix)?;
    let elf = hypervisor::build(repo, row)?;
    let folder = repo.target_dir.join("linux-guest/misbehaving");

    let mut counts = Counts::default();
    for case in cases() {
        let outcome = case.boot(&elf, &folder)?;
        let (verdict, rest) = match case.complaint(&outcome) {
            None => ("ok", String::new()),
            Some(complaint) => ("FAILED", complaint),
        };
        println!("{verdict:6}  {}: {}{rest}", case.name, outcome.summary());
        counts += Counts::one(rest.is_empty());
    }
    println!("{counts}");
    Ok(counts.failed == 0)
}

/// What came of a guest.
struct Outcome {
    /// The lines of the report, for a person.
    said: Vec<String>,
    /// `None` where it was stopped, or a signal ended QEMU.
    status: Option<i32>,
    /// The console, which should be empty.
    console: Vec<String>,
}

impl Outcome {
    fn summary(&self) -> String {
        match self.said.as_slice() {
            [] => "nothing".into(),
            said => said.join("; "),
        }
    }
}

impl Case {
    fn boot(&self, elf: &Path, folder: &Path) -> Result<Outcome> {
        fs::create_dir_all(folder)?;
        let place = |name: &str, contents: &[u8], address| -> Result<Placed> {
            let file = folder.join(name);
            fs::write(&file, contents)?;
            Ok(Placed { file, address })
        };
        let mut files = vec![place("Image", &self.image, layout::KERNEL)?];
        if !self.device_tree.is_empty() {
            files.push(place("guest.dtb", &self.device_tree, layout::DEVICE_TREE)?);
        }
        let mut qemu = hypervisor::machine(self.cores);
        hypervisor::load(&mut qemu, elf, &[], folder, &Guest { files })?;
        let output = watch(&mut qemu, Some(LIMIT), LIMIT, |_| ControlFlow::Continue(()))?;
        let said = match Tail::new(&folder.join(REPORT)).last_events() {
            Ok(events) => events.iter().filter_map(line).collect(),
            Err(error) => vec![format!("{error:#}")],
        };
        Ok(Outcome {
            said,
            status: output.status.and_then(|status| status.code()),
            console: output.lines,
        })
    }

    /// What is not as it should be, in lines of its own.
    fn complaint(&self, outcome: &Outcome) -> Option<String> {
        let Outcome {
            said,
            status,
            console,
        } = outcome;
        let mut lines = said.iter().zip(&self.said);
        let as_expected = said.len() == self.said.len()
            && lines.all(|(line, start)| line.starts_with(start))
            && *status == Some(self.status)
            && console.is_empty();
        if as_expected {
            return None;
        }
        let ended = match status {
            Some(status) => format!("exit status {status}"),
            None => "it did not end by itself".into(),
        };
        let mut complaint = format!(
            "\n  expected: {}\n  {ended}, expected: {}",
            self.said.join("; "),
            self.status
        );
        console
            .iter()
            .for_each(|line| complaint += &format!("\n  | {line}"));
        Some(complaint)
    }
}

/// A line of the report, for a person. The first one does not differ from guest to guest.
fn line(event: &Event) -> Option<String> {
    Some(match event {
        Event::Start { .. } => return None,
        Event::Phase(phase) if phase.lost > 0 => {
            format!("{} pages lost in phase {}", phase.lost, phase.name)
        }
        Event::Phase(phase) => format!("phase {}", phase.name),
        Event::Note(text) | Event::End(text) | Event::Error(text) => text.clone(),
        Event::Round(_) | Event::Migration(_) => "a migration".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::report::Phase;
    use super::*;

    fn outcome(said: &[&str], status: Option<i32>) -> Outcome {
        Outcome {
            said: said.iter().map(|line| (*line).to_owned()).collect(),
            status,
            console: Vec::new(),
        }
    }

    #[test]
    fn anything_but_what_is_expected_fails() {
        let case = Case::new("", &Code::new(), &["phase boot", "power off"], POWERED_OFF);
        let fails = |outcome: &Outcome| case.complaint(outcome).is_some();
        assert!(!fails(&outcome(&["phase boot", "power off"], Some(0))));
        assert!(!fails(&outcome(&["phase boot", "power off, now"], Some(0))));
        for said in [
            &[][..],
            &["phase boot"],
            &["power off", "phase boot"],
            &["phase boot", "power off", "power off"],
            &["phase boot", "reset"],
        ] {
            assert!(fails(&outcome(said, Some(0))), "{said:?}");
        }
        for status in [None, Some(1), Some(2)] {
            let outcome = outcome(&["phase boot", "power off"], status);
            assert!(fails(&outcome), "{status:?}");
        }
        let mut noisy = outcome(&["phase boot", "power off"], Some(0));
        noisy.console.push("hypervisor: the report".into());
        let complaint = case.complaint(&noisy).unwrap_or_default();
        assert!(complaint.ends_with("  | hypervisor: the report"));
    }

    #[test]
    fn each_guest_but_one_is_a_kernel() {
        let is_kernel = |case: &Case| super::super::image::header(&case.image).is_ok();
        let others: Vec<_> = cases()
            .into_iter()
            .filter(|case| !is_kernel(case))
            .collect();
        let names: Vec<_> = others.iter().map(|case| case.name).collect();
        assert_eq!(names, ["has no magic number"]);
    }

    #[test]
    fn a_lost_page_is_not_passed_over() {
        let phase = |lost| {
            let name = "boot".into();
            let phase = Phase {
                name,
                lost,
                ..Phase::default()
            };
            line(&Event::Phase(phase))
        };
        assert_eq!(phase(0).as_deref(), Some("phase boot"));
        assert_eq!(phase(2).as_deref(), Some("2 pages lost in phase boot"));
    }
}
