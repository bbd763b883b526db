//! What a person sees.

use pugmark::{
    StepDown,
    arch::aarch64::{Abort, WriteCause, classify},
};

use super::{
    console::{print, println},
    cpu::{self, Features, Model},
    guest::CLASSES,
    layout::{
        BLOCK_PAGES, BLOCK_SIZE, GUEST_PAGES, PAGE_SIZE, REGION_PAGES, REGION_SIZE, REGIONS,
        page_ipa,
    },
    pace,
    tracking::{STEP_DOWN, tracker},
    truth::{Findings, Truth},
    vcpu::{EXITS, Faults},
};

const BLOCKS: usize = GUEST_PAGES / BLOCK_PAGES;

/// What was found, class by class, and which blocks ever stepped down.
pub struct Table {
    /// By class, summed over the rounds.
    pub classes: [Findings; CLASSES.len()],
    /// All other pages. The vCPUs write to their stacks there.
    pub other: Findings,
    fine: [bool; BLOCKS],
}

impl Table {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self {
            classes: [Findings::NONE; CLASSES.len()],
            other: Findings::NONE,
            fine: [false; BLOCKS],
        }
    }

    /// Notes which blocks have stepped down, before a checkpoint makes them coarse again.
    pub fn note_granules(&mut self) {
        for (block, fine) in self.fine.iter_mut().enumerate() {
            *fine |= pace::is_fine(page_ipa(block * BLOCK_PAGES));
        }
    }
}

/// Before anything happens.
pub fn title(features: Features, rounds: u64) {
    let [mib, kib] = [1 << 20, 1 << 10];
    println!("\npugmark: a guest writes, and every page that it wrote is found\n");
    println!("  machine  QEMU virt, 4 cores at EL2: judge, harvester, vCPU 0, vCPU 1");
    print!("  cpu      {Model}; ");
    print!(
        "{}LSE, ",
        if features.has(Features::LSE) {
            ""
        } else {
            "no "
        }
    );
    match features.has(Features::SVE) {
        true => print!("SVE of {} bits, ", 8 * cpu::sve_vector_bytes()),
        false => print!("no SVE, "),
    }
    let walker = features.has(Features::HAFDBS);
    let who = if walker {
        "the table walker"
    } else {
        "the guest"
    };
    println!("dirty flags set by {who}");
    println!(
        "  guest    {} regions of {} MiB with a hole between, pages of {} KiB in blocks of {} MiB",
        REGIONS.len(),
        REGION_SIZE / mib,
        PAGE_SIZE / kib,
        BLOCK_SIZE / mib
    );
    println!("  rounds   {rounds}, and the harvester never stops the guest");
    #[cfg(pugmark_wrong_order)]
    println!("  ORDER    mark, then grant: wrong on purpose, so pages must get lost");
    println!();
}

/// After a round.
pub fn round(round: u64, coarse: bool, found: &Findings) {
    let start = match coarse {
        true => "all blocks are coarse",
        false => "hot blocks are fine",
    };
    let Findings { written, lost, .. } = found;
    println!(
        "  round {}  {start:<22}{written:>6} pages written, {lost} lost",
        round + 1
    );
}

/// At the end. How many pages were lost.
pub fn all(table: &Table, truth: &Truth, features: Features) -> usize {
    // A vCPU holds no lock while it is parked, and this core is the only one that works now.
    let mut faults: heapless::Vec<Faults, 384> = heapless::Vec::new();
    for exits in &EXITS {
        for seen in &exits.lock().faults {
            let same = |known: &&mut Faults| known.class == seen.class && known.esr == seen.esr;
            match faults.iter_mut().find(same) {
                Some(known) => known.times += seen.times,
                None => faults.push(*seen).unwrap_or(()),
            }
        }
    }
    faults.sort_unstable_by_key(|seen| (seen.class.unwrap_or(CLASSES.len()), seen.esr));

    classes(table, &faults, features);
    strip(table, truth);
    counters(table);
    syndromes(&faults);

    let mut total = table.other;
    table.classes.iter().for_each(|found| total += *found);
    let Findings {
        written,
        reported,
        lost,
    } = total;
    let harvests = tracker().counters().harvests;
    let faults: usize = faults.iter().map(|seen| seen.times).sum();
    println!(
        "\nlost {lost} of {written} written pages; {reported} reported; {faults} faults; {harvests} harvests"
    );
    lost
}

fn classes(table: &Table, faults: &[Faults], features: Features) {
    println!(
        "\n  {:<26}{:>8}{:>8}{:>7}{:>11}{:>9}",
        "store class", "written", "found", "lost", "reported", "faults"
    );
    rule();
    let line = |name, found: &Findings, class| {
        let faults = faults.iter().filter(|seen| seen.class == class);
        let faults: usize = faults.map(|seen| seen.times).sum();
        let Findings {
            written,
            reported,
            lost,
        } = found;
        let hit = written - lost;
        println!("  {name:<26}{written:>8}{hit:>8}{lost:>7}{reported:>11}{faults:>9}");
    };
    for (index, class) in CLASSES.iter().enumerate() {
        match class.needs {
            Some((needed, name)) if !features.has(needed) => {
                println!("  {:<26} skipped: this CPU has no {name}", class.name);
            }
            _ => line(class.name, &table.classes[index], Some(index)),
        }
    }
    line("(all else: the stacks)", &table.other, None);
    rule();
    println!("  Reported beyond what was written: neighbours in a block that a fault opened.");
}

fn rule() {
    println!("  {:─<69}", "");
}

/// The guest's address space, and what was hit.
fn strip(table: &Table, truth: &Truth) {
    const COLUMNS: usize = 64;
    const COLUMN: usize = REGION_PAGES / COLUMNS;

    println!(
        "\n  the guest's memory, {} KiB a column",
        COLUMN as u64 * PAGE_SIZE / 1024
    );
    for (region, base) in REGIONS.iter().enumerate() {
        let columns = (0..COLUMNS).map(|column| region * REGION_PAGES + column * COLUMN);
        print!("  {base:#x} ");
        for page in columns.clone() {
            print!("{}", shade(truth.ever_written(page..page + COLUMN), COLUMN));
        }
        print!("\n  {:<11}", "");
        for page in columns {
            print!(
                "{}",
                if table.fine[page / BLOCK_PAGES] {
                    '╌'
                } else {
                    '━'
                }
            );
        }
        println!();
    }
    println!("  written: · no page  ░ some  ▒ a quarter  ▓ half  █ all");
    println!("  a fault opened: ━ the block  ╌ in the end, one page (stepped down)");
}

fn shade(written: usize, of: usize) -> char {
    match written * 4 / of {
        _ if written == 0 => '·',
        0 => '░',
        1 => '▒',
        2 | 3 => '▓',
        _ => '█',
    }
}

fn counters(table: &Table) {
    let fine = table.fine.iter().filter(|&&fine| fine).count();
    let StepDown {
        threshold, window, ..
    } = STEP_DOWN;
    println!(
        "\n  step-down  {fine} of {BLOCKS} blocks, at more than {threshold} faults in {} ms",
        window.as_millis()
    );
    let counters = tracker().counters();
    println!(
        "  tracker    {} faults, {} of them spurious; {} pages granted",
        counters.faults, counters.spurious_faults, counters.pages_granted
    );
    println!(
        "             {} harvests, {} pages, {} calls of protect; {} step-downs",
        counters.harvests, counters.pages_harvested, counters.rearm_calls, counters.step_downs
    );
    let retries: usize = EXITS.iter().map(|exits| exits.lock().retries).sum();
    println!("  exits      {retries} retried while another core was splitting a block");
}

/// Every syndrome that was seen, by class.
fn syndromes(faults: &[Faults]) {
    println!("\n  syndromes, ESR_EL2 × times (w: by the table walk, c: cache maintenance)");
    for of_class in faults.chunk_by(|a, b| a.class == b.class) {
        let class = of_class[0].class.map(|class| CLASSES[class].name);
        print!("  {:<26}", class.unwrap_or("(all else: the stacks)"));
        for Faults { esr, times, .. } in of_class {
            print!(" {esr:08x}{}×{times}", cause(*esr));
        }
        println!();
    }
    if faults.iter().all(|seen| cause(seen.esr) != "c") {
        println!("  None is of cache maintenance: QEMU lets it pass without asking stage 2.");
    }
}

fn cause(esr: u64) -> &'static str {
    match classify(esr) {
        Abort::Write(WriteCause::TableWalk) => "w",
        Abort::Write(WriteCause::CacheMaintenance) => "c",
        _ => "",
    }
}
