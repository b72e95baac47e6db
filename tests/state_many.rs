//! Many taps at once, and what one costs in system calls.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::hostile::{ATTACKS, Kind};
use common::net::{Events, ip, ip_batch, set_up_quietly};
use common::state::{check, hold, list, nothing_recorded, restore, save};
use common::strace::{marked, trace};
use common::{count, figure, tun};
use std::fmt::Write;
use std::os::fd::AsFd;
use virnetdevtap::state::Fields;

const FLAGS: u16 = tun::TAP | tun::NO_PI | tun::VNET_HDR;
const THREADS: usize = 8;

fn taps_from_8_threads() {
    let taps = count(200, 16);
    let mut lines = "link add br0 type bridge\nlink set br0 up\n".to_owned();
    for i in 0..taps {
        let name = format!("tap{i}");
        tun::make_owned(&name, FLAGS, 1000);
        let queue = tun::open_soon(&name, FLAGS);
        common::hostile::set_group(queue.as_fd(), 1000).unwrap();
        writeln!(lines, "link set {name} master br0 up mtu {}", 1000 + i).unwrap();
    }
    ip_batch(&lines);
    let look = |i: usize| {
        let name = format!("tap{i}");
        let files = ["tun_flags", "owner", "group", "address", "mtu", "ifindex", "brport/port_no", "flags"];
        files.map(|file| common::net::sysfs(&name, file))
    };
    let before: Vec<_> = (0..taps).map(look).collect();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for i in (thread..taps).step_by(THREADS) {
                    let name = format!("tap{i}");
                    save(&name).unwrap();
                    let queue = tun::open_soon(&name, FLAGS);
                    hold(&name, &[queue.try_clone().unwrap()]).unwrap();
                    for attack in ATTACKS.iter().filter(|attack| attack.kind != Kind::Down && attack.name != "MAC") {
                        (attack.run)(queue.as_fd(), None).unwrap();
                    }
                    common::hostile::mac(queue.as_fd(), [2, 0, 0, 0, 1, i as u8]).unwrap();
                }
            });
        }
    });
    assert_eq!(list().len(), taps);
    let start = std::time::Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for i in (thread..taps).step_by(THREADS) {
                    let changed = restore(&format!("tap{i}")).unwrap();
                    assert!(changed.contains(Fields::PERSIST | Fields::OWNER | Fields::MAC | Fields::OFFLOADS));
                    assert!(!changed.contains(Fields::UNRESTORED));
                }
            });
        }
    });
    figure(&format!("{taps} taps restored by {THREADS} threads in {} ms", start.elapsed().as_millis()));
    for (i, before) in before.iter().enumerate() {
        assert_eq!(*before, look(i), "tap{i}");
    }
    nothing_recorded();
}

fn workload() {
    tun::make_owned("tap0", FLAGS, 1000);
    ip("link add br0 type bridge");
    set_up_quietly("br0");
    for (mark, bridge) in [("first", false), ("outside", false), ("bridge", true)] {
        if bridge {
            ip("link set tap0 master br0");
            set_up_quietly("tap0");
        }
        marked(&format!("save {mark}"), || save("tap0").unwrap());
        marked(&format!("restore {mark}"), || restore("tap0").unwrap());
        save("tap0").unwrap();
        let queue = [tun::open("tap0", FLAGS).unwrap()];
        marked(&format!("hold {mark}"), || hold("tap0", &queue).unwrap());
        drop(queue);
        marked(&format!("check {mark}"), || check("tap0").unwrap());
        marked(&format!("restore held {mark}"), || restore("tap0").unwrap());
    }
    marked("save absent", || save("none0").unwrap());
    marked("restore absent", || restore("none0").unwrap());
}

/// Calls that the record takes: on its directory and its files, and knowing where and when this is.
fn of_the_record(calls: &[String]) -> usize {
    let mut fds: Vec<String> = Vec::new();
    let mut number = 0;
    for call in calls {
        let name = call.split('(').next().unwrap();
        let result = call.rsplit("= ").next().unwrap().split(' ').next().unwrap();
        let first = call.split(['(', ',', ')']).nth(1).unwrap_or_default();
        let paths = ["/tmp/state", ".json", ".tmp\"", "boot_id"];
        let known = paths.iter().any(|path| call.contains(path)) || fds.iter().any(|fd| fd == first);
        if !known && !call.contains("SO_NETNS_COOKIE") && !call.contains("0x47 /* SO_??? */") {
            continue;
        }
        number += 1;
        match name {
            "openat" if result.parse::<u32>().is_ok() => fds.push(result.to_owned()),
            "close" => fds.retain(|fd| fd != first),
            _ => {}
        }
    }
    number
}

fn system_calls() {
    let pieces = trace(workload);
    for (what, calls) in &pieces {
        let others = calls.len() - of_the_record(calls);
        figure(&format!("{what}: {} system calls, {others} besides the record's", calls.len()));
        let setlinks = calls.iter().filter(|call| call.contains("RTM_SETLINK")).count();
        assert_eq!(setlinks, 0, "{what}: nothing was changed, {calls:#?}");
        let dumps = calls.iter().filter(|call| call.contains("RTM_GETLINK") && call.contains("NLM_F_DUMP")).count();
        assert_eq!(dumps, 0, "{what}");
        let duplicates = calls.iter().filter(|call| call.contains("F_DUPFD") || call.starts_with("dup")).count();
        assert_eq!(duplicates, usize::from(what.starts_with("hold")), "{what}: {calls:#?}");
        if what == "save outside" || what == "save first" {
            assert!(others <= 25, "{what}: {others}, {calls:#?}");
        }
        if std::env::var_os("VIRNETDEVTAP_CALLS").is_some() {
            calls.iter().for_each(|call| figure(&format!("  {what}: {call}")));
        }
    }
}

/// Restore of an untouched tap tells nobody of a change of its port.
fn no_transition_of_the_port() {
    tun::make_owned("tap0", FLAGS, 1000);
    ip("link add br0 type bridge");
    set_up_quietly("br0");
    ip("link set tap0 master br0");
    set_up_quietly("tap0");
    common::state::look_at_rest("tap0", Some("br0"));
    save("tap0").unwrap();
    let events = Events::listen();
    let changes = common::net::sysfs("tap0", "carrier_changes");
    restore("tap0").unwrap();
    assert_eq!(common::net::sysfs("tap0", "brport/state").unwrap(), "0", "disabled as before, since nobody has it");
    assert_eq!(common::net::sysfs("tap0", "carrier_changes"), changes);
    figure(&format!("Restore of an untouched tap in a bridge: {} link events", events.take().len()));
}

netns_tests![taps_from_8_threads, system_calls, no_transition_of_the_port];
