//! What there is to watch: a line for each snapshot, a progress bar, a heat map.

use std::fmt::Write as _;
use std::io::{IsTerminal, stdout};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use pugmark::DirtyRun;

use super::files;

const ROWS: usize = 4;
const COLUMNS: usize = 64;
const CELLS: usize = ROWS * COLUMNS;

/// How much of each part of memory was written, an equal part a cell.
pub struct HeatMap {
    base: u64,
    cell: u64,
    dirty: [u64; CELLS],
}

impl HeatMap {
    pub fn new(base: u64, size: u64) -> Self {
        Self {
            base,
            cell: size.div_ceil(CELLS as u64),
            dirty: [0; CELLS],
        }
    }

    pub fn add(&mut self, run: DirtyRun) {
        let mut at = run.start - self.base;
        let end = at + run.len;
        while at < end {
            let cell = at / self.cell;
            let part = end.min((cell + 1) * self.cell) - at;
            self.dirty[cell as usize] += part;
            at += part;
        }
    }

    pub fn clear(&mut self) {
        self.dirty = [0; CELLS];
    }

    /// Rows of cells: in colours on a terminal, elsewhere in letters.
    pub fn draw(&self, colours: bool) -> String {
        // From nothing to all: the share in percent from which a step holds, its colour, its letter.
        const STEPS: [(u64, u8, char); 6] = [
            (0, 234, '.'),
            (1, 17, ':'),
            (5, 19, '-'),
            (20, 91, '+'),
            (50, 202, '*'),
            (90, 226, '#'),
        ];
        let mut text = String::new();
        for row in self.dirty.chunks(COLUMNS) {
            text += "  ";
            for &dirty in row {
                // What was written at all is more than nothing.
                let percent = (dirty * 100).div_ceil(self.cell);
                let step = STEPS.iter().rev().find(|(from, ..)| percent >= *from);
                let &(_, colour, letter) = step.unwrap_or(&STEPS[0]);
                if colours {
                    let _ = write!(text, "\x1b[48;5;{colour}m ");
                } else {
                    text.push(letter);
                }
            }
            text += if colours { "\x1b[0m\n" } else { "\n" };
        }
        text.pop();
        text
    }

    /// What a cell stands for.
    pub fn legend(&self) -> String {
        format!(
            "a cell is {:.2} MiB; written of it: nothing, some, 5, 20, 50, 90 %",
            files::mib(self.cell)
        )
    }
}

/// Lines above, a map and a bar below.
pub struct Screen {
    all: MultiProgress,
    map: ProgressBar,
    bar: ProgressBar,
    colours: bool,
}

impl Screen {
    pub fn new() -> Self {
        let all = MultiProgress::new();
        let message = ProgressStyle::with_template("{msg}").expect("a template");
        let map = all.add(ProgressBar::new(0).with_style(message));
        let bar = all.add(files::bar(0));
        Self {
            all,
            map,
            bar,
            colours: stdout().is_terminal(),
        }
    }

    pub fn line(&self, text: &str) {
        self.all.suspend(|| println!("{text}"));
    }

    pub fn map(&self, map: &HeatMap) {
        let text = map.draw(self.colours);
        self.map.set_message(format!("{text}\n  {}", map.legend()));
    }

    /// The bar, for another `bytes` bytes.
    pub fn bar(&self, what: String, bytes: u64) -> &ProgressBar {
        self.bar.set_message(what);
        self.bar.set_length(bytes);
        self.bar.reset();
        &self.bar
    }

    /// Leaves the map, as a line.
    pub fn end(&self, map: &HeatMap) {
        self.bar.finish_and_clear();
        self.map.finish_and_clear();
        println!("{}\n  {}", map.draw(self.colours), map.legend());
    }
}
