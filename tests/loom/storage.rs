//! Storage that shows loom where to look.

use std::sync::Arc;

use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Storage for a bitmap or for blocks. Another handle to it lets a wrong order reach the words.
///
/// loom decides where to switch threads by the accesses that depend on each other, and remembers
/// only the last access to each cell. A *load* by one thread, a load by another and then its
/// read-modify-write: the first and the last depend on each other, but the second load hides that,
/// and loom 0.7 does not try them the other way round. All of the bitmap is made like this (look,
/// then swap; look, then announce). So each call into the bitmap first touches a cell of its own
/// here, with a read-modify-write, which loom does not miss. It is relaxed, and brings no order
/// into the model.
#[derive(Debug)]
pub struct Storage<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    items: Vec<T>,
    turn: AtomicUsize,
}

impl<T> Storage<T> {
    pub fn new(len: usize, item: impl Fn() -> T) -> Self {
        Self(Arc::new(Shared {
            items: (0..len).map(|_| item()).collect(),
            turn: AtomicUsize::new(0),
        }))
    }

    /// Another handle to the same storage.
    pub fn share(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> AsRef<[T]> for Storage<T> {
    fn as_ref(&self) -> &[T] {
        self.0.turn.fetch_add(1, Relaxed);
        &self.0.items
    }
}
