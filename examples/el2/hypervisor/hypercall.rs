//! What the guest asks of the hypervisor. `x0` is the number; `x1` to `x3` are its arguments.

/// "I have done it; what next?" `x1`: how many pages this vCPU wrote. Comes back with the number
/// of the store class in `x0` and the round in `x1`, after the checkpoint.
pub const NEXT: u64 = 0;
/// "Have I written to these pages often enough?" `x1`: passes so far. Comes back with 1 in `x0` when
/// it has.
pub const ENOUGH: u64 = 1;
/// "My own check failed." `x1`: address, `x2`: what was there, `x3`: what should be.
pub const WRONG: u64 = 2;
/// "I took an exception that I do not know." Its registers are in `ESR_EL1`, `FAR_EL1`, `ELR_EL1`.
pub const LOST_MY_WAY: u64 = 3;
