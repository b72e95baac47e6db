//! Macvtaps: they outlive every close, and only their MAC can be changed through a queue.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::hostile::{hostile, mac, need_users};
use common::link::link;
use common::macvtap::{macvtap, open_queue};
use common::net::{exists, ip, sysfs};
use common::process::open_files;
use common::state::{Log, check, hold, list, nothing_recorded, reclaim, restore, restore_with, save};
use nix::errno::Errno;
use serde_json::Value;
use std::os::fd::AsFd;
use virnetdevtap::state::{Fields, RestoreFlags};

/// ip's view of the macvtap and of the device below. The kernel takes its time to tell of a carrier.
fn look() -> Value {
    let one = |name: &&str| {
        let mut link = link(name);
        link.as_object_mut().unwrap().remove("operstate");
        link
    };
    ["mvt0", "low0"].iter().map(one).collect()
}

fn a_changed_mac() {
    need_users();
    for mode in ["bridge", "private", "passthru"] {
        macvtap(mode);
        let (before, lower) = (look(), sysfs("low0", "address").unwrap());
        save("mvt0").unwrap();
        let queue = open_queue();
        let files = open_files();
        hold("mvt0", &[queue.try_clone().unwrap()]).unwrap();
        assert_eq!(files, open_files(), "it needs no guard");
        reclaim("mvt0", 0).unwrap();
        hostile(|| mac(queue.as_fd(), [2, 0, 0, 0, 0, 1]).unwrap());
        assert_eq!(sysfs("mvt0", "address").unwrap(), "02:00:00:00:00:01");
        assert_eq!(sysfs("low0", "address").unwrap() == lower, mode != "passthru");
        drop(queue);
        assert_eq!(check("mvt0").unwrap(), Fields::MAC);
        let log = Log::start();
        assert_eq!(restore("mvt0").unwrap(), Fields::MAC);
        let lines = log.take();
        assert!(!lines.is_empty() && lines.iter().all(|line| line.ends_with(", restored")), "{lines:?}");
        drop(log);
        assert_eq!(look(), before, "{mode}");
        nothing_recorded();
        // and nothing more to do
        save("mvt0").unwrap();
        assert_eq!(restore("mvt0").unwrap(), Fields::empty());
        ip("link del mvt0");
        assert_eq!(sysfs("low0", "address").unwrap(), lower, "{mode}");
    }
}

fn a_macvtap_that_was_absent() {
    for persists in [false, true] {
        save("mvt0").unwrap();
        macvtap("bridge");
        let queue = open_queue();
        hold("mvt0", &[queue]).unwrap();
        if persists {
            restore("mvt0").unwrap();
        } else {
            ip("link del mvt0");
            assert_eq!(restore("mvt0").unwrap(), Fields::empty());
        }
        assert!(!exists("mvt0"));
        nothing_recorded();
    }
}

fn gone_or_replaced() {
    macvtap("bridge");
    save("mvt0").unwrap();
    ip("link del mvt0");
    assert_eq!(check("mvt0").unwrap(), Fields::VANISHED);
    assert_eq!(restore("mvt0").unwrap(), Fields::VANISHED | Fields::UNRESTORED);
    nothing_recorded();
    macvtap("bridge");
    save("mvt0").unwrap();
    ip("link del mvt0");
    ip("link add mvt0 type bridge");
    assert_eq!(restore("mvt0").unwrap_err().errno, Errno::EEXIST);
    assert_eq!(restore_with("mvt0", RestoreFlags::REMOVE).unwrap_err().errno, Errno::EEXIST);
    assert!(exists("mvt0"));
    assert_eq!(list(), ["mvt0"]);
    restore_with("mvt0", RestoreFlags::LEAVE).unwrap();
    ip("link del mvt0");
    macvtap("bridge");
    save("mvt0").unwrap();
    restore_with("mvt0", RestoreFlags::REMOVE).unwrap();
    assert!(!exists("mvt0"));
    nothing_recorded();
}

netns_tests![a_changed_mac, a_macvtap_that_was_absent, gone_or_replaced];
