//! The protocols, in every interleaving that [loom](https://docs.rs/loom) finds within its bound,
//! and weak memory with it.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release --test loom
//! ```
//!
//! The right models drive the library. Beside each stands an order that looks right and loses: the
//! *same scenario* with one step in the wrong place, which loom must find. With `--nocapture` each
//! says in how many executions it held, or in which it was caught.
//!
//! | law | right | wrong, must fail |
//! | --- | --- | --- |
//! | a mark that returned is in the next drain | `promise::{holds, holds_for_another_leaf}` | `promise::{summary_swapped_after_the_leaves, summary_loaded_with_acquire, leaf_looked_at_with_acquire}`, `drainers::line_looked_at_before_its_summary_is_swapped` |
//! | the same, two markers of one word | `promise::holds_for_two_markers` | `promise::summary_only_when_the_leaf_was_zero` |
//! | who takes a mark sees what was written before it | `promise::holds_for_the_content` | `promise::no_rmw_when_already_set` |
//! | the same where whole words are marked by stores | `fill::{by_hand_beside_a_drain, by_hand_for_the_content, by_hand_set_beside_a_drain, by_hand_set_for_the_content, swapped_beside_a_writer}` | `fill::{no_fence, set_before_the_stores, fence_before_the_stores, stored_relaxed, stored_where_stores_reach_others_apart}` |
//! | each mark goes to one drainer | `drainers::{one_a_mark, one_a_mark_beside_a_marker, one_a_mark_of_lines_ahead}` | `drainers::{look_then_clear_delivers_twice, look_then_clear_delivers_none}` |
//! | what a sink refuses stays marked | `drainers::{refused_runs_stay, refused_lines_stay, refused_lines_ahead_stay}` | `drainers::{refused_word_stored_back, refused_lines_forgotten, refused_lines_behind_those_ahead_forgotten}` |
//! | 1 no written page is lost | `harvest::{first_write, second_write, two_vcpus_of_a_block, bridged_gap, two_harvesters}`, `checkpoint::disarm` | all below; `harvest::two_harvesters_at_once`, `checkpoint::opened_behind_the_tracker` |
//! | 1 nor what the VMM wrote | `harvest::told_after_the_write` | `harvest::told_before_the_write` |
//! | 2 grant, then mark | `harvest::first_write` | `harvest::mark_then_grant` |
//! | 3 drain, then protect, then copy | `harvest::second_write` | `harvest::{protect_then_drain, copy_before_protect}` |
//! | 3 where the host keeps the log: renew it, then tell | `host_log::full_log_beside_a_harvest` | `host_log::told_before_it_is_renewed` |
//! | 3 at a checkpoint: clear, then protect, then copy | `checkpoint::arm_beside_a_write` | `checkpoint::{protect_then_clear, baseline_before_arm}` |
//! | 4 one granule a fault | `granule::{step_down_beside_faults, credit_spent_beside_a_harvest, step_up_beside_faults, sample_beside_a_harvest}` | `granule::loaded_twice` |
//! | 5 a step-down leaves no hole | `granule::step_down_beside_faults` | `granule::read_again_by_the_harvest` |
//! | 6 a harvest is a transaction | `transaction::consumer_refuses` | `transaction::refusal_forgets_the_rest` |
//! | 6 in two phases | `transaction::{dropped, committed}` | `transaction::dropped_without_restore` |
//! | 7 the final harvest waits | `last::{waits_for_a_handler, waits_for_a_coarse_handler, waits_for_two_handlers}` | `last::{plain_harvest, counted_after_the_grant, begun_read_before_ended, counted_with_acquire_and_release}` |
//! | 8 a failure leaves a safe state | `failure::{grant_fails, protect_fails, arm_fails}` | `failure::{failed_grant_is_not_marked, failed_protect_is_forgotten}` |
//! | 11 no torn value is accepted | `seqlock::write_beside_reads`, `arena::{mirror_is_whole_by_way_of_the_scratch, mirror_is_whole_by_way_of_registers}` | `seqlock::{no_fence_after_odd, odd_stored_with_release_for_the_fence, even_stored_relaxed, looked_relaxed, no_fence_before_the_second_look, second_look_with_acquire_for_the_fence, no_second_look}` |
//! | 11 a dead writer is taken over | `seqlock::dead_writer_taken_over` | `seqlock::dead_writer_counted_on` |
//! | 12 a freed slot is not mistaken for the next | `arena::{reuse_beside_descend, reuse_beside_two_descends, reuse_before_the_first_descend}` | `arena::{generation_before_odd, freed_without_odd, generation_read_before_the_look, generation_read_after_the_confirmation}` |
//! | a write that returned is in the next descend | `hints::{write_beside_descend, two_writers_beside_descend}` | `hints::{hint_before_the_end, hint_of_the_chunk_first, no_fence_after_the_chunk, no_fence_after_the_slots, chunk_cleared_after_its_slots, slots_cleared_after_their_versions, cleared_without_a_look, set_without_fences_where_stores_reach_others_apart}` |
//!
//! The tests `by_hand…` are controls: the protocols by hand hold with every step in its place, so
//! that a wrong one fails for that step alone.
//!
//! `LOOM_MAX_PREEMPTIONS` bounds the right models, at 3 if it is not set. The wrong ones are caught
//! within 3.
//!
//! What the models rest on: `mmu.rs` for the hardware, `storage.rs` and `promise::Bits::new` for
//! what loom does not do by itself.

#![cfg(loom)]

#[path = "loom/by_hand.rs"]
mod by_hand;
#[path = "loom/check.rs"]
mod check;
#[path = "loom/library.rs"]
mod library;
#[path = "loom/mmu.rs"]
mod mmu;
#[path = "loom/scenario.rs"]
mod scenario;
#[path = "loom/storage.rs"]
mod storage;

#[path = "loom/arena.rs"]
mod arena;
#[path = "loom/checkpoint.rs"]
mod checkpoint;
#[path = "loom/drainers.rs"]
mod drainers;
#[path = "loom/failure.rs"]
mod failure;
#[path = "loom/fill.rs"]
mod fill;
#[path = "loom/granule.rs"]
mod granule;
#[path = "loom/harvest.rs"]
mod harvest;
#[path = "loom/hints.rs"]
mod hints;
#[path = "loom/host_log.rs"]
mod host_log;
#[path = "loom/last.rs"]
mod last;
#[path = "loom/promise.rs"]
mod promise;
#[path = "loom/seqlock.rs"]
mod seqlock;
#[path = "loom/transaction.rs"]
mod transaction;
