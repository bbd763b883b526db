#![doc = include_str!("../../features/uffd.md")]

mod error;
mod handler;
mod log;
mod mapping;
mod protection;
mod registered;
mod sys;
#[cfg(all(test, not(any(miri, loom))))]
mod tests;

pub use error::{OpenError, ProtectError, Unfit};
pub use handler::{Faults, HandlerEnd, HandlerError, ServeError, UffdHandler};
pub use log::UffdLog;
pub use mapping::Mapping;
pub use protection::UffdProtection;
pub use sys::{Access, KernelFeature};
