//! [`Offers`]: what this kernel's KVM can do.

use core::ffi::c_ulong;

use kvm_bindings::{
    KVM_CAP_DIRTY_LOG_RING, KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP,
    KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE, kvm_dirty_gfn,
};
use kvm_ioctls::VmFd;

/// What KVM offers for tracking writes, beside the dirty log itself, which it always has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct Offers {
    /// The log can be read without protecting every page at once: Linux 5.2.
    pub manual_protect: bool,
    /// The most entries that a vCPU's dirty ring can have; 0 where there is none.
    pub ring_entries: u32,
    /// Some writes are logged beside the ring, in a bitmap (arm64's interrupt tables).
    pub ring_with_bitmap: bool,
    /// The capability by which the ring is asked for.
    pub(super) ring_capability: u32,
}

impl Offers {
    /// Asks `vm`.
    #[must_use]
    pub fn of(vm: &VmFd) -> Self {
        // Nothing is a negative number, an error.
        let ask = |capability: u32| {
            u32::try_from(vm.check_extension_raw(c_ulong::from(capability))).unwrap_or(0)
        };
        // The younger one says that the ring's ordering is what this crate relies on. The older one
        // exists on x86 alone, whose ordering is strong enough.
        let ring = [KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_DIRTY_LOG_RING]
            .map(|capability| (capability, ask(capability)))
            .into_iter()
            .find(|(_, bytes)| *bytes > 0);
        let (ring_capability, bytes) = ring.unwrap_or_default();
        let manual = ask(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);
        Self {
            manual_protect: manual & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE != 0,
            ring_entries: bytes / size_of::<kvm_dirty_gfn>() as u32,
            ring_with_bitmap: ask(KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP) > 0,
            ring_capability,
        }
    }
}
