//! A vCPU that never stops, and a harvester that never stops it: what the harvests copied must equal
//! the guest's memory in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use pugmark::host::kvm::DirtyLog;
use pugmark::{DirtyRun, WriteProtect, WriteTracker};

use crate::guest::{Guest, RAM, Tracker, addresses, copy_out, regions, vm};
use crate::memory::{Memory, PAGE};
use crate::ring::ringed;
use crate::say;

/// A copy of both slots.
struct Mirror {
    ram: Arc<[Memory; 2]>,
    copies: [Vec<u8>; 2],
    pages: usize,
}

impl Mirror {
    fn new(guest: &Guest) -> Self {
        Self {
            ram: Arc::clone(&guest.ram),
            copies: RAM.map(|slot| vec![0; slot.size as usize]),
            pages: 0,
        }
    }

    fn take(&mut self, run: DirtyRun) -> Result<(), ()> {
        let slot = usize::from(run.start >= RAM[1].ipa);
        let from = (run.start - RAM[slot].ipa) as usize;
        let into = &mut self.copies[slot][from..from + run.len as usize];
        copy_out(&self.ram, run.start, into);
        self.pages += run.len as usize / PAGE;
        Ok(())
    }

    fn lost(&self) -> usize {
        let mut page = vec![0; PAGE];
        let slots = RAM.iter().zip(&self.copies);
        let pages = slots.flat_map(|(slot, copy)| {
            let addresses = slot.ipas().step_by(PAGE);
            addresses.zip(copy.chunks_exact(PAGE))
        });
        pages
            .filter(|(ipa, copied)| {
                copy_out(&self.ram, *ipa, &mut page);
                page != *copied
            })
            .count()
    }
}

fn run<P>(what: &str, mut guest: Guest, tracker: &Tracker<P>)
where
    P: WriteProtect<Error: std::fmt::Debug + Send> + Sync,
{
    let rounds = 150;
    let mut mirror = Mirror::new(&guest);
    tracker.arm().expect("the host protects");
    let running = AtomicBool::new(true);
    let mut harvests = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            let _stops = Stops(&running);
            for round in 0..rounds {
                guest.write(&addresses(round % 5), round + 1, || {
                    tracker.collect_log().expect("KVM tells");
                });
            }
        });
        while running.load(SeqCst) {
            harvests += 1;
            if harvests % 5 == 0 {
                // A snapshot that fails at its end.
                let held = tracker.begin_harvest().expect("the host protects");
                held.runs()
                    .for_each(|run| mirror.take(run).expect("a copy"));
            } else {
                let outcome = tracker.harvest(|run| mirror.take(run));
                outcome.expect("the host protects");
            }
            tracker.tick(std::time::Duration::from_millis(harvests));
        }
    });
    while tracker.final_harvest(|run| mirror.take(run)).is_err() {
        thread::yield_now();
    }
    say!(
        "{what}: {rounds} rounds of the vCPU, {harvests} harvests, {} pages copied, {} lost",
        mirror.pages,
        mirror.lost()
    );
    assert!(harvests > 1);
    assert_eq!(mirror.lost(), 0);
}

/// A vCPU that runs, until it is dropped: by a panic too.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(false, SeqCst);
    }
}

#[test]
fn the_dirty_log() {
    for manual in [false, true] {
        let Some(vm) = vm() else { return };
        let guest = Guest::new(Arc::clone(&vm), true);
        let log = if manual {
            DirtyLog::new(vm, RAM)
        } else {
            DirtyLog::automatic(vm, RAM)
        };
        let log = log.expect("two slots");
        let what = format!("dirty log, manual protection {}", log.is_manual());
        let tracker = WriteTracker::new(log, regions()).expect("in order");
        run(&what, guest, &tracker);
    }
}

#[test]
fn the_dirty_ring() {
    let Some((guest, tracker)) = ringed(4096) else {
        return;
    };
    run("dirty ring", guest, &tracker);
}

#[cfg(feature = "uffd")]
#[test]
fn userfaultfd() {
    use crate::uffd::mappings;
    use pugmark::host::uffd::{Access, UffdHandler, UffdLog, UffdProtection};

    let Some(vm) = vm() else { return };
    let guest = Guest::new(vm.clone(), false);
    let log = UffdLog::new(mappings(&guest)).expect("Linux 6.7");
    let tracker = WriteTracker::new(log, regions()).expect("in order");
    run("userfaultfd, asynchronous", guest, &tracker);

    let Some(vm) = self::vm() else { return };
    let guest = Guest::new(vm, false);
    let protection = match UffdProtection::with_access(mappings(&guest), Access::Full) {
        Ok(protection) => protection,
        Err(error) => return say!("skipped: {error}"),
    };
    let tracker = Arc::new(WriteTracker::new(protection, regions()).expect("in order"));
    let _handler = UffdHandler::spawn(Arc::clone(&tracker)).expect("the first one");
    run("userfaultfd, handler", guest, &tracker);
}
