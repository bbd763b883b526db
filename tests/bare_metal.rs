//! Tests that need no operating system, run on the bare-metal targets under QEMU.
#![cfg_attr(target_os = "none", no_std, no_main)]

// With its path, as `oracle.rs` beside it is the host's test.
#[cfg(target_os = "none")]
#[path = "oracle/mod.rs"]
mod oracle;
#[cfg(target_os = "none")]
mod rt;

#[cfg(target_os = "none")]
#[embedded_test::tests]
mod tests {
    use pugmark::words_for;

    use crate::oracle::{self, LENGTHS};

    /// The longest bitmap: what fits the 16 KiB of a small Cortex-M0, or two summary words.
    const BITS: usize = if cfg!(target_has_atomic = "ptr") {
        512 * usize::BITS as usize + 1
    } else {
        1025
    };
    const WORDS: usize = words_for(BITS);
    const STEPS: usize = 40;

    /// Many seeds where the bitmap is short, one where each comparison is long.
    fn for_each_case(follow: impl Fn(usize, u64, usize)) {
        for &len in LENGTHS.iter().filter(|&&len| len <= BITS) {
            let seeds = (4_000 / (len + 20)).clamp(1, 40);
            for seed in 0..seeds as u64 {
                follow(len, seed, STEPS);
            }
        }
    }

    #[test]
    fn an_array_agrees_with_the_oracle() {
        for_each_case(oracle::follow_array::<BITS, WORDS>);
    }

    #[test]
    fn a_borrowed_slice_agrees_beside_a_foreign_writer() {
        for_each_case(oracle::follow_slice::<BITS, WORDS>);
    }

    #[test]
    fn an_array_to_oneself_agrees_with_the_oracle() {
        for_each_case(oracle::follow_alone::<BITS, WORDS>);
    }
}

/// There is nothing to boot where there is an operating system.
#[cfg(not(target_os = "none"))]
fn main() {}
