//! A model of Hypervisor.framework with its C ABI, so that the layer under test links to it as it
//! links to the framework.
//!
//! What it keeps to:
//!
//! - One VM a process, and permissions that all vCPUs share, by the page: 16 KiB, or 4 KiB where the
//!   VM was so configured. A call that is not aligned to it is `HV_BAD_ARGUMENT`.
//! - A store that meets a page without write permission makes its vCPU leave the guest, with the
//!   syndromes that were recorded: a translation fault the first time, a permission fault later.
//!   The same instruction is tried again when the vCPU runs next, unless the VMM moves PC.
//! - Once `hv_vm_protect` returned, no store gets through that it forbids.
//! - `hv_vcpus_exit` makes a vCPU leave; one that is not in the guest leaves as soon as it enters.
//! - Whatever is not written there the model makes as hard as it can: threads call at once, a call
//!   may take its time, and fail before, in the middle of, or after its work.
//!
//! The guest is a script of accesses, not AArch64 code. No executor of A64 instructions was found
//! that is small, well kept, and lets several vCPUs run at once over one memory with a second stage
//! of translation; and the layer under test sees of an instruction nothing but its syndrome.

mod memory;
mod plan;
mod vcpu;

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use memory::{Mapping, Memory};
use plan::Plan;
pub use plan::{Call, Failure};
use vcpu::Vcpu;
pub use vcpu::{Access, Form, Program};

/// `HV_SUCCESS`.
pub const SUCCESS: i32 = 0;
/// `HV_ERROR`.
pub const ERROR: u32 = 0xfae9_4001;
/// `HV_BUSY`.
pub const BUSY: u32 = 0xfae9_4002;
/// `HV_BAD_ARGUMENT`.
pub const BAD_ARGUMENT: u32 = 0xfae9_4003;
/// `HV_NO_DEVICE`.
pub const NO_DEVICE: u32 = 0xfae9_4006;

pub const READ: u64 = 1;
pub const WRITE: u64 = 2;
pub const EXEC: u64 = 4;

/// `HV_IPA_GRANULE_4KB`.
pub const GRANULE_4K: u32 = 0;
/// `HV_IPA_GRANULE_16KB`.
pub const GRANULE_16K: u32 = 1;

/// `hv_vcpu_exit_t`; it begins with the reason, whose type the framework may extend.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct VcpuExit {
    pub reason: u32,
    pub exception: Exception,
}

/// `hv_vcpu_exit_exception_t`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Exception {
    pub syndrome: u64,
    pub virtual_address: u64,
    pub physical_address: u64,
}

/// The VM of this process.
struct Machine {
    memory: Memory,
    vcpus: Mutex<Vec<Arc<Vcpu>>>,
    next_vcpu: AtomicU64,
    plan: Plan,
}

static MACHINE: RwLock<Option<Arc<Machine>>> = RwLock::new(None);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn machine() -> Option<Arc<Machine>> {
    let machine = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    machine.clone()
}

fn returned(result: Result<(), u32>) -> i32 {
    result.map_or_else(|code| code as i32, |()| SUCCESS)
}

/// The VM, or `HV_NO_DEVICE`.
fn with_machine(call: impl FnOnce(&Machine) -> Result<(), u32>) -> i32 {
    returned(
        machine()
            .ok_or(NO_DEVICE)
            .and_then(|machine| call(&machine)),
    )
}

// ---- the framework's functions that the layer under test calls

/// Sets the permission of guest memory.
#[unsafe(no_mangle)]
extern "C" fn hv_vm_protect(ipa: u64, size: usize, flags: u64) -> i32 {
    with_machine(|machine| {
        let call = match flags & WRITE {
            0 => Call::Protect,
            _ => Call::Open,
        };
        machine.plan.note((ipa, size, flags));
        let pages = machine.memory.pages(ipa, size)?;
        machine.plan.carry_out(call, pages.len(), |page| {
            pages[page].set(flags);
        })
    })
}

/// Makes vCPUs leave the guest.
///
/// # Safety
///
/// `vcpus` points to `count` numbers.
#[unsafe(no_mangle)]
unsafe extern "C" fn hv_vcpus_exit(vcpus: *const u64, count: u32) -> i32 {
    // SAFETY: the caller says so.
    let ids = unsafe { std::slice::from_raw_parts(vcpus, count as usize) };
    with_machine(|machine| {
        if machine.plan.ignores_exit() {
            return Ok(());
        }
        let known = lock(&machine.vcpus);
        for id in ids {
            let vcpu = known.iter().find(|vcpu| vcpu.id == *id);
            vcpu.ok_or(BAD_ARGUMENT)?.cancel();
        }
        Ok(())
    })
}

// ---- those that a VMM calls

/// Makes the VM; the configuration is the granule.
pub fn hv_vm_create(granule: u32) -> i32 {
    let page_size = match granule {
        GRANULE_4K => 4 << 10,
        GRANULE_16K => 16 << 10,
        _ => return BAD_ARGUMENT as i32,
    };
    let mut machine = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    if machine.is_some() {
        return BUSY as i32;
    }
    *machine = Some(Arc::new(Machine {
        memory: Memory::new(page_size),
        vcpus: Mutex::default(),
        next_vcpu: AtomicU64::new(0),
        plan: Plan::default(),
    }));
    SUCCESS
}

pub fn hv_vm_destroy() -> i32 {
    let mut machine = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    returned(machine.take().map(drop).ok_or(NO_DEVICE))
}

/// Maps memory of this process into the guest.
///
/// # Safety
///
/// From `address` on there are `size` bytes, that everyone accesses by atomics of 64 bits, until
/// the VM is destroyed.
pub unsafe fn hv_vm_map(address: *mut c_void, ipa: u64, size: usize, flags: u64) -> i32 {
    with_machine(|machine| {
        let page_size = machine.memory.page_size;
        if !(address as u64).is_multiple_of(page_size) {
            return Err(BAD_ARGUMENT);
        }
        // SAFETY: the caller says so.
        let mapping = unsafe { Mapping::new(address.cast(), ipa, size, flags, page_size) };
        machine.memory.add(mapping?)
    })
}

/// A vCPU for this thread, which runs `program`; its number, and where its exits are.
pub fn hv_vcpu_create(program: Box<dyn Program>) -> Result<(u64, *const VcpuExit), u32> {
    let machine = machine().ok_or(NO_DEVICE)?;
    let id = machine.next_vcpu.fetch_add(1, Relaxed);
    let vcpu = Arc::new(Vcpu::new(id, program));
    let exit = vcpu.exit.as_ptr().cast_const();
    lock(&machine.vcpus).push(vcpu);
    Ok((id, exit))
}

impl Machine {
    /// The vCPU of the calling thread.
    fn own_vcpu(&self, id: u64) -> Result<Arc<Vcpu>, u32> {
        let vcpus = lock(&self.vcpus);
        let vcpu = vcpus.iter().find(|vcpu| vcpu.id == id && vcpu.is_own());
        vcpu.cloned().ok_or(BAD_ARGUMENT)
    }
}

/// Runs the vCPU until it leaves the guest.
pub fn hv_vcpu_run(id: u64) -> i32 {
    with_machine(|machine| {
        machine.own_vcpu(id)?.run(&machine.memory);
        Ok(())
    })
}

pub fn hv_vcpu_destroy(id: u64) -> i32 {
    with_machine(|machine| {
        let own = machine.own_vcpu(id)?;
        lock(&machine.vcpus).retain(|vcpu| vcpu.id != own.id);
        Ok(())
    })
}

// ---- what a test asks of the model

/// Moves PC past the instruction that left the guest.
pub fn advance_pc(id: u64) {
    let vcpu = machine().and_then(|machine| machine.own_vcpu(id).ok());
    vcpu.expect("a vCPU of this thread").advance_pc();
}

/// Whether the guest may write at `ipa`, and the flags there.
pub fn flags_at(ipa: u64) -> Option<u64> {
    machine()?.memory.page_at(ipa).map(|page| page.flags())
}

/// The plan of the VM: what is to fail, and to take its time.
pub fn planned<T>(change: impl FnOnce(&Plan) -> T) -> T {
    change(&machine().expect("a VM").plan)
}
