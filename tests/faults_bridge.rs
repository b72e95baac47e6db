//! Each system call of the functions for bridge ports fails once, with each kind of bridge.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{ALLOW_EXISTING, C, IFUP, PERSIST};
use common::bridge::{BridgeApi, Kind, MAC, Port, port};
use common::faults::{Tally, refused, tap};
use common::machine::{BOUND, empty};
use common::net::{exists, ip, ip_batch, set_up_quietly};
use common::ovs::{Database, vsctl};
use common::process::stand_in;
use common::skip;
use common::state::{DIR, restore, save};
use nix::errno::Errno;
use std::process::Command;
use virnetdevtap::bridge::NativeMode;

/// A bridge with an address and an MTU of its own, one with another port, and a tap.
fn bridges() {
    tap("old0");
    only_bridges();
}

fn only_bridges() {
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
    assert!(Command::new("bridge").args(options).status().unwrap().success());
}

fn attaching() {
    let mut tally = Tally::default();
    let isolated = |bridge| port(bridge).isolated().mtu(1300);
    let attach = |port: Port| move |_: &()| C.attach("old0", &port);
    tally.whole("AttachBridge", &bridges, &attach(port("br0")));
    tally.whole("AttachBridge: isolated, MTU", &bridges, &attach(isolated("br0")));
    let call = |_: &()| refused(C.attach("old0", &port("br0")), Errno::EBUSY, "already");
    tally.whole("AttachBridge: is a port", &|| port_of("br1"), &call);
    tally.finish("virNetDevTapAttachBridge");

    let mut tally = Tally::default();
    let reattach = |port: Port, force| move |_: &()| C.reattach("old0", &port, force);
    tally.whole("ReattachBridge: same", &|| port_of("br0"), &reattach(isolated("br0"), false));
    tally.whole("ReattachBridge: same, force", &|| port_of("br0"), &reattach(port("br0").mtu(1300), true));
    tally.whole("ReattachBridge: other", &|| port_of("br0"), &reattach(isolated("br1"), false));
    tally.whole("ReattachBridge: from none", &bridges, &reattach(isolated("br1"), false));
    tally.finish("virNetDevTapReattachBridge");
}

fn creating_in_a_port() {
    let mut tally = Tally::default();
    let isolated = port("br0").isolated().mtu(1300);
    let mut coalesce = [0; 22];
    coalesce[1] = 3;
    let with_mac = |name, queues, flags, port: &Port| C.create_with(Some(name), Some(MAC), queues, flags, port, None);
    tally.whole("CreateInBridgePort", &only_bridges, &|()| with_mac("tap0", 1, IFUP, &port("br1")));
    tally.whole("CreateInBridgePort: persistent", &only_bridges, &|()| with_mac("tap0", 1, IFUP | PERSIST, &port("br1")));
    let call = |_: &()| C.create_with(None, None, 1, IFUP | PERSIST, &isolated, Some(coalesce));
    tally.whole("CreateInBridgePort: all", &only_bridges, &call);
    tally.whole("CreateInBridgePort: 3 queues", &only_bridges, &|()| with_mac("tap0", 3, PERSIST, &isolated));
    tally.whole("CreateInBridgePort: no queue", &only_bridges, &|()| with_mac("tap0", 0, PERSIST, &isolated));
    let with = |name| {
        move || {
            tap(name);
            only_bridges();
        }
    };
    let call = |_: &()| C.create_with(Some("pi0"), Some(MAC), 1, IFUP | ALLOW_EXISTING, &isolated, Some(coalesce));
    tally.whole("CreateInBridgePort: existing", &with("pi0"), &call);
    let flags = PERSIST | ALLOW_EXISTING;
    tally.whole("CreateInBridgePort: existing multi-queue", &with("multi0"), &|()| with_mac("multi0", 2, flags, &isolated));
    tally.finish("virNetDevTapCreateInBridgePort");
}

/// A program in the place of mm-ctl which keeps in mind what it was asked for.
fn midonet() {
    bridges();
    stand_in("mm-ctl", &format!("case $1 in --bind-port) : > {BOUND};; --unbind-port) rm -f {BOUND};; esac"));
}

fn ports_of_midonet() {
    let mut tally = Tally::default();
    let there = port("br0").kind(Kind::Midonet);
    tally.whole("AttachBridge: midonet", &midonet, &|()| C.attach("old0", &there));
    let setup = || {
        midonet();
        ip_batch("link set old0 master br0\n");
    };
    tally.whole("ReattachBridge: midonet", &setup, &|()| C.reattach("old0", &there.clone().mtu(1300), false));
    let create = |_: &()| C.create_with(Some("tap0"), Some(MAC), 1, PERSIST, &there, None);
    tally.whole("CreateInBridgePort: midonet", &midonet, &create);
    tally.finish("midonet's ports");
}

fn ports_of_a_switch() {
    let database = Database::start();
    let switches = || {
        bridges();
        database.bridges_anew();
    };
    let switch = |bridge| port(bridge).kind(Kind::OpenVswitch).mtu(1300);
    let vlan = switch("ovsbr0").vlan(7);
    let mut tally = Tally::default();
    tally.whole("AttachBridge: Open vSwitch", &switches, &|()| C.attach("old0", &vlan));
    let elsewhere = || {
        switches();
        vsctl(&["add-port", "ovsbr1", "old0", "tag=9", "--", "set", "Interface", "old0", "external_ids:mine=\"a, b\""]);
    };
    tally.whole("ReattachBridge: Open vSwitch, other", &elsewhere, &|()| C.reattach("old0", &vlan, false));
    let force = |_: &()| C.reattach("old0", &switch("ovsbr1").vlan(7), true);
    tally.whole("ReattachBridge: Open vSwitch, same, force", &elsewhere, &force);
    let linux = || {
        switches();
        ip_batch("link set old0 master br0\n");
    };
    tally.whole("ReattachBridge: from Linux to Open vSwitch", &linux, &|()| C.reattach("old0", &vlan, false));
    let create = |_: &()| C.create_with(Some("tap0"), Some(MAC), 1, IFUP | PERSIST, &vlan, None);
    tally.whole("CreateInBridgePort: Open vSwitch", &switches, &create);
    tally.finish("Open vSwitch's ports");
}

fn ports_with_vlans() {
    ip("link add br0 type bridge");
    if !exists("br0/bridge/default_pvid") {
        skip("this kernel has no bridge VLAN filtering");
    }
    empty();
    let vlan_bridges = || {
        bridges();
        ip("link set br0 type bridge vlan_filtering 1 vlan_default_pvid 1");
        ip("link set br1 type bridge vlan_filtering 1 vlan_default_pvid 44");
        for bridge in ["br0", "br1"] {
            set_up_quietly(bridge);
        }
    };
    let trunk = |bridge| port(bridge).vlans(true, &[5, 7], NativeMode::Untagged, 3);
    let port = || {
        vlan_bridges();
        C.attach("old0", &trunk("br1")).unwrap();
    };
    let mut tally = Tally::on_another_kernel();
    tally.whole("AttachBridge: VLANs", &vlan_bridges, &|()| C.attach("old0", &trunk("br0")));
    tally.whole("ReattachBridge: VLANs", &port, &|()| C.reattach("old0", &trunk("br0").vlan(8), false));
    tally.whole("ReattachBridge: VLANs, force", &port, &|()| C.reattach("old0", &trunk("br1").vlan(8), true));
    let create = |_: &()| C.create_with(Some("tap0"), Some(MAC), 1, IFUP | PERSIST, &trunk("br1"), None);
    tally.whole("CreateInBridgePort: VLANs", &vlan_bridges, &create);
    let changed = |change: fn()| {
        move || {
            std::fs::create_dir_all(DIR).unwrap();
            port();
            save("old0").unwrap();
            change();
        }
    };
    let vlans = changed(|| {
        for words in ["add dev old0 vid 100 pvid", "del dev old0 vid 5"] {
            assert!(Command::new("bridge").arg("vlan").args(words.split(' ')).status().unwrap().success());
        }
    });
    tally.again("StateRestore: other VLANs", &vlans, &|()| restore("old0"));
    let moved = changed(|| ip("link set old0 master br0"));
    tally.again("StateRestore: VLANs on another bridge", &moved, &|()| restore("old0"));
    tally.finish("ports with VLANs");
}

shared_netns_tests![attaching, creating_in_a_port, ports_of_midonet, ports_of_a_switch, ports_with_vlans];
