//! One bitmap and one slot: what the least use of the crate weighs.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod least {
    use core::hint::black_box;

    use pugmark::{AtomicUsize, DirtyBitmap, Slot, words_for};

    static BITMAP: DirtyBitmap<[AtomicUsize; words_for(1024)]> = DirtyBitmap::new(1024);
    static SLOT: Slot<[u32; 4]> = Slot::new([0; 4]);

    #[unsafe(no_mangle)]
    extern "C" fn _start(bit: usize) -> usize {
        // SAFETY: nobody else writes it.
        unsafe { SLOT.write(&black_box([1; 4])) };
        let mut done = usize::from(BITMAP.mark(bit).is_ok());
        done += usize::from(BITMAP.mark_range(bit..bit + 100).is_ok());
        BITMAP.drain_runs(|run| done += black_box(run).len);
        done + usize::from(SLOT.read() == Some(black_box([1; 4])))
    }
}

// For its panic handler.
use pugmark_parts as _;

#[cfg(not(target_os = "none"))]
fn main() {}
