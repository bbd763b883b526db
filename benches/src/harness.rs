//! Rounds in which all contenders take turns, and the ratios of each round.
//!
//! A ratio is only worth something if both of its times are of the same minute: other programs run,
//! clocks change. So the contenders of a row take turns, in each round in another order; each round
//! gives a ratio, and what counts is their median.
//!
//! Why no library: Criterion and Divan measure one after the other. Tango compares two builds of one
//! program. Binggan and zenbench take turns, but tell a difference of means and not the ratios to a
//! limit and to peers; neither has room for work that is done between two turns and not measured
//! (making slots dirty again) on state that the contenders share.

mod clock;
mod statistics;
mod threads;

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::report::{Other, Outcome, Role};
use crate::rows::Row;
use statistics::{median, quartiles};
pub use threads::together;

/// Rounds, whatever the time: fewer have no quartiles to speak of.
const ROUNDS_MIN: usize = 9;
/// The same for each part of a picture, which shows no quartiles, and where only an idea is wanted.
const ROUNDS_FEW: usize = 3;
/// Rounds to settle, whose times are thrown away.
const WARM_UP: usize = 2;

/// How long a turn took, and for how much work.
#[derive(Clone, Copy)]
pub struct Turn {
    elapsed: Duration,
    units: usize,
}

impl Turn {
    /// A time that is known otherwise, for one unit.
    pub fn fixed(elapsed: Duration) -> Self {
        Self { elapsed, units: 1 }
    }

    /// All of it.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    fn nanoseconds(&self) -> f64 {
        self.elapsed.as_nanos() as f64 / self.units as f64
    }
}

/// Measures `work` of this thread, which does `units` units, and returns what it did as well.
pub fn time<T>(units: usize, work: impl FnOnce() -> T) -> (Turn, T) {
    let start = clock::of_thread();
    let result = black_box(work());
    let elapsed = clock::of_thread() - start;
    (Turn { elapsed, units }, result)
}

/// The same by the clock on the wall, for work that waits: for another thread, or for a disk.
pub fn time_waiting<T>(units: usize, work: impl FnOnce() -> T) -> (Turn, T) {
    let start = Instant::now();
    let result = black_box(work());
    let elapsed = start.elapsed();
    (Turn { elapsed, units }, result)
}

/// Measures `work` done `times` times. It gets the number of the time.
///
/// After each time all memory that anybody has the address of counts as looked at and changed, so
/// that no work is left out, or done once for all. That takes no instruction (a `black_box` around a
/// value would be a store and a load). The addresses of what the work reads and writes go through
/// `black_box` once, before.
#[inline(always)]
pub fn repeat(times: usize, mut work: impl FnMut(usize)) -> Turn {
    let each = |time| {
        work(time);
        black_box(());
    };
    time(times, || (0..times).for_each(each)).0
}

/// One who does the work.
pub struct Contender<'a> {
    name: &'static str,
    role: Role,
    goal: Option<f64>,
    turn: Box<dyn FnMut() -> Turn + 'a>,
}

/// What cannot be beaten. `turn` prepares, measures, and checks that what was done is right.
pub fn limit<'a>(name: &'static str, turn: impl FnMut() -> Turn + 'a) -> Contender<'a> {
    Contender::new(name, Role::Limit, turn)
}

/// pugmark.
pub fn us<'a>(turn: impl FnMut() -> Turn + 'a) -> Contender<'a> {
    Contender::new("pugmark", Role::Us, turn)
}

/// What one would use instead.
pub fn peer<'a>(name: &'static str, turn: impl FnMut() -> Turn + 'a) -> Contender<'a> {
    Contender::new(name, Role::Peer, turn)
}

impl<'a> Contender<'a> {
    fn new(name: &'static str, role: Role, turn: impl FnMut() -> Turn + 'a) -> Self {
        Self {
            name,
            role,
            goal: None,
            turn: Box::new(turn),
        }
    }

    /// Of a limit: pugmark takes at most so many times as long.
    pub fn at_most(mut self, times: f64) -> Self {
        debug_assert!(self.role == Role::Limit);
        self.goal = Some(times);
        self
    }

    /// Of a peer: it takes at least so many times as long as pugmark.
    pub fn at_least(mut self, times: f64) -> Self {
        debug_assert!(self.role == Role::Peer);
        self.goal = Some(times);
        self
    }

    /// One of these, or none.
    pub fn with_goal(mut self, goal: Option<f64>) -> Self {
        self.goal = goal;
        self
    }

    /// The goal, in words.
    fn goal(&self) -> Option<String> {
        let name = self.name;
        self.goal.map(|goal| match self.role {
            Role::Peer => format!("≥ {goal}× faster than {name}"),
            _ => format!("≤ {goal}× {name}"),
        })
    }
}

/// The measurement of one row.
pub struct Bench {
    budget: Duration,
    rounds_min: usize,
    warm_up: usize,
}

/// What [`Bench::rounds`] found.
#[derive(Default)]
pub struct Measured {
    rounds: usize,
    us: f64,
    limit: Option<Other>,
    peers: Vec<Other>,
    goals: Vec<String>,
    /// Of each contender, in their order.
    times: Vec<(Role, f64)>,
    skipped: Option<String>,
}

impl Measured {
    /// Nothing, since this machine lacks what the row needs.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code))]
    pub fn skipped(reason: impl std::fmt::Display) -> Self {
        Self {
            skipped: Some(reason.to_string()),
            ..Self::default()
        }
    }

    /// The median of each contender, in nanoseconds, in their order.
    pub fn times(&self) -> &[(Role, f64)] {
        &self.times
    }
}

impl Bench {
    pub fn new(budget: Duration) -> Self {
        Self {
            budget,
            rounds_min: ROUNDS_MIN,
            warm_up: WARM_UP,
        }
    }

    /// For an idea of it.
    pub fn quick(budget: Duration) -> Self {
        Self {
            budget,
            rounds_min: ROUNDS_FEW,
            warm_up: 1,
        }
    }

    /// A part of a picture, of `parts` that share its time. Fewer rounds will do.
    pub fn part(&self, parts: usize) -> Self {
        Self {
            budget: self.budget / parts as u32,
            rounds_min: ROUNDS_FEW.min(self.rounds_min),
            warm_up: self.warm_up.min(1),
        }
    }

    /// Two turns of each, to see that it does its work: the second one finds what the first left.
    #[cfg(test)]
    pub fn check() -> Self {
        Self {
            budget: Duration::ZERO,
            rounds_min: 1,
            warm_up: 1,
        }
    }

    /// Whether nobody will look at the times: less work will do.
    pub fn is_check(&self) -> bool {
        self.rounds_min == 1
    }

    pub fn measure(&self, row: &Row) -> Outcome {
        let measured = (row.measure)(self);
        let others = measured.limit.iter().chain(&measured.peers);
        let verdicts: Vec<bool> = others.filter_map(|other| other.met).collect();
        let all = || verdicts.iter().all(|met| *met);
        Outcome {
            row: row.name.into(),
            work: row.work.into(),
            unit: row.unit.into(),
            rounds: measured.rounds,
            us: measured.us,
            ratio: measured.limit.as_ref().map(|limit| limit.ratio),
            goal: (!verdicts.is_empty()).then(|| measured.goals.join("; ")),
            met: (!verdicts.is_empty()).then(all),
            limit: measured.limit,
            peers: measured.peers,
            note: row.note.map(Into::into),
            skipped: measured.skipped,
        }
    }

    /// Lets the contenders take turns for as long as a row has.
    ///
    /// # Panics
    ///
    /// Where none of them is [`us`].
    pub fn rounds<'a>(&self, contenders: impl Into<Vec<Contender<'a>>>) -> Measured {
        let mut contenders = contenders.into();
        let mut times = vec![Vec::new(); contenders.len()];
        let start = Instant::now();
        for round in 0.. {
            let kept = times[0].len();
            if start.elapsed() >= self.budget && kept >= self.rounds_min {
                break;
            }
            for position in 0..contenders.len() {
                // Who comes first finds other things in the caches.
                let who = (round + position) % contenders.len();
                let turn = (contenders[who].turn)();
                if round >= self.warm_up {
                    times[who].push(turn.nanoseconds());
                }
            }
        }

        let all = contenders.iter().zip(&times);
        let us = all
            .clone()
            .find(|(contender, _)| contender.role == Role::Us);
        let (_, us) = us.expect("a row measures us");
        let compared = |role: Role| {
            let of_role = all
                .clone()
                .filter(move |(contender, _)| contender.role == role);
            of_role.map(|(contender, theirs)| compare(contender, us, theirs))
        };
        Measured {
            rounds: us.len(),
            us: median(us),
            limit: compared(Role::Limit).next(),
            peers: compared(Role::Peer).collect(),
            goals: contenders.iter().filter_map(Contender::goal).collect(),
            times: all
                .map(|(contender, times)| (contender.role, median(times)))
                .collect(),
            skipped: None,
        }
    }
}

fn compare(contender: &Contender, us: &[f64], theirs: &[f64]) -> Other {
    let is_peer = contender.role == Role::Peer;
    let ratio = |(us, theirs): (&f64, &f64)| if is_peer { theirs / us } else { us / theirs };
    let ratios: Vec<f64> = us.iter().zip(theirs).map(ratio).collect();
    let ratio = median(&ratios);
    let is_met = |goal| {
        if is_peer {
            ratio >= goal
        } else {
            ratio <= goal
        }
    };
    Other {
        name: contender.name.into(),
        time: median(theirs),
        ratio,
        quartiles: quartiles(&ratios),
        goal: contender.goal,
        met: contender.goal.map(is_met),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(nanoseconds: u64) -> Turn {
        Turn::fixed(Duration::from_nanos(nanoseconds))
    }

    #[test]
    fn the_ratio_is_the_median_of_those_of_the_rounds() {
        // The machine is ten times slower in each other round: the ratio of each is the same.
        let slow = |round: &mut u64| {
            *round += 1;
            if round.is_multiple_of(2) { 10 } else { 1 }
        };
        let (mut a, mut b, mut c) = (0, 0, 0);
        let measured = Bench::new(Duration::ZERO).rounds([
            limit("limit", || of(100 * slow(&mut a))).at_most(1.4),
            us(|| of(150 * slow(&mut b))),
            peer("peer", || of(900 * slow(&mut c))).at_least(6.0),
        ]);
        assert_eq!(measured.rounds, ROUNDS_MIN);
        let limit = measured.limit.unwrap();
        assert_eq!((limit.ratio, limit.quartiles), (1.5, [1.5, 1.5]));
        assert_eq!(limit.met, Some(false));
        assert_eq!(measured.peers[0].ratio, 6.0);
        assert_eq!(measured.peers[0].met, Some(true));
        assert_eq!(measured.goals, ["≤ 1.4× limit", "≥ 6× faster than peer"]);
    }

    #[test]
    fn each_comes_first_in_turn() {
        let order = std::cell::RefCell::new(String::new());
        let turn = |name| {
            let order = &order;
            move || {
                order.borrow_mut().push(name);
                of(1)
            }
        };
        Bench::new(Duration::ZERO).rounds([
            limit("a", turn('a')),
            us(turn('b')),
            peer("c", turn('c')),
        ]);
        assert!(order.borrow().starts_with("abcbcacab"));
    }
}
