//! How large harvests are, in pages: a small histogram.

/// Four buckets for each power of two: a size is known to a fifth.
const BUCKETS: usize = 4 * 20;

/// The harvests of a phase.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// How many of each size; empty ones are not here.
    buckets: [u32; BUCKETS],
    /// How many, also those that found nothing.
    pub harvests: u32,
    /// The largest.
    pub max: usize,
}

impl Sizes {
    /// None yet.
    pub const NONE: Self = Self {
        buckets: [0; BUCKETS],
        harvests: 0,
        max: 0,
    };

    /// One more.
    pub fn add(&mut self, pages: usize) {
        self.harvests += 1;
        self.max = self.max.max(pages);
        if pages > 0 {
            self.buckets[bucket(pages)] += 1;
        }
    }

    /// The median of those that found anything: the smallest size in its bucket.
    pub fn median(&self) -> usize {
        let half = self.buckets.iter().sum::<u32>().div_ceil(2);
        let mut seen = 0;
        let median = self.buckets.iter().position(|&count| {
            seen += count;
            half > 0 && seen >= half
        });
        median.map_or(0, smallest)
    }
}

/// By the two bits below the highest one.
fn bucket(pages: usize) -> usize {
    let octave = pages.ilog2() as usize;
    let quarter = (pages << 2 >> octave) & 3;
    (octave * 4 + quarter).min(BUCKETS - 1)
}

fn smallest(bucket: usize) -> usize {
    ((4 + bucket % 4) << (bucket / 4)).div_ceil(4)
}
