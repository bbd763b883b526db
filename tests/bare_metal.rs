//! Tests that need no operating system, run on the bare-metal targets under QEMU.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod rt;

#[cfg(target_os = "none")]
#[embedded_test::tests]
mod tests {
    #[test]
    fn it_boots() {}
}

/// There is nothing to boot where there is an operating system.
#[cfg(not(target_os = "none"))]
fn main() {}
