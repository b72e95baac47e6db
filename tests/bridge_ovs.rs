//! Ports of Open vSwitch, with its real daemons.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{IFUP, PERSIST, Rust};
use common::bridge::{BridgeApi, INTERFACE_ID_TEXT, Kind, Port, VM_ID_TEXT, brport, master, port, same_bridge, spare_tap};
use common::net::{ip, no_news, sysfs, unchanged};
use common::ovs::{self, Ovs, ports, vsctl};
use common::state::{nothing_recorded, restore, save};
use common::tun;
use nix::errno::Errno;
use std::time::Instant;
use virnetdevtap::bridge::NativeMode;
use virnetdevtap::state::Fields;

fn switch(bridge: &str) -> Port {
    port(bridge).kind(Kind::OpenVswitch)
}

fn get(table: &str, name: &str, column: &str) -> String {
    vsctl(&["get", table, name, column])
}

fn a_tap_in_a_port(api: &dyn BridgeApi) {
    let _ovs = Ovs::start(&["ovsbr0"]);
    let profile = Port { profile: "a \"quoted\" profile", ..switch("ovsbr0").vlan(7).mtu(1400) };
    let made = api.create_in("vnet0", IFUP, &profile).unwrap();
    assert_eq!(made.mtu, 1400);
    assert_eq!(vsctl(&["iface-to-br", "vnet0"]), "ovsbr0");
    assert_eq!(get("Port", "vnet0", "tag"), "7");
    assert_eq!(get("Port", "vnet0", "other_config"), "{transient=\"true\"}");
    let ids = get("Interface", "vnet0", "external_ids");
    for expected in [
        "attached-mac=\"52:54:00:12:34:56\"",
        &format!("iface-id=\"{INTERFACE_ID_TEXT}\""),
        &format!("vm-id=\"{VM_ID_TEXT}\""),
        "port-profile=\"a \\\"quoted\\\" profile\"",
        "ifname=vnet0",
        "iface-status=active",
    ] {
        assert!(ids.contains(expected), "{expected} in {ids}");
    }
    assert_eq!(get("Interface", "vnet0", "error"), "[]");
    assert_eq!(sysfs("vnet0", "address").unwrap(), "fe:54:00:12:34:56");
    for line in vsctl(&["show"]).lines() {
        common::figure(&format!("ovs-vsctl show: {line}"));
    }
    let trunk = switch("ovsbr0").mtu(1400).vlans(true, &[5, 6], NativeMode::Untagged, 5);
    let second = api.create_in("vnet1", IFUP, &trunk).unwrap();
    assert_eq!(get("Port", "vnet1", "vlan_mode"), "native-untagged");
    assert_eq!((get("Port", "vnet1", "tag"), get("Port", "vnet1", "trunks")), ("5".to_owned(), "[5, 6]".to_owned()));
    drop((made, second));
}

fn what_fails_leaves_nothing(api: &dyn BridgeApi) {
    let _ovs = Ovs::start(&["ovsbr0", "ovsbr1"]);
    let before = ports("ovsbr0");
    for flags in [IFUP, IFUP | PERSIST] {
        let failure = no_news(|| api.create_in("vnet0", flags, &switch("missing0").mtu(1400)).unwrap_err());
        assert_eq!(failure.code, 1);
        let start = "internal error: Unable to add port vnet0 to OVS bridge missing0: ovs-vsctl: no bridge named missing0";
        assert!(failure.text.starts_with(start), "{failure:?}");
        let failure = no_news(|| api.create_in("vnet0", flags, &switch("missing0")).unwrap_err());
        assert_eq!(failure.text, "Cannot get interface MTU on 'missing0': No such device");
        // the database takes it, and then the switch cannot: a tag that is none
        let failure = no_news(|| api.create_in("vnet0", flags, &switch("ovsbr0").vlan(5000)).unwrap_err());
        assert!(failure.text.contains("constraint violation"), "{failure:?}");
    }
    assert_eq!(ports("ovsbr0"), before);
    // a record of that name that somebody else has made, elsewhere
    vsctl(&["--no-wait", "add-port", "ovsbr1", "vnet0", "tag=9"]);
    let failure = no_news(|| api.create_in("vnet0", IFUP, &switch("ovsbr0")).unwrap_err());
    assert!(failure.text.contains("ovsbr1"), "{failure:?}");
    assert_eq!((ports("ovsbr1").as_str(), get("Port", "vnet0", "tag").as_str()), ("vnet0", "9"));
    // isolation is the Linux bridge's
    spare_tap(api, "spare0");
    ip("link add br0 type bridge");
    ip("link set spare0 master br0");
    let failure = unchanged("spare0", || api.attach("spare0", &switch("ovsbr0")).unwrap_err());
    assert_eq!(failure.errno, Errno::EBUSY);
    vsctl(&["del-port", "vnet0"]);
}

fn moving(api: &dyn BridgeApi) {
    let _ovs = Ovs::start(&["ovsbr0", "ovsbr1"]);
    ip("link add br0 type bridge");
    ip("link set br0 mtu 1400");
    spare_tap(api, "tap0");
    api.attach("tap0", &port("br0").isolated()).unwrap();
    let system = ovs::in_kernel().then(|| "ovs-system".to_owned());
    let at = || (master("tap0"), vsctl(&["--if-exists", "get", "Port", "tap0", "tag"]));

    let linux_before = at();
    let failure =
        unchanged("tap0", || same_bridge("br0", || api.reattach("tap0", &switch("none0").mtu(1300), false).unwrap_err()));
    assert!(failure.text.contains("no bridge named none0"), "{failure:?}");
    assert_eq!((at(), brport("tap0", "isolated").as_str()), (linux_before, "1"));

    assert_eq!(api.reattach("tap0", &switch("ovsbr0").vlan(7).mtu(1300), false), Ok(1300));
    assert_eq!((vsctl(&["iface-to-br", "tap0"]).as_str(), at()), ("ovsbr0", (system, "7".to_owned())));
    vsctl(&["set", "Port", "tap0", "external_ids:mine=\"a, b\"", "other_config:x=y"]);
    api.reattach("tap0", &switch("ovsbr0").vlan(8), false).unwrap();
    assert_eq!(at().1, "7", "it is there");
    let record = || vsctl(&["get", "Port", "tap0", "tag", "other_config", "external_ids"]);
    let before = record();
    for failing in [switch("none0").mtu(1300), switch("ovsbr1").vlan(5000), switch("ovsbr1").mtu(100_000)] {
        unchanged("tap0", || api.reattach("tap0", &failing, false).unwrap_err());
        assert_eq!((vsctl(&["iface-to-br", "tap0"]).as_str(), record()), ("ovsbr0", before.clone()));
    }
    api.reattach("tap0", &switch("ovsbr0").vlan(8).mtu(1300), true).unwrap();
    assert_eq!(at().1, "8");
    api.reattach("tap0", &switch("ovsbr1").mtu(1300), false).unwrap();
    assert_eq!((vsctl(&["iface-to-br", "tap0"]).as_str(), at().1.as_str()), ("ovsbr1", "[]"));
    assert_eq!(ports("ovsbr0"), "");

    assert_eq!(api.reattach("tap0", &port("br0").isolated(), false), Ok(1400), "and back to a Linux bridge");
    if ovs::in_kernel() {
        assert_eq!((master("tap0").as_deref(), ports("ovsbr1").as_str()), (Some("br0"), ""));
        api.reattach("tap0", &switch("ovsbr1").vlan(9), false).unwrap();
        let before = record();
        let fails = [port("missing0").mtu(1400), port("br0").mtu(100_000)];
        for failing in fails {
            let failure = unchanged("tap0", || api.reattach("tap0", &failing, false).unwrap_err());
            assert_eq!((vsctl(&["iface-to-br", "tap0"]).as_str(), record()), ("ovsbr1", before.clone()), "{failure:?}");
        }
    }
}

fn daemons_that_do_not_answer(api: &dyn BridgeApi) {
    let ovs_daemons = Ovs::start(&["ovsbr0"]);
    let start = Instant::now();
    ovs_daemons.switch.signal(libc::SIGSTOP);
    let failure = no_news(|| api.create_in("vnet0", IFUP | PERSIST, &switch("ovsbr0").mtu(1400)).unwrap_err());
    assert_eq!(failure.code, 1);
    assert!(failure.text.contains("vnet0 to OVS bridge ovsbr0"), "{failure:?}");
    assert_eq!(ports("ovsbr0"), "", "taken back from the database");
    ovs_daemons.switch.signal(libc::SIGCONT);
    ovs_daemons.server.signal(libc::SIGSTOP);
    no_news(|| api.create_in("vnet0", IFUP | PERSIST, &switch("ovsbr0").mtu(1400)).unwrap_err());
    ovs_daemons.server.signal(libc::SIGCONT);
    let both = start.elapsed().as_secs_f32();
    common::figure(&format!("two daemons that do not answer: {both:.1} s"));
    assert!(both < 70.0, "each call asks three times, at most 8 s each");
    drop(ovs_daemons);
    let failure = no_news(|| api.create_in("vnet0", IFUP, &switch("ovsbr0").mtu(1400)).unwrap_err());
    assert!(failure.text.contains("database connection failed"), "{failure:?}");
}

/// A tap that was moved elsewhere, or lost and made anew. In user space the datapath shows nobody whose port a tap is.
fn a_saved_port_comes_back() {
    if !ovs::in_kernel() {
        common::skip("this kernel has no Open vSwitch datapath");
    }
    let _ovs = Ovs::start(&["ovsbr0", "ovsbr1"]);
    tun::make("tap0", tun::TAP | tun::NO_PI);
    Rust.attach("tap0", &switch("ovsbr0").vlans(true, &[7, 8], NativeMode::Untagged, 7).mtu(1300)).unwrap();
    vsctl(&["set", "Port", "tap0", "external_ids:mine=\"a, b\""]);
    let port = || {
        let record = vsctl(&["get", "Port", "tap0", "tag", "trunks", "vlan_mode", "other_config", "external_ids"]);
        (vsctl(&["iface-to-br", "tap0"]), record, master("tap0"), get("Interface", "tap0", "external_ids"))
    };
    let before = port();
    assert_eq!((before.0.as_str(), before.2.as_deref()), ("ovsbr0", Some("ovs-system")));
    for change in [
        &["set", "Port", "tap0", "tag=9"][..],
        &["del-port", "tap0"],
        &["del-port", "tap0", "--", "add-port", "ovsbr1", "tap0", "tag=9"],
    ] {
        save("tap0").unwrap();
        vsctl(change);
        assert_eq!(restore("tap0").unwrap(), Fields::MASTER, "{change:?}");
        assert_eq!(port(), before, "{change:?}");
    }
    save("tap0").unwrap();
    ip("link del tap0");
    assert_eq!(restore("tap0").unwrap(), Fields::VANISHED);
    assert_eq!(port(), before);
    nothing_recorded();
}

each_api!(a_tap_in_a_port, what_fails_leaves_nothing, moving, daemons_that_do_not_answer);
netns_tests![a_saved_port_comes_back];
