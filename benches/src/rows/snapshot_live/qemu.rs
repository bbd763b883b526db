//! As QEMU's `background-snapshot` does it: stops the guest and protects all of its memory; then one
//! thread saves page after page and opens each, and looks before each for a write that waits, whose
//! page it saves first.

use super::world::{Before, Live, World};
use crate::linux::bare::Uffd;

pub fn background(world: &World) -> Live {
    let memory = &world.memory;
    let uffd = Uffd::new(memory).expect("it was tried");
    let mut saved = vec![false; memory.pages()];
    let mut save = |page: usize| {
        if !std::mem::replace(&mut saved[page], true) {
            // SAFETY: the page is protected, so nobody writes to it; only this thread uses the copy.
            unsafe { world.copy.copy_still(memory, page..page + 1) };
        }
        uffd.open(&memory.addresses_of(page));
    };
    world.turn(Before::Nothing, |gate| {
        gate.stopped(|| uffd.protect(&memory.addresses()));
        for page in 0..memory.pages() {
            let mut waits = None;
            uffd.faults::<1>(|address| waits = Some(memory.page_of(address)));
            waits.into_iter().for_each(&mut save);
            save(page);
        }
    })
}
