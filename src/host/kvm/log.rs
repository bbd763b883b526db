//! [`DirtyLog`]: KVM's bitmap of each memory slot.

use core::fmt;
use core::ops::{Deref, Range};

use alloc::vec::Vec;
use std::sync::{Mutex, PoisonError};

use kvm_bindings::{
    KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE, kvm_enable_cap,
};
use kvm_ioctls::VmFd;
use rustix::io::Errno;

use super::buffer::Bits;
use super::error::{KvmError, SetUpError};
use super::offers::Offers;
use super::slots::{Slot, Slots};
use super::sys;
use crate::WriteProtect;
use crate::bitmap::Runs;

/// Runs that are told of at once, 16 bytes each on the stack.
const TOLD: usize = 64;

/// KVM's dirty log (`KVM_GET_DIRTY_LOG`), for a [`WriteTracker`](crate::WriteTracker) over it: its
/// harvest asks KVM first, and takes no faults.
///
/// `V` is a reference to the VM, or an `Arc` of it.
pub struct DirtyLog<V> {
    vm: V,
    manual: bool,
    slots: Slots,
    page_size: u64,
    /// One for each slot, in their order.
    bits: Mutex<Vec<Bits>>,
}

impl<V: Deref<Target = VmFd>> DirtyLog<V> {
    /// The log of `slots`, with manual protection (`KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2`) where KVM
    /// offers it. That changes what `KVM_GET_DIRTY_LOG` does for the whole VM, for good: let nobody
    /// else call it.
    ///
    /// # Errors
    ///
    /// [`SetUpError`].
    pub fn new(vm: V, slots: impl IntoIterator<Item = Slot>) -> Result<Self, SetUpError> {
        let manual = Offers::of(&vm).manual_protect;
        if manual {
            let mut capability = kvm_enable_cap {
                cap: KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
                ..Default::default()
            };
            capability.args[0] = u64::from(KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE);
            vm.enable_cap(&capability)
                .map_err(|error| SetUpError::Call {
                    call: "KVM_ENABLE_CAP",
                    errno: error.errno(),
                })?;
        }
        Self::with(vm, slots, manual)
    }

    /// The log without manual protection: each reading empties it and protects every page that was
    /// in it, at once. For a VM that never had manual protection on.
    ///
    /// # Errors
    ///
    /// [`SetUpError`].
    pub fn automatic(vm: V, slots: impl IntoIterator<Item = Slot>) -> Result<Self, SetUpError> {
        Self::with(vm, slots, false)
    }

    fn with(
        vm: V,
        slots: impl IntoIterator<Item = Slot>,
        manual: bool,
    ) -> Result<Self, SetUpError> {
        let page_size = sys::page_size();
        let slots = Slots::new(slots, page_size)?;
        let bits = slots.all().iter().map(|slot| {
            let words = slot.pages(page_size).div_ceil(64) as usize;
            Bits::new(words, page_size as usize).map_err(|error| SetUpError::call("mmap", error))
        });
        Ok(Self {
            vm,
            manual,
            bits: Mutex::new(bits.collect::<Result<_, _>>()?),
            slots,
            page_size,
        })
    }

    /// Whether protection is manual.
    pub const fn is_manual(&self) -> bool {
        self.manual
    }

    /// The slots.
    pub fn slots(&self) -> &[Slot] {
        self.slots.all()
    }

    fn take(
        &self,
        slot: &Slot,
        bits: &mut Bits,
        written: &mut dyn FnMut(&[Range<u64>]),
    ) -> Result<(), KvmError> {
        let taken = sys::get_dirty_log(&self.vm, slot.slot, bits);
        if let Err(error) = taken {
            // The log may be empty by now, or never have been kept.
            written(core::slice::from_ref(&slot.ipas()));
            return Err(failed(slot, "KVM_GET_DIRTY_LOG", error));
        }
        let first = bits.iter().position(|word| *word != 0);
        let last = bits.iter().rposition(|word| *word != 0);
        let (Some(first), Some(last)) = (first, last) else {
            return Ok(());
        };
        let words = &bits[first..=last];
        // Protected again first: see `WriteProtect::take_log`. One call from the first dirty word to
        // the last, since each call ends with a TLB flush and a word that is zero costs next to
        // nothing. A page that was written since keeps its place in the log.
        let cleared = if self.manual {
            let end = ((last + 1) * 64).min(slot.pages(self.page_size) as usize);
            sys::clear_dirty_log(&self.vm, slot.slot, first, end - first * 64, words)
        } else {
            Ok(())
        };
        let dirty = (first..).zip(words).filter(|(_, word)| **word != 0);
        // Lossless: see the gate in the module.
        let dirty = dirty.map(|(at, word)| (at, *word as usize));
        let address = |page: usize| slot.ipa + page as u64 * self.page_size;
        let mut runs = Runs::new(dirty).map(|run| address(run.start)..address(run.end()));
        loop {
            let some: heapless::Vec<_, TOLD> = runs.by_ref().take(TOLD).collect();
            if some.is_empty() {
                break;
            }
            written(&some);
        }
        cleared.map_err(|error| failed(slot, "KVM_CLEAR_DIRTY_LOG", error))
    }
}

fn failed(slot: &Slot, call: &'static str, error: Errno) -> KvmError {
    let slot = slot.slot;
    match error {
        Errno::NOENT => KvmError::NotLogged { slot },
        // The guard behind the buffer, and a clear past the slot's end.
        Errno::FAULT | Errno::INVAL => KvmError::SlotSize { slot },
        Errno::NXIO => KvmError::RingInUse,
        Errno::IO => KvmError::Forked,
        error => KvmError::Call {
            call,
            errno: error.raw_os_error(),
        },
    }
}

impl<V: Deref<Target = VmFd>> WriteProtect for DirtyLog<V> {
    type Error = KvmError;

    /// Taking the log protects. This refuses what is in no slot, and so in no log.
    fn protect(&self, range: Range<u64>) -> Result<(), KvmError> {
        self.slots.cover(range)
    }

    /// Nothing to do: KVM opens each page as it logs it.
    fn unprotect(&self, _: Range<u64>) -> Result<(), KvmError> {
        Ok(())
    }

    /// All of them: to protect is nothing but to look whether the log covers it.
    fn bridge(&self) -> usize {
        usize::MAX
    }

    fn take_log(&self, written: &mut dyn FnMut(&[Range<u64>])) -> Result<(), KvmError> {
        let mut bits = self.bits.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = self.slots().iter().zip(bits.iter_mut());
        // All of them, even if one fails: what is written in the others is not to be lost.
        slots
            .map(|(slot, bits)| self.take(slot, bits, written))
            .fold(Ok(()), Result::and)
    }
}

impl<V> fmt::Debug for DirtyLog<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirtyLog")
            .field("manual", &self.manual)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}
