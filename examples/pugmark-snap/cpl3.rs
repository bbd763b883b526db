//! 64-bit mode at CPL 3, without a kernel: what every KVM runs, one without hardware support included.

use kvm_bindings::kvm_segment;
use kvm_ioctls::VcpuFd;

/// Puts the vCPU into it, with `tables` as its page tables.
pub fn set_up(vcpu: &VcpuFd, tables: u64) -> Result<(), kvm_ioctls::Error> {
    let mut sregs = vcpu.get_sregs()?;
    let code = kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: 0x33,
        type_: 11,
        present: 1,
        dpl: 3,
        s: 1,
        l: 1,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment {
        selector: 0x2b,
        type_: 3,
        l: 0,
        db: 1,
        ..code
    };
    sregs.cs = code;
    for segment in [
        &mut sregs.ds,
        &mut sregs.es,
        &mut sregs.fs,
        &mut sregs.gs,
        &mut sregs.ss,
    ] {
        *segment = data;
    }
    sregs.cr3 = tables;
    // PE, ET, WP, PG; PAE; LME, LMA.
    sregs.cr0 = 1 | 1 << 4 | 1 << 16 | 1 << 31;
    sregs.cr4 = 1 << 5;
    sregs.efer = 1 << 8 | 1 << 10;
    vcpu.set_sregs(&sregs)
}
