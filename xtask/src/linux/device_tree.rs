//! The machine as the guest sees it: a device tree made from QEMU's own.
//!
//! Only what is named here is taken over. What is not, the guest does not find: above all no device
//! that reads and writes memory by itself (virtio, PCI, the firmware configuration), because what
//! such a device writes does not pass stage 2. A hypervisor that emulates one has to tell the
//! tracker with `mark_written`.

use std::ops::Range;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node, ToPropertyValue};

/// The nodes that are taken over with all they have, by the part of the name before the address:
/// how to reach the hypervisor, the clock of the console, the timer, and the console.
const WHOLE: [&str; 4] = ["psci", "apb-pclk", "timer", "pl011"];
/// The nodes that are taken over without those below them: the interrupt controller, whose ITS
/// would write to memory.
const ALONE: [&str; 1] = ["intc"];

/// What the guest is told.
pub struct Machine<'a> {
    pub memory: Range<u64>,
    /// The cores that are its own, by the machine's numbers.
    pub cores: Range<u64>,
    pub initramfs: Range<u64>,
    pub command_line: &'a str,
}

/// Asks QEMU for the device tree of the machine that `qemu` would start.
pub fn of_qemu(mut qemu: Command, file: &Path) -> Result<Vec<u8>> {
    let _ = std::fs::remove_file(file);
    let machine = format!("dumpdtb={}", file.display());
    let output = qemu.args(["-machine", &machine]).output();
    let output = output.context("QEMU does not start")?;
    std::fs::read(file).with_context(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("QEMU does not write its device tree: {}", said.trim())
    })
}

/// The guest's device tree.
pub fn for_guest(qemu: &[u8], machine: &Machine) -> Result<Vec<u8>> {
    let fdt = Fdt::new(qemu).context("QEMU's device tree cannot be read")?;
    let from = DeviceTree::from_fdt(&fdt).root;

    let mut root = without_children(&from);
    let mut taken = 0;
    for child in from.children() {
        let name = child.name_without_address();
        if WHOLE.contains(&name) {
            root.add_child(child.clone());
        } else if ALONE.contains(&name) {
            root.add_child(without_children(child));
        } else {
            continue;
        }
        taken += 1;
    }
    ensure!(
        taken == WHOLE.len() + ALONE.len(),
        "QEMU's device tree has {taken} of the nodes {WHOLE:?} and {ALONE:?}, or has one twice"
    );

    // HVC always reaches EL2; an SMC would have to be trapped first.
    let psci = root.child_mut("psci").context("psci")?;
    psci.add_property(property("method", "hvc")?);

    root.add_child(cores(&from, &machine.cores)?);
    let Range { start, end } = machine.memory;
    root.add_child(node(
        &format!("memory@{start:x}"),
        [
            property("device_type", "memory")?,
            property("reg", cells([start, end - start]))?,
        ],
    )?);
    let console = root
        .children()
        .find(|node| node.name_without_address() == "pl011");
    let console = console.map(|node| format!("/{}", node.name()));
    root.add_child(node(
        "chosen",
        [
            property("stdout-path", console.unwrap_or_default())?,
            property("bootargs", machine.command_line)?,
            property("linux,initrd-start", machine.initramfs.start)?,
            property("linux,initrd-end", machine.initramfs.end)?,
            // The same in each run. QEMU's is random, and the guest needs one to begin at once.
            property("rng-seed", [0x70_75_67_6du32; 16])?,
        ],
    )?);

    let mut tree = DeviceTree::new();
    tree.root = root;
    Ok(tree.to_dtb())
}

/// The node `cpus` with those of `numbers` only.
fn cores(root: &DeviceTreeNode, numbers: &Range<u64>) -> Result<DeviceTreeNode> {
    let all = root
        .child("cpus")
        .context("QEMU's device tree has no cpus")?;
    let mut cores = without_children(all);
    for number in numbers.clone() {
        let core = all.child(&format!("cpu@{number:x}"));
        cores.add_child(
            core.with_context(|| format!("the machine has no core {number}"))?
                .clone(),
        );
    }
    Ok(cores)
}

fn without_children(node: &DeviceTreeNode) -> DeviceTreeNode {
    let mut copy = node.clone();
    let names: Vec<String> = node
        .children()
        .map(|child| child.name().to_owned())
        .collect();
    for name in names {
        copy.remove_child(&name);
    }
    copy
}

fn node<const N: usize>(name: &str, properties: [DeviceTreeProperty; N]) -> Result<DeviceTreeNode> {
    let mut node = DeviceTreeNode::new(name).map_err(|error| anyhow::anyhow!("{error}"))?;
    properties
        .into_iter()
        .for_each(|property| node.add_property(property));
    Ok(node)
}

fn property(name: &str, value: impl ToPropertyValue) -> Result<DeviceTreeProperty> {
    DeviceTreeProperty::new(name, value).map_err(|error| anyhow::anyhow!("{error}"))
}

/// Numbers of two cells each.
fn cells<const N: usize>(numbers: [u64; N]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_be_bytes())
        .collect()
}

#[cfg(test)]
mod tests {
    use dtoolkit::Property;

    use super::*;

    const GUEST: Machine = Machine {
        memory: 0x5000_0000..0x6000_0000,
        cores: 2..4,
        initramfs: 0x5fc0_0000..0x5fe0_0000,
        command_line: "console=ttyAMA0 -- a b",
    };

    /// Like QEMU's, in short.
    fn machine(names: &[&str]) -> Vec<u8> {
        let mut tree = DeviceTree::new();
        tree.root
            .add_property(property("#address-cells", 2u32).expect("a property"));
        for name in names {
            let mut folders = &mut tree.root;
            for part in name.split('/') {
                if folders.child(part).is_none() {
                    folders.add_child(node(part, []).expect("a node"));
                }
                folders = folders.child_mut(part).expect("the node");
            }
            folders.add_property(property("method", "smc").expect("a property"));
        }
        tree.to_dtb()
    }

    const NAMES: [&str; 13] = [
        "psci",
        "memory@40000000",
        "fw-cfg@9020000",
        "virtio_mmio@a000000",
        "pcie@10000000",
        "pl011@9000000",
        "intc@8000000/its@8080000",
        "cpus/cpu-map/socket0",
        "cpus/cpu@2",
        "cpus/cpu@3",
        "cpus/cpu@0",
        "timer",
        "apb-pclk",
    ];

    fn text(node: &DeviceTreeNode, name: &str) -> String {
        let value = node
            .property(name)
            .map(|property| property.value().to_vec());
        String::from_utf8(value.expect("the property")).expect("text")
    }

    #[test]
    fn only_what_the_guest_may_have_is_taken_over() {
        let dtb = for_guest(&machine(&NAMES), &GUEST).expect("a device tree");
        let tree = DeviceTree::from_fdt(&Fdt::new(&dtb).expect("well-formed"));
        let mut names: Vec<_> = tree.root.children().map(|node| node.name()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "apb-pclk",
                "chosen",
                "cpus",
                "intc@8000000",
                "memory@50000000",
                "pl011@9000000",
                "psci",
                "timer",
            ]
        );
        let find = |path| tree.find_node(path).expect("the node");
        assert_eq!(find("/intc@8000000").children().count(), 0);
        let cores = find("/cpus").children().map(|node| node.name());
        assert_eq!(cores.collect::<Vec<_>>(), ["cpu@2", "cpu@3"]);
        assert_eq!(text(find("/psci"), "method"), "hvc\0");
        assert_eq!(text(find("/timer"), "method"), "smc\0");
        assert_eq!(
            text(find("/chosen"), "bootargs"),
            "console=ttyAMA0 -- a b\0"
        );
        assert_eq!(text(find("/chosen"), "stdout-path"), "/pl011@9000000\0");
        let reg = find("/memory@50000000")
            .property("reg")
            .expect("reg")
            .value()
            .to_vec();
        assert_eq!(reg, [0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0]);
    }

    #[test]
    fn a_machine_that_lacks_something_is_refused() {
        let complaint = |names: &[&str], machine_: &Machine| {
            let result = for_guest(&machine(names), machine_);
            result.expect_err("refused").to_string()
        };
        assert!(complaint(&NAMES[..11], &GUEST).contains("has 3 of the nodes"));
        let cores = Machine {
            cores: 3..5,
            ..GUEST
        };
        assert!(complaint(&NAMES, &cores).contains("no core 4"));
        assert!(for_guest(b"not a device tree", &GUEST).is_err());
    }
}
