//! [`Claim`]: what only one may have at a time.

use crate::sync::{
    AtomicBool,
    Ordering::{Acquire, Release},
};

#[derive(Debug)]
pub(super) struct Claim(AtomicBool);

/// The claim, given back when this is dropped.
#[derive(Debug)]
pub(super) struct Claimed<'a>(&'a Claim);

impl Claim {
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    pub(super) fn take(&self) -> Option<Claimed<'_>> {
        // Acquire: follows all that the last holder did, who gave it back with release.
        let was_taken = self.0.swap(true, Acquire);
        (!was_taken).then_some(Claimed(self))
    }
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        self.0.0.store(false, Release);
    }
}
