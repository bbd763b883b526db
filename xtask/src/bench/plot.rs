//! What the bench says of a picture, drawn: both axes logarithmic, or names along it.

use std::ops::Range;

use anyhow::{Context, Result};
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::report::{Curve, Picture, Role, Scale};
use super::table::number_of;
use crate::picture::{self, Canvas, black};

const SIZE: (u32, u32) = (1200, 680);
const LEGEND_WIDTH: i32 = 370;

const US_NAME: &str = "pugmark";
const US: RGBColor = RGBColor(200, 20, 60);
const LIMIT: RGBColor = RGBColor(60, 60, 60);
/// The same in all pictures, and told apart by those who do not see red and green alike.
fn colour_of(peer: &str) -> RGBColor {
    match peer {
        "vm-memory" => RGBColor(230, 150, 0),
        "look, then swap" => RGBColor(0, 114, 178),
        _ => RGBColor(0, 150, 110),
    }
}

/// The picture as a PNG file. `measured` says when and on what.
pub fn png(picture: &Picture, measured: &str) -> Result<Vec<u8>> {
    picture::png(SIZE, |canvas| draw(picture, measured, canvas))
        .with_context(|| format!("{} cannot be drawn", picture.name))
}

/// Lines across the picture: where, and what is written there.
struct Ticks(Vec<(f64, String)>);

impl Ticks {
    /// From a little before the first one to a little after the last one.
    fn range(&self, margin: f64) -> Range<f64> {
        let [first, last] =
            [self.0.first(), self.0.last()].map(|tick| tick.map_or(0.0, |tick| tick.0));
        first - margin..last + margin
    }
}

/// Where a value along the picture is.
fn place(scale: &Scale, least: f64, value: f64) -> f64 {
    match scale {
        // Zero has no logarithm: it is one step before the least share.
        Scale::Shares if value == 0.0 => least.log10() - 1.0,
        Scale::Shares => value.log10(),
        Scale::Bytes => value.log2(),
        Scale::Names(_) => value,
    }
}

fn ticks_along(scale: &Scale, places: &[f64]) -> Ticks {
    let mut places = places.to_vec();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let label = |(number, place): (usize, f64)| {
        let label = match scale {
            Scale::Shares if number == 0 => "0".into(),
            // One in two is too near to all.
            Scale::Shares if place.fract() != 0.0 => return None,
            Scale::Shares => format!("{} %", 10_f64.powf(place + 2.0)),
            Scale::Bytes => bytes(place),
            Scale::Names(names) => names.get(place as usize).cloned().unwrap_or_default(),
        };
        Some((place, label))
    };
    Ticks(places.into_iter().enumerate().filter_map(label).collect())
}

/// A power of two of bytes.
fn bytes(power: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (power as usize / 10).min(units.len() - 1);
    let count = 2_f64.powf(power - 10.0 * unit as f64);
    format!("{count} {}", units[unit])
}

/// Of times, whose decimal logarithms are in `range`: powers of ten, and where these are few what is
/// between them.
fn ticks_up(range: &Range<f64>) -> Ticks {
    let (first, last) = (range.start.floor() as i32, range.end.ceil() as i32);
    let steps: &[f64] = if last - first > 3 {
        &[1.0]
    } else {
        &[1.0, 2.0, 5.0]
    };
    let all =
        (first..=last).flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
    let shown = all.filter(|time| range.contains(&time.log10()));
    Ticks(shown.map(|at| (at.log10(), short_time(at))).collect())
}

/// A round time.
fn short_time(nanoseconds: f64) -> String {
    let units = [(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")];
    let mut units = units.into_iter();
    let (size, unit) = units
        .find(|(size, _)| nanoseconds >= size * 0.999)
        .unwrap_or((1.0, "ns"));
    let count = nanoseconds / size;
    let digits = if count < 0.99 { 1 } else { 0 };
    format!("{count:.digits$} {unit}")
}

/// How a curve looks: the same colour for all of one contender's, and different lines.
struct Look {
    colour: RGBColor,
    /// The how-manieth of this contender's it is.
    nth: usize,
}

fn looks(curves: &[Curve]) -> Vec<Look> {
    let look = |(number, curve): (usize, &Curve)| {
        let before = curves[..number].iter();
        let nth = before.filter(|other| other.who == curve.who).count();
        let colour = match curve.role {
            _ if curve.who == US_NAME => US,
            Role::Limit => LIMIT,
            _ => colour_of(&curve.who),
        };
        Look { colour, nth }
    };
    curves.iter().enumerate().map(look).collect()
}

/// Each contender once.
fn whos(curves: &[Curve]) -> Vec<&str> {
    let mut whos: Vec<&str> = Vec::new();
    for curve in curves {
        if !whos.contains(&&*curve.who) {
            whos.push(&curve.who);
        }
    }
    whos
}

const LEFT: i32 = 112;
const TOP: i32 = 108;
const RIGHT: i32 = SIZE.0 as i32 - LEGEND_WIDTH;
const BOTTOM: i32 = SIZE.1 as i32 - 74;

/// What the axes are from and to.
struct Area {
    across: Range<f64>,
    /// Decimal logarithms of times.
    up: Range<f64>,
}

impl Area {
    fn pixel(&self, across: f64, up: f64) -> (i32, i32) {
        let share = |range: &Range<f64>, at: f64| (at - range.start) / (range.end - range.start);
        let x = share(&self.across, across) * f64::from(RIGHT - LEFT);
        let y = share(&self.up, up) * f64::from(BOTTOM - TOP);
        (LEFT + x.round() as i32, BOTTOM - y.round() as i32)
    }

    /// The axes, what they are of, and lines at the ticks.
    fn frame(&self, canvas: &Canvas, picture: &Picture, along: &Ticks, up: &Ticks) -> Result<()> {
        let line = |from, to, style: ShapeStyle| canvas.draw(&PathElement::new([from, to], style));
        let thin = BLACK.mix(0.13).stroke_width(1);
        let below = black(14).pos(Pos::new(HPos::Center, VPos::Top));
        for (at, label) in &along.0 {
            let (x, _) = self.pixel(*at, 0.0);
            line((x, TOP), (x, BOTTOM), thin)?;
            canvas.draw_text(label, &below, (x, BOTTOM + 8))?;
        }
        let beside = black(14).pos(Pos::new(HPos::Right, VPos::Center));
        for (at, label) in &up.0 {
            let (_, y) = self.pixel(0.0, *at);
            line((LEFT, y), (RIGHT, y), thin)?;
            canvas.draw_text(label, &beside, (LEFT - 8, y))?;
        }
        let axis = BLACK.stroke_width(1);
        line((LEFT, TOP), (LEFT, BOTTOM), axis)?;
        line((LEFT, BOTTOM), (RIGHT, BOTTOM), axis)?;
        let middle = (LEFT + (RIGHT - LEFT) / 2, BOTTOM + 38);
        let title = black(16).pos(Pos::new(HPos::Center, VPos::Top));
        canvas.draw_text(&picture.x.label, &title, middle)?;
        let what = format!("time of a {}", picture.unit);
        canvas.draw_text(&what, &black(16), (24, TOP - 26))?;
        Ok(())
    }
}

fn draw(picture: &Picture, measured: &str, canvas: &Canvas) -> Result<()> {
    canvas.fill(&WHITE)?;
    canvas.draw_text(&picture.title, &black(24), (24, 18))?;
    canvas.draw_text(measured, &black(15), (24, 52))?;

    let scale = &picture.x.scale;
    let points = || picture.curves.iter().flat_map(|curve| &curve.points);
    let least = points().map(|point| point[0]).filter(|x| *x > 0.0);
    let least = least.fold(f64::INFINITY, f64::min);
    let places: Vec<f64> = points()
        .map(|point| place(scale, least, point[0]))
        .collect();
    let along = ticks_along(scale, &places);
    let times = points().map(|point| point[1].log10());
    let [low, high] = [
        times.clone().fold(f64::INFINITY, f64::min),
        times.fold(f64::MIN, f64::max),
    ];
    let range = low - 0.15..high + 0.15;
    let margin = match scale {
        Scale::Names(_) => 0.5,
        _ => 0.3,
    };
    let area = Area {
        across: along.range(margin),
        up: range.clone(),
    };
    area.frame(canvas, picture, &along, &ticks_up(&range))?;

    let looks = looks(&picture.curves);
    let pixel = |point: &[f64; 2]| area.pixel(place(scale, least, point[0]), point[1].log10());
    for (curve, look) in picture.curves.iter().zip(&looks) {
        let points: Vec<(i32, i32)> = curve.points.iter().map(pixel).collect();
        match scale {
            Scale::Names(_) => {}
            _ => draw_line(canvas, &points, look)?,
        }
    }
    if let Scale::Names(_) = scale {
        draw_stems(canvas, picture, &looks, pixel)?;
    }
    legend(canvas, picture, &looks)
}

/// Of one contender's curves the first is a line, the others are of dashes, each shorter.
fn draw_line(canvas: &Canvas, points: &[(i32, i32)], look: &Look) -> Result<()> {
    let style = look.colour.stroke_width(2);
    match look.nth {
        0 => canvas.draw(&PathElement::new(points.to_vec(), style))?,
        nth => {
            let dash = [0, 12, 6, 2][nth.min(3)];
            canvas.draw(&DashedPathElement::new(
                points.iter().copied(),
                dash,
                5,
                style,
            ))?;
        }
    }
    for point in points {
        mark(canvas, *point, look)?;
    }
    Ok(())
}

/// A round mark, filled for the first of one contender's curves and else with a hole.
fn mark(canvas: &Canvas, at: (i32, i32), look: &Look) -> Result<()> {
    canvas.draw(&Circle::new(at, 4, look.colour.filled()))?;
    if look.nth % 2 == 1 {
        canvas.draw(&Circle::new(at, 2, WHITE.filled()))?;
    }
    Ok(())
}

/// Over each name, side by side, the contenders: their times as marks, joined, and the longest one as
/// a number.
fn draw_stems(
    canvas: &Canvas,
    picture: &Picture,
    looks: &[Look],
    pixel: impl Fn(&[f64; 2]) -> (i32, i32),
) -> Result<()> {
    let whos = whos(&picture.curves);
    let names = picture
        .curves
        .iter()
        .map(|curve| curve.points.len())
        .max()
        .unwrap_or(0);
    for (name, (number, who)) in
        (0..names).flat_map(|name| whos.iter().enumerate().map(move |who| (name, who)))
    {
        let own = picture
            .curves
            .iter()
            .zip(looks)
            .filter(|(curve, _)| curve.who == **who);
        let shift = (2 * number as i32 + 1 - whos.len() as i32) * 14;
        let own: Vec<_> = own
            .filter_map(|(curve, look)| {
                let point = curve.points.get(name)?;
                let (x, y) = pixel(point);
                Some(((x + shift, y), point[1], look))
            })
            .collect();
        let stem: Vec<(i32, i32)> = own.iter().map(|(at, ..)| *at).collect();
        let Some((at, longest, look)) = own.iter().max_by(|a, b| a.1.total_cmp(&b.1)) else {
            continue;
        };
        canvas.draw(&PathElement::new(stem, look.colour.stroke_width(2)))?;
        for (at, _, look) in &own {
            mark(canvas, *at, look)?;
        }
        let style = black(12).pos(Pos::new(HPos::Center, VPos::Bottom));
        canvas.draw_text(&number_of(*longest), &style, (at.0, at.1 - 7))?;
    }
    Ok(())
}

/// Who is who, each at the height of where it ends, the slowest first.
fn legend(canvas: &Canvas, picture: &Picture, looks: &[Look]) -> Result<()> {
    let last = |curve: &Curve| curve.points.last().map_or(0.0, |point| point[1]);
    let mut all: Vec<(&Curve, &Look)> = picture.curves.iter().zip(looks).collect();
    if !matches!(picture.x.scale, Scale::Names(_)) {
        all.sort_by(|a, b| last(b.0).total_cmp(&last(a.0)));
    }
    let left = RIGHT + 24;
    let middle = Pos::new(HPos::Left, VPos::Center);
    for (number, (curve, look)) in all.into_iter().enumerate() {
        let y = 108 + 27 * number as i32;
        let is_stem = matches!(picture.x.scale, Scale::Names(_));
        let sample = [(left, y), (left + 44, y)];
        match is_stem {
            true => mark(canvas, (left + 30, y), look)?,
            false => draw_line(canvas, &sample, look)?,
        }
        let name = match curve.how.is_empty() {
            true => curve.who.clone(),
            false => format!("{}, {}", curve.who, curve.how),
        };
        canvas.draw_text(&name, &black(14).pos(middle), (left + 56, y))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::Axis;

    fn picture(scale: Scale, xs: &[f64]) -> Picture {
        let curve = |who: &str, how: &str, role, factor: f64| Curve {
            who: who.into(),
            how: how.into(),
            role,
            points: xs.iter().map(|x| [*x, factor * (1.0 + x)]).collect(),
        };
        Picture {
            name: "plot-x".into(),
            title: "A title".into(),
            x: Axis {
                label: "x".into(),
                scale,
            },
            unit: "drain".into(),
            curves: vec![
                curve("limit", "", Role::Limit, 1.0),
                curve("pugmark", "a", Role::Us, 1.5),
                curve("pugmark", "b", Role::Us, 1.7),
                curve("peer", "", Role::Peer, 1e6),
            ],
        }
    }

    #[test]
    fn a_picture_is_drawn_whatever_is_along_it() {
        let names = Scale::Names(vec!["a".into(), "b".into()]);
        for (scale, xs) in [
            (Scale::Shares, vec![0.0, 1e-3, 0.5, 1.0]),
            (Scale::Bytes, vec![64e6, 128e6]),
            (names, vec![0.0, 1.0]),
            (Scale::Shares, vec![0.1]),
        ] {
            let png = png(&picture(scale, &xs), "today").expect("a picture");
            assert!(png.starts_with(b"\x89PNG"));
        }
    }

    #[test]
    fn ticks_have_units() {
        let shares = ticks_along(&Scale::Shares, &[-5.0, -4.0, -2.0, (0.5_f64).log10(), 0.0]);
        let labels: Vec<&str> = shares.0.iter().map(|tick| &*tick.1).collect();
        assert_eq!(labels, ["0", "0.01 %", "1 %", "100 %"]);
        assert_eq!(bytes(26.0), "64 MiB");
        assert_eq!(bytes(42.0), "4 TiB");
        let up = ticks_up(&(-0.1..1.4));
        let labels: Vec<&str> = up.0.iter().map(|tick| &*tick.1).collect();
        assert_eq!(labels, ["1 ns", "2 ns", "5 ns", "10 ns", "20 ns"]);
        assert_eq!(short_time(2e6), "2 ms");
        assert_eq!(short_time(0.5), "0.5 ns");
    }

    #[test]
    fn zero_is_a_step_before_the_least() {
        assert_eq!(place(&Scale::Shares, 1e-4, 0.0), -5.0);
    }
}
