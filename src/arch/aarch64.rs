//! AArch64: what a trap to EL2 (or to a host above it) says of a guest's access.
//!
//! All of it follows from `ESR_EL2`, as the Arm Architecture Reference Manual gives it under
//! *ISS encoding for an exception from a Data Abort* and *from an Instruction Abort*:
//! EC 31:26, ISV 24, CM 8, S1PTW 7, WnR 6, DFSC 5:0.
//!
//! ```
//! use pugmark::arch::aarch64::{Abort, WriteCause, classify};
//!
//! // The first store to a write-protected page, as Hypervisor.framework reported it.
//! assert_eq!(classify(0x9381_0047), Abort::Write(WriteCause::Store));
//! ```
//!
//! What to do with each:
//!
//! - [`Abort::Write`]: find the IPA (below) and give it to
//!   [`on_write_fault`](crate::WriteTracker::on_write_fault). If it is granted, return to the same
//!   instruction. Never skip it, not even cache maintenance: that would drop the operation.
//! - [`Abort::Read`], [`Abort::Fetch`]: not for the tracker. Where stage-2 blocks are split live,
//!   another core may have broken the block for a moment: after a *translation* fault
//!   ([`is_translation_fault`]) in memory that is mapped by now, return to the same instruction.
//! - [`Abort::NotOurs`]: whatever the hypervisor does with it.
//!
//! The address to track by is the **IPA**, never `FAR_EL2`, which holds a guest virtual address.
//! [`hpfar_is_valid`] says where it comes from.

/// What a guest's access was, as far as write tracking cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Abort {
    /// A write that stage 2 stopped, or an operation to treat as one.
    Write(WriteCause),
    /// A data read that stage 2 stopped.
    Read,
    /// An instruction fetch that stage 2 stopped.
    Fetch,
    /// Anything else.
    NotOurs(NotOurs),
}

/// Why an abort counts as a write. Marking a page that was not written is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum WriteCause {
    /// A store of any kind: pairs, exclusives, atomics, SIMD, SVE, `DC ZVA`.
    Store,
    /// Cache maintenance or address translation (CM = 1), for which WnR is always 1. `DC IVAC`
    /// does need permission to write.
    CacheMaintenance,
    /// The guest's own table walk (S1PTW = 1), which sets access and dirty flags. It may be on
    /// behalf of a read, and even of a fetch.
    TableWalk,
}

/// Why an abort is none of the tracker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum NotOurs {
    /// The exception class is no abort from a lower exception level.
    NotAnAbort {
        /// EC, 6 bits.
        class: u8,
    },
    /// An abort, but not for want of a permission or a translation: an external abort, a TLB
    /// conflict, an access flag, alignment.
    OtherFault {
        /// DFSC or IFSC, 6 bits.
        status: u8,
    },
}

/// Instruction abort from a lower exception level.
const EC_INSTRUCTION_ABORT_LOWER: u8 = 0x20;
/// What a data abort has on top of it.
const EC_DATA: u8 = 0x04;

/// Nearly every exit that a tracker sees, known by one comparison: a store, not on behalf of a table
/// walk, and a translation or permission fault at level 0 to 3, which is DFSC `0b00x1xx`.
const USUAL_BITS: u64 = 0x3f << 26 | CM | S1PTW | WNR | 0b11_0100;
const USUAL: u64 = 0x24 << 26 | WNR | 0b00_0100;

const CM: u64 = 1 << 8;
const S1PTW: u64 = 1 << 7;
const WNR: u64 = 1 << 6;

#[inline]
const fn exception_class(esr: u64) -> u8 {
    (esr >> 26) as u8 & 0x3f
}

#[inline]
const fn fault_status(esr: u64) -> u8 {
    esr as u8 & 0x3f
}

// Sets of fault status codes, a bit each: a look into one is a shift, in any union of them.

/// Translation fault, level 0 to 3 or −1.
const TRANSLATION: u64 = 0xf << 0x04 | 1 << 0x2b;
/// Access flag fault, level 0 to 3.
const ACCESS_FLAG: u64 = 0xf << 0x08;
/// Permission fault, level 0 to 3.
const PERMISSION: u64 = 0xf << 0x0c;

/// Whether `status`, of 6 bits, is in `set`.
#[inline]
const fn is_in(status: u8, set: u64) -> bool {
    set >> status & 1 != 0
}

/// Classifies an exception from a lower exception level by its syndrome, `ESR_EL2`.
///
/// Translation faults count beside permission faults: Hypervisor.framework reports the first store
/// to a write-protected page as the former. Whether the page is tracked is for the IPA to say.
/// ISV, and with it what is known of the register transfer, is not looked at: the instruction is
/// retried.
#[inline]
pub const fn classify(esr: u64) -> Abort {
    if esr & USUAL_BITS == USUAL {
        return Abort::Write(WriteCause::Store);
    }
    let class = exception_class(esr);
    if class & !EC_DATA != EC_INSTRUCTION_ABORT_LOWER {
        return Abort::NotOurs(NotOurs::NotAnAbort { class });
    }
    let status = fault_status(esr);
    if !is_in(status, TRANSLATION | PERMISSION) {
        return Abort::NotOurs(NotOurs::OtherFault { status });
    }
    // Before the class: a fetch whose walk sets the access flag comes as an instruction abort. And
    // before CM and WnR, which on an instruction abort are not defined.
    if esr & S1PTW != 0 {
        return Abort::Write(WriteCause::TableWalk);
    }
    if class & EC_DATA == 0 {
        return Abort::Fetch;
    }
    if esr & CM != 0 {
        return Abort::Write(WriteCause::CacheMaintenance);
    }
    if esr & WNR != 0 {
        return Abort::Write(WriteCause::Store);
    }
    Abort::Read
}

/// Whether nothing was mapped, rather than the permission missing; of a data or instruction abort.
#[inline]
pub const fn is_translation_fault(esr: u64) -> bool {
    is_in(fault_status(esr), TRANSLATION)
}

/// Whether `HPFAR_EL2` holds the IPA of this abort.
///
/// It does for translation and access flag faults, and for those of the guest's own table walk; not
/// for other permission faults. There translate `FAR_EL2` with `AT S1E1R`, and read `PAR_EL1`; see
/// [`ipa_from_par`].
#[inline]
pub const fn hpfar_is_valid(esr: u64) -> bool {
    esr & S1PTW != 0 || is_in(fault_status(esr), TRANSLATION | ACCESS_FLAG)
}

/// The IPA out of `HPFAR_EL2`, where [`hpfar_is_valid`]; bits 11:0 out of `FAR_EL2`.
///
/// `HPFAR_EL2` has bits 51:12 of the IPA in its bits 43:4. For a table walk the low bits of
/// `FAR_EL2` are not those of the descriptor; the page is right all the same.
#[inline]
pub const fn ipa_from_hpfar(hpfar: u64, far: u64) -> u64 {
    ((hpfar & 0x0fff_ffff_fff0) << 8) | (far & 0xfff)
}

/// The IPA out of `PAR_EL1`, after `AT S1E1R` of `far`; `None` where the translation failed
/// (`PAR_EL1.F`): then another core changed the guest's tables, or is splitting the block that they are
/// in. Return to the same instruction.
///
/// `PAR_EL1` has bits 51:12 of the IPA at the same place.
#[inline]
pub const fn ipa_from_par(par: u64, far: u64) -> Option<u64> {
    if par & 1 != 0 {
        return None;
    }
    Some((par & 0x000f_ffff_ffff_f000) | (far & 0xfff))
}
