//! A tap that nobody holds but the kernel: vhost-net, for a hypervisor that has closed its own file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{PERSIST, TapApi, VNET_HDR};
use common::hostile::{attack_named, need_users};
use common::net::{exists, frame, gone, ip, send_from_guest, set_up_quietly, soon, try_read_as_guest, unchanged};
use common::state::{
    check, deletable, hold, list, look, look_at_rest, looks_like, nothing_recorded, restore, restore_with, save,
};
use common::tun;
use common::vhost::{HEADER, Hypervisor, need_vhost};
use nix::errno::Errno;
use serde_json::Value;
use std::os::fd::{AsFd, OwnedFd};
use virnetdevtap::state::{Fields, RestoreFlags};

const FLAGS: u16 = tun::TAP | tun::NO_PI | tun::VNET_HDR;

/// The error of a call that waits in vain says who makes vhost-net hold the tap.
fn names(failure: &common::api::Failure, hypervisor: &Hypervisor) {
    assert_eq!((failure.code, failure.errno), (38, Errno::EBUSY), "{failure:?}");
    let (_, users) = failure.text.split_once("works through /dev/vhost-net for ").unwrap_or_else(|| panic!("{failure:?}"));
    assert!(users.contains(&format!("(pid {})", hypervisor.pid())), "{failure:?}");
}

fn deleting(api: &dyn TapApi) {
    need_vhost();
    need_users();
    for flags in [VNET_HDR, VNET_HDR | PERSIST] {
        let made = api.one("tap0", flags);
        let hypervisor = Hypervisor::start(&made.queues[0], &frame(200), || {});
        drop(made);
        assert_eq!(api.holders("tap0").unwrap(), [0; 0], "no file of a process");
        names(&unchanged("tap0", || api.delete("tap0", None).unwrap_err()), &hypervisor);
        hypervisor.end();
        assert_eq!(exists("tap0"), flags & PERSIST != 0);
        api.delete("tap0", None).unwrap();
        assert!(gone("tap0"));
    }
}

/// A bridge with the tap of a guest that listens, and one that somebody made on purpose.
fn bridged_tap() -> (OwnedFd, Value) {
    need_vhost();
    need_users();
    ip("link add br0 type bridge mcast_snooping 0");
    set_up_quietly("br0");
    let listener = tun::open("listener0", tun::TAP | tun::NO_PI).unwrap();
    tun::make_owned("tap0", FLAGS, 1000);
    ip("link set tap0 mtu 1400 alias of-the-administrator");
    for name in ["listener0", "tap0"] {
        ip(&format!("link set {name} master br0"));
        set_up_quietly(name);
    }
    (listener, look_at_rest("tap0", Some("br0")))
}

/// Until the bridge lets them through, which takes a while after a carrier comes.
fn comes_through(listener: &OwnedFd, len: usize, send: impl Fn()) -> bool {
    soon(|| {
        send();
        std::iter::from_fn(|| try_read_as_guest(listener, 0)).any(|got| got == frame(len))
    })
}

/// Saved, held, given to vhost-net by a hypervisor that does what it can before.
fn begin(listener: &OwnedFd) -> Hypervisor {
    save("tap0").unwrap();
    let queue = tun::open("tap0", FLAGS).unwrap();
    hold("tap0", &[queue.try_clone().unwrap()]).unwrap();
    let hypervisor = Hypervisor::start(&queue, &frame(200), || {
        for name in ["persist", "owner", "MAC", "offloads"] {
            (attack_named(name).run)(queue.as_fd(), None).unwrap();
        }
    });
    drop(queue);
    assert!(comes_through(listener, 200, || hypervisor.send()), "vhost-net works");
    hypervisor
}

const CHANGED: Fields = Fields::PERSIST.union(Fields::OWNER).union(Fields::MAC).union(Fields::OFFLOADS);

fn frames_flow(listener: &OwnedFd) {
    let queue = tun::open("tap0", FLAGS).unwrap();
    let sent = [vec![0; HEADER], frame(300)].concat();
    assert!(comes_through(listener, 300, || send_from_guest(&queue, &sent)));
}

fn restored_when_it_has_ended() {
    let (listener, before) = bridged_tap();
    let hypervisor = begin(&listener);
    assert_eq!(check("tap0").unwrap(), CHANGED);
    hypervisor.end();
    assert_eq!(restore("tap0").unwrap(), CHANGED);
    looks_like(&before, "tap0", Some("br0"));
    nothing_recorded();
    frames_flow(&listener);
    deletable("tap0", false);
}

fn restored_at_the_second_try() {
    let (listener, before) = bridged_tap();
    let hypervisor = begin(&listener);
    names(&restore("tap0").unwrap_err(), &hypervisor);
    assert!(exists("tap0"));
    assert_eq!(list(), ["tap0"]);
    hypervisor.end();
    assert!(exists("tap0"), "it is persistent again");
    assert_eq!(restore("tap0").unwrap(), CHANGED, "told although the first try has mended some of it");
    looks_like(&before, "tap0", Some("br0"));
    nothing_recorded();
    frames_flow(&listener);
}

fn evicted() {
    let (listener, mut before) = bridged_tap();
    let hypervisor = begin(&listener);
    let changed = restore_with("tap0", RestoreFlags::EVICT).unwrap();
    assert_eq!(changed & !CHANGED, Fields::VANISHED, "{changed:?}");
    nothing_recorded();
    // it was made anew, and its address generation is not ours to bring back
    let now = look("tap0", Some("br0"));
    before["inode"] = now["inode"].clone();
    before["link"]["inet6_addr_gen_mode"] = now["link"]["inet6_addr_gen_mode"].clone();
    looks_like(&before, "tap0", Some("br0"));
    frames_flow(&listener);
    hypervisor.send();
    frames_flow(&listener);
    while let Some(got) = try_read_as_guest(&listener, 0) {
        assert_ne!(got, frame(200), "vhost-net still reaches the bridge");
    }
    hypervisor.end();
    looks_like(&before, "tap0", Some("br0"));
    deletable("tap0", false);
}

each_api!(deleting);
netns_tests![restored_when_it_has_ended, restored_at_the_second_try, evicted];
