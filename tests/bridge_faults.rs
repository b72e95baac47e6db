//! Each system call of the bridge functions fails once, by strace's fault injection: the call fails or does its work, and
//! nothing in between.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{C, IFUP, PERSIST, TapApi};
use common::bridge::{BridgeApi, MAC, bridge_state, port};
use common::net::{exists, interfaces, ip, look};
use common::{figure, program, run_again, runs_again, skip};
use std::process::Command;

const RESULT: &str = "/tmp/result";

/// Everything that a call may change.
fn machine() -> String {
    let taps = if exists("old0") { look("old0") } else { String::new() };
    format!("{:?} {} {} {taps}", interfaces(), bridge_state("br0"), bridge_state("br1"))
}

/// Runs the test once more for each system call, which then fails; that run does `work` and says in a file how it went.
/// `reset` makes things as they were after a success.
fn each_call_fails(work: fn() -> bool, reset: fn()) {
    if runs_again() {
        std::fs::write(RESULT, if work() { "done" } else { "failed" }).unwrap();
        std::process::exit(0);
    }
    let before = machine();
    let mut failures = 0;
    for call in ["socket", "setsockopt", "sendto", "recvfrom", "ioctl", "openat"] {
        for number in 1.. {
            let _ = std::fs::remove_file(RESULT);
            let mut strace = Command::new("strace");
            strace.args(["-f", "-qq", "-o", "/tmp/log", "-e", &format!("inject={call}:error=EIO:when={number}")]);
            if call == "openat" {
                strace.args(["-P", "/dev/net/tun"]); // not what the loader opens
            }
            let output = run_again(strace.args(["--"]).arg(program())).output();
            let output = output.unwrap_or_else(|e| skip(&format!("strace: {e}")));
            let log = std::fs::read_to_string("/tmp/log").unwrap();
            let result = std::fs::read_to_string(RESULT);
            let what = || format!("{call} number {number}: {}\n{log}", String::from_utf8_lossy(&output.stderr));
            let done = result.unwrap_or_else(|e| panic!("{e}: {}", what())) == "done";
            if done {
                reset();
            }
            let after = machine();
            assert!(before == after, "before {before}\nafter {after}\n{}", what());
            if !log.contains("(INJECTED)") {
                assert!(done, "{}", what());
                break;
            }
            failures += u32::from(!done);
        }
    }
    figure(&format!("{failures} system calls failed"));
    assert!(failures > 5);
}

fn create() {
    if !runs_again() {
        ip("link add br0 address 02:00:00:00:00:01 type bridge");
        ip("link add br1 type bridge");
    }
    each_call_fails(
        || {
            let mut numbers = [0; 22];
            numbers[1] = 3;
            let port = port("br0").isolated().mtu(1300);
            C.create_with(Some("tap0"), Some(MAC), 1, IFUP | PERSIST, &port, Some(numbers)).is_ok()
        },
        || drop(ip("link del tap0")),
    );
}

fn existing_tap() {
    if !runs_again() {
        ip("link add br0 address 02:00:00:00:00:01 type bridge");
        ip("link add br1 type bridge");
        drop(C.create(Some("old0"), None, 1, PERSIST).unwrap());
    }
}

fn attach() {
    existing_tap();
    each_call_fails(
        || C.attach("old0", &port("br0").isolated().mtu(1300)).is_ok(),
        || drop(ip("link set old0 nomaster mtu 1500")),
    );
}

fn reattach() {
    existing_tap();
    if !runs_again() {
        ip("link add dummy0 type veth peer dummy1");
        ip("link set dummy0 master br0");
        ip("link set dummy1 master br1");
        ip("link set old0 master br0");
    }
    each_call_fails(
        || C.reattach("old0", &port("br1").isolated().mtu(1300), false).is_ok(),
        || assert_eq!(C.reattach("old0", &port("br0").mtu(1500), false), Ok(1500)),
    );
}

netns_tests![create, attach, reattach];
