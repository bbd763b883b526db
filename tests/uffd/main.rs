//! userfaultfd on real memory of this process.
#![cfg(all(target_os = "linux", not(any(miri, loom))))]

mod bad_input;
mod conform;
#[path = "../conformance/mod.rs"]
mod conformance;
mod huge;
#[path = "../linux/limits.rs"]
mod limits;
mod log;
#[path = "../linux/memory.rs"]
mod memory;
#[path = "../linux/say.rs"]
mod say;
mod stress;
mod sync;
