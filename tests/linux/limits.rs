//! A thread with fewer rights than the process, or with a kernel that lacks a system call.
#![allow(dead_code, reason = "each test uses a part")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

/// Runs `act` on a thread of an ordinary user. Credentials are a thread's own in the kernel.
pub fn as_ordinary_user<R: Send>(act: impl FnOnce() -> R + Send) -> R {
    on_a_thread(become_an_ordinary_user, act)
}

/// This thread, for good.
pub fn become_an_ordinary_user() {
    const NOBODY: libc::c_long = 65_534;
    // SAFETY: the raw calls change this thread alone. Whoever changes its user is no longer
    // dumpable, which an ordinary user is.
    unsafe {
        if libc::geteuid() == 0 {
            assert_eq!(libc::syscall(libc::SYS_setgroups, 0, 0), 0);
            assert_eq!(
                libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY),
                0
            );
            assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
        }
    }
}

/// A system call that fails.
pub struct Refused {
    pub call: libc::c_long,
    /// Where only a call with this second argument fails.
    pub second: Option<u32>,
    pub errno: i32,
}

/// What `act` answers in a child process; `false` if it panics.
pub fn in_a_child(act: impl FnOnce() -> bool) -> bool {
    // SAFETY: glibc's allocator survives a fork, and the child does nothing else of the parent's.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let right = catch_unwind(AssertUnwindSafe(act)).unwrap_or(false);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(if right { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: room for the status of our own child.
    unsafe { assert_eq!(libc::waitpid(child, &raw mut status, 0), child) };
    status == 0
}

/// Runs `act` on a thread where `refused` fails, by a seccomp filter: what a kernel that was built
/// without it, or a container, does.
pub fn without<R: Send>(refused: Refused, act: impl FnOnce() -> R + Send) -> R {
    on_a_thread(
        || {
            let op = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
                code: code as u16,
                jt,
                jf,
                k,
            };
            let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
            let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
            let answer = libc::BPF_RET | libc::BPF_K;
            let fail = libc::SECCOMP_RET_ERRNO | refused.errno as u32;
            // The fields of `struct seccomp_data`: the number at 0, the second argument at 24.
            let second = refused.second;
            let mut filter = [
                op(load, 0, 0, 0),
                op(equal, 0, 3, refused.call as u32),
                op(load, 0, 0, 24),
                op(equal, 0, 1, second.unwrap_or(0)),
                op(answer, 0, 0, fail),
                op(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
            ];
            if second.is_none() {
                // Whatever the argument.
                filter[3] = op(libc::BPF_JMP | libc::BPF_JA, 0, 0, 0);
            }
            let program = libc::sock_fprog {
                len: filter.len() as u16,
                filter: filter.as_mut_ptr(),
            };
            // SAFETY: the filter is valid for its length, and is this thread's alone.
            unsafe {
                assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
                let mode = libc::SECCOMP_SET_MODE_FILTER;
                assert_eq!(libc::syscall(libc::SYS_seccomp, mode, 0, &program), 0);
            }
        },
        act,
    )
}

fn on_a_thread<R: Send>(limit: impl FnOnce() + Send, act: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            limit();
            act()
        });
        thread.join().expect("it says why")
    })
}
