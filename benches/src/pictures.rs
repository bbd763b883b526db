//! What a number cannot say: how a time changes with what it is measured for.
//!
//! A picture is made of parts, in each of which all contenders take turns as in a row.

mod contended;
mod density;
mod ram;

use crate::harness::{Bench, Measured};
use crate::report::{self, Curve};

/// Something to be drawn.
pub struct Picture {
    pub name: &'static str,
    pub work: &'static str,
    pub measure: fn(&Bench) -> report::Picture,
}

pub const PICTURES: &[Picture] = &[density::PICTURE, ram::PICTURE, contended::PICTURE];

impl Picture {
    /// As one measured at `points`, in the words of this one.
    fn of(&self, x: report::Axis, unit: &str, points: Points) -> report::Picture {
        report::Picture {
            name: self.name.into(),
            title: self.work.into(),
            x,
            unit: unit.into(),
            curves: points.0,
        }
    }
}

/// What was measured so far.
struct Points(Vec<Curve>);

impl Points {
    const NONE: Self = Self(Vec::new());

    /// Adds what the contenders took at `x`. `names` has who each of them is, and how it does it.
    fn add(&mut self, x: f64, names: &[(&str, &str)], measured: &Measured) {
        assert_eq!(names.len(), measured.times().len());
        for (&(who, how), &(role, time)) in names.iter().zip(measured.times()) {
            let mut curves = self.0.iter_mut();
            let curve = curves.find(|curve| (&*curve.who, &*curve.how) == (who, how));
            let point = [x, time];
            match curve {
                Some(curve) => curve.points.push(point),
                None => self.0.push(Curve {
                    who: who.into(),
                    how: how.into(),
                    role,
                    points: vec![point],
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No times are looked at: each part checks that everybody did the work.
    #[test]
    #[cfg_attr(debug_assertions, ignore = "minutes without optimisation")]
    fn everybody_does_the_work_in_pictures() {
        for picture in PICTURES {
            let measured = (picture.measure)(&Bench::check());
            assert!(measured.curves.len() > 2);
            let points = measured.curves.iter().flat_map(|curve| &curve.points);
            assert!(points.into_iter().all(|[_, time]| *time > 0.0));
        }
    }
}
