//! Putting an interface on a Linux bridge, and moving it to another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::IFUP;
use common::bridge::{BridgeApi, Kind, bridge_words, brport, master, port, same_bridge, spare_tap};
use common::net::{Events, ip, ip_says, sysfs, try_ip, unchanged};
use nix::errno::Errno;
use std::sync::atomic::{AtomicBool, Ordering};

fn no_bridge(name: &str) -> bool {
    master(name).is_none()
}

fn attach(api: &dyn BridgeApi) {
    ip("link add br0 type bridge");
    ip("link set br0 mtu 1400 up");
    spare_tap(api, "tap0");
    let mac = sysfs("tap0", "address");
    assert_eq!(api.attach("tap0", &port("br0")), Ok(1400));
    assert_eq!((master("tap0").as_deref(), sysfs("tap0", "mtu").as_deref()), (Some("br0"), Some("1400")));
    assert_eq!(sysfs("tap0", "address"), mac, "the MAC is the bridge's business only in CreateInBridgePort");
    assert_eq!(brport("tap0", "isolated"), "0");
    spare_tap(api, "tap1");
    assert_eq!(api.attach("tap1", &port("br0").mtu(1300).isolated()), Ok(1300));
    assert_eq!((brport("tap1", "isolated").as_str(), sysfs("tap1", "mtu").as_deref()), ("1", Some("1300")));
    // other kinds of interfaces, as in libvirt's containers
    ip("link add veth0 type veth peer veth1");
    assert_eq!(api.attach("veth0", &port("br0").mtu(1350)), Ok(1350));
    assert_eq!(master("veth0").as_deref(), Some("br0"));
}

fn attach_refused(api: &dyn BridgeApi) {
    ip("link add br0 type bridge");
    ip("link add br1 type bridge");
    ip("link set br1 mtu 1300");
    spare_tap(api, "tap0");
    for bridge in ["br0", "br1"] {
        ip("link set tap0 master br0");
        let failure = unchanged("tap0", || same_bridge(bridge, || api.attach("tap0", &port(bridge)).unwrap_err()));
        assert_eq!((failure.code, failure.errno), (38, Errno::EBUSY));
        let text = format!("Unable to add bridge {bridge} port tap0, it is a port of br0 already: Device or resource busy");
        assert_eq!(failure.text, text);
        ip("link set tap0 nomaster");
    }
    for (tap, port) in [("missing0", port("br0")), ("missing0", port("br0").mtu(1500)), ("", port("br0"))] {
        let failure = api.attach(tap, &port).unwrap_err();
        assert!([Errno::ENODEV, Errno::EINVAL].contains(&failure.errno), "{failure:?}");
    }
    let failure = unchanged("br0", || api.attach("br0", &port("br1")).unwrap_err());
    assert_eq!(failure.errno, Errno::EINVAL, "{failure:?}");
    let failure = unchanged("tap0", || same_bridge("br0", || api.attach("tap0", &port("br0").mtu(100_000)).unwrap_err()));
    assert!(failure.text.starts_with("Cannot set interface MTU on 'tap0'"), "{failure:?}");
}

fn settings() -> &'static str {
    "link set dev tap0 cost 77 priority 7 hairpin on guard on learning off flood off mcast_flood off neigh_suppress on"
}

fn reattach(api: &dyn BridgeApi) {
    ip("link add br0 type bridge");
    ip("link add br1 type bridge");
    ip("link set br1 mtu 1300");
    spare_tap(api, "tap0");
    assert_eq!(api.reattach("tap0", &port("br0"), false), Ok(1500), "from no bridge");
    assert_eq!(master("tap0").as_deref(), Some("br0"));
    let events = Events::listen();
    assert_eq!(unchanged("tap0", || api.reattach("tap0", &port("br0").isolated().mtu(1400), false)), Ok(1500), "it is there");
    assert!(events.take().is_empty());
    assert_eq!(api.reattach("tap0", &port("br1").isolated(), false), Ok(1300));
    assert_eq!((master("tap0").as_deref(), brport("tap0", "isolated").as_str()), (Some("br1"), "1"));
    assert_eq!(sysfs("tap0", "mtu").as_deref(), Some("1300"));
    assert_eq!(sysfs("br0", "mtu").as_deref(), Some("1500"), "the old bridge has not seen the new MTU");
    assert_eq!(api.reattach("tap0", &port("br0").mtu(1400), true), Ok(1400));
    assert_eq!((master("tap0").as_deref(), brport("tap0", "isolated").as_str()), (Some("br0"), "0"));
}

fn force_makes_the_settings_anew(api: &dyn BridgeApi) {
    ip("link add br0 type bridge");
    spare_tap(api, "tap0");
    api.attach("tap0", &port("br0")).unwrap();
    bridge_words(settings());
    assert_eq!(api.reattach("tap0", &port("br0").isolated().mtu(1400), true), Ok(1400));
    assert_eq!((brport("tap0", "isolated").as_str(), sysfs("tap0", "mtu").as_deref()), ("1", Some("1400")));
    assert_eq!(brport("tap0", "path_cost"), "77", "it has not left the bridge");
    api.reattach("tap0", &port("br0"), true).unwrap();
    assert_eq!(brport("tap0", "isolated"), "0");
}

fn a_failing_reattach(api: &dyn BridgeApi) {
    ip("link add br0 mtu 1400 type bridge");
    ip("link add br1 type bridge");
    spare_tap(api, "tap0");
    ip("link set tap0 mtu 1400 master br0");
    bridge_words(settings());
    bridge_words("fdb add 52:54:00:00:00:01 dev tap0 master static");
    let fdb = || {
        let output = std::process::Command::new("bridge").args(["fdb", "show", "brport", "tap0"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let before = fdb();
    assert!(before.contains("52:54:00:00:00:01"));
    let fails = |tap, port, force| {
        let failure =
            unchanged("tap0", || same_bridge("br0", || same_bridge("br1", || api.reattach(tap, &port, force).unwrap_err())));
        assert_eq!(before, fdb());
        failure
    };
    assert_eq!(fails("tap0", port("missing0"), false).errno, Errno::ENODEV);
    assert_eq!(fails("tap0", port("lo"), false).errno, Errno::EOPNOTSUPP);
    assert_eq!(fails("tap0", port("br1").mtu(100_000), false).errno, Errno::EINVAL);
    assert_eq!(fails("tap0", port("br0").mtu(100_000), true).errno, Errno::EINVAL);
    assert_eq!(fails("tap0", port("br1").vlan(4095), false).text, "invalid argument: vlanid out of range: 4095");
    assert_eq!(fails("missing0", port("br1"), false).errno, Errno::ENODEV);
    if std::fs::exists("/sys/class/net/br0/bridge/default_pvid").unwrap() {
        return; // VLANs work, and nothing later fails
    }
    for (bridge, force) in [("br1", false), ("br1", true), ("br0", true)] {
        let failure = fails("tap0", port(bridge).isolated().mtu(1300).vlan(7), force);
        assert_eq!((failure.code, failure.errno), (38, Errno::EOPNOTSUPP));
    }
    let full: Vec<_> = (0..1023).map(|i| format!("tuntap add port{i} mode tap\nlink set port{i} master br1\n")).collect();
    common::net::ip_batch(&full.concat());
    let failure = fails("tap0", port("br1"), false);
    assert_eq!((failure.code, failure.errno), (38, Errno::EXFULL));
}

/// Tells another thread to end, also when this one fails.
#[derive(Default)]
struct Over(AtomicBool);

struct AtEnd<'a>(&'a AtomicBool);

impl Over {
    fn at_end(&self) -> AtEnd<'_> {
        AtEnd(&self.0)
    }
}

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A child that another thread is just starting has our files until its exec, and the device stays as long.
fn gone(name: &str) {
    let start = std::time::Instant::now();
    while std::fs::exists(format!("/sys/class/net/{name}")).unwrap() {
        assert!(start.elapsed().as_secs() < 20, "{name} is still there");
        std::thread::yield_now();
    }
}

/// A bridge that somebody deletes and makes again and again, while a tap is to be put on it: each call does its work or
/// leaves things as they were.
fn a_bridge_that_goes_meanwhile(api: &dyn BridgeApi) {
    ip("link add br1 type bridge");
    spare_tap(api, "tap0");
    ip("link set tap0 master br1");
    let over = Over::default();
    let (mut done, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.0.load(Ordering::Relaxed) {
                drop(try_ip("link add br0 type bridge"));
                drop(try_ip("link del br0"));
            }
        });
        let ends = over.at_end();
        for _ in 0..common::count(100, 10) {
            match api.reattach("tap0", &port("br0").isolated(), false) {
                Ok(_) => done += 1,
                Err(failure) => {
                    refused += 1;
                    // the second one if it goes between joining and isolating
                    assert!([Errno::ENODEV, Errno::EOPNOTSUPP].contains(&failure.errno), "{failure:?}");
                    assert!(!no_bridge("tap0") || done > 0);
                }
            }
            if no_bridge("tap0") {
                ip("link set tap0 master br1"); // br0 has gone with the tap on it
            }
            if let Err(failure) = api.create_in("tap1", IFUP, &port("br0")) {
                assert!([Errno::ENODEV, Errno::EOPNOTSUPP].contains(&failure.errno), "{failure:?}");
            }
            gone("tap1");
        }
        drop(ends);
    });
    common::figure(&format!("bridge deleted meanwhile: {done} moves, {refused} refusals"));
}

/// Nobody ever sees the tap without a master.
fn never_on_no_bridge(api: &dyn BridgeApi) {
    ip("link add br0 type bridge");
    ip("link add br1 type bridge");
    spare_tap(api, "tap0");
    api.attach("tap0", &port("br0")).unwrap();
    let over = Over::default();
    std::thread::scope(|scope| {
        let looker = scope.spawn(|| {
            let mut looks = 0;
            while !over.0.load(Ordering::Relaxed) {
                let link = ip_says("-j link show dev tap0");
                assert!(link.contains("\"master\""), "{link}");
                looks += 1;
            }
            looks
        });
        let ends = over.at_end();
        for round in 0..common::count(1000, 20) {
            let bridge = ["br1", "br0"][round % 2];
            api.reattach("tap0", &port(bridge), round % 3 == 0).unwrap();
        }
        drop(ends);
        assert!(looker.join().unwrap() > 0);
    });
}

fn a_switch_without_its_device(api: &dyn BridgeApi) {
    ip("link add br0 type bridge");
    spare_tap(api, "tap0");
    for kind in [Kind::OpenVswitch, Kind::Midonet] {
        let wanted = port("missing0").kind(kind);
        let failure = unchanged("tap0", || api.attach("tap0", &wanted).unwrap_err());
        assert_eq!(failure.text, "Cannot get interface MTU on 'missing0': No such device");
    }
}

each_api!(
    attach,
    attach_refused,
    reattach,
    force_makes_the_settings_anew,
    a_failing_reattach,
    a_bridge_that_goes_meanwhile,
    never_on_no_bridge,
    a_switch_without_its_device,
);
