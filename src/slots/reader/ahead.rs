//! [`Ahead`]: the lines that are hinted, some on their way before they are read.

use super::seen::Seen;
use crate::slots::chunk::{Chunk, LINE_SLOTS, LINES, Line};
use crate::slots::fast::{self, HINTS, prefetch};
use crate::slots::hints::Hints;
use crate::slots::storage::Storage;
use crate::sync::AtomicUsize;

/// Lines in a group: so many that the wait for the first one's memory is shared by many. They are 8
/// bytes of stack each, of which a machine of 32 bits may have little.
const GROUP: usize = if cfg!(target_pointer_width = "64") {
    64
} else {
    HINTS
};

/// Lines whose values are on their way while one is read.
const DISTANCE: usize = 4;

/// Lines whose hints are taken, and which are not read yet: a group at a time.
///
/// 1. The group's versions are asked for.
/// 2. Its hints are taken, in a row: a read-modify-write waits until every load and store before it
///    is done, and one between two lines would wait for their memory.
/// 3. Its versions are compared.
/// 4. Its values are asked for, some lines ahead of the one that is read.
///
/// Each step is a short loop, so that the processor has the memory of several lines under way at a
/// time.
pub(super) struct Ahead<'a, A: Storage> {
    storage: &'a A,
    /// Where the next hint may be.
    next: usize,
    group: [Hinted; GROUP],
    len: usize,
    /// How many of them were given to be read.
    given: usize,
}

#[derive(Clone, Copy)]
struct Hinted {
    /// The line, in the arena.
    index: u32,
    /// A bit for each slot that changed.
    changed: u32,
}

/// A line to be read.
pub(super) struct Touched<'a> {
    /// The line, in the arena.
    pub(super) index: usize,
    pub(super) hints: &'a Hints,
    chunk: &'a Chunk,
    /// A bit for each slot that changed.
    pub(super) changed: u32,
}

impl<'a> Touched<'a> {
    /// `None` without a chunk: no slot of it was ever written.
    #[inline]
    fn new<A: Storage>(storage: &'a A, hinted: Hinted) -> Option<Self> {
        let index = hinted.index as usize;
        Some(Self {
            index,
            hints: storage.hints().get(index)?,
            chunk: storage.chunk(index / LINES)?,
            changed: hinted.changed,
        })
    }

    #[inline]
    pub(super) fn line(&self) -> &'a Line {
        &self.chunk.lines[self.index % LINES]
    }

    /// The payload of the line's slots, of `stride` words each.
    #[inline]
    pub(super) fn payload(&self, stride: usize) -> &'a [AtomicUsize] {
        let words = LINE_SLOTS * stride;
        &self.chunk.payload[self.index % LINES * words..][..words]
    }

    /// Asks for the values that changed.
    #[inline]
    fn ask(&self, stride: usize, mirror: &[usize]) {
        let payload = self.payload(stride).as_ptr();
        let first = self.index * LINE_SLOTS * stride;
        let values = mirror.as_ptr().wrapping_add(first);
        let mut changed = self.changed;
        while changed != 0 {
            let slot = changed.trailing_zeros() as usize;
            changed &= changed - 1;
            prefetch(payload.wrapping_add(slot * stride));
            prefetch(values.wrapping_add(slot * stride));
        }
    }
}

impl<'a, A: Storage> Ahead<'a, A> {
    pub(super) fn new(storage: &'a A) -> Self {
        const NONE: Hinted = Hinted {
            index: 0,
            changed: 0,
        };
        Self {
            storage,
            next: 0,
            group: [NONE; GROUP],
            len: 0,
            given: 0,
        }
    }

    /// The next line to read.
    #[inline]
    pub(super) fn next(
        &mut self,
        stride: usize,
        seen: &mut [Seen],
        mirror: &[usize],
    ) -> Option<Touched<'a>> {
        loop {
            if self.given == self.len {
                self.refill(seen);
                if self.len == 0 {
                    return None;
                }
                for ahead in 0..DISTANCE {
                    self.ask(ahead, stride, mirror);
                }
            }
            let hinted = self.group[self.given];
            self.ask(self.given + DISTANCE, stride, mirror);
            self.given += 1;
            if let Some(touched) = Touched::new(self.storage, hinted) {
                return Some(touched);
            }
        }
    }

    #[inline]
    fn ask(&self, line: usize, stride: usize, mirror: &[usize]) {
        let hinted = self.group[..self.len].get(line);
        if let Some(touched) = hinted.and_then(|hinted| Touched::new(self.storage, *hinted)) {
            touched.ask(stride, mirror);
        }
    }

    /// Takes the next hints, and finds what changed there.
    // Not inlined, to leave the registers to what is done with each line.
    #[inline(never)]
    fn refill(&mut self, seen: &mut [Seen]) {
        self.find();
        let storage = self.storage;
        let group = &mut self.group[..self.len];
        for touched in group.iter().filter_map(|line| Touched::new(storage, *line)) {
            let (chunk, line) = (touched.index / LINES, touched.index % LINES);
            prefetch(&raw const touched.line().versions);
            prefetch(&raw const seen[chunk].versions[line]);
        }
        for hinted in group.iter() {
            // Before the versions are looked at: what comes after this hints again.
            storage.hints()[hinted.index as usize].written.take();
        }
        for hinted in group {
            let Some(touched) = Touched::new(storage, *hinted) else {
                continue;
            };
            let mut seen = seen[touched.index / LINES].line(touched.index % LINES);
            if touched.hints.reused.is_set() {
                seen.renew(touched.line(), touched.hints);
            }
            hinted.changed = seen.changed(touched.line());
        }
    }

    /// Finds the next hints that are set.
    fn find(&mut self) {
        (self.len, self.given) = (0, 0);
        let hints = self.storage.hints();
        while self.len + HINTS <= GROUP && self.next < hints.len() {
            let rest = &hints[self.next..];
            let block = rest.get(..HINTS).unwrap_or(rest);
            let mut set = fast::written(block);
            while set != 0 {
                self.group[self.len] = Hinted {
                    index: self.next as u32 + set.trailing_zeros(),
                    changed: 0,
                };
                self.len += 1;
                set &= set - 1;
            }
            self.next += block.len();
        }
    }
}

/// If a sink unwinds: the lines that are not read are hinted again.
impl<A: Storage> Drop for Ahead<'_, A> {
    fn drop(&mut self) {
        for hinted in &self.group[self.given..self.len] {
            self.storage.hints()[hinted.index as usize].written.set();
        }
    }
}
