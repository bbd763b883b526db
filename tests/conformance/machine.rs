//! The suite's machine on real stage-2 tables: a guest of 8 MiB whose every try is an access at EL1.

use core::{cell::UnsafeCell, ops::Range};

use pugmark::{
    PageGeometry,
    stage2::{PooledTables, Stage2Protection, TablePool, TableSource},
};

use aarch64_paging::{
    Mapping,
    descriptor::{PhysicalAddress, Stage2Attributes},
    paging::{Constraints, MemoryRegion, Stage2},
};

use crate::{
    conformance::Machine,
    el1::{self, Access, Exit, Registers, Vcpu},
};

pub const PAGE: u64 = 4 << 10;
pub const BLOCK: u64 = 2 << 20;
/// What the guest has at the most.
pub const RAM_SIZE: u64 = 4 * BLOCK;
const GIB: u64 = 1 << 30;

/// The guest's RAM, as the hypervisor sees it.
#[repr(C, align(0x20_0000))]
struct Backing(UnsafeCell<[u64; WORDS]>);

const WORDS: usize = (RAM_SIZE / 8) as usize;

// SAFETY: one core runs, and it accesses this memory by volatile accesses only: those of the
// guest, and those below.
unsafe impl Sync for Backing {}

static BACKING: Backing = Backing(UnsafeCell::new([0; WORDS]));
static TABLES: TablePool<16> = TablePool::new();

/// Where the guest's program is mapped.
const PROGRAM: u64 = 0x10_0000;

const RAM: Stage2Attributes = Stage2Attributes::VALID
    .union(Stage2Attributes::ACCESS_FLAG)
    .union(Stage2Attributes::S2AP_ACCESS_RW)
    .union(Stage2Attributes::MEMATTR_NORMAL_OUTER_WB)
    .union(Stage2Attributes::MEMATTR_NORMAL_INNER_WB)
    .union(Stage2Attributes::SH_INNER);

pub type Protection = spin::Mutex<Stage2Protection<PooledTables>>;

pub struct El1Machine {
    pub protection: Protection,
    ram: Range<u64>,
    /// What lies at the start of RAM.
    backing: u64,
    hole: Option<u64>,
    vttbr: u64,
    /// What `VTTBR_EL2` holds while the hypervisor runs: this VM's, unless told otherwise.
    parked: u64,
}

impl El1Machine {
    /// Whole 2 MiB blocks.
    pub fn by_blocks() -> Self {
        let ram = 2 * GIB..2 * GIB + RAM_SIZE;
        Self::new(ram.clone(), 0, ram, 0)
    }

    /// Pages at both ends, blocks between.
    pub fn with_ragged_ends() -> Self {
        let ram = 2 * GIB + 3 * PAGE..2 * GIB + 3 * BLOCK + 5 * PAGE;
        Self::new(ram.clone(), 3 * PAGE, ram, 0)
    }

    /// A part of a 1 GiB block, which maps all of QEMU's memory.
    pub fn by_one_gib() -> Self {
        let backing = Self::physical(0);
        let block = backing & !(GIB - 1);
        let ram = 4 * GIB + (backing - block);
        let mapped = 4 * GIB..5 * GIB;
        let mut machine = Self::new(mapped, block.wrapping_sub(backing), ram..ram + RAM_SIZE, 0);
        machine.backing = backing;
        machine.hole = None;
        machine
    }

    /// A VM with a VMID of its own, edited while another one's is loaded.
    pub fn while_another_vm_is_loaded() -> Self {
        let ram = 2 * GIB..2 * GIB + RAM_SIZE;
        let mut machine = Self::new(ram.clone(), 0, ram, 7);
        machine.parked = machine.vttbr ^ 0xff << 48;
        el1::load(machine.parked);
        machine
    }

    fn physical(offset: u64) -> u64 {
        (BACKING.0.get().addr() as u64).wrapping_add(offset)
    }

    fn new(mapped: Range<u64>, offset: u64, ram: Range<u64>, vmid: u16) -> Self {
        let mut mapping = Mapping::new(TABLES.take().expect("one machine"), 1, Stage2);
        let mut map = |ipa: Range<u64>, physical: u64, flags: Stage2Attributes| {
            mapping
                .map_range(
                    &MemoryRegion::new(ipa.start as usize, ipa.end as usize),
                    PhysicalAddress(physical as usize),
                    flags,
                    Constraints::empty(),
                )
                .expect("it can be mapped");
        };
        map(mapped, Self::physical(offset), RAM);
        map(
            PROGRAM..PROGRAM + PAGE,
            el1::program() as u64,
            RAM & !Stage2Attributes::S2AP_ACCESS_WO,
        );

        for page in 0..RAM_SIZE / PAGE {
            let start = BACKING
                .0
                .get()
                .cast::<u32>()
                .wrapping_add((page * PAGE / 4) as usize);
            // SAFETY: inside `BACKING`, of which there is no reference.
            unsafe { start.write_volatile(el1::HVC) };
        }
        el1::prepare();
        mapping.mark_active();
        let protection = Stage2Protection::new(mapping).with_vmid(vmid);
        let vttbr = protection.vttbr();
        el1::load(vttbr);
        Self {
            protection: spin::Mutex::new(protection),
            hole: Some(ram.end),
            ram,
            backing: Self::physical(offset),
            vttbr,
            parked: vttbr,
        }
    }

    /// A vCPU that is about to do this access.
    pub fn vcpu(&self, access: Access, x0: u64, x1: u64) -> Vcpu {
        Vcpu {
            pc: PROGRAM + access as u64,
            registers: Registers { x0, x1 },
        }
    }

    /// Runs it until its next exit.
    pub fn run(&self, vcpu: &mut Vcpu) -> Exit {
        if self.parked == self.vttbr {
            return vcpu.run();
        }
        el1::load(self.vttbr);
        let exit = vcpu.run();
        el1::load(self.parked);
        exit
    }

    /// What `VTTBR_EL2` must hold outside of the guest.
    pub fn parked(&self) -> u64 {
        self.parked
    }

    /// Leaves no table for a split: maps pages far from RAM until all are in use.
    pub fn use_tables_up(&self) {
        let mut protection = self.protection.lock();
        for gib in (16..).step_by(2) {
            match protection.mapping().translation().available() {
                0 => return,
                // A page takes a table at each of the two levels below the root; a block, one.
                left => {
                    let size = if left > 1 { PAGE } else { BLOCK };
                    let ipa = gib * GIB;
                    let done = protection.mapping_mut().map_range(
                        &MemoryRegion::new(ipa as usize, (ipa + size) as usize),
                        PhysicalAddress(0),
                        RAM & !Stage2Attributes::S2AP_ACCESS_RW,
                        Constraints::empty(),
                    );
                    done.expect("there is room");
                }
            }
        }
    }

    /// The word at this address in the guest's RAM.
    pub fn word(&self, ipa: u64) -> u64 {
        let offset = self.backing - Self::physical(0) + (ipa - self.ram.start);
        let word = BACKING
            .0
            .get()
            .cast::<u64>()
            .wrapping_add((offset / 8) as usize);
        // SAFETY: inside `BACKING`, of which there is no reference.
        unsafe { word.read_volatile() }
    }

    /// True if the access went through, false if stage 2 refused it.
    fn try_access(&self, access: Access, x0: u64, x1: u64) -> bool {
        let exit = self.run(&mut self.vcpu(access, x0, x1));
        if exit.is_hvc() {
            return true;
        }
        // A translation or permission fault, at any level, with this address.
        let status = exit.esr & 0x3f;
        assert!(
            matches!(status, 0x04..=0x07 | 0x0c..=0x0f),
            "ESR {:#x}",
            exit.esr
        );
        assert_eq!(exit.far, x0, "ESR {:#x}", exit.esr);
        false
    }
}

impl Machine for El1Machine {
    type Protect = Protection;

    fn protection(&self) -> &Self::Protect {
        &self.protection
    }

    fn geometry(&self) -> PageGeometry {
        PageGeometry::ARM64_4K
    }

    fn ram(&self) -> Range<u64> {
        self.ram.clone()
    }

    fn hole(&self) -> Option<u64> {
        self.hole
    }

    fn try_write(&self, ipa: u64) -> bool {
        // Beside the instruction at the start of the page; a new value each time.
        let ipa = ipa + 8;
        let value = self.word(ipa) + 1;
        let done = self.try_access(Access::Store, ipa, value);
        assert_eq!(self.word(ipa) == value, done, "{ipa:#x}");
        done
    }

    fn try_read(&self, ipa: u64) -> bool {
        self.try_access(Access::Load, ipa, 0)
    }

    fn try_fetch(&self, ipa: u64) -> bool {
        self.try_access(Access::Fetch, ipa, 0)
    }
}

impl Drop for El1Machine {
    fn drop(&mut self) {
        // The tables may go once nothing walks them; dropping them active panics.
        el1::load(0);
        self.protection.get_mut().mapping().mark_inactive();
    }
}
