//! From reset to Rust on each core: the first page table, the vectors, the secondary cores.

use aarch64_paging::{
    descriptor::El23Attributes,
    mair::{Mair, MairAttribute, NormalMemory},
};
use aarch64_rt::{
    ExceptionHandlers, InitialPagetable, RegisterStateRef, Stack, entry, exception_handlers,
    initial_pagetable, start_core,
};
use core::arch::naked_asm;
use smccc::Smc;

use super::{console::die, vcpu};

const DEVICE: El23Attributes = El23Attributes::VALID
    .union(El23Attributes::ATTRIBUTE_INDEX_0)
    .union(El23Attributes::ACCESSED)
    .union(El23Attributes::USER_RES1)
    .union(El23Attributes::XN);

const MEMORY: El23Attributes = El23Attributes::VALID
    .union(El23Attributes::ATTRIBUTE_INDEX_1)
    .union(El23Attributes::INNER_SHAREABLE)
    .union(El23Attributes::USER_RES1)
    .union(El23Attributes::ACCESSED);

const MAIR: Mair = Mair::EMPTY
    .with_attribute(0, MairAttribute::DEVICE_NGNRE)
    .with_attribute(
        1,
        MairAttribute::normal(
            NormalMemory::WriteBackNonTransientReadWriteAllocate,
            NormalMemory::WriteBackNonTransientReadWriteAllocate,
        ),
    );

initial_pagetable!(
    {
        let mut table = [0; 512];
        table[0] = DEVICE.bits();
        table[1] = MEMORY.bits() | 0x4000_0000;
        InitialPagetable(table)
    },
    MAIR.0
);

entry!(main);
fn main(_: u64, _: u64, _: u64, _: u64) -> ! {
    super::run()
}

const STACK_PAGES: usize = 16;

static mut STACKS: [Stack<STACK_PAGES>; 3] = [const { Stack::new() }; 3];

/// Starts core `core`, 1 to 3, to run `work` for good. At most once for each.
pub fn start(core: usize, work: impl FnOnce() + Send + 'static) {
    // SAFETY: each core is started once, so each stack is one core's, and a static lives for ever.
    // The page table maps all of it alike for all cores.
    let started = unsafe {
        let stack = (&raw mut STACKS).cast::<Stack<STACK_PAGES>>().add(core - 1);
        start_core::<Smc, _, STACK_PAGES>(core as u64, stack, work)
    };
    if let Err(error) = started {
        die(format_args!("core {core} does not start: {error}"));
    }
}

exception_handlers!(Exceptions);

struct Exceptions;

/// Bytes that the largest vector state takes: 32 vectors of 256 bytes, 16 predicates and the first
/// fault register of 32, and two status registers.
const VECTOR_STATE: usize = 32 * 256 + 17 * 32 + 16;

impl ExceptionHandlers for Exceptions {
    /// A guest exit. aarch64-rt's vector has saved the general registers that Rust may change. The
    /// compiler also uses vector registers wherever it likes, and a write to one clears the rest of
    /// its SVE register. The guest may have its own values in all of them. So they are saved around
    /// the handler: all bits of all SVE registers where the CPU has them, else 32 × 128 bits.
    ///
    /// The handler's second argument points to the guest's x19 to x28, for one that asks.
    #[unsafe(naked)]
    extern "C" fn sync_lower(_: RegisterStateRef) {
        naked_asm!(
            r"
            .arch_extension sve
            stp x29, x30, [sp, #-96]!
            stp x19, x20, [sp, #16]
            stp x21, x22, [sp, #32]
            stp x23, x24, [sp, #48]
            stp x25, x26, [sp, #64]
            stp x27, x28, [sp, #80]
            mov x29, sp
            add x1, sp, #16
            mov x9, #{state}
            sub sp, sp, x9
            mrs x9, fpsr
            mrs x10, fpcr
            stp x9, x10, [x29, #-16]
            mrs x9, id_aa64pfr0_el1
            ubfx x9, x9, #32, #4
            cbnz x9, 1f

            .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
            str q\n, [sp, #16 * \n]
            .endr
            bl {handler}
            .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
            ldr q\n, [sp, #16 * \n]
            .endr
            b 2f

        1:  .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
            str z\n, [sp, #\n, mul vl]
            .endr
            addvl x9, sp, #16
            addvl x9, x9, #16
            .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
            str p\n, [x9, #\n, mul vl]
            .endr
            rdffr p0.b
            str p0, [x9, #16, mul vl]
            bl {handler}
            addvl x9, sp, #16
            addvl x9, x9, #16
            ldr p0, [x9, #16, mul vl]
            wrffr p0.b
            .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
            ldr p\n, [x9, #\n, mul vl]
            .endr
            .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
            ldr z\n, [sp, #\n, mul vl]
            .endr

        2:  ldp x9, x10, [x29, #-16]
            msr fpsr, x9
            msr fpcr, x10
            mov sp, x29
            ldp x29, x30, [sp], #96
            ret
            ",
            state = const VECTOR_STATE,
            handler = sym vcpu::on_exit,
        )
    }
}
