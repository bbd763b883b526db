#![doc = include_str!("../../features/hvf.md")]

mod error;
mod exit;
mod ffi;
mod pause;
mod protection;
mod tracker;

pub use error::{HvError, NewTrackerError, PauseError, StoppedError};
pub use exit::{Exit, Handled, Unhandled, handle_exit};
pub use pause::{Pause, Paused, Running, VcpuSeat};
pub use protection::{HostPage, HvfProtection};
pub use tracker::HvfTracker;
