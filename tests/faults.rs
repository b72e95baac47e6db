//! Each system call of each function fails once: the function fails and leaves everything as it was, or does its work.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{ALLOW_EXISTING, C, IFUP, NONE, Outcome, PERSIST, TapApi, VNET_HDR, outcome};
use common::bridge::{BridgeApi, Kind, MAC, Port, port};
use common::faults::{BOUND, Scenario, Tally, unseen};
use common::net::ip_batch;
use common::process::Holder;
use common::steps::piece;
use common::tun;
use nix::errno::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::ptr;
use virnetdevtap::capi::{self, types::virDomainInterfaceStatsStruct};

fn nothing() {}

/// A call that fails, or does all.
fn whole<T, R>(tally: &mut Tally, name: &str, setup: &dyn Fn() -> T, call: &dyn Fn(&T) -> Outcome<R>) {
    tally.each_call_fails(&Scenario { name, setup, call: &|made: &T| piece(|| call(made)), partly: false });
}

/// A call whose right outcome is this error.
fn refused<R: std::fmt::Debug>(result: Outcome<R>, errno: Errno, words: &str) -> Outcome<()> {
    match result {
        Err(failure) if failure.errno == errno && failure.text.contains(words) => Ok(()),
        Err(failure) => Err(failure),
        Ok(result) => panic!("{result:?}"),
    }
}

/// Persistent taps that nobody holds.
fn taps() {
    ip_batch(
        "tuntap add old0 mode tap
         tuntap add pi0 mode tap pi vnet_hdr
         tuntap add multi0 mode tap multi_queue
         link set old0 address 02:00:00:00:00:07
         link set pi0 address 02:00:00:00:00:08 group 5
         link set multi0 address 02:00:00:00:00:09\n",
    );
    tun::make("napi0", tun::TAP | tun::NO_PI | tun::NAPI);
    ip_batch("link set napi0 address 02:00:00:00:00:0a\n");
}

fn creating() {
    let mut tally = Tally::default();
    let new = [
        ("named", Some("tap0"), 1, NONE),
        ("generated name", None, 1, NONE),
        ("persistent", Some("tap0"), 1, PERSIST),
        ("4 queues", Some("tap0"), 4, NONE),
        ("4 queues, persistent", Some("tap0"), 4, PERSIST | VNET_HDR),
        ("no queue", Some("tap0"), 0, PERSIST),
    ];
    for (case, name, queues, flags) in new {
        whole(&mut tally, &format!("Create: {case}"), &nothing, &|()| C.create(name, None, queues, flags));
    }
    let existing = [
        ("existing", "old0", 1, NONE),
        ("existing, other flags", "old0", 1, VNET_HDR),
        ("existing with packet information", "pi0", 1, NONE),
        ("existing with NAPI", "napi0", 1, VNET_HDR),
        ("existing multi-queue", "multi0", 1, NONE),
        ("existing multi-queue, 4 queues", "multi0", 4, VNET_HDR),
        ("missing, existing allowed", "tap0", 2, PERSIST),
    ];
    for (case, name, queues, flags) in existing {
        let call = |_: &()| C.create(Some(name), None, queues, flags | ALLOW_EXISTING);
        whole(&mut tally, &format!("Create: {case}"), &taps, &call);
    }
    let taken = |_: &()| refused(C.create(Some("old0"), None, 1, PERSIST), Errno::EEXIST, "already exists");
    whole(&mut tally, "Create: taken", &taps, &taken);
    let single = |_: &()| refused(C.create(Some("old0"), None, 2, ALLOW_EXISTING), Errno::EINVAL, "multi_queue");
    whole(&mut tally, "Create: too many queues", &taps, &single);
    tally.finish("virNetDevTapCreate");
}

fn held(name: &str, flags: u16) -> (OwnedFd, Holder) {
    taps();
    let queue = tun::open_soon(name, flags);
    let holder = Holder::of(&queue);
    (queue, holder)
}

fn deleting() {
    let mut tally = Tally::default();
    for name in ["old0", "pi0", "multi0", "napi0", "missing0"] {
        whole(&mut tally, &format!("Delete: {name}"), &taps, &|()| C.delete(name, None));
    }
    let call = |_: &_| refused(C.delete("old0", None), Errno::EBUSY, "held by sleep");
    let setup = || {
        let (queue, holder) = held("old0", tun::TAP | tun::NO_PI);
        drop(queue);
        holder
    };
    whole(&mut tally, "Delete: held", &setup, &call);
    let bridge = || ip_batch("link add br0 type bridge\n");
    whole(&mut tally, "Delete: a bridge", &bridge, &|()| refused(C.delete("br0", None), Errno::EINVAL, "bridge"));
    tally.finish("virNetDevTapDelete");
}

fn strings(names: &[&str]) -> (Vec<CString>, Vec<*const libc::c_char>) {
    let strings: Vec<_> = names.iter().map(|name| CString::new(*name).unwrap()).collect();
    let pointers = strings.iter().map(|string| string.as_ptr()).collect();
    (strings, pointers)
}

fn delete_list(names: &[&str]) -> Outcome<()> {
    let (_strings, pointers) = strings(names);
    let mut errnos = vec![-1; names.len()];
    // SAFETY: so many strings and numbers
    let call = || unsafe { capi::virNetDevTapDeleteList(pointers.as_ptr(), names.len(), ptr::null(), errnos.as_mut_ptr()) };
    let rc = piece(call);
    let result = outcome(rc);
    // one that is missing has an error where it could not be looked for
    for (name, errno) in names.iter().zip(&errnos).filter(|(name, _)| !name.starts_with("missing")) {
        assert_eq!(common::net::exists(name), *errno != 0, "{name} {errno}");
    }
    assert_eq!(rc == 0, errnos.iter().all(|errno| *errno == 0), "{rc} {errnos:?}");
    result
}

/// What is not deleted is as it was; so it is asked for in the call, where that is known.
fn deleting_many() {
    let mut tally = Tally::default();
    let names = ["old0", "missing0", "pi0", "multi0"];
    let call = |_: &()| {
        let looks = names.map(|name| common::net::exists(name).then(|| common::net::look(name)));
        let result = delete_list(&names);
        for (name, before) in names.iter().zip(looks) {
            if common::net::exists(name) {
                common::net::assert_as(&before.unwrap(), name);
            }
        }
        result
    };
    tally.each_call_fails(&Scenario { name: "DeleteList", setup: &taps, call: &call, partly: true });
    tally.finish("virNetDevTapDeleteList");
}

fn stats_list(names: &[&str]) -> Outcome<()> {
    let (_strings, pointers) = strings(names);
    let nothing = virDomainInterfaceStatsStruct {
        rx_bytes: -9,
        rx_packets: -9,
        rx_errs: -9,
        rx_drop: -9,
        tx_bytes: -9,
        tx_packets: -9,
        tx_errs: -9,
        tx_drop: -9,
    };
    let mut stats = vec![nothing; names.len()];
    let untouched = stats.clone();
    // SAFETY: so many strings and structs
    let found = unsafe { capi::virNetDevTapInterfaceStatsList(pointers.as_ptr(), names.len(), stats.as_mut_ptr(), false) };
    if found < 0 {
        assert_eq!(stats, untouched);
        return Err(outcome(found).unwrap_err());
    }
    assert_eq!(found as usize, names.iter().filter(|name| !name.starts_with("missing")).count());
    assert!(names.iter().zip(&stats).all(|(name, stats)| (stats.rx_bytes == -1) == name.starts_with("missing")));
    Ok(())
}

fn looking() {
    let mut tally = Tally::default();
    let open = || tun::open("tap0", tun::TAP).unwrap();
    whole(&mut tally, "GetName", &open, &|queue: &OwnedFd| C.name_of(queue.as_fd()).map(|name| assert_eq!(name, "tap0")));
    let real = |_: &()| {
        assert!(capi::virNetDevTapGetRealDeviceName(ptr::null_mut()).is_null());
        Ok(())
    };
    whole(&mut tally, "GetRealDeviceName", &nothing, &real);
    whole(&mut tally, "InterfaceStats", &taps, &|()| C.stats("old0"));
    let missing = |_: &()| refused(C.stats("missing0"), Errno::ENODEV, "not found");
    whole(&mut tally, "InterfaceStats: missing", &nothing, &missing);
    let names = ["old0", "missing0", "lo", "pi0", "multi0", "lo"];
    whole(&mut tally, "InterfaceStatsList: 3", &taps, &|()| stats_list(&names[..3]));
    whole(&mut tally, "InterfaceStatsList: 6", &taps, &|()| stats_list(&names));
    let many: Vec<_> = names.iter().copied().cycle().take(100).collect();
    whole(&mut tally, "InterfaceStatsList: 100", &taps, &|()| stats_list(&many));
    whole(&mut tally, "GetPersist", &taps, &|()| C.get_persist("old0").map(|persist| assert!(persist)));
    let setup = || held("old0", tun::TAP | tun::NO_PI);
    let call = |(_, holder): &(OwnedFd, Holder)| {
        let pids = C.holders("old0")?;
        let mut both = [std::process::id() as i32, holder.pid()];
        both.sort();
        // who may not look at one of them does not find it
        assert!(pids == both || (unseen() && pids.iter().all(|pid| both.contains(pid))), "{pids:?}, not {both:?}");
        Ok(())
    };
    whole(&mut tally, "GetHolders", &setup, &call);
    tally.finish("functions that look");
}

fn persist() {
    let mut tally = Tally::default();
    for name in ["old0", "pi0", "multi0"] {
        whole(&mut tally, &format!("SetPersist: {name}, false"), &taps, &|()| C.set_persist(name, None, false));
    }
    whole(&mut tally, "SetPersist: already so", &taps, &|()| C.set_persist("old0", None, true));
    let setup = || tun::open("tap0", tun::TAP | tun::MULTI_QUEUE | tun::VNET_HDR).unwrap();
    whole(&mut tally, "SetPersist: multi-queue in use, true", &setup, &|_| C.set_persist("tap0", None, true));
    let setup = || held("multi0", tun::TAP | tun::NO_PI | tun::MULTI_QUEUE);
    whole(&mut tally, "SetPersist: multi-queue in use, false", &setup, &|_| C.set_persist("multi0", None, false));
    tally.finish("virNetDevTapSetPersist");
}

/// A bridge with an address and an MTU of its own, and one with another port.
fn bridges() {
    taps();
    ip_batch(
        "link add br0 address 02:00:00:00:00:01 type bridge
         link set br0 mtu 1450
         link add br1 type bridge
         link add veth0 address 02:00:00:00:00:11 type veth peer veth1 address 02:00:00:00:00:12
         link set veth0 master br1\n",
    );
}

fn port_of(bridge: &str) {
    bridges();
    ip_batch(&format!("link set old0 master {bridge}\n"));
    let options = ["link", "set", "dev", "old0", "cost", "77", "hairpin", "on", "isolated", "on"];
    assert!(std::process::Command::new("bridge").args(options).status().unwrap().success());
}

fn attaching() {
    let mut tally = Tally::default();
    let isolated = |bridge| port(bridge).isolated().mtu(1300);
    let attach = |port: Port| move |_: &()| C.attach("old0", &port);
    whole(&mut tally, "AttachBridge", &bridges, &attach(port("br0")));
    whole(&mut tally, "AttachBridge: isolated, MTU", &bridges, &attach(isolated("br0")));
    let call = |_: &()| refused(C.attach("old0", &port("br0")), Errno::EBUSY, "already");
    whole(&mut tally, "AttachBridge: is a port", &|| port_of("br1"), &call);
    whole(&mut tally, "AttachBridge: midonet", &midonet, &attach(port("br0").kind(Kind::Midonet)));
    tally.finish("virNetDevTapAttachBridge");

    let mut tally = Tally::default();
    let reattach = |port: Port, force| move |_: &()| C.reattach("old0", &port, force);
    whole(&mut tally, "ReattachBridge: same", &|| port_of("br0"), &reattach(isolated("br0"), false));
    whole(&mut tally, "ReattachBridge: same, force", &|| port_of("br0"), &reattach(port("br0").mtu(1300), true));
    whole(&mut tally, "ReattachBridge: other", &|| port_of("br0"), &reattach(isolated("br1"), false));
    whole(&mut tally, "ReattachBridge: from none", &bridges, &reattach(isolated("br1"), false));
    let setup = || {
        midonet();
        ip_batch("link set old0 master br0\n");
    };
    whole(&mut tally, "ReattachBridge: midonet", &setup, &reattach(port("br0").kind(Kind::Midonet).mtu(1300), false));
    tally.finish("virNetDevTapReattachBridge");
}

/// A program in the place of mm-ctl which keeps in mind what it was asked for.
fn midonet() {
    bridges();
    std::fs::create_dir_all("/tmp/bin").unwrap();
    let script = format!("#!/bin/sh\ncase $1 in --bind-port) : > {BOUND};; --unbind-port) rm -f {BOUND};; esac\n");
    std::fs::write("/tmp/bin/mm-ctl", script).unwrap();
    std::fs::set_permissions("/tmp/bin/mm-ctl", PermissionsExt::from_mode(0o755)).unwrap();
    // SAFETY: nobody else looks at the environment at this moment
    unsafe { std::env::set_var("PATH", "/tmp/bin:/usr/sbin:/usr/bin:/sbin:/bin") };
}

fn creating_in_a_port() {
    let mut tally = Tally::default();
    let isolated = port("br0").isolated().mtu(1300);
    let mut coalesce = [0; 22];
    coalesce[1] = 3;
    let with_mac = |name, queues, flags, port: &Port| C.create_with(Some(name), Some(MAC), queues, flags, port, None);
    whole(&mut tally, "CreateInBridgePort", &bridges, &|()| with_mac("tap0", 1, IFUP, &port("br1")));
    whole(&mut tally, "CreateInBridgePort: persistent", &bridges, &|()| with_mac("tap0", 1, IFUP | PERSIST, &port("br1")));
    let call = |_: &()| C.create_with(None, None, 1, IFUP | PERSIST, &isolated, Some(coalesce));
    whole(&mut tally, "CreateInBridgePort: all", &bridges, &call);
    whole(&mut tally, "CreateInBridgePort: 3 queues", &bridges, &|()| with_mac("tap0", 3, PERSIST, &isolated));
    whole(&mut tally, "CreateInBridgePort: no queue", &bridges, &|()| with_mac("tap0", 0, PERSIST, &isolated));
    let call = |_: &()| C.create_with(Some("pi0"), Some(MAC), 1, IFUP | ALLOW_EXISTING, &isolated, Some(coalesce));
    whole(&mut tally, "CreateInBridgePort: existing", &bridges, &call);
    let flags = PERSIST | ALLOW_EXISTING;
    whole(&mut tally, "CreateInBridgePort: existing multi-queue", &bridges, &|()| with_mac("multi0", 2, flags, &isolated));
    let mido = port("br0").kind(Kind::Midonet);
    whole(&mut tally, "CreateInBridgePort: midonet", &midonet, &|()| with_mac("tap0", 1, PERSIST, &mido));
    tally.finish("virNetDevTapCreateInBridgePort");
}

shared_netns_tests![creating, deleting, deleting_many, looking, persist, attaching, creating_in_a_port];
