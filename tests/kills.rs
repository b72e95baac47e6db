//! The manager is killed at each system call; a new one finds what is there and puts it right.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{ALLOW_EXISTING, C, IFUP, NONE, PERSIST, TapApi, VNET_HDR};
use common::bridge::{self, BridgeApi, MAC, port};
use common::faults::killed_at_each_call;
use common::hostile::{ATTACKS, Kind, set_group, set_owner, set_persist};
use common::machine::{machine, not_as_before};
use common::net::{exists, ip, ip_batch, set_up_quietly, soon};
use common::ovs::{self, Database};
use common::state::{DIR, check, hold, list, nothing_recorded, reclaim, restore, restore_with, save};
use common::tun;
use serde_json::Value;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use virnetdevtap::state::RestoreFlags;
use virnetdevtap::tap::{delete_list, interface_name};

const FLAGS: u16 = tun::TAP | tun::NO_PI | tun::VNET_HDR;

fn bridged(owner: bool) {
    std::fs::create_dir_all(DIR).unwrap();
    ip_batch("link add br0 address 02:00:00:00:00:01 type bridge\nlink add br1 address 02:00:00:00:00:02 type bridge\n");
    set_up_quietly("br0");
    tun::make("tap0", FLAGS);
    if owner {
        let queue = tun::open_soon("tap0", FLAGS);
        set_owner(queue.as_fd(), 1000).unwrap();
        set_group(queue.as_fd(), 1000).unwrap();
    }
    ip("link set tap0 address 02:00:00:00:00:07 alias mine mtu 1400 master br0");
    set_up_quietly("tap0");
}

fn owned() -> Value {
    bridged(true);
    machine()
}

fn only_bridges() -> Value {
    bridged(true);
    ip("link del tap0");
    machine()
}

/// What a new manager does with what it finds. Nobody has the taps.
fn comes_back() {
    for name in list() {
        // whoever reads /proc, another test for one, has the files of the killed one open a little longer
        assert!(soon(|| check(&name).is_ok()), "{:?}", check(&name));
        let _ = reclaim(&name, 0);
        assert!(soon(|| restore(&name).is_ok()), "{:?}", restore(&name));
    }
    nothing_recorded();
}

/// As it was, at last, but for differences of which `may_be` says that they are to be expected.
fn as_before(before: &Value, may_be: impl Fn(&str) -> bool) {
    let end = Instant::now() + Duration::from_secs(8);
    loop {
        let mut left = not_as_before(before, &machine());
        left.retain(|difference| !may_be(difference));
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{left:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn restored(before: &Value) {
    comes_back();
    as_before(before, |_| false);
}

fn a_tap_that_was_there() {
    let life = |_: &Value| {
        save("tap0").unwrap();
        let queue = tun::open_soon("tap0", FLAGS);
        hold("tap0", &[queue.try_clone().unwrap()]).unwrap();
        for attack in ATTACKS.iter().filter(|attack| attack.kind != Kind::Down) {
            (attack.run)(queue.as_fd(), None).unwrap();
        }
        drop(queue);
        restore("tap0").unwrap();
    };
    killed_at_each_call("Save, Hold, Restore", &owned, &life, &restored);
}

fn a_tap_that_was_absent() {
    let life = |_: &Value| {
        save("tap0").unwrap();
        let queue = tun::open_soon("tap0", FLAGS);
        hold("tap0", &[queue.try_clone().unwrap()]).unwrap();
        set_persist(queue.as_fd(), true).unwrap();
        drop(queue);
        restore("tap0").unwrap();
    };
    killed_at_each_call("Save, Hold, Restore: absent before", &only_bridges, &life, &restored);
}

fn a_tap_that_vanished() {
    let life = |_: &Value| {
        save("tap0").unwrap();
        let queue = tun::open_soon("tap0", FLAGS);
        set_persist(queue.as_fd(), false).unwrap();
        drop(queue);
        restore("tap0").unwrap();
    };
    killed_at_each_call("Save, Restore: vanished", &owned, &life, &restored);
}

/// A new device in place of one whose owner of "none" nobody can give back. The manager that comes back may not do that, so
/// the owner may be root then.
fn a_tap_that_is_made_anew() {
    let setup = || {
        bridged(false);
        machine()
    };
    let life = |_: &Value| {
        save("tap0").unwrap();
        let queue = tun::open_soon("tap0", FLAGS);
        hold("tap0", &[queue.try_clone().unwrap()]).unwrap();
        set_owner(queue.as_fd(), 1).unwrap();
        drop(queue);
        restore_with("tap0", RestoreFlags::RECREATE).unwrap();
    };
    let after = |before: &Value| {
        comes_back();
        as_before(before, |difference| difference.contains("user") || difference.starts_with("/tap0/rest/tun: "));
    };
    killed_at_each_call("Save, Hold, Restore: RECREATE", &setup, &life, &after);
}

/// A bridge port with a record that is moved.
fn a_port_that_moves() {
    let life = |_: &Value| {
        save("tap0").unwrap();
        C.reattach("tap0", &port("br1").isolated().mtu(1300), false).unwrap();
        restore("tap0").unwrap();
    };
    killed_at_each_call("Save, ReattachBridge, Restore", &owned, &life, &restored);
}

/// Without IFF_PERSIST the kernel takes the tap away with the process.
fn creating() {
    let create = |queues| move |_: &Value| drop(C.create(Some("tap1"), None, queues, NONE).unwrap());
    killed_at_each_call("Create", &owned, &create(1), &restored);
    killed_at_each_call("Create: 4 queues", &owned, &create(4), &restored);
    let port = |_: &Value| drop(C.create_with(Some("tap1"), Some(MAC), 2, IFUP, &port("br0").isolated(), None).unwrap());
    killed_at_each_call("CreateInBridgePort", &owned, &port, &restored);
}

/// A persistent tap that was made and never held: the record says that there was none, and Restore does not take what has
/// the name for it. The manager that wrote the record knows, and deletes it.
fn creating_a_persistent_tap() {
    let after = |before: &Value| {
        comes_back();
        C.delete("tap1", None).unwrap();
        as_before(before, |_| false);
    };
    let life = |_: &Value| {
        save("tap1").unwrap();
        let made = C.create(Some("tap1"), None, 2, PERSIST).unwrap();
        hold("tap1", &made.queues).unwrap();
    };
    killed_at_each_call("Save, Create, Hold: persistent", &owned, &life, &after);
    let life = |_: &Value| {
        save("tap1").unwrap();
        let port = port("br0").isolated();
        let made = C.create_with(Some("tap1"), Some(MAC), 1, IFUP | PERSIST, &port, None).unwrap();
        hold("tap1", &made.tap.queues).unwrap();
    };
    killed_at_each_call("Save, CreateInBridgePort, Hold: persistent", &owned, &life, &after);
}

/// As above; and a port whose tap is gone may be left in the database, which is no hindrance to the next one of that name.
fn creating_a_port_of_a_switch() {
    let database = Database::start();
    let setup = || {
        database.bridges_anew();
        owned()
    };
    let port = port("ovsbr0").kind(bridge::Kind::OpenVswitch).vlan(7).mtu(1300);
    let create = || C.create_with(Some("tap1"), Some(MAC), 1, IFUP | PERSIST, &port, None).unwrap();
    let life = |_: &Value| {
        save("tap1").unwrap();
        hold("tap1", &create().tap.queues).unwrap();
    };
    let after = |before: &Value| {
        comes_back();
        C.delete("tap1", None).unwrap();
        drop(create());
        assert_eq!(ovs::ports("ovsbr0"), "tap1");
        C.delete("tap1", None).unwrap();
        ovs::vsctl(&["del-port", "tap1"]);
        as_before(before, |_| false);
    };
    killed_at_each_call("Save, CreateInBridgePort, Hold: Open vSwitch", &setup, &life, &after);
}

fn opening() {
    let life = |_: &Value| {
        save("tap0").unwrap();
        let made = C.create(Some("tap0"), None, 1, ALLOW_EXISTING).unwrap();
        hold("tap0", &made.queues).unwrap();
    };
    killed_at_each_call("Save, Create, Hold: existing", &owned, &life, &restored);
    let setup = || {
        bridged(true);
        ip("link set tap0 nomaster");
        machine()
    };
    let life = |_: &Value| {
        save("tap0").unwrap();
        let port = port("br0").isolated().mtu(1300);
        let made = C.create_with(Some("tap0"), Some(MAC), 1, IFUP | VNET_HDR | ALLOW_EXISTING, &port, None).unwrap();
        hold("tap0", &made.tap.queues).unwrap();
    };
    killed_at_each_call("Save, CreateInBridgePort, Hold: existing", &setup, &life, &restored);
}

const NAMES: [&str; 3] = ["tap0", "pi0", "multi0"];

fn to_be_deleted() -> Value {
    tun::make("tap0", FLAGS);
    ip_batch("tuntap add pi0 mode tap pi\ntuntap add multi0 mode tap multi_queue\nlink set multi0 group 5\n");
    machine()
}

/// Each of them is as it was, or gone. Opening a tap that has packet information takes that away, lest a filter that was
/// left in it keeps everybody out.
fn there_or_gone(before: &Value) {
    let mut before = before.clone();
    for name in NAMES.iter().filter(|name| !exists(name)) {
        before.as_object_mut().unwrap().remove(*name);
    }
    as_before(&before, |what| what.starts_with("/pi0/link/linkinfo/info_data/pi") || what.starts_with("/pi0/rest/tun"));
}

fn deleting() {
    for name in NAMES {
        let after = |before: &Value| {
            there_or_gone(before);
            C.delete(name, None).unwrap();
            assert!(!exists(name));
        };
        killed_at_each_call(&format!("Delete: {name}"), &to_be_deleted, &|_| C.delete(name, None).unwrap(), &after);
    }
    let all = || {
        let names = NAMES.map(|name| interface_name(name.as_bytes()).unwrap());
        assert!(delete_list(&names, None).iter().all(Result::is_ok));
    };
    let after = |before: &Value| {
        there_or_gone(before);
        all();
        assert!(!NAMES.iter().any(|name| exists(name)));
    };
    killed_at_each_call("DeleteList", &to_be_deleted, &|_| all(), &after);
}

shared_netns_tests![
    a_tap_that_was_there,
    a_tap_that_was_absent,
    a_tap_that_vanished,
    a_tap_that_is_made_anew,
    a_port_that_moves,
    creating,
    creating_a_persistent_tap,
    creating_a_port_of_a_switch,
    opening,
    deleting,
];
