//! vCPUs that run a script of accesses, and leave the guest as real ones do.

use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use super::memory::{Fault, Mapping, Memory};
use super::{EXEC, Exception, READ, VcpuExit, WRITE, lock};

/// What the guest does, one access after the other.
pub trait Program: Send {
    /// The next instruction's. Called once the one before is done, or was skipped.
    fn next(&mut self) -> Access;

    /// The access came to pass.
    fn done(&mut self, _access: Access) {}
}

/// One access of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    pub form: Form,
    /// The guest physical address. Of a [`Form::Trap`] the syndrome.
    pub ipa: u64,
    /// What it writes, if it does.
    pub value: u64,
}

/// What kind of instruction makes it, as far as its syndrome tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// STR, with a syndrome that says which register and size (ISV = 1).
    Store,
    /// STP, STR with writeback, STXR, SIMD, SVE, an atomic: ISV = 0.
    StoreWithoutSyndrome,
    /// DC ZVA: zeroes 64 bytes. It looks like any store with ISV = 0.
    ZeroLine,
    /// DC IVAC: writes nothing, and needs permission to write (CM = 1).
    CacheMaintenance,
    /// The table walk of a load, of a store, of a fetch: sets a flag in a descriptor (S1PTW = 1).
    WalkForLoad,
    WalkForStore,
    WalkForFetch,
    Load,
    Fetch,
    /// HVC, WFI: leaves the guest whatever the memory.
    Trap,
}

impl Form {
    /// The syndrome but for the fault status: EC, IL, ISV with SAS and SRT, CM, S1PTW, WnR.
    const fn syndrome(self) -> u64 {
        match self {
            Self::Store => 0x9381_0040,
            Self::StoreWithoutSyndrome | Self::ZeroLine => 0x9200_0040,
            Self::CacheMaintenance => 0x9200_0140,
            Self::WalkForLoad => 0x9200_0080,
            Self::WalkForStore => 0x9200_00c0,
            Self::WalkForFetch => 0x8200_0080,
            Self::Load => 0x9381_0000,
            Self::Fetch => 0x8200_0000,
            Self::Trap => 0,
        }
    }

    const fn needs(self) -> u64 {
        match self {
            Self::Load => READ,
            Self::Fetch => EXEC,
            _ => WRITE,
        }
    }
}

/// Translation and permission faults at level 3.
const fn status(fault: Fault) -> u64 {
    match fault {
        Fault::Translation => 0x07,
        Fault::Permission => 0x0f,
    }
}

const CANCELED: u32 = 0;
const EXCEPTION: u32 = 1;

pub struct Vcpu {
    pub id: u64,
    thread: ThreadId,
    canceled: AtomicBool,
    /// Where the VMM reads its exits; written while it runs, by its own thread.
    pub exit: ExitPlace,
    core: Mutex<Core>,
}

/// What the vCPU's thread alone touches.
struct Core {
    program: Box<dyn Program>,
    /// The instruction at PC, if it was tried.
    at_pc: Option<Access>,
}

/// A `VcpuExit` on the heap.
pub struct ExitPlace(AtomicPtr<VcpuExit>);

impl ExitPlace {
    pub fn as_ptr(&self) -> *mut VcpuExit {
        self.0.load(Relaxed)
    }
}

impl Drop for ExitPlace {
    fn drop(&mut self) {
        // SAFETY: it came out of a box, and is dropped once.
        drop(unsafe { Box::from_raw(self.as_ptr()) });
    }
}

impl Vcpu {
    pub fn new(id: u64, program: Box<dyn Program>) -> Self {
        let exit = Box::into_raw(Box::default());
        Self {
            id,
            thread: thread::current().id(),
            canceled: AtomicBool::new(false),
            exit: ExitPlace(AtomicPtr::new(exit)),
            core: Mutex::new(Core {
                program,
                at_pc: None,
            }),
        }
    }

    pub fn is_own(&self) -> bool {
        self.thread == thread::current().id()
    }

    pub fn cancel(&self) {
        self.canceled.store(true, Relaxed);
    }

    pub fn advance_pc(&self) {
        lock(&self.core).at_pc = None;
    }

    /// Runs until it leaves the guest.
    pub fn run(&self, memory: &Memory) {
        let mappings = memory.mappings();
        let mut core = lock(&self.core);
        let exit = loop {
            if self.canceled.load(Relaxed) && self.canceled.swap(false, Relaxed) {
                break VcpuExit {
                    reason: CANCELED,
                    ..VcpuExit::default()
                };
            }
            if let Some(exception) = core.step(&mappings) {
                break VcpuExit {
                    reason: EXCEPTION,
                    exception,
                };
            }
        };
        // SAFETY: only this thread runs the vCPU, and the VMM reads between two runs.
        unsafe { self.exit.as_ptr().write(exit) };
    }
}

impl Core {
    /// One instruction; the exception, if it took one.
    fn step(&mut self, mappings: &[Arc<Mapping>]) -> Option<Exception> {
        let access = *self.at_pc.get_or_insert_with(|| self.program.next());
        let Access { form, ipa, value } = access;
        if form == Form::Trap {
            // Its return address is that of the next instruction.
            self.at_pc = None;
            return Some(Exception {
                syndrome: ipa,
                ..Exception::default()
            });
        }
        if let Err(fault) = perform(mappings, form, ipa, value) {
            return Some(Exception {
                syndrome: form.syndrome() | status(fault),
                // A virtual address says nothing of the page: here it names another one.
                virtual_address: ipa ^ (1 << 20) ^ 0xffff_8000_0000_0000,
                physical_address: ipa,
            });
        }
        self.at_pc = None;
        self.program.done(access);
        None
    }
}

fn perform(mappings: &[Arc<Mapping>], form: Form, ipa: u64, value: u64) -> Result<(), Fault> {
    let mapping = Memory::find(mappings, ipa).ok_or(Fault::Translation)?;
    let _permission = mapping.page(ipa).access(form.needs())?;
    match form {
        Form::Load | Form::Fetch | Form::CacheMaintenance | Form::Trap => {}
        Form::ZeroLine => {
            let line = ipa & !63;
            (line..line + 64)
                .step_by(8)
                .for_each(|ipa| mapping.store(ipa, 0));
        }
        _ => mapping.store(ipa, value),
    }
    Ok(())
}
