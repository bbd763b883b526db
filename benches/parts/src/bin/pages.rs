//! The left wing, as a hypervisor uses it, over the host that the features bring: what it weighs.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
#[path = "pages/hypervisor.rs"]
mod hypervisor;

// For its panic handler.
use pugmark_parts as _;

#[cfg(not(target_os = "none"))]
fn main() {}
