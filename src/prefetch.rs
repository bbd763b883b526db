//! Telling the caches which memory comes next. A hint: it changes nothing and never faults, so any
//! address will do.

/// Whether the hints do anything here. Under Miri and loom they do not, and neither on targets whose
/// instruction is not known below.
pub(crate) const PREFETCHES: bool = cfg!(all(
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(any(miri, loom))
));

/// Asks for the cache line at `address`, to be read.
#[inline]
pub(crate) fn to_read<T>(address: *const T) {
    #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
    // SAFETY: a hint to the cache, which never faults.
    unsafe {
        core::arch::asm!("prefetcht0 [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(all(target_arch = "aarch64", not(any(miri, loom))))]
    // SAFETY: a hint to the cache, which never faults.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    let _ = address;
}

/// Asks for the cache line at `address`, to be written: other cores' copies go.
#[inline]
pub(crate) fn to_write<T>(address: *const T) {
    #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
    // SAFETY: a hint to the cache, which never faults; a processor without it takes it for a `nop`.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(all(target_arch = "aarch64", not(any(miri, loom))))]
    // SAFETY: a hint to the cache, which never faults.
    unsafe {
        core::arch::asm!("prfm pstl1keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    let _ = address;
}
