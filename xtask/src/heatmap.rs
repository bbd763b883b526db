//! The heat map: when which addresses were written.

use std::time::Duration;

use anyhow::{Context, Result};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::picture::{self, Canvas, black};
use crate::trace::{Epoch, Record, Trace};

const SIZE: (u32, u32) = (1600, 900);
/// The side of a cell, in pixels: a single page is to be seen.
const CELL: i32 = 2;

/// From one page to all of a cell: dark to bright, and brighter to the eye at each step.
const COLOURS: [[u8; 3]; 6] = [
    [100, 48, 150],
    [148, 44, 136],
    [190, 55, 100],
    [237, 104, 60],
    [251, 170, 50],
    [252, 250, 180],
];
const NOTHING: RGBColor = RGBColor(14, 12, 26);

/// The counts behind the picture.
struct Cells {
    rows: usize,
    /// How many pages were written in each cell, as often as they were: column by column.
    counts: Vec<u32>,
    /// The pages that one cell stands for.
    pages: f64,
}

impl Cells {
    fn of(trace: &Trace, columns: usize, rows: usize) -> Self {
        let seconds = seconds(trace);
        let mut counts = vec![0; columns * rows];
        let mut time = Duration::ZERO;
        for record in &trace.records {
            let Record::Epoch(epoch) = record else {
                continue;
            };
            time += epoch.time;
            let column = (time.as_secs_f64() / seconds * columns as f64) as usize;
            let column = column.min(columns - 1) * rows;
            let row_of =
                |page: u64| (u128::from(page) * rows as u128 / u128::from(trace.pages)) as usize;
            for page in epoch.runs.iter().flat_map(Clone::clone) {
                counts[column + row_of(page)] += 1;
            }
        }
        Self {
            rows,
            counts,
            pages: trace.pages as f64 / rows as f64,
        }
    }

    /// From 0, one page, to 1, every page; `None` is nothing.
    fn heat(&self, column: usize, row: usize) -> Option<f64> {
        let count = self.counts[column * self.rows + row];
        let all = self.pages.max(2.0);
        (count > 0).then(|| (f64::from(count).ln() / all.ln()).min(1.0))
    }
}

/// How long it was recorded.
fn seconds(trace: &Trace) -> f64 {
    let epochs = trace.records.iter().filter_map(|record| match record {
        Record::Epoch(epoch) => Some(epoch.time),
        Record::Phase(_) => None,
    });
    epochs.sum::<Duration>().as_secs_f64().max(1e-6)
}

fn colour(heat: f64) -> RGBColor {
    let at = heat * (COLOURS.len() - 1) as f64;
    let below = (at as usize).min(COLOURS.len() - 2);
    let [from, to] = [COLOURS[below], COLOURS[below + 1]];
    let mix = |i: usize| {
        let [from, to] = [from[i], to[i]].map(f64::from);
        (from + (to - from) * (at - below as f64)) as u8
    };
    RGBColor(mix(0), mix(1), mix(2))
}

/// The picture of a trace, as a PNG file.
pub fn png(trace: &Trace, title: &str) -> Result<Vec<u8>> {
    let drawn = |canvas: &Canvas| draw(trace, title, canvas);
    picture::png(SIZE, drawn).context("the heat map cannot be drawn")
}

fn draw(trace: &Trace, title: &str, canvas: &Canvas) -> Result<()> {
    let seconds = seconds(trace);
    let address = |page: u64| (trace.first_page + page) * trace.page_size;
    let (base, end) = (address(0), address(trace.pages));

    canvas.fill(&WHITE)?;
    let step = (trace.pages / 8).max(1) as usize;
    let labels: Vec<u64> = (0..=trace.pages).step_by(step).map(address).collect();
    let mut chart = ChartBuilder::on(canvas)
        .margin(20)
        .margin_top(120)
        .margin_right(150)
        .x_label_area_size(56)
        .y_label_area_size(150)
        .build_cartesian_2d(0.0..seconds, (base..end).with_key_points(labels))?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_desc("guest time in seconds")
        .x_labels(12)
        .x_label_formatter(&|second| format!("{second}"))
        .y_desc("guest physical address")
        .y_label_formatter(&|address| format!("{address:#x}"))
        .label_style(black(20))
        .axis_desc_style(black(22))
        .draw()?;

    canvas.draw_text(title, &black(28), (20, 20))?;
    let (across, down) = chart.plotting_area().get_pixel_range();
    let [columns, rows] = [&across, &down].map(|range| (range.len() as i32 / CELL) as usize);
    let cells = Cells::of(trace, columns, rows);
    let inside = [(across.start, down.start), (across.end, down.end)];
    canvas.draw(&Rectangle::new(inside, NOTHING.filled()))?;
    for (column, row) in (0..columns).flat_map(|column| (0..rows).map(move |row| (column, row))) {
        let Some(heat) = cells.heat(column, row) else {
            continue;
        };
        // A cell may be a little wider than CELL, so that all fill the area.
        let x = |column: usize| across.start + (column * across.len() / columns) as i32;
        let y = |row: usize| down.end - (row * down.len() / rows) as i32;
        let corners = [(x(column), y(row + 1)), (x(column + 1), y(row))];
        canvas.draw(&Rectangle::new(corners, colour(heat).filled()))?;
    }

    let border = WHITE.mix(0.6).stroke_width(1);
    let mut begins = Duration::ZERO;
    // Where the names in each of three lines end, the lowest first.
    let mut ends = [i32::MIN; 3];
    for (name, epochs) in trace.phases() {
        let share = begins.as_secs_f64() / seconds;
        let x = across.start + (share * across.len() as f64) as i32;
        canvas.draw(&PathElement::new([(x, down.start), (x, down.end)], border))?;
        let line = ends.iter().position(|end| *end <= x).unwrap_or(0);
        let style = black(21);
        let (width, _) = canvas.estimate_text_size(name, &style)?;
        ends[line] = x + width as i32 + 8;
        let y = down.start - 22 - 20 * line as i32;
        let tick = [(x, y + 4), (x, down.start)];
        canvas.draw(&PathElement::new(tick, BLACK.mix(0.5).stroke_width(1)))?;
        let outside = x + 4 + width as i32 > across.end;
        let left = if outside { x - 4 - width as i32 } else { x + 4 };
        canvas.draw_text(name, &style, (left, y))?;
        begins += epochs
            .iter()
            .map(|epoch: &&Epoch| epoch.time)
            .sum::<Duration>();
    }

    legend(canvas, &cells, (across.end + 24, down.start))?;
    let milliseconds = seconds * 1e3 / columns as f64;
    let size = cells.pages * trace.page_size as f64 / 1024.0;
    let note = format!("a cell is {milliseconds:.0} ms × {size:.0} KiB");
    let right = black(18).pos(Pos::new(HPos::Right, VPos::Bottom));
    canvas.draw_text(&note, &right, (across.end, down.end + 50))?;
    Ok(())
}

/// What the colours say.
fn legend(canvas: &Canvas, cells: &Cells, (left, top): (i32, i32)) -> Result<()> {
    const HEIGHT: i32 = 240;
    const WIDTH: i32 = 18;
    let text = black(18);
    for (line, words) in ["pages written", "in a cell"].iter().enumerate() {
        canvas.draw_text(words, &text, (left, top + 20 * line as i32))?;
    }
    let top = top + 52;
    for row in 0..HEIGHT {
        let colour = colour(1.0 - f64::from(row) / f64::from(HEIGHT - 1));
        let corners = [(left, top + row), (left + WIDTH, top + row + 1)];
        canvas.draw(&Rectangle::new(corners, colour.filled()))?;
    }
    let none = [
        (left, top + HEIGHT + 8),
        (left + WIDTH, top + HEIGHT + 8 + WIDTH),
    ];
    canvas.draw(&Rectangle::new(none, NOTHING.filled()))?;
    let all = cells.pages.max(2.0);
    let text = text.pos(Pos::new(HPos::Left, VPos::Center));
    let label = |words: &str, y: i32| canvas.draw_text(words, &text, (left + WIDTH + 8, y));
    label("none", top + HEIGHT + 8 + WIDTH / 2)?;
    label("all", top)?;
    for count in [1.0, 10.0, 100.0, 1000.0] {
        let height = f64::ln(count) / all.ln();
        if height < 0.92 {
            let y = top + HEIGHT - (height * f64::from(HEIGHT)) as i32;
            label(&format!("{count}"), y)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "the range is meant")]
mod tests {
    use super::*;

    fn trace(pages: u64, records: Vec<Record>) -> Trace {
        Trace {
            page_size: 4096,
            first_page: 0x5_0000,
            pages,
            records,
        }
    }

    fn epoch(millis: u64, runs: &[std::ops::Range<u64>]) -> Record {
        Record::Epoch(Epoch {
            time: Duration::from_millis(millis),
            runs: runs.to_vec(),
        })
    }

    #[test]
    fn cells_count_writes() {
        let records = vec![
            epoch(100, &[0..10]),
            Record::Phase("dd".into()),
            epoch(400, &[9..11, 99..100]),
            epoch(500, &[0..100]),
        ];
        let cells = Cells::of(&trace(100, records), 2, 10);
        // What an epoch holds was written before its end, which may be that of the trace.
        assert_eq!(cells.counts[..10], [10, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(cells.counts[10..], [11, 11, 10, 10, 10, 10, 10, 10, 10, 11]);
        assert_eq!(cells.heat(0, 1), None);
        assert_eq!(cells.heat(0, 0), Some(1.0));
        assert_eq!(cells.heat(1, 0), Some(1.0));
    }

    #[test]
    fn colours_go_from_one_end_to_the_other() {
        assert_eq!(colour(0.0), RGBColor(100, 48, 150));
        assert_eq!(colour(1.0), RGBColor(252, 250, 180));
    }

    #[test]
    fn a_picture_is_drawn_whatever_the_trace() {
        let full = trace(
            65_536,
            vec![
                Record::Phase("boot".into()),
                epoch(100, &[0..65_536]),
                Record::Phase("dd".into()),
                epoch(1, &[7..8]),
            ],
        );
        for trace in [full, trace(0, vec![]), trace(1, vec![epoch(0, &[0..1])])] {
            let png = png(&trace, "A title").expect("a picture");
            assert!(png.starts_with(b"\x89PNG"));
        }
    }
}
