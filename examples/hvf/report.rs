//! What a person sees.

use std::collections::{BTreeMap, BTreeSet};

use pugmark::Counters;

use super::guest::{BLOCK, Class, PAGE, RAM, SIZE, VCPUS};

/// What was found.
#[derive(Default)]
pub struct Found {
    /// Pages that a harvest reported.
    pub reported: BTreeSet<u64>,
    /// Faults, by the address of their page.
    pub faults: BTreeMap<u64, usize>,
    /// Pages whose mirror is not equal to memory in the end.
    pub stale: BTreeSet<u64>,
}

/// Before anything happens.
pub fn title(rounds: u64) {
    let [mib, kib] = [1 << 20, 1 << 10];
    println!("\npugmark: a guest writes, and every page that it wrote is found\n");
    println!("  machine  Hypervisor.framework, {VCPUS} vCPUs");
    println!(
        "  guest    {} MiB at {RAM:#x}, pages of {} KiB in blocks of {} MiB",
        SIZE / mib,
        PAGE / kib,
        BLOCK / mib
    );
    println!("  rounds   {rounds}, and snapshots are taken all the while\n");
}

/// At the end. How many pages were lost.
pub fn all(classes: &[Class], found: &Found, counters: Counters) -> usize {
    println!(
        "  {:<26}{:>8}{:>8}{:>7}{:>11}{:>9}",
        "store class", "written", "found", "lost", "reported", "faults"
    );
    println!("  {:─<69}", "");
    let [mut lost, mut written, mut faults] = [0; 3];
    for class in classes {
        let is_lost = |page: &u64| found.stale.contains(page) || !found.reported.contains(page);
        let all = class.pages().count();
        let missing = class.pages().filter(is_lost).count();
        let reported = found.reported.range(class.area.clone()).count();
        let of_class = found.faults.range(class.area.clone());
        let of_class: usize = of_class.map(|(_, times)| times).sum();
        println!(
            "  {:<26}{all:>8}{:>8}{missing:>7}{reported:>11}{of_class:>9}",
            class.name,
            all - missing
        );
        lost += missing;
        written += all;
        faults += of_class;
    }
    println!("  {:─<69}", "");
    println!("  Reported beyond what was written: neighbours in a block that a fault opened.");
    println!(
        "\n  tracker    {} faults, {} of them spurious; {} pages granted",
        counters.faults, counters.spurious_faults, counters.pages_granted
    );
    println!(
        "             {} harvests, {} pages, {} calls of protect; {} step-downs",
        counters.harvests, counters.pages_harvested, counters.rearm_calls, counters.step_downs
    );
    // A page that no class wrote and whose mirror is old all the same.
    let known = |page: &&u64| classes.iter().any(|class| class.area.contains(page));
    lost += found.stale.iter().filter(|page| !known(page)).count();
    println!(
        "\nlost {lost} of {written} written pages; {} reported; {faults} faults; {} harvests",
        found.reported.len(),
        counters.harvests
    );
    lost
}
