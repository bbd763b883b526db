//! Where the guest is. The hypervisor enters it here, and xtask, which includes this file, has QEMU
//! place the guest's files here and describes the machine to the guest accordingly.
//!
//! All addresses are the machine's, and the guest's too: stage 2 is an identity map.

/// The first address of the machine's memory, and its size. Below the guest there is room for the
/// hypervisor, above it for two copies of the guest: 256 MiB each.
pub const MACHINE_RAM: u64 = 0x4000_0000;
/// In bytes.
pub const MACHINE_RAM_SIZE: u64 = 1 << 30;

/// The first address of the guest's memory. A kernel wants 2 MiB alignment.
pub const RAM: u64 = 0x5000_0000;
/// In bytes.
pub const RAM_SIZE: u64 = 256 << 20;

/// Where the kernel is, and where the first vCPU enters it: with [`DEVICE_TREE`] in `x0`, zero in
/// `x1` to `x3`, interrupts masked, and its MMU off.
pub const KERNEL: u64 = RAM;
/// The device tree is the last thing in the guest's memory; the initramfs ends below it.
pub const DEVICE_TREE: u64 = RAM + RAM_SIZE - DEVICE_TREE_ROOM;
/// As much as a kernel allows.
pub const DEVICE_TREE_ROOM: u64 = 2 << 20;

/// The cores that run the guest's vCPUs: this one, where it boots, and the next ones. The guest has
/// the machine's own interrupt controller, so its cores bear the machine's numbers.
pub const FIRST_CORE: u64 = 2;
/// How many of them.
pub const VCPUS: u64 = 2;

/// Where no device is. The guest announces a phase by a store of 64 bits here: the name of what
/// comes next in ASCII, first letter in the lowest byte, filled up with spaces. The hypervisor sees
/// the store as a translation fault of stage 2.
pub const DOORBELL: u64 = 0x0b00_0000;
