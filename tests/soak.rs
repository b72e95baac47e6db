//! A manager that has run for long: what ten thousand lives of taps leave in its process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{ALLOW_EXISTING, C, PERSIST, Rust, TapApi, VNET_HDR, last_failure};
use common::net::{only, soon};
use common::process::{open_files, threads};
use common::state::{DIR, Log, nothing_recorded};
use common::{figure, rounds, tun};
use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;
use virnetdevtap::capi;

const FLAGS: u16 = tun::TAP | tun::NO_PI;
/// What the allocator may keep of a process that does the same over and over again.
const ALLOWED_KIB: usize = 256;

/// Anonymous memory of this process, which is what a leak adds to.
fn memory_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn state_dir() -> &'static CStr {
    c"/tmp/state/taps"
}

/// One life as a C manager has it: a tap that is there before, or at times one that is made, with an honest or a hostile
/// hypervisor.
fn life(api: &dyn TapApi, number: usize) {
    assert_eq!(state_dir().to_str(), Ok(DIR));
    let present = number % 10 != 9;
    if present && number.is_multiple_of(10) {
        tun::make("tap0", FLAGS);
    }
    let name = c"tap0";
    // SAFETY: strings
    assert_eq!(unsafe { capi::virNetDevTapStateSave(name.as_ptr(), state_dir().as_ptr()) }, 0, "{:?}", last_failure());
    let flags = if number.is_multiple_of(4) { ALLOW_EXISTING | VNET_HDR } else { ALLOW_EXISTING };
    let made = api.create(Some("tap0"), None, 1, flags).unwrap();
    let fds: Vec<_> = made.queues.iter().map(AsRawFd::as_raw_fd).collect();
    // SAFETY: strings, and as many files as are said
    let held = unsafe { capi::virNetDevTapStateHold(name.as_ptr(), state_dir().as_ptr(), fds.as_ptr(), fds.len()) };
    assert_eq!(held, 0, "{:?}", last_failure());
    if number.is_multiple_of(3) {
        attack(&made.queues[0], present);
    }
    let mut changed = 0;
    // SAFETY: strings, and a number to write to
    let checked = unsafe { capi::virNetDevTapStateCheck(name.as_ptr(), state_dir().as_ptr(), &raw mut changed) };
    assert_eq!(checked, 0, "{:?}", last_failure());
    drop(made);
    // SAFETY: as above
    let restored =
        unsafe { capi::virNetDevTapStateRestore(name.as_ptr(), std::ptr::null(), state_dir().as_ptr(), 0, &raw mut changed) };
    assert_eq!(restored, 0, "{:?}", last_failure());
    assert!(api.get_persist("tap0").is_ok() == present);
    if number % 10 == 8 {
        api.delete("tap0", None).unwrap(); // the kernel takes its time for that
    }
    assert!(api.delete("lo", None).is_err());
    if number.is_multiple_of(70) {
        let generated = api.create(None, None, 2, PERSIST).unwrap();
        let name = generated.name.clone();
        drop(generated);
        api.delete(&name, None).unwrap();
    }
}

/// The persist flag the other way round.
fn attack(queue: &OwnedFd, present: bool) {
    tun::set_persist(queue, !present);
}

fn ten_thousand_lives() {
    let log = Log::start(); // so that each log line is made, too
    let mut lines = 0;
    let mut live = |from: usize, to: usize| {
        for number in from..to {
            life(if number % 4 < 2 { &Rust } else { &C }, number);
            lines += log.take().len();
        }
    };
    let lives = rounds(10_000, 1000, 100);
    let first = lives / 5;
    live(0, first);
    assert!(soon(|| threads() <= 2), "{} threads", threads()); // the test's and the harness's
    let before = (memory_kib(), open_files(), threads());
    let start = Instant::now();
    live(first, lives);
    let each = start.elapsed().as_micros() as usize / (lives - first);
    assert!(soon(|| threads() == before.2), "{} threads, {} before", threads(), before.2);
    let after = (memory_kib(), open_files(), threads());
    figure(&format!(
        "{lives} lives of a tap, {each} us each: memory {} KiB after {first} of them and {} KiB at the end, {} and {} open files, {} and {} threads, {lines} warnings logged",
        before.0,
        after.0,
        before.1.len(),
        after.1.len(),
        before.2,
        after.2
    ));
    assert_eq!(before.1, after.1, "open files");
    assert!(after.0 <= before.0 + ALLOWED_KIB, "memory has grown from {} KiB to {} KiB", before.0, after.0);
    assert!(lines > 0);
    nothing_recorded();
    assert!(only(&[]));
}

netns_tests![ten_thousand_lives];
