//! PSCI, the guest's way to start its other core and to end. It calls by HVC, as its device tree
//! says; SMC is trapped, so that no call gets past stage 2.

use heapless::Vec;
use spin::Mutex;

use super::{
    bell::Event,
    console,
    layout::{FIRST_CORE, VCPUS},
    vcpu,
};

const VERSION: u32 = 0x8400_0000;
const CPU_OFF: u32 = 0x8400_0002;
const CPU_ON_32: u32 = 0x8400_0003;
const CPU_ON_64: u32 = 0xc400_0003;
const AFFINITY_INFO_32: u32 = 0x8400_0004;
const AFFINITY_INFO_64: u32 = 0xc400_0004;
const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
const SYSTEM_OFF: u32 = 0x8400_0008;
const SYSTEM_RESET: u32 = 0x8400_0009;
const FEATURES: u32 = 0x8400_000a;

const VERSION_1_1: i64 = 0x1_0001;
const SUCCESS: i64 = 0;
const NOT_SUPPORTED: i64 = -1;
const INVALID_PARAMETERS: i64 = -2;
const ALREADY_ON: i64 = -4;
const ON_PENDING: i64 = -5;
/// There is no trusted OS to migrate.
const MIGRATION_NOT_REQUIRED: i64 = 2;

/// What a call comes to.
pub enum Outcome {
    /// The guest goes on with this in `x0`.
    Return(i64),
    /// This vCPU is off.
    Off,
    /// The guest is at its end.
    End(Event),
}

/// A call with the guest's registers.
pub fn call(x: &[u64]) -> Outcome {
    // The function is 32 bits wide.
    Outcome::Return(match x[0] as u32 {
        VERSION => VERSION_1_1,
        MIGRATE_INFO_TYPE => MIGRATION_NOT_REQUIRED,
        FEATURES if is_known(x[1] as u32) => SUCCESS,
        FEATURES => NOT_SUPPORTED,
        CPU_ON_32 | CPU_ON_64 => turn_on(x[1], x[2], x[3]),
        AFFINITY_INFO_32 | AFFINITY_INFO_64 => info(x[1]),
        CPU_OFF => return Outcome::Off,
        SYSTEM_OFF => return Outcome::End(Event::PowerOff),
        SYSTEM_RESET => return Outcome::End(Event::Reset),
        function => {
            note_unknown(function);
            NOT_SUPPORTED
        }
    })
}

fn is_known(function: u32) -> bool {
    matches!(
        function,
        VERSION
            | CPU_OFF
            | CPU_ON_32
            | CPU_ON_64
            | AFFINITY_INFO_32
            | AFFINITY_INFO_64
            | MIGRATE_INFO_TYPE
            | SYSTEM_OFF
            | SYSTEM_RESET
            | FEATURES
    )
}

fn turn_on(mpidr: u64, entry: u64, context: u64) -> i64 {
    match vcpu_of(mpidr).map(|vcpu| vcpu::turn_on(vcpu, entry, context)) {
        None => INVALID_PARAMETERS,
        Some(Ok(())) => SUCCESS,
        Some(Err(vcpu::Power::Pending)) => ON_PENDING,
        Some(Err(_)) => ALREADY_ON,
    }
}

/// ON is 0, OFF is 1, ON_PENDING is 2.
fn info(mpidr: u64) -> i64 {
    match vcpu_of(mpidr).map(vcpu::power) {
        None => INVALID_PARAMETERS,
        Some(vcpu::Power::On) => 0,
        Some(vcpu::Power::Off) => 1,
        Some(vcpu::Power::Pending) => 2,
    }
}

fn vcpu_of(mpidr: u64) -> Option<usize> {
    let vcpu = mpidr.checked_sub(FIRST_CORE)? as usize;
    (vcpu < VCPUS).then_some(vcpu)
}

/// The first eight functions are reported, each once: no guest can fill the report.
fn note_unknown(function: u32) {
    static KNOWN: Mutex<Vec<u32, 8>> = Mutex::new(Vec::new());

    let mut known = KNOWN.lock();
    if !known.contains(&function) && known.push(function).is_ok() {
        console::report(format_args!(
            r#""unknown_call":{{"function":"{function:#x}"}}"#
        ));
    }
}
