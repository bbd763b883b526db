//! How many instructions a write fault costs at EL2: `cargo xtask counts` builds it, boots it in QEMU
//! and holds each line of its output to benches/budget/counts.json.
//!
//! The faults are those of `benches/parts/src/fault.rs`: the handler is given the syndrome registers
//! of a store, and a host that does nothing. What counts is the CPU's own counter of instructions that
//! retired (PMU event 8), which QEMU has where it runs one instruction a tick (`-icount`).
//!
//! The target's baseline is Armv8.0, where each atomic read-modify-write is a loop of four
//! instructions; a coarse fault has thirteen of them. With `-Ctarget-feature=+lse` they are one each.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(all(target_os = "none", target_arch = "aarch64"))]
#[path = "../benches/parts/src/fault.rs"]
mod fault;
#[cfg(all(target_os = "none", target_arch = "aarch64"))]
#[path = "../benches/parts/src/harvest.rs"]
mod harvest;
#[cfg(all(target_os = "none", target_arch = "aarch64"))]
#[path = "../tests/rt/mod.rs"]
mod rt;

#[cfg(all(target_os = "none", target_arch = "aarch64"))]
mod counts {
    use core::arch::asm;

    use semihosting::{println, process::ExitCode};

    use crate::fault::{self, Exit, Kind, Tracker};

    /// The start-up code calls it.
    #[unsafe(no_mangle)]
    extern "C" fn main() -> ! {
        start_counter();
        let tracker = fault::tracker();
        let mut counts = [0; Kind::ALL.len()];
        fault::each(&tracker, |kind, exit| {
            let before = counter();
            let handled = handle(&tracker, exit);
            let count = counter() - before;
            let most = &mut counts[kind as usize];
            *most = count.max(*most);
            handled
        });
        let around = overhead(&tracker);
        for kind in Kind::ALL {
            println!("{} {}", kind.name(), counts[kind as usize] - around);
        }
        ExitCode::SUCCESS.exit_process()
    }

    #[inline(never)]
    fn handle(tracker: &Tracker, exit: Exit) -> bool {
        fault::handle(tracker, exit)
    }

    /// What is counted of a handler that does nothing but return: the call and the two readings, but
    /// not the return.
    fn overhead(tracker: &Tracker) -> u64 {
        #[unsafe(naked)]
        extern "C" fn nothing(_: &Tracker, _: &Exit) -> bool {
            core::arch::naked_asm!("ret");
        }
        let exit = Exit {
            esr: 0,
            far: 0,
            hpfar: 0,
            par: 0,
        };
        let before = counter();
        nothing(tracker, &exit);
        counter() - before - 1
    }

    /// Event counter 0 counts retired instructions, at EL2 too.
    fn start_counter() {
        const INST_RETIRED: u64 = 0x8;
        /// Non-secure EL2 is counted.
        const NSH: u64 = 1 << 27;
        // SAFETY: nobody else uses the PMU, and counters change nothing but themselves.
        unsafe {
            asm!(
                "msr pmevtyper0_el0, {event}",
                "msr pmevcntr0_el0, xzr",
                "msr pmcntenset_el0, {one}",
                "mrs {control}, pmcr_el0",
                "orr {control}, {control}, #1",
                "msr pmcr_el0, {control}",
                "isb",
                event = in(reg) INST_RETIRED | NSH,
                one = in(reg) 1_u64,
                control = out(reg) _,
            );
        }
    }

    #[inline(always)]
    fn counter() -> u64 {
        let count: u64;
        // SAFETY: reads a counter.
        unsafe { asm!("isb", "mrs {}, pmevcntr0_el0", out(reg) count) };
        count
    }
}

#[cfg(not(all(target_os = "none", target_arch = "aarch64")))]
fn main() {
    println!("This program boots in QEMU. Run it with: cargo xtask counts");
}
