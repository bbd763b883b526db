//! The fault path and nothing else: what it weighs, and that no panic is linked with it.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
extern "C" fn _start(
    tracker: &pugmark_parts::fault::Tracker,
    exit: &pugmark_parts::fault::Exit,
) -> bool {
    pugmark_parts::fault::handle(tracker, *exit)
}

#[cfg(not(target_os = "none"))]
fn main() {}
