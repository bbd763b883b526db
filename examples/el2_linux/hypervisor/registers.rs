//! EL2's registers for a guest that is to have the machine almost to itself: its own timer, interrupt
//! controller, counters, vectors and matrices. What it has not: memory that is not mapped, SMC and
//! HVC.

use core::arch::asm;

use aarch64_cpu::registers::{
    CNTHCTL_EL2, CNTVOFF_EL2, CPTR_EL2, HCR_EL2, ID_AA64ISAR1_EL1, ID_AA64MMFR1_EL1,
    ID_AA64PFR0_EL1, ID_AA64PFR1_EL1, MDCR_EL2, MIDR_EL1, MPIDR_EL1, Readable, VMPIDR_EL2,
    Writeable,
};

use super::console::die;

/// Writes a system register by its encoding, or by a name that the assembler knows and the crates
/// do not.
macro_rules! write_register {
    ($name:literal, $value:expr) => {
        // SAFETY: one of EL2's registers for its guest, which this CPU has; nothing at EL2 depends
        // on it.
        unsafe {
            asm!(concat!("msr ", $name, ", {}"), in(reg) ($value as u64), options(nomem, nostack, preserves_flags))
        }
    };
}

macro_rules! read_register {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading a feature register has no effect.
        unsafe {
            asm!(concat!("mrs {}, ", $name), out(reg) value, options(nomem, nostack, preserves_flags))
        };
        value
    }};
}

/// Sets this core up for a vCPU, before it first enters the guest.
pub fn set_up() {
    let mut hcr = HCR_EL2::RW::EL1IsAarch64 + HCR_EL2::TSC.val(1) + HCR_EL2::VM.val(1);
    if has_pointer_authentication() {
        hcr += HCR_EL2::API.val(1) + HCR_EL2::APK.val(1);
    }
    HCR_EL2.write(hcr);
    open_vectors();
    if field(ID_AA64MMFR1_EL1.get(), 40) != 0 {
        // HCRX_EL2: MSCEn, TCR2En, GCSEn.
        write_register!("S3_4_C1_C2_2", 1 << 11 | 1 << 14 | 1 << 22);
    }

    // The identity of the vCPU is the core's.
    write_register!("vpidr_el2", MIDR_EL1.get());
    VMPIDR_EL2.set(MPIDR_EL1.get());
    // Both counters and the physical timer open, no offset.
    CNTHCTL_EL2.set(3);
    CNTVOFF_EL2.set(0);
    write_register!("hstr_el2", 0);
    // As many event counters as there are, of PMCR_EL0.N.
    MDCR_EL2.set(read_register!("pmcr_el0") >> 11 & 0x1f);

    // ICC_SRE_EL2: the guest uses the CPU interface by registers. ICH_HCR_EL2: the real one.
    write_register!("S3_4_C12_C9_5", 0xf);
    // SAFETY: a barrier; the next register depends on the one before.
    unsafe { asm!("isb", options(nostack, preserves_flags)) };
    write_register!("S3_4_C12_C11_0", 0);
}

/// Lets the guest use SIMD, SVE and SME, with vectors as long as the CPU's.
fn open_vectors() {
    const RES1: u64 = 0x22ff;
    /// Traps; where the feature is not there the bit is RES1.
    const SVE: u64 = 1 << 8;
    const SME: u64 = 1 << 12;

    let (sve, sme) = (
        field(ID_AA64PFR0_EL1.get(), 32) != 0,
        field(ID_AA64PFR1_EL1.get(), 24) != 0,
    );
    // The exit path saves all of the SVE state, also in streaming mode: it needs FA64 for that.
    const FA64: u64 = 1 << 63;
    if sme && read_register!("S3_0_C0_C4_5") & FA64 == 0 {
        die(format_args!("a CPU with SME and without FEAT_SME_FA64"));
    }
    let traps = [(!sve, SVE), (!sme, SME)]
        .iter()
        .fold(0, |traps, &(on, bit)| traps | if on { bit } else { 0 });
    CPTR_EL2.set(RES1 | traps);
    // SAFETY: a barrier; the length registers may be trapped until here.
    unsafe { asm!("isb", options(nostack, preserves_flags)) };
    if sve {
        // ZCR_EL2.
        write_register!("S3_4_C1_C2_0", 0xf);
    }
    if sme {
        // SMCR_EL2: FA64 and ZT0 too.
        write_register!("S3_4_C1_C2_6", 0xf | 1 << 31 | 1 << 30);
    }
}

fn has_pointer_authentication() -> bool {
    let isar1 = ID_AA64ISAR1_EL1.get();
    // APA, API, GPA, GPI; APA3 and GPA3 in ID_AA64ISAR2_EL1.
    let third = read_register!("S3_0_C0_C6_2") >> 8 & 0xff;
    (isar1 >> 4 & 0xff) | (isar1 >> 24 & 0xff) | third != 0
}

const fn field(register: u64, shift: u32) -> u64 {
    register >> shift & 0xf
}
