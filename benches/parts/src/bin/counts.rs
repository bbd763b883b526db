//! Each hot path a fixed number of times, on the same data each time: what callgrind counts.
//!
//! A row is a function whose name begins with `count_`: callgrind has the cost of each call of it,
//! and `cargo xtask counts` takes the mean. It prints nothing.

#[cfg(not(target_os = "none"))]
#[path = "counts/rows.rs"]
mod rows;

#[cfg(not(target_os = "none"))]
fn main() {
    rows::faults();
    rows::harvests();
    rows::marks();
    rows::drains();
    rows::slots();
    rows::hints();
    rows::descends();
}
