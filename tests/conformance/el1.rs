//! A vCPU that runs one instruction at EL1 and comes back: just enough of a guest to try accesses
//! through real stage-2 translation and a real TLB.
//!
//! Its stage 1 is off, so a guest's virtual address is the IPA.

use core::arch::{asm, global_asm};

use aarch64_cpu::registers::{
    ELR_EL2, ESR_EL2, FAR_EL2, HCR_EL2, HPFAR_EL2, Readable, SCTLR_EL1, SPSR_EL2, VBAR_EL2,
    VTCR_EL2, VTTBR_EL2, Writeable,
};

// A guest exit is a return: the vector for an exception from EL1 is a `ret`. The guest below never
// touches x30, x18 to x29 or the stack of EL2, and so `el1_enter` keeps the promises of a function
// that clobbers the caller-saved registers, and gives back what the guest left in x0 and x1.
global_asm!(
    r#"
    .section .text.el1, "ax"
    .global el1_enter
el1_enter:
    eret

    .balign 0x800
    .global el1_vectors
el1_vectors:
    // From EL2 itself: a bug in the test.
    .rept 8
    b {unexpected}
    .balign 0x80
    .endr
    // Synchronous, from EL1.
    ret
    .balign 0x80
    // Asynchronous, from EL1; and AArch32.
    .rept 7
    b {unexpected}
    .balign 0x80
    .endr

    // The guest's program, a page of its own. Execution of a page in its RAM finds an `hvc` there.
    .balign 0x1000
    .global el1_program
el1_program:
    str x1, [x0]
    hvc #0
    ldr x1, [x0]
    hvc #0
    br x0
    .balign 0x1000
    "#,
    unexpected = sym unexpected,
);

unsafe extern "C" {
    /// Enters the guest at `ELR_EL2` with these registers; returns at the next exit.
    fn el1_enter(x0: u64, x1: u64) -> Registers;
    static el1_vectors: u8;
    static el1_program: u8;
}

extern "C" fn unexpected() -> ! {
    panic!(
        "exception at {:#x}: ESR {:#x}, FAR {:#x}",
        ELR_EL2.get(),
        ESR_EL2.get(),
        FAR_EL2.get()
    );
}

/// x0 and x1: how AAPCS64 returns a structure of 16 bytes.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Registers {
    pub x0: u64,
    pub x1: u64,
}

/// `hvc #0`.
pub const HVC: u32 = 0xd400_0002;

/// Where the guest's program is in physical memory: one page, to be mapped executable.
pub fn program() -> usize {
    (&raw const el1_program).addr()
}

/// What the guest can do. The values are offsets into its program.
#[derive(Clone, Copy)]
#[repr(u64)]
pub enum Access {
    /// Stores x1 at x0.
    Store = 0,
    /// Loads x1 from x0.
    Load = 8,
    /// Branches to x0.
    Fetch = 16,
}

/// Why the guest stopped.
pub struct Exit {
    pub esr: u64,
    pub far: u64,
    pub hpfar: u64,
}

impl Exit {
    /// Whether the guest came to its `hvc`.
    pub fn is_hvc(&self) -> bool {
        self.esr >> 26 == 0x16
    }
}

pub struct Vcpu {
    pub pc: u64,
    pub registers: Registers,
}

impl Vcpu {
    /// Runs until the next exit; a fault leaves `pc` at the instruction that caused it.
    pub fn run(&mut self) -> Exit {
        /// EL1 with its own stack pointer, all interrupts masked.
        const EL1H_MASKED: u64 = 0x3c5;

        ELR_EL2.set(self.pc);
        SPSR_EL2.set(EL1H_MASKED);
        // SAFETY: the vectors and stage 2 are set (`prepare`), so whatever the guest does comes back
        // here, and it can write to nothing but what its stage-2 tables map.
        self.registers = unsafe { el1_enter(self.registers.x0, self.registers.x1) };
        self.pc = ELR_EL2.get();
        Exit {
            esr: ESR_EL2.get(),
            far: FAR_EL2.get(),
            hpfar: HPFAR_EL2.get(),
        }
    }
}

/// Sets this core up for guests whose stage-2 walk starts at level 1, 39 bits of IPA.
pub fn prepare() {
    VBAR_EL2.set((&raw const el1_vectors).addr() as u64);
    VTCR_EL2.write(
        VTCR_EL2::RES1.val(1)
            + VTCR_EL2::PS::PA_40B_1TB
            + VTCR_EL2::TG0::Granule4KB
            + VTCR_EL2::SH0::Inner
            + VTCR_EL2::ORGN0::NormalWBRAWA
            + VTCR_EL2::IRGN0::NormalWBRAWA
            + VTCR_EL2::SL0.val(1)
            + VTCR_EL2::T0SZ.val(64 - 39),
    );
    // DC: what the guest does with its stage 1 off is cacheable, as what we do is.
    HCR_EL2.write(HCR_EL2::RW::EL1IsAarch64 + HCR_EL2::DC.val(1) + HCR_EL2::VM::Enable);
    // The bits that are 1 where nothing is configured.
    SCTLR_EL1.set(0x30d0_0800);
    // SAFETY: barriers and cache maintenance; the guest's code was written through the data cache.
    unsafe { asm!("dsb ish", "ic iallu", "dsb ish", "isb", options(nostack)) };
}

/// Loads `VTTBR_EL2`.
pub fn load(vttbr: u64) {
    VTTBR_EL2.set(vttbr);
    // SAFETY: a barrier.
    unsafe { asm!("isb", options(nomem, nostack)) };
}
