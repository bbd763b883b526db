//! A line that is shown although the test passes: what was measured, and what was skipped, and why.

/// As `println!`, whose output the test harness keeps to itself.
#[macro_export]
macro_rules! say {
    ($($message:tt)+) => {{
        use std::io::Write;
        // One write, so that lines of several tests do not mix. Nobody misses it if stderr is closed.
        let line = format!("{}\n", format_args!($($message)+));
        let _ = std::io::stderr().write_all(line.as_bytes());
    }};
}
