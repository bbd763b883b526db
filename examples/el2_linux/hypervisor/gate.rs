//! How the world stops. There is no need to reach the vCPUs: it is enough that they reach no memory.
//!
//! The vCPUs walk from a root table of their own. Its two descriptors are those of the guest's real
//! root, which lead to the same tables below, and those of the real root never change: nothing is
//! mapped by gigabytes. To close the gate is to take them out and to have every core forget its
//! translations. From then on no vCPU can fetch, read or write; it faults into EL2 at once, or when
//! an interrupt ends its WFI. The tables below stay as they are, so a harvest can go on protecting.

use core::{
    arch::asm,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use aarch64_cpu::registers::{VTTBR_EL2, Writeable};
use spin::Mutex;

use super::{layout::PAGE_SIZE, sleep, tracking::tracker};

/// Gigabytes with anything in them: the devices in the first, memory in the second.
const GIGABYTES: usize = 2;

#[repr(C, align(4096))]
struct Root([AtomicU64; 512]);

const _: () = assert!(size_of::<Root>() as u64 == PAGE_SIZE);

static ROOT: Root = Root([const { AtomicU64::new(0) }; 512]);

struct Gate {
    descriptors: [u64; GIGABYTES],
    /// How many want it closed.
    closed: usize,
}

static GATE: Mutex<Gate> = Mutex::new(Gate {
    descriptors: [0; GIGABYTES],
    closed: 0,
});

/// Opens the gate, once the guest's memory is mapped.
pub fn init() {
    let mut gate = GATE.lock();
    let root = tracker().protection().lock().mapping().root_address().0;
    for (index, descriptor) in gate.descriptors.iter_mut().enumerate() {
        // SAFETY: the root table is a page of descriptors, which nobody changes any more.
        *descriptor = unsafe { (root as *const u64).add(index).read_volatile() };
    }
    gate.open();
}

/// Lets the vCPU of this core go through it.
pub fn activate() {
    VTTBR_EL2.set(ROOT.0.as_ptr() as u64);
}

/// The gate is closed as long as this lives.
pub struct Closed(());

/// Returns when no vCPU can access memory any more.
pub fn close() -> Closed {
    let mut gate = GATE.lock();
    gate.closed += 1;
    for entry in &ROOT.0[..GIGABYTES] {
        entry.store(0, Relaxed);
    }
    // SAFETY: barriers and TLB invalidation change nothing that the program can see. The VMID is 0
    // on every core. The last barrier waits for the accesses that are under way.
    unsafe {
        asm!(
            "dsb ishst",
            "tlbi vmalls12e1is",
            "dsb ish",
            "isb",
            options(nostack, preserves_flags),
        )
    };
    Closed(())
}

impl Drop for Closed {
    fn drop(&mut self) {
        let mut gate = GATE.lock();
        gate.closed -= 1;
        if gate.closed == 0 {
            gate.open();
        }
    }
}

impl Gate {
    fn open(&self) {
        for (entry, &descriptor) in ROOT.0.iter().zip(&self.descriptors) {
            entry.store(descriptor, Relaxed);
        }
        // No core keeps a translation that was not valid: that the tables can be seen is enough.
        // SAFETY: a barrier.
        unsafe { asm!("dsb ishst", "isb", options(nostack, preserves_flags)) };
    }
}

/// Whether a vCPU that faulted at `ipa` with this syndrome ran into the closed gate. If so it waits
/// here until the gate is open, and is to try again.
pub fn stopped(esr: u64, ipa: u64) -> bool {
    /// A translation fault at level 1.
    const STATUS: u64 = 0x05;
    let at_gate = esr & 0x3f == STATUS && ipa < (GIGABYTES as u64) << 30;
    if at_gate {
        sleep::parked_until(|| GATE.lock().closed == 0);
    }
    at_gate
}
