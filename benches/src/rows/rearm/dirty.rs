//! What was written between harvests.

use std::ops::Range;

use crate::random::{rng, scattered};
use crate::rows::traces::Trace;

pub struct Dirty {
    /// All that there are.
    pub pages: usize,
    /// The runs of dirty pages that each harvest finds.
    pub harvests: Vec<Vec<Range<usize>>>,
}

/// A Linux at work, page by page: every epoch of the recorded traces.
pub fn recorded() -> Dirty {
    let files: [&[u8]; 2] = [
        include_bytes!("../../../../tests/traces/linux-full.bin"),
        include_bytes!("../../../../tests/traces/linux-short.bin"),
    ];
    let traces = files.map(|file| Trace::read(file).expect("a trace"));
    let phases = traces.iter().flat_map(Trace::phases);
    let epochs = phases.flat_map(|(_, epochs)| epochs);
    let run = |run: &Range<u64>| run.start as usize..run.end as usize;
    Dirty {
        pages: traces
            .iter()
            .map(|trace| trace.pages as usize)
            .max()
            .unwrap_or_default(),
        harvests: epochs
            .map(|epoch| epoch.runs.iter().map(run).collect())
            .collect(),
    }
}

/// One harvest of 1 GiB, of whose pages some are dirty, anywhere.
pub fn random(per_cent: usize) -> Dirty {
    const PAGES: usize = 1 << 18;
    let mut runs: Vec<Range<usize>> = Vec::new();
    for page in scattered(&mut rng(), PAGES * per_cent / 100, PAGES) {
        match runs.last_mut() {
            Some(run) if run.end == page => run.end += 1,
            _ => runs.push(page..page + 1),
        }
    }
    Dirty {
        pages: PAGES,
        harvests: vec![runs],
    }
}
