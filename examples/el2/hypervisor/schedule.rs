//! Who does what, told between cores: the judge gives the vCPUs a class, and waits until both have
//! parked; it gives the harvester its orders.

use core::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use super::{FIRST_VCPU, JUDGE, idle, layout::VCPUS};

/// A class that is none: the guest comes straight back.
pub const NO_CLASS: u64 = u64::MAX;

static TICKET: AtomicU64 = AtomicU64::new(0);
static CLASS: AtomicU64 = AtomicU64::new(NO_CLASS);
static ROUND: AtomicU64 = AtomicU64::new(0);
static DONE: [AtomicU64; VCPUS] = [const { AtomicU64::new(0) }; VCPUS];
static CREDIT: [AtomicU64; VCPUS] = [const { AtomicU64::new(0) }; VCPUS];

/// Lets the vCPUs run `class`, does `meanwhile`, and waits until both are parked in EL2 again. How
/// many pages they say they wrote.
pub fn run_guest(class: u64, round: u64, meanwhile: impl FnOnce()) -> u64 {
    CLASS.store(class, Relaxed);
    ROUND.store(round, Relaxed);
    // Release: a vCPU that sees the ticket sees the class. There is one judge, so the add loads
    // nothing of another's.
    let ticket = TICKET.fetch_add(1, Release) + 1;
    (0..VCPUS).for_each(|vcpu| idle::wake(FIRST_VCPU + vcpu));
    meanwhile();
    // Acquire: what the vCPU wrote before it parked.
    idle::until(|| DONE.iter().all(|done| done.load(Acquire) == ticket));
    CREDIT.iter().map(|credit| credit.load(Relaxed)).sum()
}

/// Parks the vCPU of this core until there is a class to run. Called in its exit handler.
pub fn park(vcpu: usize, written: u64) -> (u64, u64) {
    let ticket = TICKET.load(Relaxed);
    CREDIT[vcpu].store(written, Relaxed);
    // Release: the credit, and all that this vCPU wrote, before the note that it is parked.
    DONE[vcpu].store(ticket, Release);
    idle::wake(JUDGE);
    // Acquire: the class that comes with the ticket.
    idle::until(|| TICKET.load(Acquire) != ticket);
    (class(), ROUND.load(Relaxed))
}

/// The class that runs.
pub fn class() -> u64 {
    CLASS.load(Relaxed)
}
