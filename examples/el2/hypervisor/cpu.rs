//! What the CPU can do, and the few registers that the crates do not name.

use core::{arch::asm, fmt, time::Duration};

use aarch64_cpu::registers::{
    CNTFRQ_EL0, CNTPCT_EL0, CPTR_EL2, ID_AA64ISAR0_EL1, ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1,
    ID_AA64PFR0_EL1, MIDR_EL1, Readable, VTCR_EL2, Writeable,
};

/// What this CPU has of what the guest uses.
#[derive(Clone, Copy)]
pub struct Features(u64);

impl Features {
    /// Atomic instructions: CAS, LDADD, SWP.
    pub const LSE: Self = Self(1 << 0);
    /// Scalable vectors.
    pub const SVE: Self = Self(1 << 1);
    /// The table walker itself updates the access flag and the dirty state.
    pub const HAFDBS: Self = Self(1 << 2);

    /// Reads the ID registers.
    pub fn read() -> Self {
        let field = |register: u64, shift: u32| (register >> shift) & 0xf;
        [
            (Self::LSE, field(ID_AA64ISAR0_EL1.get(), 20) >= 2),
            (Self::SVE, field(ID_AA64PFR0_EL1.get(), 32) >= 1),
            (Self::HAFDBS, field(ID_AA64MMFR1_EL1.get(), 0) >= 2),
        ]
        .iter()
        .fold(Self(0), |all, &(feature, there)| {
            Self(all.0 | if there { feature.0 } else { 0 })
        })
    }

    /// Whether all of `other` is here.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The model, by MIDR_EL1.
pub struct Model;

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let midr = MIDR_EL1.get();
        let name = match (midr >> 24 & 0xff, midr >> 4 & 0xfff) {
            (0x00, 0x051) => "QEMU max",
            (0x41, 0xd03) => "Cortex-A53",
            (0x41, 0xd07) => "Cortex-A57",
            (0x41, 0xd08) => "Cortex-A72",
            (0x41, 0xd0b) => "Cortex-A76",
            (0x41, 0xd0c) => "Neoverse N1",
            _ => "unknown",
        };
        write!(f, "{name} (MIDR {midr:#010x})")
    }
}

/// The SVE vector length in bytes, once SVE is open.
pub fn sve_vector_bytes() -> u64 {
    let bytes: u64;
    // SAFETY: the caller has opened SVE, so the CPU has it.
    unsafe {
        asm!(".arch_extension sve", "rdvl {}, #1", out(reg) bytes, options(nomem, nostack, preserves_flags))
    };
    bytes
}

/// Lets EL2 and the guest on this core use floating point and SIMD and, where the CPU has it, SVE
/// with vectors as long as the CPU's.
pub fn open_vectors(features: Features) {
    // The bits that are RES1; TZ is one of them only without SVE. SME stays trapped.
    let sve = features.has(Features::SVE);
    CPTR_EL2.set(if sve { 0x32ff } else { 0x33ff });
    if sve {
        // SAFETY: ZCR_EL2 exists where SVE does.
        unsafe {
            asm!("isb", "msr S3_4_C1_C2_0, {}", "isb", in(reg) 0xfu64, options(nomem, nostack))
        };
    }
}

/// Time since the system counter started.
pub fn now() -> Duration {
    let frequency = CNTFRQ_EL0.get().max(1);
    let count = CNTPCT_EL0.get();
    let nanos = count % frequency * 1_000_000_000 / frequency;
    Duration::new(count / frequency, nanos as u32)
}

/// How this core walks a guest's stage-2 tables: 39 bits of IPA, so from level 1 on; 4 KiB pages; 40
/// bits of output address, or what the CPU has.
pub fn set_stage2_walk() {
    let physical = ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::PARange).min(2);
    VTCR_EL2.write(
        VTCR_EL2::RES1.val(1)
            + VTCR_EL2::PS.val(physical)
            + VTCR_EL2::TG0::Granule4KB
            + VTCR_EL2::SH0::Inner
            + VTCR_EL2::ORGN0::NormalWBRAWA
            + VTCR_EL2::IRGN0::NormalWBRAWA
            + VTCR_EL2::SL0.val(1)
            + VTCR_EL2::T0SZ.val(64 - 39),
    );
}
