use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use super::Turn;

/// What threads did at the same time.
pub struct Together {
    /// The sum: a time for one unit is the mean over the threads.
    pub turn: Turn,
    /// Of the time from the first start to the last end, how much the threads ran: 1 where all of them
    /// ran all the time, and less where they had to wait for a core.
    pub share: f64,
}

/// Has `threads` threads do `work` at the same time, each of which measures itself. They get their
/// numbers, and on Linux a core each, while there are as many.
///
/// None of them starts before all are there: what the first one did alone would not be contended.
pub fn together(threads: usize, work: impl Fn(usize) -> Turn + Sync) -> Together {
    let missing = &AtomicUsize::new(threads);
    let work = &work;
    let one = |number| {
        move || {
            stay_on_core(number);
            missing.fetch_sub(1, SeqCst);
            for spins in 0_u32.. {
                if missing.load(SeqCst) == 0 {
                    break;
                }
                // There may be fewer cores than threads.
                if spins % 4096 == 4095 {
                    thread::yield_now();
                }
                spin_loop();
            }
            let start = Instant::now();
            let turn = work(number);
            (start, Instant::now(), turn)
        }
    };
    let done: Vec<_> = thread::scope(|scope| {
        let all: Vec<_> = (0..threads)
            .map(|number| scope.spawn(one(number)))
            .collect();
        let each = all.into_iter().map(|thread| thread.join());
        each.map(|done| done.expect("no thread panics")).collect()
    });
    let first = done.iter().map(|(start, ..)| *start).min();
    let last = done.iter().map(|(_, end, _)| *end).max();
    let elapsed: Duration = done.iter().map(|(.., turn)| turn.elapsed).sum();
    let span = last
        .zip(first)
        .map_or(Duration::ZERO, |(last, first)| last - first);
    Together {
        turn: Turn {
            elapsed,
            units: done.iter().map(|(.., turn)| turn.units).sum(),
        },
        share: elapsed.as_secs_f64() / (span.as_secs_f64() * threads as f64),
    }
}

/// Keeps this thread on the core of that number, of those that it may run on.
fn stay_on_core(number: usize) {
    #[cfg(target_os = "linux")]
    {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
        let Ok(allowed) = sched_getaffinity(None) else {
            return;
        };
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let Some(core) = cores.nth(number) else {
            return;
        };
        let mut own = CpuSet::new();
        own.set(core);
        // Where it may not choose, it runs where it is put.
        let _ = sched_setaffinity(None, &own);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = number;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threads_times_and_units_are_added_up() {
        let done = together(3, |number| Turn {
            elapsed: Duration::from_nanos(10 * number as u64),
            units: 5,
        });
        let expected = (Duration::from_nanos(30), 15);
        assert_eq!((done.turn.elapsed, done.turn.units), expected);
        assert_eq!(done.turn.nanoseconds(), 2.0);
    }

    #[test]
    fn all_are_there_when_the_first_one_starts() {
        let started = AtomicUsize::new(0);
        let done = together(2, |_| {
            started.fetch_add(1, SeqCst);
            // It would wait forever for one who comes only when it is done.
            while started.load(SeqCst) < 2 {
                thread::yield_now();
            }
            Turn::fixed(Duration::ZERO)
        });
        assert_eq!(done.share, 0.0);
    }
}
