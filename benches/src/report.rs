//! What the bench says, as JSON: `cargo xtask bench` reads it, and its `--json` passes it on.

use serde::{Deserialize, Serialize};

/// The exit status where there is no such row.
pub const BAD_INPUT: i32 = 2;

/// A line of the bench's output.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    Begun {
        row: String,
        work: String,
        number: usize,
        of: usize,
    },
    Measured(Box<Outcome>),
    Plotted(Box<Picture>),
}

/// What a row found. Times are medians, in nanoseconds a unit of work.
#[derive(Clone, Serialize, Deserialize)]
pub struct Outcome {
    pub row: String,
    /// What is done.
    pub work: String,
    /// What the times are for one of.
    pub unit: String,
    pub rounds: usize,
    /// pugmark.
    pub us: f64,
    /// What cannot be beaten.
    pub limit: Option<Other>,
    /// What one would use instead.
    pub peers: Vec<Other>,
    /// The limit's.
    pub ratio: Option<f64>,
    /// All of the row's goals, in words.
    pub goal: Option<String>,
    /// All of them.
    pub met: Option<bool>,
    /// Why a goal is not met, and what was tried.
    pub note: Option<String>,
    /// Why nothing was measured.
    pub skipped: Option<String>,
}

/// Somebody else who does the same.
#[derive(Clone, Serialize, Deserialize)]
pub struct Other {
    pub name: String,
    pub time: f64,
    /// The median of the rounds' ratios. Of a limit: how much longer pugmark takes. Of a peer: how
    /// much longer the peer does.
    pub ratio: f64,
    /// A quarter of the rounds had a lower ratio than the first, a quarter a higher one than the
    /// second.
    pub quartiles: [f64; 2],
    /// Of a limit: at most this ratio. Of a peer: at least.
    pub goal: Option<f64>,
    pub met: Option<bool>,
}

/// The numbers that a picture is drawn from.
#[derive(Clone, Serialize, Deserialize)]
pub struct Picture {
    pub name: String,
    pub title: String,
    /// What is along the picture.
    pub x: Axis,
    /// What the values are one of; they are medians, in nanoseconds.
    pub unit: String,
    pub curves: Vec<Curve>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Axis {
    pub label: String,
    pub scale: Scale,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// Of one; zero is among them.
    Shares,
    Bytes,
    /// The numbers are those of names, from zero on.
    Names(Vec<String>),
}

/// What one contender took.
#[derive(Clone, Serialize, Deserialize)]
pub struct Curve {
    pub who: String,
    /// With what, or for what, where there are several of one contender's.
    pub how: String,
    pub role: Role,
    /// What is along the picture, and nanoseconds.
    pub points: Vec<[f64; 2]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Limit,
    Us,
    Peer,
}
