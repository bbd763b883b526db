//! A naive arena: what each slot must hold, and what a descend must find.

use pugmark::slots::SlotId;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    #[default]
    Free,
    /// Allocated, and never written.
    Empty,
    /// Written, whole.
    Whole(u8),
    /// Its writer died in mid-write.
    Dead,
}

#[derive(Debug, Clone, Default)]
pub struct Slot {
    pub state: State,
    pub uses: u32,
    /// Written, freed or recovered since the reader's last look.
    pub is_new: bool,
    /// What the reader has of it: of which use, and the value.
    pub mirrored: Option<(u32, u8)>,
}

#[derive(Debug, Default)]
pub struct Oracle {
    pub slots: Vec<Slot>,
    /// The slots that were freed, the last one last.
    freed: Vec<usize>,
    used: usize,
}

impl Oracle {
    pub fn new(capacity: usize) -> Self {
        Self {
            slots: vec![Slot::default(); capacity],
            ..Self::default()
        }
    }

    /// The index and the generation of the slot that is allocated next.
    pub fn allocate(&mut self) -> Option<(usize, u32)> {
        let index = match self.freed.pop() {
            Some(index) => index,
            None if self.used < self.slots.len() => {
                self.used += 1;
                self.used - 1
            }
            None => return None,
        };
        let slot = &mut self.slots[index];
        slot.state = State::Empty;
        slot.uses += 1;
        Some((index, slot.uses))
    }

    pub fn free(&mut self, index: usize) {
        self.slots[index].state = State::Free;
        self.freed.push(index);
    }

    pub fn write(&mut self, index: usize, value: u8) {
        self.slots[index].state = State::Whole(value);
        self.slots[index].is_new = true;
    }

    pub fn die(&mut self, index: usize) {
        self.slots[index].state = State::Dead;
        self.slots[index].is_new = false;
    }

    /// The slots that a descend must update, in order.
    pub fn descend(&mut self) -> Vec<usize> {
        let mut updated = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            match slot.state {
                State::Whole(value) if slot.is_new => {
                    slot.mirrored = Some((slot.uses, value));
                    updated.push(index);
                }
                State::Free => slot.mirrored = None,
                // Of an earlier use.
                State::Empty | State::Dead if slot.mirrored.is_some_and(|(n, _)| n < slot.uses) => {
                    slot.mirrored = None;
                }
                _ => {}
            }
            slot.is_new = false;
        }
        updated
    }

    /// What a reader that just descended has for `id`.
    pub fn value(&self, id: SlotId) -> Option<u8> {
        let (uses, value) = self.slots[id.index()].mirrored?;
        (uses == id.generation()).then_some(value)
    }

    pub fn dead(&self) -> usize {
        let slots = self.slots.iter();
        slots.filter(|slot| slot.state == State::Dead).count()
    }

    pub fn allocated(&self) -> usize {
        let slots = self.slots.iter();
        slots.filter(|slot| slot.state != State::Free).count()
    }
}

/// The runs of `slots`: first and length.
pub fn runs(slots: &[usize]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &slot in slots {
        match runs.last_mut() {
            Some((first, len)) if *first + *len == slot => *len += 1,
            _ => runs.push((slot, 1)),
        }
    }
    runs
}
