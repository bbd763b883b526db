//! [`Pause`]: every vCPU out of the guest, and held there.
//!
//! A vCPU's thread says when it goes in and when it is out, by a flag of its own. Whoever stops the
//! world counts itself in `requests`, and waits until each flag is down. On either side the store
//! comes before the load of the other's:
//!
//! ```text
//! vCPU     inside = true;   if requests != 0 { inside = false; wait }
//! pauser   requests += 1;   if inside { hv_vcpus_exit; wait }
//! ```
//!
//! so that one of the two sees the other, whatever the interleaving, and a vCPU that nobody stops
//! takes no lock. That holds in a single order of all four accesses only: each is `SeqCst`.

use core::time::Duration;

use alloc::sync::Arc;
use alloc::vec::Vec;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{PauseError, ffi};
use crate::sync::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// How long to wait for a vCPU that does not come, unless told otherwise: chosen here, long beside
/// any exit that a VMM handles at once, short beside a person's patience.
const WATCHDOG: Duration = Duration::from_secs(2);

/// When to ask the vCPUs that are not out yet once more. One call is enough, by what the framework
/// promises; this is for a VMM that runs its vCPU twice between two looks at the seat.
const AGAIN: Duration = Duration::from_millis(10);

/// Stops every vCPU of the VM, and lets them go again.
///
/// Each vCPU's thread takes a [`seat`](Self::seat) and calls [`VcpuSeat::enter`] before it runs the
/// vCPU. [`pause`](Self::pause) makes them leave the guest (`hv_vcpus_exit`) and returns once all
/// are out; the guard that it returns keeps them out.
///
/// A clone is the same rendezvous.
///
/// ```no_run
/// # use pugmark::host::hvf::Pause;
/// # fn hv_vcpu_run(_: u64) {}
/// let pause = Pause::new();
///
/// let of_the_vcpu = pause.clone();
/// std::thread::spawn(move || {
///     let vcpu = 0; // hv_vcpu_create
///     let mut seat = of_the_vcpu.seat(vcpu);
///     loop {
///         let _running = seat.enter(); // waits here while the world is stopped
///         hv_vcpu_run(vcpu);
///         // handle the exit
///     }
/// });
///
/// let stopped = pause.pause()?;
/// // no vCPU is in the guest, and no exit is being handled
/// drop(stopped);
/// # Ok::<(), pugmark::host::hvf::PauseError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Pause {
    shared: Arc<Shared>,
    watchdog: Duration,
}

#[derive(Debug)]
struct Shared {
    /// Pauses that began and are not over.
    requests: AtomicUsize,
    places: Mutex<Vec<Place>>,
    /// A vCPU came out, or the last pause is over. With the lock of `places`.
    changed: Condvar,
}

#[derive(Debug)]
struct Place {
    vcpu: u64,
    /// Its thread is between [`VcpuSeat::enter`] and the end of that guard.
    inside: Arc<AtomicBool>,
}

impl Shared {
    /// Nothing is done under the lock that could be left half done by a panic.
    fn places(&self) -> MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_requested(&self) -> bool {
        self.requests.load(SeqCst) != 0
    }

    /// Wakes who waits. The lock: whoever looked before the change has begun to wait by now.
    fn wake(&self) {
        let _places = self.places();
        self.changed.notify_all();
    }
}

impl Pause {
    /// No vCPU yet, and a watchdog of 2 s.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                requests: AtomicUsize::new(0),
                places: Mutex::default(),
                changed: Condvar::new(),
            }),
            watchdog: WATCHDOG,
        }
    }

    /// Sets how long [`pause`](Self::pause) waits for a vCPU.
    #[must_use]
    pub const fn with_watchdog(mut self, watchdog: Duration) -> Self {
        self.watchdog = watchdog;
        self
    }

    /// A seat for a vCPU, by the number that `hv_vcpu_create` gave it. Its thread keeps it, and
    /// drops it **before** `hv_vcpu_destroy`, so that nobody stops a vCPU that is gone.
    #[must_use]
    pub fn seat(&self, vcpu: u64) -> VcpuSeat {
        let inside = Arc::new(AtomicBool::new(false));
        self.shared.places().push(Place {
            vcpu,
            inside: inside.clone(),
        });
        VcpuSeat {
            shared: self.shared.clone(),
            inside,
        }
    }

    /// Makes every vCPU leave the guest, and returns when the last is out; until the guard drops,
    /// none goes in. Pauses nest, on one thread and on several.
    ///
    /// Do not call it from a vCPU's thread between [`VcpuSeat::enter`] and the end of its guard: it
    /// would wait for itself.
    ///
    /// # Errors
    ///
    /// [`PauseError::Stuck`] where a vCPU does not come out within the watchdog's time, and
    /// [`PauseError::Exit`] where the framework refuses. All vCPUs run on then.
    pub fn pause(&self) -> Result<Paused, PauseError> {
        self.shared.requests.fetch_add(1, SeqCst);
        // From here on: its drop ends the request, also where this fails.
        let paused = Paused {
            shared: self.shared.clone(),
        };
        let begun = Instant::now();
        let mut ask = true;
        let mut places = self.shared.places();
        loop {
            let inside = places.iter().filter(|place| place.inside.load(SeqCst));
            let inside: Vec<u64> = inside.map(|place| place.vcpu).collect();
            let Some(&vcpu) = inside.first() else {
                break;
            };
            let waited = begun.elapsed();
            let Some(left) = self.watchdog.checked_sub(waited) else {
                return Err(PauseError::Stuck { vcpu, waited });
            };
            if ask {
                // Under the lock: until it returns, no seat is given up, so each vCPU exists.
                ffi::exit_vcpus(&inside).map_err(|error| PauseError::Exit { error })?;
            }
            let woken = self.shared.changed.wait_timeout(places, left.min(AGAIN));
            let (guard, timeout) = woken.unwrap_or_else(PoisonError::into_inner);
            places = guard;
            ask = timeout.timed_out();
        }
        drop(places);
        Ok(paused)
    }
}

impl Default for Pause {
    fn default() -> Self {
        Self::new()
    }
}

/// All vCPUs are out of the guest, until this drops.
#[must_use = "the vCPUs go in again when it drops"]
#[derive(Debug)]
pub struct Paused {
    shared: Arc<Shared>,
}

impl Drop for Paused {
    fn drop(&mut self) {
        self.shared.requests.fetch_sub(1, SeqCst);
        self.shared.wake();
    }
}

/// A vCPU's place in a [`Pause`]. A vCPU whose seat is dropped counts as out, at once.
#[derive(Debug)]
pub struct VcpuSeat {
    shared: Arc<Shared>,
    inside: Arc<AtomicBool>,
}

impl VcpuSeat {
    /// Waits while the world is stopped, then says that this vCPU is in the guest, until the guard
    /// drops.
    ///
    /// Keep the guard while the vCPU runs and while its exit is handled, so that a pause also waits
    /// for the handler; drop it before the thread waits for anything, such as an interrupt after a
    /// WFI. Without a pause under way it costs an atomic store and a load.
    pub fn enter(&mut self) -> Running<'_> {
        loop {
            self.inside.store(true, SeqCst);
            if !self.shared.is_requested() {
                return Running(self);
            }
            self.leave();
            let mut places = self.shared.places();
            while self.shared.is_requested() {
                let woken = self.shared.changed.wait(places);
                places = woken.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn leave(&self) {
        self.inside.store(false, SeqCst);
        if self.shared.is_requested() {
            self.shared.wake();
        }
    }
}

impl Drop for VcpuSeat {
    fn drop(&mut self) {
        let ours = |place: &Place| Arc::ptr_eq(&place.inside, &self.inside);
        self.shared.places().retain(|place| !ours(place));
        self.shared.wake();
    }
}

/// A vCPU is in the guest, or its exit is being handled, until this drops.
#[must_use = "the vCPU counts as out of the guest when it drops"]
#[derive(Debug)]
pub struct Running<'a>(&'a VcpuSeat);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}
