//! Two threads of this machine, and what the model says of them.

use std::convert::Infallible;
use std::hint::black_box;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

use pugmark::{BoxedRegion, PageGeometry, WriteProtect, WriteTracker};

use super::machine::Costs;
use super::tracker::{Layout, Pattern, Setting, simulate};

const TIMES: usize = 1_000_000;

/// What a `fetch_or` took that two threads made on the same word in turns, in nanoseconds: measured on a
/// 2-core virtual machine. (Two that do nothing else keep the line for many at a time, and hide it.)
const CONTENDED: f64 = 40.0;

pub fn against_the_model() {
    let geometry = PageGeometry::ARM64_4K;
    let region = || BoxedRegion::boxed(0, 4 << 30, geometry).expect("a region");
    let tracker = WriteTracker::new(Open, vec![region()]).expect("one region");
    // Pages that are open and fault again are what is wanted here.
    let tracker = tracker.with_storm_limit(u32::MAX);
    tracker.arm().expect("it does nothing");
    // As the model's: one block after the other, each opened whole.
    let fault = |thread: usize, near: bool| {
        for time in 0..TIMES {
            let block = if near {
                time % 8
            } else {
                1024 * thread + time % 512
            };
            let outcome = tracker.on_write_fault((block << 21) as u64);
            assert!(black_box(outcome).is_ok());
        }
    };
    let alone = median(|| threads(1, |thread| fault(thread, false)));
    let apart = median(|| threads(2, |thread| fault(thread, false)));
    let near = median(|| threads(2, |thread| fault(thread, true)));
    println!(
        "on_write_fault: alone {alone:.1} ns; two threads, memory of their own {apart:.1}; the same blocks {near:.1}"
    );

    let costs = Costs {
        near: CONTENDED,
        far: CONTENDED,
        ..Costs::LITERATURE
    };
    let model = |vcpus, pattern, grant| {
        let setting = Setting {
            vcpus,
            pattern,
            layout: Layout::TwoLines,
            think: 0.0,
            grant,
        };
        simulate(setting, costs).handler
    };
    // What the lines do not explain with one thread: arithmetic, and the eight words of a block.
    let rest = alone - model(1, Pattern::Own, 0.0);
    println!(
        "the model: two threads, memory of their own {:.1}; the same block {:.1}",
        model(2, Pattern::Own, rest),
        model(2, Pattern::OneBlock, rest),
    );
}

/// Opens nothing, at once.
struct Open;

impl WriteProtect for Open {
    type Error = Infallible;

    fn protect(&self, _: Range<u64>) -> Result<(), Infallible> {
        Ok(())
    }

    fn unprotect(&self, _: Range<u64>) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Nanoseconds a time, on the wall, of threads that begin together.
fn threads(count: usize, work: impl Fn(usize) + Sync) -> f64 {
    let ready = AtomicUsize::new(0);
    let (work, ready) = (&work, &ready);
    let timed = |thread| {
        move || {
            // Spinning: whoever sleeps here begins when another is done.
            ready.fetch_add(1, SeqCst);
            while ready.load(SeqCst) < count {
                std::hint::spin_loop();
            }
            let start = Instant::now();
            work(thread);
            start.elapsed().as_nanos() as f64 / TIMES as f64
        }
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..count)
            .map(|thread| scope.spawn(timed(thread)))
            .collect();
        let times = handles
            .into_iter()
            .map(|handle| handle.join().expect("no panic"));
        times.sum::<f64>() / count as f64
    })
}

fn median(mut time: impl FnMut() -> f64) -> f64 {
    let mut times: Vec<f64> = (0..5).map(|_| time()).collect();
    times.sort_by(f64::total_cmp);
    times[2]
}
