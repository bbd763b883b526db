//! What the registers say of an abort, beside the syndrome that pugmark decodes.

use core::{arch::asm, fmt};

use aarch64_cpu::registers::{FAR_EL2, HPFAR_EL2, PAR_EL1, Readable, Writeable};
use pugmark::arch::aarch64::{hpfar_is_valid, ipa_from_hpfar, ipa_from_par};

/// The guest physical address of an abort; `None` where the guest's tables no longer say.
pub fn ipa(esr: u64) -> Option<u64> {
    let far = FAR_EL2.get();
    if hpfar_is_valid(esr) {
        return Some(ipa_from_hpfar(HPFAR_EL2.get(), far));
    }
    // The guest may be between an AT and the read of its result.
    let guests = PAR_EL1.get();
    // SAFETY: a translation by the guest's tables; it changes PAR_EL1, and nothing else that
    // software sees.
    unsafe { asm!("at s1e1r, {}", "isb", in(reg) far, options(nostack, preserves_flags)) };
    let result = PAR_EL1.get();
    PAR_EL1.set(guests);
    ipa_from_par(result, far)
}

/// The registers that describe an exit, for a message; it holds `ESR_EL2`.
pub struct Registers(pub u64);

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (far, hpfar) = (FAR_EL2.get(), HPFAR_EL2.get());
        write!(f, "ESR {:#x} FAR {far:#x} HPFAR {hpfar:#x}", self.0)
    }
}
