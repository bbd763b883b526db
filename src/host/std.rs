#![doc = include_str!("../../features/std.md")]

use core::{ops::Range, time::Duration};

use ::std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::{WriteProtect, WriteProtectMut};

impl<P: WriteProtectMut> WriteProtect for Mutex<P> {
    type Error = P::Error;

    fn protect(&self, range: Range<u64>) -> Result<(), Self::Error> {
        lock(self).protect(range)
    }

    fn protect_all(&self, ranges: &[Range<u64>]) -> Result<(), Self::Error> {
        lock(self).protect_all(ranges)
    }

    fn bridge(&self) -> usize {
        lock(self).bridge()
    }

    fn unprotect(&self, range: Range<u64>) -> Result<(), Self::Error> {
        lock(self).unprotect(range)
    }
}

/// Takes a poisoned lock over: refusing would fail every later fault, and thus stop the guest.
///
/// That is safe because an edit is idempotent and keeps no state between calls: the page table
/// itself is the state. A thread that panicked in mid-edit left each page of its range writable or
/// not, and the tracker takes the whole range for writable, as after any error: what it was to open
/// or to protect is marked while the panic unwinds.
fn lock<P>(mutex: &Mutex<P>) -> MutexGuard<'_, P> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A clock that never goes back, for [`WriteTracker::tick`](crate::WriteTracker::tick).
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that stands at zero now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// The time since the clock was made.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

#[cfg(feature = "defmt")]
impl defmt::Format for Clock {
    fn format(&self, f: defmt::Formatter<'_>) {
        defmt::write!(f, "Clock({} us)", self.now().as_micros() as u64);
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::std::panic::{AssertUnwindSafe, catch_unwind};

    struct DiesOnce(bool);

    impl WriteProtectMut for DiesOnce {
        type Error = core::convert::Infallible;

        fn protect(&mut self, _: Range<u64>) -> Result<(), Self::Error> {
            if !self.0 {
                self.0 = true;
                panic!("in mid-edit");
            }
            Ok(())
        }

        fn unprotect(&mut self, _: Range<u64>) -> Result<(), Self::Error> {
            Ok(())
        }
    }

    #[test]
    fn a_poisoned_lock_is_taken_over() {
        let editor = Mutex::new(DiesOnce(false));
        let died = catch_unwind(AssertUnwindSafe(|| editor.protect(0..4096)));
        assert!(died.is_err() && editor.is_poisoned());
        assert_eq!(WriteProtect::unprotect(&editor, 0..4096), Ok(()));
        assert_eq!(WriteProtect::protect(&editor, 0..4096), Ok(()));
    }

    #[test]
    fn the_clock_does_not_go_back() {
        let clock = Clock::new();
        let first = clock.now();
        assert!(clock.now() >= first);
    }
}
