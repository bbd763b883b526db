//! What the rows that need Linux share: memory of their own, and the kernel's calls without pugmark.

pub mod bare;
mod memory;

pub use memory::Memory;
