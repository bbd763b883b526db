//! Invalidation of a VM's translations.
//!
//! The tables' own crate invalidates by IPA (`TLBI IPAS2E1IS`). That leaves the entries which hold
//! both stages in one, and those are what most cores keep. `TLBI VMALLS12E1` takes all of a VM's
//! entries, of either kind, in one instruction; it is what KVM uses after it write-protects memory.
//! Unlike `TLBI VMALLE1` it means the guest's entries under VHE too.
//!
//! A fault on one page needs less: that its own access is not refused again. So what goes is the
//! page's IPA and the virtual address that faulted last, which `FAR_EL2` still holds; any other
//! alias that this core remembers as read-only costs a fault of its own. So does a `FAR_EL2` that
//! holds something else, because the call comes from elsewhere. To take all of a VM's entries at
//! each fault would have the guest walk its tables anew for every page that it uses.
//!
//! All act on the VMID in this core's `VTTBR_EL2`. If another VM's is there, ours is put in its
//! place meanwhile.

/// Which cores forget, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Every core of the inner shareable domain.
    AllCores,
    /// The calling core.
    ThisCore,
    /// The calling core, this page and the address that faulted last.
    Fault {
        /// Guest physical address of the page.
        ipa: u64,
    },
}

/// Returns when no core in `scope` uses a translation older than the last store to the tables of
/// the VM whose `VTTBR_EL2` this is.
pub(super) fn invalidate(vttbr: u64, scope: Scope) {
    #[cfg(target_arch = "aarch64")]
    el2::invalidate(vttbr, scope);
    #[cfg(all(test, not(target_arch = "aarch64")))]
    tests::record(scope);
    let _ = (vttbr, scope);
}

#[cfg(target_arch = "aarch64")]
mod el2 {
    use core::arch::asm;

    use super::Scope;

    const VMID_SHIFT: u32 = 48;

    pub(super) fn invalidate(vttbr: u64, scope: Scope) {
        let current: u64;
        // SAFETY: reading a register has no effect. The tables are active, so this is EL2, where
        // the register can be read.
        unsafe {
            asm!("mrs {}, vttbr_el2", out(reg) current, options(nomem, nostack, preserves_flags));
        }
        if current >> VMID_SHIFT == vttbr >> VMID_SHIFT {
            return tlbi(scope);
        }

        let masks: u64;
        // Interrupts stay masked until the register is back: a handler could enter a guest.
        // SAFETY: at EL2 nothing is translated through `VTTBR_EL2`, and no guest runs on this core
        // until it holds its old value again. Masking interrupts affects no memory.
        unsafe {
            asm!(
                "mrs {masks}, daif",
                "msr daifset, #3",
                "msr vttbr_el2, {vttbr}",
                "isb",
                masks = out(reg) masks,
                vttbr = in(reg) vttbr,
                options(nostack, preserves_flags),
            );
        }
        tlbi(scope);
        // SAFETY: both registers get back what they held.
        unsafe {
            asm!(
                "msr vttbr_el2, {current}",
                "isb",
                "msr daif, {masks}",
                current = in(reg) current,
                masks = in(reg) masks,
                options(nostack, preserves_flags),
            );
        }
    }

    /// What `TLBI VAAE1` calls the EL1&0 regime is EL2's own while both bits are set.
    const E2H_TGE: u64 = 1 << 34 | 1 << 27;
    /// The operand of a TLBI by address: bits 55:12 of it, from bit 0 on.
    const fn operand(address: u64) -> u64 {
        address << 8 >> 20
    }

    /// The address that faulted last; `None` where a TLBI by address would not mean the guest's.
    fn faulted() -> Option<u64> {
        let (hcr, far): (u64, u64);
        // SAFETY: reading the registers has no effect.
        unsafe {
            asm!(
                "mrs {}, hcr_el2",
                "mrs {}, far_el2",
                out(reg) hcr,
                out(reg) far,
                options(nomem, nostack, preserves_flags),
            );
        }
        (hcr & E2H_TGE != E2H_TGE).then_some(far)
    }

    /// For the VMID in `VTTBR_EL2`.
    fn tlbi(scope: Scope) {
        if let Scope::Fault { ipa } = scope
            && let Some(far) = faulted()
        {
            // Stage 2 first, and done: a walk in between could make the combined entry anew from
            // the old one. The first barrier as below.
            // SAFETY: barriers and TLB invalidation change nothing that the program can see.
            return unsafe {
                asm!(
                    "dsb ishst",
                    "tlbi ipas2e1, {ipa}",
                    "dsb nsh",
                    "tlbi vaae1, {far}",
                    "dsb nsh",
                    "isb",
                    ipa = in(reg) operand(ipa),
                    far = in(reg) operand(far),
                    options(nostack, preserves_flags),
                )
            };
        }
        // The first barrier makes the new descriptors visible to every core's walker, also where
        // only this core forgets. The last one waits until the translations are gone, and the
        // accesses that used them are done.
        // SAFETY: barriers and TLB invalidation change nothing that the program can see.
        unsafe {
            match scope {
                Scope::AllCores => asm!(
                    "dsb ishst",
                    "tlbi vmalls12e1is",
                    "dsb ish",
                    "isb",
                    options(nostack, preserves_flags),
                ),
                Scope::ThisCore | Scope::Fault { .. } => asm!(
                    "dsb ishst",
                    "tlbi vmalls12e1",
                    "dsb nsh",
                    "isb",
                    options(nostack, preserves_flags),
                ),
            }
        }
    }
}

/// What was invalidated, kept for the tests: an emulator's TLB forgives a missing one.
#[cfg(all(test, not(target_arch = "aarch64")))]
pub(super) mod tests {
    extern crate std;

    use core::cell::RefCell;
    use std::{thread_local, vec::Vec};

    use super::Scope;

    thread_local!(static DONE: RefCell<Vec<Scope>> = const { RefCell::new(Vec::new()) });

    pub(super) fn record(scope: Scope) {
        DONE.with_borrow_mut(|done| done.push(scope));
    }

    /// What was invalidated on this thread since the last call.
    pub fn take() -> Vec<Scope> {
        DONE.take()
    }
}
