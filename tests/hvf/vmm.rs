//! A VMM of the model's guest: its memory, its vCPU threads, and the loop of each.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pugmark::DirtyRun;
use pugmark::hvf::{Exit, HostPage, HvfTracker};

use crate::model::{self, Access, Form, Program, SUCCESS, VcpuExit};

/// splitmix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// Memory of this process that the guest has too.
pub struct Ram {
    words: *mut AtomicU64,
    layout: Layout,
    base: u64,
}

// SAFETY: it is memory that everyone accesses by atomics.
unsafe impl Send for Ram {}
// SAFETY: the same.
unsafe impl Sync for Ram {}

impl Ram {
    fn new(base: u64, size: u64) -> Self {
        let layout = Layout::from_size_align(size as usize, 16 << 10).expect("a layout");
        // SAFETY: the size is not zero.
        let words: *mut AtomicU64 = unsafe { alloc_zeroed(layout) }.cast();
        if words.is_null() {
            handle_alloc_error(layout);
        }
        Self {
            words,
            layout,
            base,
        }
    }

    pub fn range(&self) -> Range<u64> {
        self.base..self.base + self.layout.size() as u64
    }

    fn word(&self, ipa: u64) -> &AtomicU64 {
        assert!(self.range().contains(&ipa) && ipa.is_multiple_of(8));
        // SAFETY: it lies inside, and zeroed bytes are an atomic.
        unsafe { &*self.words.add(((ipa - self.base) / 8) as usize) }
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and the VM is gone.
        unsafe { dealloc(self.words.cast(), self.layout) };
    }
}

/// The one VM of this process; tests that need it take turns.
pub struct Vm {
    ram: Vec<Ram>,
    page: HostPage,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Vm {
    /// A VM with this granule, and with memory, address and size, open to the guest.
    pub fn new(page: HostPage, memory: &[(u64, u64)]) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let granule = match page {
            HostPage::Kib16 => model::GRANULE_16K,
            HostPage::Kib4 => model::GRANULE_4K,
        };
        assert_eq!(model::hv_vm_create(granule), SUCCESS);
        let map = |&(base, size): &(u64, u64)| {
            let ram = Ram::new(base, size);
            let flags = model::READ | model::WRITE | model::EXEC;
            let (address, size) = (ram.words.cast(), ram.layout.size());
            // SAFETY: the memory lives as long as the VM.
            let mapped = unsafe { model::hv_vm_map(address, base, size, flags) };
            assert_eq!(mapped, SUCCESS);
            ram
        };
        Self {
            ram: memory.iter().map(map).collect(),
            page,
            _turn: turn,
        }
    }

    fn word(&self, ipa: u64) -> &AtomicU64 {
        let ram = self.ram.iter().find(|ram| ram.range().contains(&ipa));
        ram.expect("an address in RAM").word(ipa)
    }

    pub fn load(&self, ipa: u64) -> u64 {
        self.word(ipa).load(Relaxed)
    }

    /// As the VMM or a device stores, which no permission of the guest's stops.
    pub fn store(&self, ipa: u64, value: u64) {
        self.word(ipa).store(value, Relaxed);
    }

    /// Address and size of its memory.
    pub fn memory(&self) -> Vec<(u64, u64)> {
        let ram = self.ram.iter();
        ram.map(|ram| (ram.base, ram.layout.size() as u64))
            .collect()
    }

    /// The first address of every page.
    pub fn pages(&self) -> Vec<u64> {
        let pages = |ram: &Ram| ram.range().step_by(self.page.size() as usize);
        self.ram.iter().flat_map(pages).collect()
    }

    /// Ends the VM, and keeps its memory and its turn.
    pub fn destroy(&self) {
        assert_eq!(model::hv_vm_destroy(), SUCCESS);
    }

    /// A tracker of all its memory.
    pub fn tracker(&self) -> HvfTracker {
        HvfTracker::new(self.page, self.memory()).expect("whole pages, in order")
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        model::hv_vm_destroy();
    }
}

/// A vCPU of this thread.
pub struct Vcpu {
    pub id: u64,
    exit: *const VcpuExit,
}

impl Vcpu {
    pub fn new(program: impl Program + 'static) -> Self {
        let (id, exit) = model::hv_vcpu_create(Box::new(program)).expect("a VM");
        Self { id, exit }
    }

    /// Runs it until it leaves the guest.
    pub fn run(&self) -> Exit {
        assert_eq!(model::hv_vcpu_run(self.id), SUCCESS);
        // SAFETY: it is not running, and only this thread runs it.
        let VcpuExit { reason, exception } = unsafe { *self.exit };
        Exit {
            reason,
            syndrome: exception.syndrome,
            virtual_address: exception.virtual_address,
            physical_address: exception.physical_address,
        }
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        model::hv_vcpu_destroy(self.id);
    }
}

/// What a guest does to say that it is at its end: HVC #0.
pub const HVC: u64 = 0x5a00_0000;

/// A program that makes these accesses, and then ends again and again.
pub struct Script(std::vec::IntoIter<Access>);

impl Script {
    pub fn new(accesses: impl Into<Vec<Access>>) -> Self {
        Self(accesses.into().into_iter())
    }

    /// One access of this form.
    pub fn one(form: Form, ipa: u64, value: u64) -> Self {
        Self::new([Access { form, ipa, value }])
    }
}

impl Program for Script {
    fn next(&mut self) -> Access {
        self.0.next().unwrap_or(Access {
            form: Form::Trap,
            ipa: HVC,
            value: 0,
        })
    }
}

/// The pages of `run`.
pub fn pages_of(run: DirtyRun, page: HostPage) -> impl Iterator<Item = u64> {
    run.range().step_by(page.size() as usize)
}
