//! KVM's own logs of what a real guest wrote.
#![cfg(all(target_os = "linux", target_arch = "x86_64", not(any(miri, loom))))]

mod bad_input;
#[path = "../../examples/pugmark-snap/cpl3.rs"]
mod cpl3;
mod guest;
#[path = "../linux/limits.rs"]
mod limits;
mod live;
mod log;
#[path = "../linux/memory.rs"]
mod memory;
mod ring;
#[path = "../linux/say.rs"]
mod say;
#[cfg(feature = "uffd")]
mod uffd;
