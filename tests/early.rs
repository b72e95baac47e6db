//! A deletion returns when the device is gone, not when the kernel has freed it: nothing of that is left to the caller.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{C, NONE, PERSIST, TapApi};
use common::net::{Event, Events, exists, interfaces, ip, sysfs};
use common::process::{Forked, open_files};
use common::{count, figure, tun};
use nix::errno::Errno;
use std::time::Instant;

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// When the call returns, everything that can be seen of the device is gone, in sysfs too, and no file is open.
fn gone_when_it_returns() {
    let files = open_files();
    let mut took = Vec::new();
    for round in 0..count(100, 20) {
        let flags = if round % 2 == 0 { tun::TAP } else { tun::TAP | tun::MULTI_QUEUE };
        tun::make("tap0", flags);
        ip("link set tap0 up");
        let events = Events::listen();
        let start = Instant::now();
        C.delete("tap0", None).unwrap();
        took.push(start.elapsed());
        assert!(!exists("tap0"));
        assert_eq!(open_files().len(), files.len() + 1, "the events' own");
        assert!(events.take().contains(&Event::Deleted));
        let again = C.one("tap0", NONE); // the name is free at once
        drop(again);
        assert!(common::net::soon(|| !exists("tap0")), "whoever looks at our files in /proc has them a little longer");
    }
    took.sort();
    figure(&format!("delete: median {:?}, longest {:?}", took[took.len() / 2], took[took.len() - 1]));
}

/// The index is free as well.
fn the_same_index_at_once() {
    for _ in 0..count(20, 5) {
        tun::make("tap0", tun::TAP);
        let index = sysfs("tap0", "ifindex").unwrap();
        C.delete("tap0", None).unwrap();
        ip(&format!("link add tap0 index {index} type bridge"));
        assert_eq!(sysfs("tap0", "ifindex").unwrap(), index);
        ip("link del tap0");
    }
}

fn no_thread_remains() {
    let before = threads();
    for i in 0..count(50, 10) {
        drop(C.create(Some(&format!("t{i}")), None, 1, PERSIST).unwrap());
    }
    for i in 0..count(50, 10) {
        C.delete(&format!("t{i}"), None).unwrap();
    }
    assert!(interfaces().is_empty());
    assert!(common::net::soon(|| threads() == before));
}

/// A child has one thread, ends as it should, and can do the same.
fn a_fork_right_after() {
    for _ in 0..count(20, 5) {
        tun::make("tap0", tun::TAP);
        tun::make("tap1", tun::TAP);
        let files = open_files();
        C.delete("tap0", None).unwrap();
        Forked::run(|| {
            assert_eq!(threads(), 1);
            assert_eq!(open_files(), files);
            C.delete("tap1", None).unwrap();
            assert!(!exists("tap1"));
        })
        .join();
        assert!(interfaces().is_empty());
    }
}

/// In a process that may start no thread, the call waits itself.
fn without_a_thread() {
    Forked::run(|| {
        forbid_threads();
        assert!(std::thread::Builder::new().spawn(|| ()).is_err());
        tun::make("tap0", tun::TAP);
        C.delete("tap0", None).unwrap();
        assert!(!exists("tap0"));
        C.delete("tap0", None).unwrap();
    })
    .join();
}

/// clone() and clone3() fail with EAGAIN, as with too many processes.
fn forbid_threads() {
    let filter = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let (load, equal, give) =
        (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::BPF_RET | libc::BPF_K);
    let mut code = [
        filter(load, 0, 0, 0), // the number of the system call
        filter(equal, 1, 0, libc::SYS_clone3 as u32),
        filter(equal, 0, 1, libc::SYS_clone as u32),
        filter(give, 0, 0, libc::SECCOMP_RET_ERRNO | Errno::EAGAIN as u32),
        filter(give, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    // SAFETY: system calls with numbers, and a program that lives until the call is over
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: as above
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) }, 0);
}

/// Several at once, of the same devices: each call finds them gone, and nobody writes into another's file.
fn racing_deletions() {
    for _ in 0..count(30, 5) {
        tun::make("tap0", tun::TAP | tun::MULTI_QUEUE);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| C.delete("tap0", None).unwrap());
            }
        });
        assert!(interfaces().is_empty());
    }
}

netns_tests![
    gone_when_it_returns,
    the_same_index_at_once,
    no_thread_remains,
    a_fork_right_after,
    without_a_thread,
    racing_deletions,
];
