//! A line's words, one by one.

use super::{LINE_WORDS, one_by_one};
use crate::sync::AtomicUsize;

#[inline]
pub(super) fn marked(line: &[AtomicUsize; LINE_WORDS]) -> usize {
    one_by_one(line)
}
