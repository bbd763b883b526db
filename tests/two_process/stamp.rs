//! Values that say by themselves whether they are whole.

/// 1 KiB: a writer is in the middle of one about as often as not.
const WORDS: usize = 128;
pub const STRIDE: usize = WORDS * size_of::<u64>();

/// Whose value it is, and which of them. Within a slot they only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    pub writer: u64,
    pub number: u64,
}

impl Stamp {
    /// The stamp, and words that all follow from it and the slot.
    pub fn value(self, slot: usize) -> [u8; STRIDE] {
        let mut value = [0; STRIDE];
        let mut word = (self.writer << 40) ^ (self.number << 8) ^ slot as u64;
        for bytes in value.as_chunks_mut().0 {
            *bytes = word.to_ne_bytes();
            word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
        }
        value[..8].copy_from_slice(&self.writer.to_ne_bytes());
        value[8..16].copy_from_slice(&self.number.to_ne_bytes());
        value
    }

    /// The stamp of a slot's value, which must be whole.
    pub fn of(slot: usize, value: &[u8]) -> Self {
        let words = value.as_chunks().0;
        let stamp = Self {
            writer: u64::from_ne_bytes(words[0]),
            number: u64::from_ne_bytes(words[1]),
        };
        assert!(stamp.value(slot) == value, "slot {slot}: torn, {stamp:?}");
        stamp
    }
}
