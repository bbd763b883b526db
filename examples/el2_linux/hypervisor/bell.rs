//! What a vCPU tells the judge. It waits in EL2 until the judge has seen to it.

use spin::Mutex;

use super::{phase::Phase, sleep};

/// News of the guest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It begins a phase.
    Phase(Phase),
    /// It powers off.
    PowerOff,
    /// It resets: this guest's way to panic.
    Reset,
}

static EVENT: Mutex<Option<Event>> = Mutex::new(None);
/// Held by the vCPU whose event it is.
static TURN: Mutex<()> = Mutex::new(());

/// Tells the judge, and waits for the answer.
pub fn ring(event: Event) {
    let _turn = TURN.lock();
    *EVENT.lock() = Some(event);
    sleep::parked_until(|| EVENT.lock().is_none());
}

/// What there is to see to.
pub fn event() -> Option<Event> {
    *EVENT.lock()
}

/// It was seen to.
pub fn answer() {
    *EVENT.lock() = None;
}
