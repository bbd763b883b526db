//! A KVM guest whose vCPUs write the memory, in place of threads of this process.
//!
//! It runs at CPL 3, without a kernel: for each pair of a list it stores a word, then it leaves by a
//! port. So it runs on every KVM, one without hardware support included.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvm_bindings::{
    KVM_EXIT_DIRTY_RING_FULL, KVM_MEM_LOG_DIRTY_PAGES, kvm_regs, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use pugmark::host::kvm::{DirtyLog, DirtyRing, Slot};
use pugmark::{PageGeometry, WriteTracker};

use super::cpl3;
use super::memory::Memory;
use super::run::{Grain, IPA, Options, Source, region, watch, with_userfaultfd};
use super::workload::{BURST, Stores};

/// Entries of a vCPU's dirty ring; KVM's own limit on most kernels.
const RING: u32 = 65_536;

const EXIT_PORT: u8 = 0x10;
/// For each pair of an address and a value in the list at RSI, RCX of them, stores; then exits.
const PROGRAM: [u8; 21] = [
    0x48, 0x8b, 0x06, // mov rax, [rsi]
    0x48, 0x8b, 0x7e, 0x08, // mov rdi, [rsi + 8]
    0x48, 0x89, 0x38, // mov [rax], rdi
    0x48, 0x83, 0xc6, 0x10, // add rsi, 16
    0x48, 0xff, 0xc9, // dec rcx
    0x75, 0xed, // jnz
    0xe6, EXIT_PORT, // out
];

const PAGE: u64 = 4096;
const GIB: u64 = 1 << 30;
/// Where the guest's own memory begins, which is not tracked: code, a page of lists a vCPU, tables.
const CODE: u64 = 0;
const LISTS: u64 = PAGE;

const _: () = assert!(BURST as u64 * 16 <= PAGE);

/// Runs the workload in a guest. Whether what the snapshots restore to is its memory.
pub fn run(options: &Options, memory: &Memory) -> Result<bool, Box<dyn Error>> {
    let vm = match Kvm::new().and_then(|kvm| kvm.create_vm()) {
        Ok(vm) => Arc::new(vm),
        Err(error) => {
            println!("skipped: no KVM here: {error}; it takes /dev/kvm, and permission to open it");
            return Ok(true);
        }
    };
    let slot = Slot {
        slot: 1,
        ipa: IPA,
        size: memory.len() as u64,
    };
    // A ring is asked for before there is a vCPU.
    let ring = match options.source {
        Source::KvmRing => Some(DirtyRing::new(Arc::clone(&vm), RING)?),
        _ => None,
    };
    let low = Memory::new(low_bytes(options.threads, slot.ipa + slot.size));
    set_memory(&vm, 0, 0, &low, 0)?;
    let flags = match options.source {
        Source::KvmLog | Source::KvmRing => KVM_MEM_LOG_DIRTY_PAGES,
        Source::Faults | Source::Log => 0,
    };
    set_memory(&vm, slot.slot, slot.ipa, memory, flags)?;
    let tables = write_low(&low, options.threads, slot.ipa + slot.size);
    let mut vcpus = Vec::new();
    for number in 0..options.threads {
        let vcpu = vm.create_vcpu(number)?;
        cpl3::set_up(&vcpu, tables)?;
        if let Some(ring) = &ring {
            ring.add_vcpu(&vcpu)?;
        }
        let list = LISTS + number * PAGE;
        vcpus.push(Vcpu {
            vcpu,
            low: &low,
            list,
        });
    }
    let what = format!("a KVM guest, {} vCPUs", options.threads);
    let region = || region(Grain::Page, PageGeometry::X86_64, memory);
    if let Some(ring) = ring {
        ring.add_slot(slot)?;
        let how = format!("{what}; KVM's dirty ring");
        let tracker = WriteTracker::new(ring, vec![region()?])?;
        return watch(options, &how, memory, &tracker, vcpus);
    }
    if let Source::KvmLog = options.source {
        let log = DirtyLog::new(vm, [slot])?;
        let how = format!("{what}; KVM's dirty log");
        let tracker = WriteTracker::new(log, vec![region()?])?;
        return watch(options, &how, memory, &tracker, vcpus);
    }
    with_userfaultfd(options, &what, memory, vcpus)
}

struct Vcpu<'a> {
    // It goes before the memory.
    vcpu: VcpuFd,
    low: &'a Memory,
    /// Where its list is.
    list: u64,
}

impl Stores for Vcpu<'_> {
    /// All of them in one `KVM_RUN`, unless a ring gets full.
    fn store(&mut self, words: &[(usize, u64)], full: &dyn Fn()) -> Duration {
        let mut at = self.list as usize / 8;
        for &(word, value) in words {
            self.low.store(at, IPA + word as u64 * 8);
            self.low.store(at + 1, value);
            at += 2;
        }
        let regs = kvm_regs {
            rip: CODE,
            rsi: self.list,
            rcx: words.len() as u64,
            // Bit 1 is always set; I/O is allowed at CPL 3.
            rflags: 2 | 3 << 12,
            ..Default::default()
        };
        self.vcpu.set_regs(&regs).expect("registers are set");
        let began = Instant::now();
        loop {
            match self.vcpu.run() {
                Ok(VcpuExit::IoOut(port, _)) if port == u16::from(EXIT_PORT) => break,
                Ok(VcpuExit::Unsupported(KVM_EXIT_DIRTY_RING_FULL)) => full(),
                Ok(VcpuExit::Intr) => {}
                other => panic!("the guest left by {other:?}"),
            }
        }
        began.elapsed()
    }
}

fn set_memory(
    vm: &VmFd,
    slot: u32,
    ipa: u64,
    memory: &Memory,
    flags: u32,
) -> Result<(), kvm_ioctls::Error> {
    let region = kvm_userspace_memory_region {
        slot,
        guest_phys_addr: ipa,
        memory_size: memory.len() as u64,
        userspace_addr: memory.as_ptr().expose_provenance() as u64,
        flags,
    };
    // SAFETY: the memory outlives every vCPU, and is words that are accessed as atomics.
    unsafe { vm.set_user_memory_region(region) }
}

/// Bytes that the code, the lists and the tables take.
fn low_bytes(vcpus: u64, end: u64) -> u64 {
    LISTS + vcpus * PAGE + (2 + end.div_ceil(GIB)) * PAGE
}

/// The code, and tables for all below `end`, as it is, in pages of 2 MiB that CPL 3 may write; accessed
/// and dirty already, so that the walk writes nothing. Where the tables are.
fn write_low(low: &Memory, vcpus: u64, end: u64) -> u64 {
    const TABLE: u64 = 0x7 | 1 << 5;
    let mut code = [0; PROGRAM.len().next_multiple_of(8)];
    code[..PROGRAM.len()].copy_from_slice(&PROGRAM);
    for (at, bytes) in code.chunks_exact(8).enumerate() {
        let word = bytes.try_into().expect("eight bytes");
        low.store(CODE as usize / 8 + at, u64::from_le_bytes(word));
    }
    let top = LISTS + vcpus * PAGE;
    let (second, third) = (top + PAGE, top + 2 * PAGE);
    let put = |table: u64, index: u64, entry| low.store((table / 8 + index) as usize, entry);
    put(top, 0, second | TABLE);
    for gib in 0..end.div_ceil(GIB) {
        put(second, gib, (third + gib * PAGE) | TABLE);
    }
    for block in 0..end.div_ceil(GIB) * 512 {
        put(third, block, block << 21 | TABLE | 1 << 6 | 1 << 7);
    }
    top
}
