#![doc = include_str!("../../features/vm-memory.md")]

mod bitmap;
mod shared;
mod swap;
mod tracked;

pub use bitmap::{PageSizeError, PugmarkBitmap};
pub use shared::SharedBitmap;
pub use swap::SwapBitmap;
pub use tracked::{MarkWritten, TrackerBitmap};
