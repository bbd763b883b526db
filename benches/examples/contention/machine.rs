//! Cores and cache lines, as simple as will do: a line is in the caches of those who read it since it was
//! last written, and a transfer takes time, in which no other transfer of that line is made.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// In nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// An atomic access to a line that is this core's already.
    pub hit: f64,
    /// A line from another core of the same socket.
    pub near: f64,
    /// From another socket.
    pub far: f64,
    pub cores_per_socket: usize,
}

impl Costs {
    /// The middle of what is measured on server processors of this decade: 50 to 100 ns from core to
    /// core in a socket, 150 to 300 ns between sockets; 5 ns for a locked instruction in the first
    /// cache.
    pub const LITERATURE: Self = Self {
        hit: 5.0,
        near: 75.0,
        far: 220.0,
        cores_per_socket: 64,
    };

    fn transfer(&self, from: usize, to: usize) -> f64 {
        if from / self.cores_per_socket == to / self.cores_per_socket {
            self.near
        } else {
            self.far
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Works on its own for so long.
    Work(f64),
    Read(usize),
    Write(usize),
}

#[derive(Clone, Debug, Default)]
struct Line {
    /// Who has a copy, a bit a core.
    copies: [u64; 4],
    /// Who wrote it last.
    writer: usize,
    touched: bool,
    transfers: usize,
    free_at: f64,
    busy: f64,
}

impl Line {
    fn has(&self, core: usize) -> bool {
        self.copies[core / 64] >> (core % 64) & 1 != 0
    }

    fn is_only_of(&self, core: usize) -> bool {
        let others = |at: usize| {
            if at == core / 64 {
                !(1 << (core % 64))
            } else {
                u64::MAX
            }
        };
        self.has(core) && (0..4).all(|at| self.copies[at] & others(at) == 0)
    }
}

#[derive(Clone, Debug)]
pub struct Outcome {
    /// A fault in the handler, on average, in nanoseconds.
    pub handler: f64,
    /// Of each line, a fault.
    pub transfers: Vec<f64>,
    /// The share of the time in which the busiest line was under way.
    pub busiest: f64,
}

/// Lets each core wait for `think`, then do the steps of its next fault, `faults` times.
///
/// `steps` is asked for the steps of a fault by its core's number.
pub fn run(
    costs: Costs,
    cores: usize,
    lines: usize,
    faults: usize,
    mut think: impl FnMut(usize) -> f64,
    mut steps: impl FnMut(usize) -> Vec<Step>,
) -> Outcome {
    let mut memory = vec![Line::default(); lines];
    let mut left = vec![faults; cores];
    let mut doing: Vec<std::vec::IntoIter<Step>> =
        (0..cores).map(|_| Vec::new().into_iter()).collect();
    let mut begun = vec![0.0; cores];
    // In whole picoseconds, which have an order.
    let at = |time: f64| Reverse((time * 1e3) as u64);
    let mut queue: BinaryHeap<(Reverse<u64>, Reverse<usize>)> = BinaryHeap::new();
    for core in 0..cores {
        let first = think(core);
        begun[core] = first;
        doing[core] = steps(core).into_iter();
        queue.push((at(first), Reverse(core)));
    }
    let (mut handler, mut end) = (0.0, 0.0_f64);
    while let Some((Reverse(now), Reverse(core))) = queue.pop() {
        let now = now as f64 / 1e3;
        end = end.max(now);
        let next = match doing[core].next() {
            Some(Step::Work(time)) => now + time,
            Some(Step::Read(line)) => access(&mut memory[line], core, now, false, costs),
            Some(Step::Write(line)) => access(&mut memory[line], core, now, true, costs),
            None => {
                handler += now - begun[core];
                left[core] -= 1;
                if left[core] == 0 {
                    continue;
                }
                begun[core] = now + think(core);
                doing[core] = steps(core).into_iter();
                begun[core]
            }
        };
        queue.push((at(next), Reverse(core)));
    }
    let all = (cores * faults) as f64;
    let busiest = memory.iter().map(|line| line.busy).fold(0.0, f64::max);
    Outcome {
        handler: handler / all,
        transfers: memory
            .iter()
            .map(|line| line.transfers as f64 / all)
            .collect(),
        busiest: busiest / end,
    }
}

/// When the access is done.
fn access(line: &mut Line, core: usize, now: f64, write: bool, costs: Costs) -> f64 {
    let hit = !line.touched
        || if write {
            line.is_only_of(core)
        } else {
            line.has(core)
        };
    let done = if hit {
        now + costs.hit
    } else {
        line.transfers += 1;
        let takes = costs.transfer(line.writer, core);
        line.busy += takes;
        line.free_at = line.free_at.max(now) + takes;
        line.free_at
    };
    if write {
        line.copies = [0; 4];
        line.writer = core;
    }
    line.copies[core / 64] |= 1 << (core % 64);
    line.touched = true;
    done
}
