//! The slots at their API: one value, the arena against a naive one, and what must be refused.

mod bad_input;
mod binding;
mod model;
mod oracle;
mod reader;
mod seqlock;
mod slot;
mod threads;
