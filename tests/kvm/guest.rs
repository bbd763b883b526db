//! A guest that writes where it is told to, at CPL 3: what every KVM runs, one without hardware
//! support included.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Once};

use kvm_bindings::{
    KVM_EXIT_DIRTY_RING_FULL, KVM_MEM_LOG_DIRTY_PAGES, kvm_regs, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use pugmark::host::kvm::Slot;
use pugmark::{
    BoxedRegion, DirtyRun, HarvestError, PageGeometry, StepDown, WriteProtect, WriteTracker,
};

use crate::cpl3;
use crate::memory::{Kind, Memory, PAGE};
use crate::say;

pub type Tracker<P> = WriteTracker<P, Vec<BoxedRegion>>;

/// Where the guest's own tables, code and lists are. It is in no slot that is tracked.
const LOW: usize = 4 << 20;
const TABLES: u64 = 0x1000;
const CODE: u64 = 0x8000;
const LISTS: u64 = 0x10_0000;
const EXIT_PORT: u8 = 0x10;

/// For each address in the list at RSI, RCX of them, stores RDI there; then exits.
const PROGRAM: [u8; 17] = [
    0x48, 0x8b, 0x06, // mov rax, [rsi]
    0x48, 0x89, 0x38, // mov [rax], rdi
    0x48, 0x83, 0xc6, 0x08, // add rsi, 8
    0x48, 0xff, 0xc9, // dec rcx
    0x75, 0xf1, // jnz
    0xe6, EXIT_PORT, // out
];

/// The RAM that is tracked: two slots, neither on a boundary of a block, with a hole between, and
/// a number of pages that is no multiple of 64.
pub const RAM: [Slot; 2] = [
    Slot {
        slot: 1,
        ipa: 0x1000_3000,
        size: 2_050 * PAGE as u64,
    },
    Slot {
        slot: 2,
        ipa: 0x2000_0000,
        size: 700 * PAGE as u64,
    },
];

pub struct Guest {
    // The vCPU and the VM go before their memory.
    pub vcpu: VcpuFd,
    _vm: Arc<VmFd>,
    low: Memory,
    pub ram: Arc<[Memory; 2]>,
}

/// A VM without a vCPU; `None`, and the reason printed, where KVM cannot be had.
pub fn vm() -> Option<Arc<VmFd>> {
    let vm = Kvm::new().and_then(|kvm| kvm.create_vm());
    match vm {
        Ok(vm) => Some(Arc::new(vm)),
        Err(error) => {
            static TOLD: Once = Once::new();
            TOLD.call_once(|| say!("skipped, all tests with a guest: no KVM here: {error}"));
            None
        }
    }
}

impl Guest {
    /// Its memory, logged or not, and one vCPU.
    pub fn new(vm: Arc<VmFd>, logged: bool) -> Self {
        let low = Memory::new(Kind::Anonymous, LOW);
        let ram = RAM.map(|slot| Memory::new(Kind::Anonymous, slot.size as usize));
        let region = |slot, ipa, memory: &Memory, flags| {
            let region = kvm_userspace_memory_region {
                slot,
                guest_phys_addr: ipa,
                memory_size: memory.len as u64,
                userspace_addr: memory.address(),
                flags,
            };
            // SAFETY: the memory outlives the VM.
            unsafe { vm.set_user_memory_region(region) }.expect("a memory slot");
        };
        region(0, 0, &low, 0);
        let flags = if logged { KVM_MEM_LOG_DIRTY_PAGES } else { 0 };
        for (slot, memory) in RAM.iter().zip(&ram) {
            region(slot.slot, slot.ipa, memory, flags);
        }
        write_tables(&low);
        for (at, byte) in PROGRAM.iter().enumerate() {
            // SAFETY: inside the low memory.
            unsafe { low.page(CODE as usize / PAGE).add(at).write_volatile(*byte) };
        }
        let vcpu = vm.create_vcpu(0).expect("a vCPU");
        cpl3::set_up(&vcpu, TABLES).expect("registers");
        let ram = Arc::new(ram);
        Self {
            vcpu,
            _vm: vm,
            low,
            ram,
        }
    }

    /// The guest stores `value` at each of `addresses`; `full` is called when a ring is full.
    pub fn write(&mut self, addresses: &[u64], value: u64, mut full: impl FnMut()) {
        let list = LISTS as usize / 8;
        for (at, &address) in addresses.iter().enumerate() {
            self.low.store_word(list + at, address);
        }
        let regs = kvm_regs {
            rip: CODE,
            rsi: LISTS,
            rcx: addresses.len() as u64,
            rdi: value,
            // Bit 1 is always set; I/O is allowed at CPL 3.
            rflags: 2 | 3 << 12,
            ..Default::default()
        };
        self.vcpu.set_regs(&regs).expect("registers");
        loop {
            match self.vcpu.run().expect("KVM_RUN") {
                VcpuExit::IoOut(port, _) if port == u16::from(EXIT_PORT) => break,
                VcpuExit::Unsupported(KVM_EXIT_DIRTY_RING_FULL) => full(),
                VcpuExit::Intr => {}
                other => panic!("{other:?}"),
            }
        }
        // What was written is there.
        for &address in addresses {
            assert_eq!(self.load(address), value);
        }
    }

    /// The word at a guest physical address, as the host sees it.
    pub fn load(&self, ipa: u64) -> u64 {
        let mut word = [0; 8];
        copy_out(&self.ram, ipa, &mut word);
        u64::from_ne_bytes(word)
    }

    /// The VMM stores a byte, which no log of KVM sees.
    pub fn store_as_vmm(&self, ipa: u64, byte: u8) {
        let (slot, memory) = find(&self.ram, ipa);
        memory.store((ipa - slot.ipa) as usize / PAGE, byte);
    }
}

/// Guest memory as the host sees it.
pub fn copy_out(ram: &[Memory; 2], ipa: u64, into: &mut [u8]) {
    let (slot, memory) = find(ram, ipa);
    memory.copy_out((ipa - slot.ipa) as usize, into);
}

fn find(ram: &[Memory; 2], ipa: u64) -> (&Slot, &Memory) {
    let mut slots = RAM.iter().zip(ram);
    slots
        .find(|(slot, _)| slot.ipas().contains(&ipa))
        .expect("RAM")
}

/// The first GiB, as it is, in pages of 2 MiB that CPL 3 may write; accessed and dirty already, so that
/// the walk writes nothing.
fn write_tables(low: &Memory) {
    const TABLE: u64 = 0x7 | 1 << 5;
    let word = |table: u64, index: u64| (table / 8 + index) as usize;
    low.store_word(word(TABLES, 0), (TABLES + 0x1000) | TABLE);
    low.store_word(word(TABLES + 0x1000, 0), (TABLES + 0x2000) | TABLE);
    for block in 0..512 {
        let entry = block << 21 | TABLE | 1 << 6 | 1 << 7;
        low.store_word(word(TABLES + 0x2000, block), entry);
    }
}

/// A region for each slot, every block of which is fine once it faults.
pub fn regions() -> Vec<BoxedRegion> {
    let region = |slot: &Slot| {
        let region = BoxedRegion::boxed(slot.ipa, slot.size, PageGeometry::X86_64);
        region.expect("a region").with_step_down(StepDown {
            threshold: 0,
            ..StepDown::DEFAULT
        })
    };
    RAM.iter().map(region).collect()
}

/// Addresses to write, a different set each round: scattered, dense, and the ends of both slots.
pub fn addresses(round: u64) -> Vec<u64> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(round + 1);
    let mut all = Vec::new();
    for slot in RAM {
        let pages = slot.size / PAGE as u64;
        for page in 0..pages {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let dense = (100..300).contains(&page);
            if page == 0 || page == pages - 1 || dense || random.is_multiple_of(16) {
                let at = (random >> 32) % (PAGE as u64 / 8) * 8;
                all.push(slot.ipa + page * PAGE as u64 + at);
            }
        }
    }
    all
}

pub fn pages_of(addresses: &[u64]) -> BTreeSet<u64> {
    addresses
        .iter()
        .map(|address| address / PAGE as u64)
        .collect()
}

/// All that the guest wrote by now, which is not running: the pages.
pub fn harvested<P: WriteProtect<Error: std::fmt::Debug>>(tracker: &Tracker<P>) -> BTreeSet<u64> {
    loop {
        let mut pages = BTreeSet::new();
        let outcome = tracker.final_harvest(|run: DirtyRun| {
            let Range { start, end } = run.range();
            pages.extend(start / PAGE as u64..end / PAGE as u64);
            Ok::<_, ()>(())
        });
        match outcome {
            // A handler thread marks after it lets the vCPU go on.
            Err(HarvestError::HandlersInFlight { .. }) => std::thread::yield_now(),
            outcome => {
                outcome.expect("KVM tells");
                return pages;
            }
        }
    }
}

/// Rounds of writes by the guest, now and then by the VMM, and a harvest after each: it must hold
/// every page that was written. Prints how exact it was.
pub fn check<P: WriteProtect<Error: std::fmt::Debug>>(
    what: &str,
    guest: &mut Guest,
    tracker: &Tracker<P>,
) {
    tracker.arm().expect("KVM tells");
    let (mut all_written, mut all_reported) = (0, 0);
    for round in 0..6 {
        let addresses = addresses(round);
        guest.write(&addresses, round + 1, || {
            tracker.collect_log().expect("KVM tells");
        });
        let by_vmm = RAM[1].ipa + (11 + 3 * round) * PAGE as u64;
        guest.store_as_vmm(by_vmm, 1);
        tracker.mark_written(by_vmm..by_vmm + 1).expect("tracked");

        let mut written = pages_of(&addresses);
        written.insert(by_vmm / PAGE as u64);
        let reported = harvested(tracker);
        let lost: Vec<_> = written.difference(&reported).collect();
        assert!(lost.is_empty(), "{what}, round {round}: lost {lost:x?}");
        all_written += written.len();
        all_reported += reported.len();
        tracker.tick(std::time::Duration::from_secs(round + 1));
    }
    assert_eq!(
        harvested(tracker),
        BTreeSet::new(),
        "{what}: nothing was written since"
    );
    say!("{what}: {all_written} pages written, {all_reported} reported, 0 lost");
}
