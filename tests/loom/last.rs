//! Law 7: the last harvest, with every vCPU stopped, waits for the handlers in flight.

use std::sync::Arc;

use loom::sync::atomic::{
    AtomicUsize,
    Ordering::{self, AcqRel, Acquire, SeqCst},
    fence,
};
use loom::thread;
use pugmark::HarvestError;

use crate::by_hand::ByHand;
use crate::check::{holds, loses};
use crate::library::Library;
use crate::mmu::Mmu;
use crate::scenario::{Tracking, armed, write};

/// Takes one dirty page.
type Take<'a> = &'a mut dyn FnMut(usize) -> bool;

/// The last harvest, in one way or another; `false` if it is refused for now.
type Last<T> = fn(&T, Take<'_>) -> bool;

/// vCPUs exited with a write fault each and are stopped; their handlers run on. Another vCPU stores
/// to page 1 if it finds it open, and is stopped as well: if it faults, nobody handles that.
fn last_harvest<T: Tracking>(tracking: T, faults: &[usize], last: Last<T>) {
    let (tracking, mut copy) = armed(tracking);
    // So that the counters of handlers have a SeqCst store: see `Library::new`.
    write(&*tracking, 0);
    copy.harvest(&*tracking);

    let handle = |&page| {
        let tracking = Arc::clone(&tracking);
        thread::spawn(move || tracking.fault(page))
    };
    let mut handlers: Vec<_> = faults.iter().map(handle).collect();
    // The other vCPU is this thread, up to here: what it saw, the harvester sees.
    let _stopped = tracking.mmu().store(1);

    while !last(&tracking, &mut |page| {
        copy.take(tracking.mmu(), page);
        true
    }) {
        let handler = handlers.pop().expect("refused with no handler in flight");
        handler.join().unwrap();
    }
    for handler in handlers {
        handler.join().unwrap();
    }
    copy.check(tracking.mmu());
}

fn final_harvest(library: &Library, take: Take<'_>) -> bool {
    match library.tracker.final_harvest(Library::by_page(take)) {
        Ok(_) => true,
        Err(HarvestError::HandlersInFlight { .. }) => false,
        Err(error) => unreachable!("{error:?}"),
    }
}

#[test]
fn waits_for_a_handler() {
    holds(|| last_harvest(Library::new(2, 1), &[1], final_harvest));
}

/// One fault opens both pages of the block.
#[test]
fn waits_for_a_coarse_handler() {
    holds(|| last_harvest(Library::new(2, 2), &[0], final_harvest));
}

#[test]
fn waits_for_two_handlers() {
    holds(|| last_harvest(Library::new(2, 1), &[0, 1], final_harvest));
}

/// The library's own harvest, taken for the last one.
#[test]
fn plain_harvest() {
    loses(|| last_harvest(Library::new(2, 1), &[1], Library::harvest));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    /// Begun, grant, mark, ended; the harvest reads ended, then begun.
    Right,
    AfterTheGrant,
    BegunReadFirst,
}

/// Handlers counted by hand.
struct Counted {
    hand: ByHand,
    begun: AtomicUsize,
    ended: AtomicUsize,
    count: Count,
    /// Of the counts: to add, to load.
    order: (Ordering, Ordering),
    /// Between the count and the grant, and before the harvest reads the counts.
    fences: bool,
}

impl Counted {
    fn new(count: Count) -> Self {
        Self {
            hand: ByHand::new(2),
            begun: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            count,
            order: (SeqCst, SeqCst),
            fences: false,
        }
    }

    fn begin(&self) {
        self.begun.fetch_add(1, self.order.0);
        if self.fences {
            fence(SeqCst);
        }
    }

    fn in_flight(&self) -> bool {
        if self.fences {
            fence(SeqCst);
        }
        let begun = || self.begun.load(self.order.1);
        let ended = || self.ended.load(self.order.1);
        match self.count {
            Count::BegunReadFirst => begun() != ended(),
            Count::Right | Count::AfterTheGrant => ended() != begun(),
        }
    }

    fn final_harvest(&self, take: Take<'_>) -> bool {
        !self.in_flight() && self.harvest(take)
    }
}

impl Tracking for Counted {
    fn mmu(&self) -> &Mmu {
        self.hand.mmu()
    }

    fn arm(&self, baseline: &mut dyn FnMut()) {
        self.hand.arm(baseline);
    }

    fn fault(&self, page: usize) {
        if self.count != Count::AfterTheGrant {
            self.begin();
        }
        self.hand.mmu.open_page(page).unwrap();
        if self.count == Count::AfterTheGrant {
            self.begin();
        }
        self.hand.dirty.mark(page).unwrap();
        self.ended.fetch_add(1, self.order.0);
    }

    fn harvest(&self, take: Take<'_>) -> bool {
        self.hand.harvest(take)
    }
}

#[test]
fn by_hand_counted_right() {
    holds(|| {
        let counted = Counted::new(Count::Right);
        last_harvest(counted, &[0, 1], Counted::final_harvest);
    });
}

#[test]
fn counted_after_the_grant() {
    loses(|| {
        let counted = Counted::new(Count::AfterTheGrant);
        last_harvest(counted, &[1], Counted::final_harvest);
    });
}

/// A handler that begins and ends between the two loads makes up for the one in flight.
#[test]
fn begun_read_before_ended() {
    loses(|| {
        let counted = Counted::new(Count::BegunReadFirst);
        last_harvest(counted, &[0, 1], Counted::final_harvest);
    });
}

/// An acquire keeps what follows behind the *load* of a read-modify-write, but not behind its
/// store: the grant is seen and the count is not.
///
/// Nor does `SeqCst` for a grant that is relaxed, in the language or with LDAXR and STLXR. But loom
/// runs `SeqCst` in the order of the execution, and cannot show that: this model stands for it.
#[test]
fn counted_with_acquire_and_release() {
    loses(|| {
        let counted = Counted {
            order: (AcqRel, Acquire),
            ..Counted::new(Count::Right)
        };
        last_harvest(counted, &[1], Counted::final_harvest);
    });
}

/// The same with a fence on either side holds, however weak the host's grant is.
#[test]
fn by_hand_counted_with_fences() {
    holds(|| {
        let counted = Counted {
            order: (AcqRel, Acquire),
            fences: true,
            ..Counted::new(Count::Right)
        };
        last_harvest(counted, &[0, 1], Counted::final_harvest);
    });
}
