//! The host's parts: each a Cargo feature, each a [`WriteProtect`](crate::WriteProtect).
//!
//! `spin`, `critical-section` and `std` put a lock around an editor that needs `&mut self`;
//! `stage2` is such an editor. `hvf` asks macOS, `uffd` and `kvm` ask Linux; `vm-memory` is not a host,
//! and tells a tracker what rust-vmm's devices write.

#[cfg(feature = "critical-section")]
pub mod critical_section;
#[cfg(feature = "hvf")]
pub mod hvf;
#[cfg(all(feature = "kvm", target_os = "linux"))]
pub mod kvm;
#[cfg(feature = "spin")]
pub mod spin;
#[cfg(feature = "stage2")]
pub mod stage2;
#[cfg(feature = "std")]
pub mod std;
#[cfg(all(feature = "uffd", target_os = "linux"))]
pub mod uffd;
#[cfg(feature = "vm-memory")]
pub mod vm_memory;

#[cfg(all(feature = "kvm", not(any(target_os = "linux", doc))))]
compile_error!(
    "feature `kvm` is for Linux: enable it for that target alone, under \
     [target.'cfg(target_os = \"linux\")'.dependencies]"
);
#[cfg(all(feature = "uffd", not(any(target_os = "linux", doc))))]
compile_error!(
    "feature `uffd` is for Linux: enable it for that target alone, under \
     [target.'cfg(target_os = \"linux\")'.dependencies]"
);
