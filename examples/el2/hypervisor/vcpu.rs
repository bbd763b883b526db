//! A vCPU: how it gets into the guest, and what its exits do.

use core::{
    arch::asm,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use aarch64_cpu::registers::{
    CPACR_EL1, ELR_EL1, ELR_EL2, ESR_EL1, ESR_EL2, FAR_EL1, HCR_EL2, MAIR_EL1, ReadWriteable,
    Readable, SCTLR_EL1, SP_EL1, SPSR_EL2, TCR_EL1, TPIDR_EL2, TTBR0_EL1, VBAR_EL1, Writeable,
};
use aarch64_rt::RegisterStateRef;
use pugmark::arch::aarch64::{Abort, classify, is_translation_fault};
use spin::Mutex;

use super::{
    console::die,
    cpu::{self, Features},
    guest::{self, CLASSES, tables},
    hypercall, idle,
    layout::{GUEST_ROOT, VCPUS, guest_stack_end},
    pace, schedule,
    syndrome::{Registers, ipa},
    tracking::{self, tracker},
};

/// What the exits of a vCPU were.
pub struct Exits {
    /// Reads, fetches and failed translations that were tried again.
    pub retries: usize,
    /// Write faults, by what they were.
    pub faults: heapless::Vec<Faults, 192>,
}

/// Write faults of one kind.
#[derive(Clone, Copy)]
pub struct Faults {
    /// The class whose page was written; `None` for all other pages.
    pub class: Option<usize>,
    /// Their `ESR_EL2`.
    pub esr: u64,
    /// How many.
    pub times: usize,
}

/// One for each vCPU; the judge looks while they are parked.
pub static EXITS: [Mutex<Exits>; VCPUS] = [const {
    Mutex::new(Exits {
        retries: 0,
        faults: heapless::Vec::new(),
    })
}; VCPUS];

/// Retries in a row, without a write fault or a hypercall between, that are no longer a block in
/// the middle of its split.
const MAX_RETRIES: u64 = 1_000_000;
static RETRIES: [AtomicU64; VCPUS] = [const { AtomicU64::new(0) }; VCPUS];

/// Sets this core up for `vcpu` and enters the guest. Exits come to [`on_exit`].
pub fn run(vcpu: usize, features: Features) -> ! {
    idle::init_core();
    tracking::activate();
    TPIDR_EL2.set(vcpu as u64);
    cpu::open_vectors(features);
    HCR_EL2.write(HCR_EL2::RW::EL1IsAarch64 + HCR_EL2::TSC.val(1) + HCR_EL2::VM.val(1));

    let walker = features.has(Features::HAFDBS).into();
    MAIR_EL1.set(0xff); // attribute 0: normal, write-back
    TCR_EL1.write(
        TCR_EL1::T0SZ.val(64 - 39)
            + TCR_EL1::TG0::KiB_4
            + TCR_EL1::SH0::Inner
            + TCR_EL1::ORGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
            + TCR_EL1::IRGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
            + TCR_EL1::EPD1::DisableTTBR1Walks
            + TCR_EL1::IPS::Bits_40
            + TCR_EL1::HA.val(walker)
            + TCR_EL1::HD.val(walker),
    );
    TTBR0_EL1.set(GUEST_ROOT);
    VBAR_EL1.set(tables::vectors());
    CPACR_EL1.write(CPACR_EL1::FPEN::TrapNothing + CPACR_EL1::ZEN::TrapNothing);
    SP_EL1.set(guest_stack_end(vcpu));
    // The bits that are RES1 in Armv8.0, and PAN left alone by exceptions; then what is on.
    SCTLR_EL1.set(0x30d0_0800);
    SCTLR_EL1.modify(SCTLR_EL1::M::Enable + SCTLR_EL1::C::Cacheable + SCTLR_EL1::I::Cacheable);

    SPSR_EL2.write(
        SPSR_EL2::M::EL1h
            + SPSR_EL2::D::Masked
            + SPSR_EL2::A::Masked
            + SPSR_EL2::I::Masked
            + SPSR_EL2::F::Masked,
    );
    ELR_EL2.set(guest::start as *const () as u64);
    // SAFETY: the registers above describe a guest whose code, tables and stack are mapped. EL2's
    // stack pointer stays below all that is in use here, so exits find room.
    unsafe {
        asm!(
            "isb",
            "tlbi vmalls12e1",
            "dsb nsh",
            "isb",
            "eret",
            in("x0") vcpu,
            options(noreturn),
        )
    }
}

/// A synchronous exit: all registers are saved, and the guest goes on where `registers` says, by
/// default at the instruction that it left at.
pub extern "C" fn on_exit(mut registers: RegisterStateRef) {
    let vcpu = TPIDR_EL2.get() as usize;
    let esr = ESR_EL2.get();
    if esr >> 26 == HVC64 {
        RETRIES[vcpu].store(0, Relaxed);
        // SAFETY: the arguments are the guest's, and so are the results.
        let x = &mut unsafe { registers.get_mut() }.registers;
        on_hypercall(vcpu, x);
        return;
    }
    let pc = registers.elr as u64;
    match classify(esr) {
        Abort::Write(_) => on_write(vcpu, esr, pc),
        Abort::Read | Abort::Fetch => on_read(vcpu, esr, pc),
        Abort::NotOurs(reason) => die(format_args!(
            "vCPU {vcpu} at {pc:#x}: {reason:?}, {}",
            Registers(esr)
        )),
    }
}

const HVC64: u64 = 0x16;

/// Grants, marks, and lets the guest try the same instruction again.
fn on_write(vcpu: usize, esr: u64, pc: u64) {
    let Some(ipa) = ipa(esr) else {
        return retry(vcpu, esr, pc);
    };
    if !grant(ipa) {
        die(format_args!(
            "vCPU {vcpu} at {pc:#x} writes outside of its RAM, at {ipa:#x}: {}",
            Registers(esr)
        ));
    }
    RETRIES[vcpu].store(0, Relaxed);
    EXITS[vcpu].lock().note(ipa, esr);
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

/// A read or a fetch faults only while another core splits the block under it: for want of a
/// translation. The lock waits for the end of that.
fn on_read(vcpu: usize, esr: u64, pc: u64) {
    let is_mapped = |ipa| tracker().protection().lock().writable(ipa).is_some();
    if !is_translation_fault(esr) || !ipa(esr).is_none_or(is_mapped) {
        die(format_args!(
            "vCPU {vcpu} at {pc:#x} reads or runs what it may not: {}",
            Registers(esr)
        ));
    }
    retry(vcpu, esr, pc);
}

fn retry(vcpu: usize, esr: u64, pc: u64) {
    EXITS[vcpu].lock().retries += 1;
    if RETRIES[vcpu].fetch_add(1, Relaxed) > MAX_RETRIES {
        die(format_args!(
            "vCPU {vcpu} at {pc:#x} does not get on: {}",
            Registers(esr)
        ));
    }
}

fn on_hypercall(vcpu: usize, x: &mut [u64; 19]) {
    match x[0] {
        hypercall::NEXT => (x[0], x[1]) = schedule::park(vcpu, x[1]),
        hypercall::ENOUGH => x[0] = pace::enough(x[1]).into(),
        hypercall::WRONG => die(format_args!(
            "vCPU {vcpu}, class {}: at {:#x} is {:#x}, not {:#x}",
            schedule::class(),
            x[1],
            x[2],
            x[3]
        )),
        hypercall::LOST_MY_WAY => die(format_args!(
            "vCPU {vcpu}, class {}: exception at EL1, ESR {:#x} FAR {:#x} ELR {:#x}",
            schedule::class(),
            ESR_EL1.get(),
            FAR_EL1.get(),
            ELR_EL1.get()
        )),
        number => die(format_args!(
            "vCPU {vcpu}: there is no hypercall {number:#x}"
        )),
    }
}

impl Exits {
    fn note(&mut self, ipa: u64, esr: u64) {
        let running = schedule::class() as usize;
        let class = CLASSES.get(running).is_some_and(|class| class.owns(ipa));
        let class = class.then_some(running);
        let same = |known: &&mut Faults| known.class == class && known.esr == esr;
        if let Some(known) = self.faults.iter_mut().find(same) {
            known.times += 1;
            return;
        }
        let new = Faults {
            class,
            esr,
            times: 1,
        };
        if self.faults.push(new).is_err() {
            die(format_args!("more kinds of fault than expected"));
        }
    }
}
