//! What a trap said, decoded: pure functions, which can be tested anywhere.

pub mod aarch64;
