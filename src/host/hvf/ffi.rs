//! What this layer calls of Hypervisor.framework: two functions, as `<Hypervisor/Hypervisor.h>`
//! declares them for arm64.
//!
//! Declared here and not taken from a crate of bindings, so that a VMM may use any of them, or none.

use super::HvError;

// The model in tests/hvf brings the same two functions, so that this layer runs where the framework
// is not. Documentation needs neither.
#[cfg(not(any(
    all(target_os = "macos", target_arch = "aarch64"),
    pugmark_hvf_model,
    doc
)))]
compile_error!(
    "feature `hvf` is for macOS on Apple silicon: enable it for that target alone, under \
     [target.'cfg(all(target_os = \"macos\", target_arch = \"aarch64\"))'.dependencies]"
);

/// `HV_MEMORY_READ`.
const READ: u64 = 1;
/// `HV_MEMORY_WRITE`.
const WRITE: u64 = 2;
/// `HV_MEMORY_EXEC`.
const EXEC: u64 = 4;

#[cfg_attr(target_os = "macos", link(name = "Hypervisor", kind = "framework"))]
unsafe extern "C" {
    /// `hv_return_t hv_vm_protect(hv_ipa_t ipa, size_t size, hv_memory_flags_t flags)`
    ///
    /// Safe: it changes what the guest may do, and touches no memory of this process.
    safe fn hv_vm_protect(ipa: u64, size: usize, flags: u64) -> i32;

    /// `hv_return_t hv_vcpus_exit(hv_vcpu_t *vcpus, uint32_t vcpu_count)`
    fn hv_vcpus_exit(vcpus: *const u64, vcpu_count: u32) -> i32;
}

/// What a guest may do with its memory; it may always read.
#[derive(Clone, Copy)]
pub(super) struct Permission {
    pub write: bool,
    pub execute: bool,
}

/// Sets the permission of `size` bytes of guest memory from `ipa` on, for every vCPU.
pub(super) fn protect(ipa: u64, size: u64, permission: Permission) -> Result<(), HvError> {
    let write = if permission.write { WRITE } else { 0 };
    let execute = if permission.execute { EXEC } else { 0 };
    // Lossless: the framework is of 64-bit systems alone.
    HvError::check(hv_vm_protect(ipa, size as usize, READ | write | execute))
}

/// Makes these vCPUs leave the guest; one that is not in it leaves as soon as it enters.
pub(super) fn exit_vcpus(vcpus: &[u64]) -> Result<(), HvError> {
    // SAFETY: pointer and length are those of a slice, which the call only reads. The count is far
    // below 2^32: a VM has tens of vCPUs.
    HvError::check(unsafe { hv_vcpus_exit(vcpus.as_ptr(), vcpus.len() as u32) })
}
