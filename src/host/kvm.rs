#![doc = include_str!("../../features/kvm.md")]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("feature `kvm` reads KVM's logs by words of 64 bits: build it for a 64-bit target");

mod buffer;
mod error;
mod log;
mod offers;
mod ring;
mod slots;
mod sys;

pub use error::{KvmError, SetUpError, Unfit};
pub use log::DirtyLog;
pub use offers::Offers;
pub use ring::DirtyRing;
pub use slots::Slot;
