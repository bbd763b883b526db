//! What not to do: mark, then grant. Built with `--cfg pugmark_wrong_order` only, to show that the
//! judge finds the pages that are lost by it.
//!
//! Between the two a harvester takes the mark and protects the page, which is protected already.
//! Then the grant opens it, and the guest writes to a page that is open and not marked.

use pugmark::WriteProtect;

use super::{layout::PAGE_SIZE, tracking::tracker};

/// In the place of [`on_write_fault`](pugmark::WriteTracker::on_write_fault). Whether the page is
/// tracked.
pub fn on_write_fault(ipa: u64) -> bool {
    let page = ipa & !(PAGE_SIZE - 1);
    let page = page..page + PAGE_SIZE;
    tracker().mark_written(page.clone()).is_ok() && tracker().protection().unprotect(page).is_ok()
}
