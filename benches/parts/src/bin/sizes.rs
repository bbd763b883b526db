//! How large things are in memory: each is a static whose name says what it is.
//!
//! `cargo xtask footprint` reads the sizes in the symbols, so that they are the target's own although
//! the program never runs.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod sizes {
    use core::hint::black_box;

    use pugmark::slots::{Reader, Seen, bytes_for};
    use pugmark::{
        BlockState, BorrowedArena, BorrowedRegion, Slot, SlotWriter, WriteTracker, words_for,
    };

    /// 1 GiB in pages of 4 KiB.
    const PAGES: usize = 1 << 18;
    const SLOTS: usize = 1 << 14;

    type Regions<'a> = &'a [BorrowedRegion<'a>];
    type ArenaReader<'a> =
        Reader<'a, pugmark::slots::Borrowed<'a>, &'a mut [Seen], &'a mut [usize]>;

    macro_rules! sizes {
        ($($name:ident: $size:expr;)*) => {
            $(
                #[unsafe(no_mangle)]
                static $name: [u8; $size] = [0; $size];
            )*

            #[unsafe(no_mangle)]
            extern "C" fn _start() {
                $(black_box(&$name);)*
            }
        };
    }

    sizes! {
        SIZE_1_bits_of_a_GiB_in_4_KiB_pages: 2 * words_for(PAGES) * size_of::<usize>();
        SIZE_2_block: size_of::<BlockState>();
        SIZE_3_region: size_of::<BorrowedRegion<'_>>();
        SIZE_4_tracker: size_of::<WriteTracker<(), Regions<'_>>>();
        SIZE_5_slot_of_64_bytes: size_of::<Slot<[u32; 16]>>();
        SIZE_6_arena: size_of::<BorrowedArena<'_>>();
        SIZE_7_arena_of_16_Ki_slots_of_64_bytes: bytes_for(SLOTS, 64);
        SIZE_8_slot_writer: size_of::<SlotWriter<'_>>();
        SIZE_9_reader: size_of::<ArenaReader<'_>>();
        SIZE_9_seen_of_64_slots: size_of::<Seen>();
    }
}

// For its panic handler.
use pugmark_parts as _;

#[cfg(not(target_os = "none"))]
fn main() {}
