//! Traces that somebody made up: each is one thing that a controller can get wrong.

use std::ops::Range;
use std::time::Duration;

use super::replay::BLOCK;
use super::traces::{Epoch, Record, Trace};

/// A made-up guest.
pub struct Workload {
    pub name: &'static str,
    pub about: &'static str,
    epochs: u64,
    /// Which blocks are written in an epoch, and how many pages of each.
    written: fn(&mut Guest) -> Vec<(u64, u64)>,
}

/// What a workload may look at.
struct Guest {
    epoch: u64,
    /// Pages in a block.
    block: u64,
    random: u64,
}

const EPOCHS: u64 = 400;
/// Pages of a sparse block.
const FEW: u64 = 2;

pub const ALL: &[Workload] = &[
    Workload {
        name: "idle",
        about: "a page now and then",
        epochs: EPOCHS,
        written: |guest| match guest.epoch % 5 {
            0 => vec![(guest.epoch % 4, 1)],
            _ => vec![],
        },
    },
    Workload {
        name: "sparse",
        about: "a few pages of random blocks",
        epochs: EPOCHS,
        written: |guest| {
            let mut written: Vec<_> = (0..24).map(|_| (guest.below(32), 1)).collect();
            written.sort_unstable();
            written.dedup();
            for (_, pages) in &mut written {
                *pages += guest.below(4);
            }
            written
        },
    },
    Workload {
        name: "dense",
        about: "every page of some blocks",
        epochs: EPOCHS,
        written: |guest| (0..8).map(|block| (block, guest.block)).collect(),
    },
    Workload {
        name: "side by side",
        about: "dense blocks beside sparse ones",
        epochs: EPOCHS,
        written: |guest| {
            let pages = [FEW, guest.block];
            (0..8)
                .map(|block| (block, pages[block as usize % 2]))
                .collect()
        },
    },
    Workload {
        name: "sweep",
        about: "every page of each block once, in order",
        epochs: 128,
        written: |guest| (0..4).map(|n| (4 * guest.epoch + n, guest.block)).collect(),
    },
    Workload {
        name: "sparse sweep",
        about: "two pages of each block once, in order",
        epochs: 128,
        written: |guest| (0..4).map(|n| (4 * guest.epoch + n, FEW)).collect(),
    },
    Workload {
        name: "working set",
        about: "eight dense blocks that move on every ten epochs",
        epochs: EPOCHS,
        written: |guest| {
            let first = guest.epoch / 10 * 3;
            (first..first + 8)
                .map(|block| (block, guest.block))
                .collect()
        },
    },
    Workload {
        name: "phases",
        about: "50 dense epochs, 50 sparse ones, and so on",
        epochs: EPOCHS,
        written: |guest| guest.by_turns(50),
    },
    Workload {
        name: "by turns, 1",
        about: "a dense epoch, a sparse one, and so on",
        epochs: EPOCHS,
        written: |guest| guest.by_turns(1),
    },
    Workload {
        name: "by turns, 2",
        about: "two dense epochs, two sparse ones, and so on",
        epochs: EPOCHS,
        written: |guest| guest.by_turns(2),
    },
    Workload {
        name: "by turns, 3",
        about: "three dense epochs, three sparse ones, and so on",
        epochs: EPOCHS,
        written: |guest| guest.by_turns(3),
    },
    Workload {
        name: "by turns, 17",
        about: "17 dense epochs, 17 sparse ones, and so on: the longest wait for a sample",
        epochs: EPOCHS,
        written: |guest| guest.by_turns(17),
    },
    Workload {
        name: "coin",
        about: "each block dense or sparse, by a coin in each epoch",
        epochs: EPOCHS,
        written: |guest| guest.one_dense_in(2),
    },
    Workload {
        name: "rarely dense",
        about: "sparse, and dense in one of twenty epochs",
        epochs: EPOCHS,
        written: |guest| guest.one_dense_in(20),
    },
    Workload {
        name: "rarely sparse",
        about: "dense, and sparse in one of twenty epochs",
        epochs: EPOCHS,
        written: |guest| {
            let pages = |n: u64| if n == 0 { FEW } else { u64::MAX };
            let block = guest.block;
            (0..8)
                .map(|n| (n, pages(guest.below(20)).min(block)))
                .collect()
        },
    },
    Workload {
        name: "any",
        about: "any number of pages of each block, all as likely",
        epochs: EPOCHS,
        written: |guest| guest.up_to(guest.block),
    },
    Workload {
        name: "up to half",
        about: "any number of pages up to half a block",
        epochs: EPOCHS,
        written: |guest| guest.up_to(guest.block / 2),
    },
    Workload {
        name: "up to an eighth",
        about: "any number of pages up to an eighth of a block",
        epochs: EPOCHS,
        written: |guest| guest.up_to(guest.block / 8),
    },
    Workload {
        name: "falling off",
        about: "block n up to 1/n of its pages",
        epochs: EPOCHS,
        written: |guest| {
            let block = guest.block;
            (0..32)
                .map(|n| (n, 1 + guest.below(block / (n + 1))))
                .collect()
        },
    },
];

impl Guest {
    /// A random number below `end`: xorshift*, so that a trace is the same everywhere.
    fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % end
    }

    /// Eight blocks, dense for `epochs`, then sparse for as many.
    fn by_turns(&mut self, epochs: u64) -> Vec<(u64, u64)> {
        let dense = (self.epoch / epochs).is_multiple_of(2);
        let pages = if dense { self.block } else { FEW };
        (0..8).map(|block| (block, pages)).collect()
    }

    /// Eight blocks, each sparse but for one epoch in `epochs`.
    fn one_dense_in(&mut self, epochs: u64) -> Vec<(u64, u64)> {
        let mut pages = || match self.below(epochs) {
            0 => self.block,
            _ => FEW,
        };
        (0..8).map(|block| (block, pages())).collect()
    }

    fn up_to(&mut self, pages: u64) -> Vec<(u64, u64)> {
        (0..24)
            .map(|block| (block, 1 + self.below(pages)))
            .collect()
    }
}

impl Workload {
    /// What the guest writes, with pages of `page_size` bytes.
    pub fn trace(&self, page_size: u64) -> Trace {
        let block = BLOCK / page_size;
        let mut guest = Guest {
            epoch: 0,
            block,
            random: 0x9e37_79b9_7f4a_7c15,
        };
        let mut records = Vec::new();
        let mut pages = block;
        for epoch in 0..self.epochs {
            guest.epoch = epoch;
            let written = (self.written)(&mut guest);
            let runs: Vec<Range<u64>> = written
                .iter()
                .flat_map(|&(number, pages)| scattered(number * block, block, pages))
                .collect();
            pages = pages.max(runs.last().map_or(0, |run| run.end));
            let time = Duration::from_millis(100);
            records.push(Record::Epoch(Epoch { time, runs }));
        }
        Trace {
            page_size,
            first_page: 1 << 18,
            pages: pages.next_multiple_of(block),
            records,
        }
    }
}

/// `pages` pages of a block, as far from one another as they can be.
fn scattered(first: u64, block: u64, pages: u64) -> impl Iterator<Item = Range<u64>> {
    let page = move |n: u64| first + n * block / pages;
    (0..pages).map(move |n| page(n)..page(n) + 1)
}
