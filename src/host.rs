//! The host's parts: each a Cargo feature, each a [`WriteProtect`](crate::WriteProtect).
//!
//! `spin`, `critical-section` and `std` put a lock around an editor that needs `&mut self`;
//! `stage2` is such an editor.

#[cfg(feature = "critical-section")]
pub mod critical_section;
#[cfg(feature = "spin")]
pub mod spin;
#[cfg(feature = "stage2")]
pub mod stage2;
#[cfg(feature = "std")]
pub mod std;
