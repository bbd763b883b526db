//! The layer over Hypervisor.framework, run on a model of the framework.
//!
//! `RUSTFLAGS='--cfg pugmark_hvf_model' cargo test --release --features hvf --test hvf`; and
//! `cargo xtask coverage` does it, and says how much of the layer it ran.
#![cfg(all(pugmark_hvf_model, feature = "hvf"))]

mod bad_input;
mod exits;
mod framework;
mod harvests;
mod model;
mod pause;
mod stress;
mod syndromes;
mod vmm;
