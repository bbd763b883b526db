//! The tracker over a software MMU: each law at the API, with every step that can fail made to fail.

mod bad_input;
mod checkpoint;
mod cost_model;
mod counters;
mod extend;
mod faults;
mod harvest;
mod host_log;
mod interleavings;
mod lines;
mod rearm;
mod regions;
mod sequences;
mod step_down;
mod stress;
mod two_phase;
mod world;
