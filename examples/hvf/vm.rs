//! The VM: its memory, a thread for each vCPU, and the snapshots that are taken meanwhile.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use applevisor::prelude::{
    GicDisabled, MemPerms, Memory, Reg, SysReg, Vcpu, VirtualMachine, VirtualMachineInstance,
};
use pugmark::StepDown;
use pugmark::arch::aarch64::{Abort, NotOurs};
use pugmark::hvf::{Exit, Handled, HostPage, HvfTracker, Unhandled};

use super::guest::{self, Class, PAGE, RAM, SIZE, VCPUS};
use super::report::{self, Found};

type Failure = Box<dyn Error + Send + Sync>;

/// How often each class runs.
const ROUNDS: u64 = 50;

/// EC of an HVC from AArch64.
const HVC: u8 = 0x16;

/// What the vCPUs' threads share.
struct Shared {
    tracker: HvfTracker,
    classes: Vec<Class>,
    /// Faults, by page.
    faults: Mutex<BTreeMap<u64, usize>>,
}

// SAFETY: the pointers in a class are addresses of code, which nobody writes.
unsafe impl Sync for Shared {}

/// How many pages were lost.
pub fn run() -> Result<usize, Failure> {
    let vm = VirtualMachine::new()?;
    let mut memory = vm.memory_create(SIZE as usize)?;
    memory.map(RAM, MemPerms::RWX)?;
    memory.write(RAM, guest::code())?;

    let rule = StepDown {
        threshold: 4,
        ..StepDown::DEFAULT
    };
    let shared = Shared {
        tracker: HvfTracker::with_step_down(HostPage::Kib16, [(RAM, SIZE)], rule)?,
        classes: guest::classes(),
        faults: Mutex::default(),
    };
    let shared = &shared;
    let tracker = &shared.tracker;
    report::title(ROUNDS);

    // The baseline. No vCPU runs yet, so nothing needs to be held still.
    tracker.arm()?;
    let mut mirror = vec![0; SIZE as usize];
    memory.read(RAM, &mut mirror)?;

    let mut found = Found::default();
    thread::scope(|scope| {
        let vcpus: Vec<_> = (0..VCPUS)
            .map(|n| {
                let vm = vm.clone();
                scope.spawn(move || run_vcpu(&vm, shared, n))
            })
            .collect();
        let mut value = 0_u64;
        while vcpus.iter().any(|vcpu| !vcpu.is_finished()) {
            value += 1;
            for class in shared.classes.iter().filter(|class| class.is_device()) {
                for page in class.pages() {
                    memory.write_u64(page, value)?;
                    tracker.mark_written(page..page + 8)?;
                }
            }
            snapshot(tracker, &memory, &mut mirror, &mut found)?;
            thread::sleep(Duration::from_millis(1));
        }
        for vcpu in vcpus {
            vcpu.join().map_err(|_| "a vCPU's thread panicked")??;
        }
        Ok::<(), Failure>(())
    })?;
    snapshot(tracker, &memory, &mut mirror, &mut found)?;

    let mut page = vec![0; PAGE as usize];
    for (n, copy) in mirror.chunks(PAGE as usize).enumerate() {
        let ipa = RAM + n as u64 * PAGE;
        memory.read(ipa, &mut page)?;
        if page != copy {
            found.stale.insert(ipa);
        }
    }
    let faults = shared.faults.lock();
    found.faults = std::mem::take(&mut *faults.map_err(|_| "a thread panicked")?);
    Ok(report::all(&shared.classes, &found, tracker.counters()))
}

/// Brings the mirror up to date, with both vCPUs stopped.
fn snapshot(
    tracker: &HvfTracker,
    memory: &Memory,
    mirror: &mut [u8],
    found: &mut Found,
) -> Result<(), Failure> {
    tracker.harvest(|run| {
        let start = (run.start - RAM) as usize;
        let copy = &mut mirror[start..start + run.len as usize];
        found.reported.extend(run.range().step_by(PAGE as usize));
        // An error marks the run again.
        memory.read(run.start, copy)
    })?;
    Ok(())
}

/// A vCPU's thread: its share of every class, a few times.
fn run_vcpu(
    vm: &VirtualMachineInstance<GicDisabled>,
    shared: &Shared,
    n: u64,
) -> Result<(), Failure> {
    let vcpu = vm.vcpu_create()?;
    let mut seat = shared.tracker.seat(vcpu.id());
    // EL1 with its own stack pointer, interrupts masked; no trap of SIMD.
    vcpu.set_reg(Reg::CPSR, 0x3c5)?;
    vcpu.set_sys_reg(SysReg::CPACR_EL1, 3 << 20)?;
    for round in 1..=ROUNDS {
        for job in shared.classes.iter().filter_map(|class| class.job(n)) {
            for (register, value) in [
                (Reg::PC, job.entry),
                (Reg::X0, job.first),
                (Reg::X1, job.stride),
                (Reg::X2, job.count),
                (Reg::X3, round),
            ] {
                vcpu.set_reg(register, value)?;
            }
            loop {
                let _running = seat.enter();
                vcpu.run()?;
                if is_done(shared, exit(&vcpu))? {
                    break;
                }
            }
        }
    }
    // Nobody stops a vCPU that is gone: the seat first.
    drop(seat);
    Ok(())
}

/// The exit as plain numbers. applevisor types the reason as an enum: on a macOS that has one more,
/// to read it is undefined behaviour. A VMM that is to last reads it through a pointer to `u32`.
fn exit(vcpu: &Vcpu) -> Exit {
    let info = vcpu.get_exit_info();
    Exit {
        reason: info.reason as u32,
        syndrome: info.exception.syndrome,
        virtual_address: info.exception.virtual_address,
        physical_address: info.exception.physical_address,
    }
}

/// Whether the guest's loop is at its end.
fn is_done(shared: &Shared, exit: Exit) -> Result<bool, Failure> {
    match shared.tracker.handle_exit(exit)? {
        Handled::Resume { .. } => {
            let page = exit.physical_address & !(PAGE - 1);
            let mut faults = shared.faults.lock().map_err(|_| "a thread panicked")?;
            *faults.entry(page).or_default() += 1;
            Ok(false)
        }
        Handled::NotOurs(Unhandled::Canceled) => Ok(false),
        Handled::NotOurs(Unhandled::Exception {
            access: Abort::NotOurs(NotOurs::NotAnAbort { class: HVC }),
            ..
        }) => Ok(true),
        Handled::NotOurs(other) => Err(format!("the guest left with {other:?}: {exit:x?}").into()),
    }
}
