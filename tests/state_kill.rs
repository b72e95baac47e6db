//! The manager is killed at each system call of Save, Hold and Restore; a new one finds everything and puts it right.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::hostile::{ATTACKS, Kind, set_group, set_owner, set_persist};
use common::net::{exists, interfaces, ip, set_up_quietly};
use common::state::{
    check, deletable, differences, hold, list, look, look_at_rest, looks_like, nothing_recorded, reclaim, restore, restore_with,
    save,
};
use common::steps::killed_at;
use common::{count, figure, tun};
use serde_json::Value;
use std::os::fd::AsFd;
use virnetdevtap::state::{Fields, RestoreFlags};

const FLAGS: u16 = tun::TAP | tun::NO_PI | tun::VNET_HDR;

fn bridged(owner: bool) {
    ip("link add br0 type bridge");
    set_up_quietly("br0");
    tun::make("tap0", FLAGS);
    if owner {
        let queue = tun::open("tap0", FLAGS).unwrap();
        set_owner(queue.as_fd(), 1000).unwrap();
        set_group(queue.as_fd(), 1000).unwrap();
    }
    ip("link set tap0 alias mine mtu 1400 master br0");
    set_up_quietly("tap0");
}

/// What a new manager does with what it finds.
fn comes_back() {
    for name in list() {
        check(&name).unwrap();
        let _ = reclaim(&name, 0); // nobody has it
        restore(&name).unwrap();
    }
    nothing_recorded();
}

/// The same device, or one that was made anew as it was.
fn as_it_was(before: &Value) {
    let (mut before, now) = (before.clone(), look("tap0", Some("br0")));
    if now["inode"] != before["inode"] {
        before["inode"] = now["inode"].clone();
        before["link"]["inet6_addr_gen_mode"] = now["link"]["inet6_addr_gen_mode"].clone();
    }
    looks_like(&before, "tap0", Some("br0"));
}

/// Kills `life` at each of its system calls; `then` tells whether all is well.
fn at_each_call(what: &str, life: impl Fn(), mut then: impl FnMut(usize)) {
    let step = count(1, 11);
    let mut at = 0;
    while killed_at(at, &life) {
        then(at);
        at += step;
    }
    then(at);
    assert!(at > 50, "{what}: only {at} system calls");
    figure(&format!("{what}: killed at each of {at} system calls"));
}

fn a_tap_that_was_there() {
    bridged(true);
    let mut before = look_at_rest("tap0", Some("br0"));
    let life = || {
        save("tap0").unwrap();
        let queue = tun::open("tap0", FLAGS).unwrap();
        hold("tap0", &[queue.try_clone().unwrap()]).unwrap();
        for attack in ATTACKS.iter().filter(|attack| attack.kind != Kind::Down) {
            (attack.run)(queue.as_fd(), None).unwrap();
        }
        drop(queue);
        restore("tap0").unwrap();
    };
    at_each_call("save, hold, restore", life, |_| {
        comes_back();
        as_it_was(&before);
        before = look_at_rest("tap0", Some("br0"));
    });
    deletable("tap0", false);
}

fn a_tap_that_was_absent() {
    let life = || {
        save("tap0").unwrap();
        let queue = tun::open("tap0", FLAGS).unwrap();
        hold("tap0", &[queue.try_clone().unwrap()]).unwrap();
        set_persist(queue.as_fd(), true).unwrap();
        drop(queue);
        restore("tap0").unwrap();
    };
    at_each_call("absent before", life, |at| {
        comes_back();
        assert!(interfaces().is_empty(), "killed at {at}: {:?}", interfaces());
    });
}

fn a_tap_that_vanished() {
    bridged(true);
    let mut before = look_at_rest("tap0", Some("br0"));
    let life = || {
        save("tap0").unwrap();
        let queue = tun::open("tap0", FLAGS).unwrap();
        set_persist(queue.as_fd(), false).unwrap();
        drop(queue);
        assert_eq!(restore("tap0").unwrap(), Fields::VANISHED);
    };
    at_each_call("vanished", life, |_| {
        comes_back();
        as_it_was(&before);
        before = look_at_rest("tap0", Some("br0"));
    });
    deletable("tap0", false);
}

/// A new device in place of one whose owner of "none" nobody can give back. The manager that comes back may not do that, so
/// the owner may be root's then.
fn a_tap_that_is_made_anew() {
    bridged(false);
    let mut before = look_at_rest("tap0", Some("br0"));
    let life = || {
        save("tap0").unwrap();
        let queue = tun::open("tap0", FLAGS).unwrap();
        hold("tap0", &[queue.try_clone().unwrap()]).unwrap();
        set_owner(queue.as_fd(), 1).unwrap();
        drop(queue);
        restore_with("tap0", RestoreFlags::RECREATE).unwrap();
    };
    at_each_call("made anew", life, |at| {
        comes_back();
        assert!(exists("tap0"), "killed at {at}");
        let mut now = look_at_rest("tap0", Some("br0"));
        for key in ["/inode", "/link/inet6_addr_gen_mode"] {
            *now.pointer_mut(key).unwrap() = before.pointer(key).unwrap().clone();
        }
        let differences = differences("", &before, &now);
        assert!(differences.iter().all(|what| what.contains("owner") || what.contains("user")), "{differences:#?}");
        if !differences.is_empty() {
            ip("link del tap0");
            ip("link del br0");
            bridged(false);
        }
        before = look_at_rest("tap0", Some("br0"));
    });
}

netns_tests![a_tap_that_was_there, a_tap_that_was_absent, a_tap_that_vanished, a_tap_that_is_made_anew];
