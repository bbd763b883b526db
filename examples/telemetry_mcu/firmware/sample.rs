//! What a sensor measures: words that follow from one another, so that a torn value gives itself away.

const WORDS: usize = 8;
pub type Sample = [u32; WORDS];

/// Sensors, numbered from 0: each is the slot of that index.
pub const CHANNELS: usize = 12;
/// Beside the sensors': what a set-point comes from.
pub const SET_POINT_SOURCE: u32 = 100;

/// Sample `number` of a source.
pub const fn of(source: u32, number: u32) -> Sample {
    let mut sample = [number; WORDS];
    let mut word = 1;
    while word < WORDS {
        // Odd: words of different samples differ everywhere.
        sample[word] = sample[word - 1].wrapping_mul(0x9e37_79b1) ^ source;
        word += 1;
    }
    sample
}

/// Whether these bytes are one sample of that source, and not parts of several.
pub fn is_whole(source: u32, bytes: &[u8]) -> bool {
    let (words, _) = bytes.as_chunks();
    let words = words.iter().map(|word| u32::from_ne_bytes(*word));
    let number = words.clone().next().unwrap_or(0);
    words.eq(of(source, number))
}
