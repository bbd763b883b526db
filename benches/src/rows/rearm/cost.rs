use std::ops::Range;

/// What a host takes to protect, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// For all ranges that it is given at once.
    pub call: f64,
    /// For each of them.
    pub range: f64,
    /// For each page of them.
    pub page: f64,
    /// What the host says of it: [`pugmark::WriteProtect::bridge`].
    pub bridge: usize,
}

impl Cost {
    /// `UFFDIO_WRITEPROTECT`, as the rows `rearm-uffd-range` and `rearm-uffd-page` measure it. It takes
    /// one range at a time.
    pub const UFFD: Self = Self {
        call: 0.0,
        range: 820.0,
        page: 64.0,
        bridge: 8,
    };

    /// Stage-2 tables, as the rows `rearm-stage2-range` and `rearm-stage2-page` measure them. A TLB
    /// invalidation on every core, one for all ranges, is set to 1 µs: not measured.
    pub const STAGE2: Self = Self {
        call: 1_000.0,
        range: 50.0,
        page: 1.0,
        bridge: 64,
    };

    /// `hv_vm_protect`, as other projects measured it: 6 µs for a small range, and none the slower for
    /// a large one. It takes one range at a time.
    pub const HVF: Self = Self {
        call: 0.0,
        range: 6_000.0,
        page: 0.0,
        bridge: 1 << 16,
    };

    pub fn of(&self, calls: f64, ranges: f64, pages: f64) -> f64 {
        calls * self.call + ranges * self.range + pages * self.page
    }

    /// The least that it takes to protect `runs`, which ascend and do not touch.
    ///
    /// A range that begins or ends in a gap costs less without that part, so the best ranges begin and
    /// end where runs do. What is left is to bridge each gap or not: to do it costs its pages and saves
    /// a range, whatever is done to other gaps.
    pub fn least(&self, runs: &[Range<usize>]) -> f64 {
        if runs.is_empty() {
            return 0.0;
        }
        let pages: usize = runs.iter().map(Range::len).sum();
        let gap = |pair: &[Range<usize>]| (pair[1].start - pair[0].end) as f64 * self.page;
        let gaps = runs.windows(2).map(|pair| self.range.min(gap(pair)));
        self.of(1.0, 1.0, pages as f64) + gaps.sum::<f64>()
    }

    /// The ranges that cost the least for these pages, which ascend.
    pub fn ranges(&self, dirty: &[usize]) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for &page in dirty {
            match ranges.last_mut() {
                Some(range) if (page - range.end) as f64 * self.page <= self.range => {
                    range.end = page + 1;
                }
                _ => ranges.push(page..page + 1),
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of all ways to protect the dirty pages of ten, each tried.
    #[test]
    fn nothing_costs_less_than_the_least() {
        const PAGES: u32 = 10;
        for (range, page) in [
            (0.0, 1.0),
            (1.0, 1.0),
            (2.5, 1.0),
            (3.0, 1.0),
            (100.0, 1.0),
            (6.0, 0.0),
        ] {
            let cost = Cost {
                call: 0.5,
                range,
                page,
                bridge: 0,
            };
            for dirty in 1_u32..1 << PAGES {
                let covers = (1_u32..1 << PAGES).filter(|covered| dirty & !covered == 0);
                let costs = covers.map(|covered| {
                    // Neighbouring pages in one range: two would cost more.
                    let ranges = (covered & !(covered << 1)).count_ones();
                    cost.of(1.0, ranges.into(), covered.count_ones().into())
                });
                let best = costs.fold(f64::INFINITY, f64::min);
                assert_eq!(cost.least(&runs(dirty)), best, "{dirty:#b} {range} {page}");
            }
        }
    }

    fn runs(mut pages: u32) -> Vec<Range<usize>> {
        let mut runs = Vec::new();
        while pages != 0 {
            let start = pages.trailing_zeros();
            let end = start + (pages >> start).trailing_ones();
            pages &= !((1 << end) - 1);
            runs.push(start as usize..end as usize);
        }
        runs
    }
}
