//! A vCPU: how it gets into the guest, and what its exits do.

use core::{
    arch::asm,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use aarch64_cpu::registers::{
    CNTPCT_EL0, ELR_EL2, ESR_EL2, Readable, SCTLR_EL1, SPSR_EL2, TPIDR_EL2, Writeable,
};
use aarch64_rt::RegisterStateRef;
use pugmark::arch::aarch64::{Abort, classify, is_translation_fault};
use spin::Mutex;

use super::{
    bell::{self, Event},
    console::die,
    cpu::{self, Features},
    gate,
    layout::{DOORBELL, VCPUS},
    phase::Phase,
    psci, registers, sleep,
    syndrome::{Registers, ipa},
    tracking::{self, tracker},
};

/// Whether a vCPU runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// It does not.
    Off,
    /// It is about to.
    Pending,
    /// It does.
    On,
}

struct Vcpu {
    state: Mutex<State>,
    /// Where EL2's stack began when its core came up: each entry into the guest begins there.
    stack: AtomicUsize,
    /// Exits that were only tried again.
    retries: AtomicU64,
    /// The same, in a row.
    in_a_row: AtomicU64,
    /// Ticks of the counter that its exits took.
    ticks: AtomicU64,
}

#[derive(Clone, Copy)]
struct State {
    power: Power,
    entry: u64,
    context: u64,
}

static ALL: [Vcpu; VCPUS] = [const {
    Vcpu {
        state: Mutex::new(State {
            power: Power::Off,
            entry: 0,
            context: 0,
        }),
        stack: AtomicUsize::new(0),
        retries: AtomicU64::new(0),
        in_a_row: AtomicU64::new(0),
        ticks: AtomicU64::new(0),
    }
}; VCPUS];

/// How many are not off.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Retries in a row, without anything else between, that are no longer a block in the middle of its
/// split.
const MAX_RETRIES: u64 = 1_000_000;

/// Has `vcpu` enter the guest at `entry`, with `context` in `x0`. What it was, if it was not off.
pub fn turn_on(vcpu: usize, entry: u64, context: u64) -> Result<(), Power> {
    let mut state = ALL[vcpu].state.lock();
    if state.power != Power::Off {
        return Err(state.power);
    }
    *state = State {
        power: Power::Pending,
        entry,
        context,
    };
    // Relaxed: the lock has it counted before it runs, and so before it is off again. The vCPU that
    // turns it on is counted itself.
    RUNNING.fetch_add(1, Relaxed);
    Ok(())
}

/// Turns this vCPU off, until another one turns it on.
fn turn_off(vcpu: usize) -> ! {
    ALL[vcpu].state.lock().power = Power::Off;
    // Relaxed: see above.
    if RUNNING.fetch_sub(1, Relaxed) == 1 {
        die(format_args!("the guest turned its last core off"));
    }
    wait(vcpu)
}

/// Whether `vcpu` runs.
pub fn power(vcpu: usize) -> Power {
    ALL[vcpu].state.lock().power
}

/// Retries, and ticks that exits took, of all vCPUs since the start.
pub fn totals() -> (u64, u64) {
    let sum = |count: fn(&Vcpu) -> &AtomicU64| ALL.iter().map(|v| count(v).load(Relaxed)).sum();
    (sum(|vcpu| &vcpu.retries), sum(|vcpu| &vcpu.ticks))
}

/// Sets this core up for `vcpu`, and enters the guest when it is turned on. Exits come to
/// [`on_exit`].
pub fn run(vcpu: usize, features: Features) -> ! {
    cpu::open_vectors(features);
    tracking::activate();
    gate::activate();
    registers::set_up();
    TPIDR_EL2.set(vcpu as u64);
    let stack: usize;
    // SAFETY: reading the stack pointer has no effect.
    unsafe { asm!("mov {}, sp", out(reg) stack, options(nomem, nostack, preserves_flags)) };
    ALL[vcpu].stack.store(stack, Relaxed);
    wait(vcpu)
}

/// Waits until `vcpu` is turned on, and enters the guest.
fn wait(vcpu: usize) -> ! {
    let this = &ALL[vcpu];
    sleep::parked_until(|| this.state.lock().power == Power::Pending);
    let State { entry, context, .. } = {
        let mut state = this.state.lock();
        state.power = Power::On;
        *state
    };

    // The bits that are RES1 in Armv8.0, and PAN left alone by exceptions; MMU and caches off.
    SCTLR_EL1.set(0x30d0_0800);
    SPSR_EL2.write(
        SPSR_EL2::M::EL1h
            + SPSR_EL2::D::Masked
            + SPSR_EL2::A::Masked
            + SPSR_EL2::I::Masked
            + SPSR_EL2::F::Masked,
    );
    ELR_EL2.set(entry);
    // SAFETY: the registers describe a guest at its entry point. Nothing on EL2's stack is used any
    // more, so exits may begin at its start.
    unsafe {
        asm!(
            "mov sp, {stack}",
            "isb",
            "tlbi vmalls12e1",
            "dsb nsh",
            "isb",
            "mov x1, xzr",
            "mov x2, xzr",
            "mov x3, xzr",
            "eret",
            stack = in(reg) this.stack.load(Relaxed),
            in("x0") context,
            options(noreturn),
        )
    }
}

/// How an exit ended.
enum Exit {
    /// The time that it took counts.
    Handled,
    /// The vCPU waited in it for something else.
    Parked,
}

/// A synchronous exit: all registers are saved, and the guest goes on where `registers` says, by
/// default at the instruction that it left at. `others` are its x19 to x28.
pub extern "C" fn on_exit(mut registers: RegisterStateRef, others: &[u64; 10]) {
    let began = CNTPCT_EL0.get();
    let vcpu = TPIDR_EL2.get() as usize;
    let esr = ESR_EL2.get();
    let exit = match esr >> 26 {
        class @ (HVC64 | SMC64) => {
            if class == SMC64 {
                skip_instruction(&mut registers);
            }
            on_call(vcpu, &mut registers)
        }
        _ => on_abort(vcpu, esr, &mut registers, others),
    };
    if let Exit::Handled = exit {
        let took = CNTPCT_EL0.get() - began;
        ALL[vcpu].ticks.fetch_add(took, Relaxed);
    }
}

const HVC64: u64 = 0x16;
/// Trapped before it is executed; an HVC is over when it gets here.
const SMC64: u64 = 0x17;

fn skip_instruction(registers: &mut RegisterStateRef) {
    // SAFETY: the next instruction of the guest.
    unsafe { registers.get_mut() }.elr += 4;
}

fn on_call(vcpu: usize, registers: &mut RegisterStateRef) -> Exit {
    ALL[vcpu].in_a_row.store(0, Relaxed);
    // SAFETY: the arguments are the guest's, and so is the result.
    let x = &mut unsafe { registers.get_mut() }.registers;
    match psci::call(x) {
        psci::Outcome::Return(value) => {
            x[0] = value as u64;
            Exit::Handled
        }
        psci::Outcome::Off => turn_off(vcpu),
        psci::Outcome::End(event) => {
            bell::ring(event);
            die(format_args!("the guest goes on after its end"))
        }
    }
}

fn on_abort(vcpu: usize, esr: u64, registers: &mut RegisterStateRef, others: &[u64; 10]) -> Exit {
    let pc = registers.elr as u64;
    let abort = classify(esr);
    if let Abort::NotOurs(reason) = abort {
        die(format_args!(
            "vCPU {vcpu} at {pc:#x}: {reason:?}, {}",
            Registers(esr)
        ));
    }
    let Some(ipa) = ipa(esr) else {
        return retry(vcpu, esr, pc);
    };
    if gate::stopped(esr, ipa) {
        return Exit::Parked;
    }
    match abort {
        Abort::Write(_) if ipa == DOORBELL => {
            ALL[vcpu].in_a_row.store(0, Relaxed);
            let Some(word) = stored(esr, registers, others) else {
                die(format_args!(
                    "vCPU {vcpu} at {pc:#x} rings with another store than one of 64 bits: {}",
                    Registers(esr)
                ));
            };
            skip_instruction(registers);
            bell::ring(Event::Phase(Phase::from_word(word)));
            Exit::Parked
        }
        // Grants, marks, and lets the guest try the same instruction again.
        Abort::Write(_) if grant(ipa) => {
            ALL[vcpu].in_a_row.store(0, Relaxed);
            Exit::Handled
        }
        Abort::Write(_) => die(format_args!(
            "vCPU {vcpu} at {pc:#x} writes where nothing of its own is, at {ipa:#x}: {}",
            Registers(esr)
        )),
        // A read or a fetch faults only while another core splits the block under it: for want of a
        // translation. The lock waits for the end of that.
        _ if is_translation_fault(esr) && tracker().protection().lock().writable(ipa).is_some() => {
            retry(vcpu, esr, pc)
        }
        _ => die(format_args!(
            "vCPU {vcpu} at {pc:#x} reads or runs what it may not, at {ipa:#x}: {}",
            Registers(esr)
        )),
    }
}

/// Whether `ipa` is tracked, and so open now.
#[cfg(not(pugmark_wrong_order))]
fn grant(ipa: u64) -> bool {
    use pugmark::FaultOutcome;

    match tracker().on_write_fault(ipa) {
        Ok(FaultOutcome::Granted { .. }) => true,
        Ok(FaultOutcome::NotTracked) => false,
        Err(error) => die(format_args!("{error}")),
    }
}

#[cfg(pugmark_wrong_order)]
use super::wrong_order::on_write_fault as grant;

fn retry(vcpu: usize, esr: u64, pc: u64) -> Exit {
    ALL[vcpu].retries.fetch_add(1, Relaxed);
    if ALL[vcpu].in_a_row.fetch_add(1, Relaxed) > MAX_RETRIES {
        die(format_args!(
            "vCPU {vcpu} at {pc:#x} does not get on: {}",
            Registers(esr)
        ));
    }
    Exit::Handled
}

/// What an aborted store of 64 bits was to store, where the syndrome says which register (ISV).
fn stored(esr: u64, registers: &RegisterStateRef, others: &[u64; 10]) -> Option<u64> {
    const ISV: u64 = 1 << 24;
    const SIZE: u64 = 3 << 22;
    if esr & (ISV | SIZE) != ISV | SIZE {
        return None;
    }
    Some(match (esr >> 16 & 0x1f) as usize {
        register @ 0..19 => registers.registers[register],
        register @ 19..29 => others[register - 19],
        29 => registers.fp,
        // aarch64-rt's name for x30.
        30 => registers.sp,
        _ => 0,
    })
}
