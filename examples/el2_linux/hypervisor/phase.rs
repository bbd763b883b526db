//! A phase of the guest's work, by its name.

use core::{fmt, str};

/// At most eight letters, as the guest rings them in: first letter lowest, filled up with spaces.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Phase([u8; 8]);

impl Phase {
    /// What the guest does before it rings for the first time.
    pub const BOOT: Self = Self(*b"boot    ");

    /// The phase that a word in the doorbell names. What is not a letter, a digit, `-` or `_`
    /// becomes a question mark.
    pub fn from_word(word: u64) -> Self {
        Self(word.to_le_bytes().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b' ' => byte,
            _ => b'?',
        }))
    }

    /// The phase of this name, as far as eight letters go.
    pub fn named(name: &str) -> Self {
        let mut word = [b' '; 8];
        word.iter_mut()
            .zip(name.bytes())
            .for_each(|(place, byte)| *place = byte);
        Self::from_word(u64::from_le_bytes(word))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        str::from_utf8(self.0.trim_ascii_end()).unwrap_or("?")
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
