use std::time::Duration;

/// The time that this thread has run. What others run in between on the same core is not in it; the
/// kernel's work for this thread is.
pub fn of_thread() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
