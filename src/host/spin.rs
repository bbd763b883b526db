#![doc = include_str!("../../features/spin.md")]

use core::ops::Range;

use ::spin::{RelaxStrategy, mutex::Mutex};

use crate::{WriteProtect, WriteProtectMut};

impl<P: WriteProtectMut, R: RelaxStrategy> WriteProtect for Mutex<P, R> {
    type Error = P::Error;

    fn protect(&self, range: Range<u64>) -> Result<(), Self::Error> {
        self.lock().protect(range)
    }

    fn protect_all(&self, ranges: &[Range<u64>]) -> Result<(), Self::Error> {
        self.lock().protect_all(ranges)
    }

    fn bridge(&self) -> usize {
        self.lock().bridge()
    }

    fn unprotect(&self, range: Range<u64>) -> Result<(), Self::Error> {
        self.lock().unprotect(range)
    }
}
