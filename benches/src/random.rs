//! Which bits or slots are dirty: drawn anew for each turn, the same in each run.

use std::ops::Range;

use fastrand::Rng;

/// A generator that starts the same in each run.
pub fn rng() -> Rng {
    Rng::with_seed(0x7075_676d_6172_6b00)
}

/// `count` different numbers below `end`, ascending.
pub fn scattered(rng: &mut Rng, count: usize, end: usize) -> Vec<usize> {
    let mut numbers = Vec::with_capacity(count);
    while numbers.len() < count {
        let missing = count - numbers.len();
        numbers.extend((0..missing).map(|_| rng.usize(..end)));
        numbers.sort_unstable();
        numbers.dedup();
    }
    numbers
}

/// About `count` numbers below `end` in runs of `len`, ascending. Runs start anywhere, and do not
/// touch: each is somewhere in its own share of the numbers.
pub fn runs(rng: &mut Rng, count: usize, len: usize, end: usize) -> Vec<Range<usize>> {
    let share = end / (count / len);
    let start = |run: usize| run * share + rng.usize(..share - len);
    let starts = (0..count / len).map(start);
    starts.map(|start| start..start + len).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_asked_and_ascending() {
        let numbers = scattered(&mut rng(), 900, 1000);
        assert_eq!(numbers.len(), 900);
        assert!(numbers.is_sorted_by(|a, b| a < b) && numbers[899] < 1000);

        let runs = runs(&mut rng(), 640, 64, 6400);
        assert_eq!(runs.len(), 10);
        assert!(runs.is_sorted_by(|a, b| a.end < b.start) && runs[9].end <= 6400);
    }
}
