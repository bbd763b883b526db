//! How a core waits: asleep, until another one says that something has changed. A core that spins
//! would take the emulator's time from those that work.

use core::ptr::NonNull;

use aarch64_cpu::asm::{
    barrier::{ISHST, dsb},
    wfi,
};
use arm_gic::{
    IntId, InterruptGroup, UniqueMmioPointer,
    gicv3::{
        GicCpuInterface, GicV3, SgiTarget, SgiTargetGroup,
        registers::{Gicd, GicrSgi},
    },
};

use super::console::die;

/// Where `virt` has its GICv3.
const GICD: NonNull<Gicd> = NonNull::new(0x800_0000 as *mut _).unwrap();
const GICR: NonNull<GicrSgi> = NonNull::new(0x80a_0000 as *mut _).unwrap();

/// The interrupt that wakes a core. It is never taken: interrupts stay masked, and WFI returns for
/// one that is pending all the same.
const WAKE: IntId = IntId::sgi(0);

/// Lets `cores` cores be woken. On the first one, before any other call.
pub fn init(cores: usize) {
    // SAFETY: the initial page table maps both as device memory, and nothing else refers to them.
    let gic = unsafe { GicV3::new(UniqueMmioPointer::new(GICD), GICR, cores) };
    let set_up = gic.and_then(|mut gic| {
        gic.setup(0);
        for core in 0..cores {
            gic.redistributor_mark_core_awake(core).ok();
            gic.set_interrupt_priority(WAKE, Some(core), 0x80)?;
            gic.enable_interrupt(WAKE, Some(core), true)?;
        }
        Ok(())
    });
    if let Err(error) = set_up {
        die(format_args!("the interrupt controller: {error}"));
    }
}

/// Lets this core be woken.
pub fn init_core() {
    GicCpuInterface::enable_system_register_el1();
    GicCpuInterface::set_priority_mask(0xff);
    GicCpuInterface::enable_group1(true);
}

/// Sleeps until `condition` holds. Who makes it hold calls [`wake`] for this core.
pub fn until(condition: impl Fn() -> bool) {
    while !condition() {
        // A wake-up since the question above is pending, and ends this at once.
        wfi();
        GicCpuInterface::handle_interrupt(InterruptGroup::Group1, |_| ());
    }
}

/// Wakes `core`, which looks at its condition again.
pub fn wake(core: usize) {
    // What the condition depends on is stored before the core can wake.
    dsb(ISHST);
    let target = SgiTarget::List {
        affinity3: 0,
        affinity2: 0,
        affinity1: 0,
        target_list: 1 << core,
    };
    if let Err(error) = GicCpuInterface::send_sgi(WAKE, target, SgiTargetGroup::CurrentGroup1) {
        die(format_args!("core {core} cannot be woken: {error}"));
    }
}
