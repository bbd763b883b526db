//! How a core waits. The interrupt controller is the guest's, so no core can be woken by an
//! interrupt of ours; it naps for a moment and looks again. A core that spins would take the
//! emulator's time from those that work.

use core::{arch::asm, hint::spin_loop, time::Duration};

use aarch64_cpu::registers::{CNTFRQ_EL0, CNTVCT_EL0, Readable};

/// Between two looks.
const NAP: Duration = Duration::from_millis(1);

/// Returns once `condition` holds.
pub fn until(condition: impl Fn() -> bool) {
    while !condition() {
        nap(NAP);
    }
}

/// The same on a vCPU's core, where a pending interrupt of the guest would end each nap at once. So
/// none is signalled meanwhile.
pub fn parked_until(condition: impl Fn() -> bool) {
    let enabled: u64;
    // SAFETY: ICC_IGRPEN1_EL1 says whether the interrupt controller signals to this core, where
    // interrupts are masked now. The guest gets it back as it left it.
    unsafe {
        asm!(
            "mrs {enabled}, S3_0_C12_C12_7",
            "msr S3_0_C12_C12_7, xzr",
            "isb",
            enabled = out(reg) enabled,
            options(nomem, nostack, preserves_flags),
        )
    };
    until(condition);
    // SAFETY: as above.
    unsafe {
        asm!(
            "msr S3_0_C12_C12_7, {enabled}",
            "isb",
            enabled = in(reg) enabled,
            options(nomem, nostack, preserves_flags),
        )
    };
}

/// Sleeps for about this long, or less; not at all on a CPU that has no WFI with a timeout.
pub fn nap(time: Duration) {
    if !has_timeout() {
        return spin_loop();
    }
    let ticks = time.as_micros() as u64 * CNTFRQ_EL0.get() / 1_000_000;
    let deadline = CNTVCT_EL0.get() + ticks;
    // SAFETY: WFIT X0, by its encoding, as few assemblers know its name: a wait, and nothing else.
    unsafe { asm!(".inst 0xd5031020", in("x0") deadline, options(nostack, preserves_flags)) };
}

/// FEAT_WFxT, in bits 3:0 of ID_AA64ISAR2_EL1.
fn has_timeout() -> bool {
    let features: u64;
    // SAFETY: reading an ID register has no effect.
    unsafe {
        asm!("mrs {}, S3_0_C0_C6_2", out(reg) features, options(nomem, nostack, preserves_flags))
    };
    features & 0xf >= 2
}
