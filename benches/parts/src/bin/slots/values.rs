//! From the allocation to the mirror.

use pugmark::Slot;

type Value = [u32; 4];

static SLOT: Slot<Value> = Slot::new([0; 4]);

#[cfg(feature = "capi")]
#[unsafe(no_mangle)]
extern "C" fn _start(work: extern "C" fn(*const ())) {
    work(pugmark::capi::pugmark_mark as *const ());
    work(pugmark::capi::pugmark_mark_range as *const ());
    work(pugmark::capi::pugmark_slot_write as *const ());
    arena::use_it();
}

#[cfg(not(feature = "capi"))]
#[unsafe(no_mangle)]
extern "C" fn _start() -> usize {
    arena::use_it()
}

mod arena {
    use core::hint::black_box;

    use pugmark::slots::{Reader, Seen, mirror_words};

    use super::{SLOT, Value};

    const STRIDE: usize = size_of::<Value>();

    pub fn use_it() -> usize {
        let mut done = 0;
        if let Some(mut writer) = SLOT.writer() {
            writer.write(&black_box([1; 4]));
            done += usize::from(SLOT.read() == Some(black_box([1; 4])));
        }
        #[cfg(feature = "alloc")]
        let Ok(arena) = pugmark::BoxedArena::boxed(64, STRIDE) else {
            return done;
        };
        #[cfg(feature = "alloc")]
        let arena = &arena;
        #[cfg(not(feature = "alloc"))]
        let arena = {
            use pugmark::{StaticArena, slots::chunk_words};
            static ARENA: StaticArena<1, { chunk_words(STRIDE) }> = StaticArena::new();
            &ARENA
        };
        let Some(mut owner) = arena.owner() else {
            return done;
        };
        let mirror = [0; mirror_words(64, STRIDE)];
        let Ok(mut reader) = Reader::new(arena, [Seen::ZERO; 1], mirror) else {
            return done;
        };
        if let Ok(mut writer) = owner.allocate() {
            done += usize::from(writer.write_value(&black_box([2; 4])).is_ok());
            let descent = reader.descend(|offset, bytes| done += black_box(offset) + bytes.len());
            done += descent.updated;
            done += usize::from(reader.value_as(writer.id()) == Some(black_box([2_u32; 4])));
            done += usize::from(owner.free(writer).is_ok());
        }
        done
    }
}
