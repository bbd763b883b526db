//! The dirty ring.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use pugmark::WriteTracker;
use pugmark::host::kvm::{DirtyRing, Offers};

use crate::guest::{Guest, RAM, Tracker, addresses, check, harvested, pages_of, regions, vm};
use crate::say;

type Ring = DirtyRing<Arc<kvm_ioctls::VmFd>>;

/// A guest with a ring of so many entries.
pub fn ringed(entries: u32) -> Option<(Guest, Tracker<Ring>)> {
    let vm = vm()?;
    if Offers::of(&vm).ring_entries == 0 {
        say!("skipped: this KVM has no dirty ring");
        return None;
    }
    let ring = DirtyRing::new(Arc::clone(&vm), entries).expect("before the first vCPU");
    let guest = Guest::new(vm, true);
    ring.add_vcpu(&guest.vcpu).expect("its vCPU");
    for slot in RAM {
        ring.add_slot(slot).expect("another slot");
    }
    let tracker = WriteTracker::new(ring, regions()).expect("in order");
    Some((guest, tracker))
}

#[test]
fn a_ring_that_has_room() {
    let Some((mut guest, tracker)) = ringed(4096) else {
        return;
    };
    check("dirty ring", &mut guest, &tracker);
}

#[test]
fn a_ring_that_is_full_again_and_again() {
    // A page of entries, fewer than a round writes pages.
    let Some((mut guest, tracker)) = ringed(256) else {
        return;
    };
    tracker.arm().expect("KVM tells");
    for round in 0..6 {
        let addresses = addresses(round);
        let mut times = 0;
        // Even while a harvest is open, which refuses every other.
        let held = tracker.begin_harvest().expect("KVM tells");
        guest.write(&addresses, round + 1, || {
            times += 1;
            tracker.collect_log().expect("KVM tells");
        });
        held.commit();
        let (written, reported) = (pages_of(&addresses), harvested(&tracker));
        assert!(times > 0, "{} pages fit a ring of 256", written.len());
        assert!(reported.is_superset(&written));
        say!(
            "ring of 256: full {times} times; {} pages written, {} reported",
            written.len(),
            reported.len()
        );
    }
}

/// Kernels since 6.16 stop the reset where a signal waits, and leave pages open that they count.
#[test]
fn a_harvest_in_a_storm_of_signals() {
    extern "C" fn nothing(_: libc::c_int) {}
    let Some((mut guest, tracker)) = ringed(4096) else {
        return;
    };
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: a handler that does nothing, of a signal that no other test uses.
    unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
    tracker.arm().expect("KVM tells");
    let (mut signals, mut lost) = (0, 0);
    for round in 0..600 {
        let addresses = addresses(round % 5);
        guest.write(&addresses, 2 * round + 1, || {});
        let harvester = AtomicUsize::new(0);
        thread::scope(|scope| {
            let harvest = scope.spawn(|| {
                // SAFETY: no more than its name.
                harvester.store(unsafe { libc::pthread_self() } as usize, SeqCst);
                harvested(&tracker)
            });
            while !harvest.is_finished() {
                let thread = harvester.load(SeqCst) as libc::pthread_t;
                if thread != 0 {
                    // SAFETY: a thread that is not joined yet.
                    unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
                    signals += 1;
                }
            }
            let reported = harvest.join().expect("KVM tells");
            assert!(reported.is_superset(&pages_of(&addresses)), "round {round}");
        });
        // A page that was left open is written again, and nobody hears of it.
        guest.write(&addresses, 2 * round + 2, || {});
        let reported = harvested(&tracker);
        lost += pages_of(&addresses).difference(&reported).count();
    }
    say!("dirty ring: {signals} signals, {lost} pages lost");
    assert_eq!(lost, 0);
    // No reset was cut short, which would keep its pages for good.
    assert!(harvested(&tracker).is_empty());
}
