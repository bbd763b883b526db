//! The conformance suite on stage-2 tables, by a guest at EL1 whose accesses go through real
//! translation; and what only real translation can show.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod conformance;
#[cfg(target_os = "none")]
mod rt;

#[cfg(target_os = "none")]
#[path = "conformance/el1.rs"]
mod el1;

#[cfg(target_os = "none")]
#[path = "conformance/machine.rs"]
mod machine;
#[cfg(target_os = "none")]
#[embedded_test::tests]
mod tests {
    use core::convert::Infallible;

    use aarch64_cpu::registers::{DAIF, Readable, VTTBR_EL2};
    use pugmark::{
        FaultOutcome, PageGeometry, RegionSet, StaticRegion, WriteProtect, WriteTracker,
        arch::aarch64::{Abort, WriteCause, classify, hpfar_is_valid, ipa_from_hpfar},
        stage2::Stage2Error,
        words_for,
    };

    use crate::{
        conformance::{Machine, cases},
        el1::Access,
        machine::{BLOCK, El1Machine, PAGE, Protection, RAM_SIZE},
    };

    fn run_all(machine: &El1Machine) {
        for (name, case) in cases::<El1Machine>() {
            semihosting::println!("{name}");
            case(machine);
        }
    }

    #[test]
    fn suite_by_blocks() {
        run_all(&El1Machine::by_blocks());
    }

    #[test]
    fn suite_with_ragged_ends() {
        run_all(&El1Machine::with_ragged_ends());
    }

    #[test]
    fn suite_by_one_gib() {
        run_all(&El1Machine::by_one_gib());
    }

    #[test]
    fn suite_while_another_vm_is_loaded() {
        let machine = El1Machine::while_another_vm_is_loaded();
        let masks = DAIF.get();
        run_all(&machine);
        assert_eq!(VTTBR_EL2.get(), machine.parked());
        assert_eq!(DAIF.get(), masks);
    }

    /// Stores `value` at `ipa`, through a vCPU's loop as a hypervisor has it. Returns the faults.
    fn store<R: RegionSet>(
        machine: &El1Machine,
        tracker: &WriteTracker<&Protection, R>,
        ipa: u64,
        value: u64,
    ) -> usize {
        let mut vcpu = machine.vcpu(Access::Store, ipa, value);
        for faults in 0..10 {
            let exit = machine.run(&mut vcpu);
            if exit.is_hvc() {
                assert_eq!(machine.word(ipa), value);
                return faults;
            }
            assert_eq!(classify(exit.esr), Abort::Write(WriteCause::Store));
            // With stage 1 off the faulting virtual address is the IPA.
            if hpfar_is_valid(exit.esr) {
                assert_eq!(ipa_from_hpfar(exit.hpfar, exit.far), exit.far);
            }
            let outcome = tracker.on_write_fault(exit.far);
            assert!(
                matches!(outcome, Ok(FaultOutcome::Granted { .. })),
                "{outcome:?}"
            );
            // The same pc again: the store itself is retried.
        }
        panic!("{ipa:#x} faults again and again");
    }

    #[test]
    fn a_store_faults_once_is_retried_and_is_found() {
        const PAGES: usize = (RAM_SIZE / PAGE) as usize;
        const BLOCKS: usize = (RAM_SIZE / BLOCK) as usize;
        type Region = StaticRegion<{ words_for(PAGES) }, BLOCKS>;

        let machine = El1Machine::by_blocks();
        let ram = machine.ram();
        let region = Region::new(ram.start, RAM_SIZE, PageGeometry::ARM64_4K);
        let tracker = WriteTracker::new(&machine.protection, [region]).expect("one region");
        tracker.arm().expect("all of RAM is mapped");

        // Two pages of one block, and one of another.
        let written = [ram.start + 0x1008, ram.start + 0x5010, ram.end - 8];
        for epoch in 1..=3 {
            let faults = written.map(|ipa| store(&machine, &tracker, ipa, ipa ^ epoch));
            assert_eq!(faults, [1, 0, 1], "a fault opens its block");
            let mut found = [false; 3];
            tracker
                .harvest(|run| {
                    let blocks = [ram.start..ram.start + BLOCK, ram.end - BLOCK..ram.end];
                    assert!(blocks.contains(&run.range()), "{run:x?}");
                    for (found, ipa) in found.iter_mut().zip(written) {
                        *found |= run.range().contains(&ipa);
                    }
                    Ok::<(), Infallible>(())
                })
                .expect("nothing is refused");
            assert_eq!(found, [true; 3]);
        }
        assert_eq!(tracker.counters().faults, 6);
    }

    #[test]
    fn without_a_table_left_the_guest_keeps_what_it_had() {
        let machine = El1Machine::by_blocks();
        let ram = machine.ram();
        machine.use_tables_up();
        let page = ram.start + 3 * PAGE;
        let block = Stage2Error::OutOfTables { ipa: ram.start };
        assert_eq!(machine.protection.protect(page..page + PAGE), Err(block));
        assert!(machine.try_write(page) && machine.try_fetch(page));
        // Whole blocks take no table.
        let all = ram.clone();
        machine.protection.protect(all).expect("no table is needed");
        assert!(!machine.try_write(page));
        assert_eq!(machine.protection.unprotect(page..page + PAGE), Err(block));
        assert!(!machine.try_write(page) && machine.try_read(page));
    }
}

/// There is no EL2 to run at where there is an operating system.
#[cfg(not(target_os = "none"))]
fn main() {}
