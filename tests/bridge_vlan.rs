//! VLANs of the ports of a Linux bridge. Takes a kernel with bridge VLAN filtering.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{ALLOW_EXISTING, IFUP, PERSIST, Rust};
use common::bridge::{BridgeApi, bridge_words, brport, master, port, same_bridge, spare_tap};
use common::net::{exists, frame, ip, no_news, send_from_guest, set_up_quietly, unchanged};
use common::state::{look, look_at_rest, looks_like, restore, save};
use common::{skip, tun};
use nix::errno::Errno;
use std::os::fd::OwnedFd;
use virnetdevtap::bridge::NativeMode;
use virnetdevtap::state::Fields;

fn vlan_bridge(name: &str, default_pvid: u16) {
    ip(&format!("link add {name} type bridge"));
    if !exists(&format!("{name}/bridge/default_pvid")) {
        skip("this kernel has no bridge VLAN filtering");
    }
    ip(&format!("link set {name} type bridge vlan_filtering 1 vlan_default_pvid {default_pvid}"));
    ip(&format!("link set {name} addrgenmode none up"));
}

/// "5 PVID untagged, 7", say.
fn vlans(name: &str) -> String {
    let output = std::process::Command::new("bridge").args(["-j", "vlan", "show", "dev", name]).output().unwrap();
    let ports: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let Some(vlans) = ports[0]["vlans"].as_array() else { return String::new() };
    let one = |vlan: &serde_json::Value| {
        let flags = vlan["flags"].as_array().into_iter().flatten().filter_map(|flag| flag.as_str());
        let flags = flags.map(|flag| if flag.contains("PVID") { " PVID" } else { " untagged" });
        let end = vlan["vlanEnd"].as_u64().map(|end| format!("-{end}")).unwrap_or_default();
        format!("{}{end}{}", vlan["vlan"], flags.collect::<String>())
    };
    vlans.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn each_form(api: &dyn BridgeApi) {
    use NativeMode::*;
    for default_pvid in [1, 33, 0] {
        vlan_bridge("br0", default_pvid);
        for (port, expected) in [
            (port("br0").vlan(42), "42 PVID untagged"),
            (port("br0").vlan(1), "1 PVID untagged"),
            (port("br0").vlans(true, &[5, 7], Default, 0), "5, 7"),
            (port("br0").vlans(true, &[5, 7], Default, 5), "5 PVID untagged, 7"),
            (port("br0").vlans(true, &[5, 7], Untagged, 3), "3 PVID untagged, 5, 7"),
            (port("br0").vlans(true, &[5, 7, 33], Tagged, 7), "5, 7 PVID, 33"),
            (port("br0").vlans(true, &[1, 4094], Default, 0), "1, 4094"),
            (port("br0"), &default(default_pvid)),
        ] {
            let made = api.create_in("tap0", IFUP, &port).unwrap();
            assert_eq!(vlans("tap0"), expected, "default {default_pvid}");
            drop(made);
        }
        ip("link del br0");
    }
}

fn default(pvid: u16) -> String {
    if pvid == 0 { String::new() } else { format!("{pvid} PVID untagged") }
}

fn moves_and_force(api: &dyn BridgeApi) {
    vlan_bridge("br0", 1);
    vlan_bridge("br1", 44);
    spare_tap(api, "tap0");
    api.attach("tap0", &port("br0").vlan(5)).unwrap();
    assert_eq!(vlans("tap0"), "5 PVID untagged");
    api.reattach("tap0", &port("br1"), false).unwrap();
    assert_eq!(vlans("tap0"), "44 PVID untagged");
    api.reattach("tap0", &port("br1").vlans(true, &[6, 7], NativeMode::Default, 0), true).unwrap();
    assert_eq!(vlans("tap0"), "6, 7");
    api.reattach("tap0", &port("br1").isolated(), true).unwrap();
    assert_eq!((vlans("tap0").as_str(), brport("tap0", "isolated").as_str()), ("44 PVID untagged", "1"));
    // a reattach that fails after the VLANs were seen: they are there again
    api.reattach("tap0", &port("br1").vlans(true, &[6, 7, 9], NativeMode::Tagged, 9), true).unwrap();
    let before = vlans("tap0");
    let failure =
        unchanged("tap0", || same_bridge("br1", || api.reattach("tap0", &port("br0").mtu(100_000), false).unwrap_err()));
    assert_eq!(failure.errno, Errno::EINVAL);
    let full: Vec<_> =
        (0..common::count(1023, 0)).map(|i| format!("tuntap add p{i} mode tap\nlink set p{i} master br0\n")).collect();
    if !full.is_empty() {
        common::net::ip_batch(&full.concat());
        unchanged("tap0", || same_bridge("br1", || api.reattach("tap0", &port("br0").vlan(5), false).unwrap_err()));
    }
    assert_eq!((vlans("tap0"), master("tap0").as_deref()), (before, Some("br1")));
}

fn bad_ones(api: &dyn BridgeApi) {
    vlan_bridge("br0", 1);
    spare_tap(api, "old0");
    for tag in [0, 4095, 4096, u32::MAX] {
        let failure =
            no_news(|| same_bridge("br0", || api.create_in("tap0", IFUP | PERSIST, &port("br0").vlan(tag)).unwrap_err()));
        assert_eq!((failure.code, failure.text), (8, format!("invalid argument: vlanid out of range: {tag}")));
        unchanged("old0", || api.create_in("old0", IFUP | ALLOW_EXISTING, &port("br0").vlan(tag)).unwrap_err());
    }
}

/// A frame of ours with the tag of a VLAN in it.
fn tagged(vid: u8, len: usize) -> Vec<u8> {
    let mut bytes = frame(len);
    bytes.splice(12..12, [0x81, 0x00, 0x00, vid]);
    bytes
}

/// All frames of ours that have come: the VLAN in their tag, 0 without, and their length without it.
fn heard(queue: &OwnedFd) -> Vec<(u8, usize)> {
    nix::fcntl::fcntl(queue, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
    let mut frames = Vec::new();
    let mut buffer = [0; 2048];
    while let Ok(len) = nix::unistd::read(queue, &mut buffer) {
        match buffer[12..18] {
            [0x88, 0xb5, ..] => frames.push((0, len)),
            [0x81, 0x00, 0x00, vid, 0x88, 0xb5] => frames.push((vid, len - 4)),
            _ => {}
        }
    }
    frames
}

fn native_vlans_of_trunks(api: &dyn BridgeApi) {
    vlan_bridge("br0", 1);
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap_or_default();
    let guest = |name: &str, port| api.create_in(name, IFUP, &port).unwrap().tap.queues.into_iter().next().unwrap();
    let five = guest("five0", port("br0").vlan(5));
    let default = guest("default0", port("br0"));
    let untagged = guest("untagged0", port("br0").vlans(true, &[5, 6], NativeMode::Untagged, 5));
    let with_tag = guest("tagged0", port("br0").vlans(true, &[6], NativeMode::Tagged, 5));
    let all = || [&five, &untagged, &with_tag, &default].map(heard);
    all();
    send_from_guest(&five, &frame(100));
    assert_eq!(all(), [vec![], vec![(0, 100)], vec![(5, 100)], vec![]]);
    send_from_guest(&untagged, &frame(101));
    assert_eq!(all(), [vec![(0, 101)], vec![], vec![(5, 101)], vec![]]);
    send_from_guest(&with_tag, &frame(102));
    assert_eq!(all(), [vec![(0, 102)], vec![(0, 102)], vec![], vec![]]);
    send_from_guest(&with_tag, &tagged(6, 103));
    assert_eq!(all(), [vec![], vec![(6, 103)], vec![], vec![]]);
    send_from_guest(&untagged, &tagged(1, 104));
    send_from_guest(&with_tag, &tagged(1, 105));
    assert_eq!(all(), [const { Vec::new() }; 4], "no trunk is in the bridge's default VLAN");
}

/// A hypervisor's host may have been changed meanwhile; or the tap was lost.
fn saved_vlans_come_back() {
    vlan_bridge("br0", 1);
    tun::make("tap0", tun::TAP | tun::NO_PI);
    Rust.attach("tap0", &port("br0").vlans(true, &[5, 6, 7, 9], NativeMode::Tagged, 5).isolated()).unwrap();
    bridge_words("link set dev tap0 cost 77 hairpin on");
    bridge_words("fdb add 52:54:00:00:00:01 dev tap0 master static vlan 6");
    set_up_quietly("tap0");
    assert_eq!(vlans("tap0"), "5 PVID, 6, 7, 9");
    let mut before = look_at_rest("tap0", Some("br0"));
    for words in ["vlan del dev tap0 vid 6", "vlan add dev tap0 vid 8 pvid untagged", "link set dev tap0 isolated off"] {
        save("tap0").unwrap();
        bridge_words(words);
        assert_ne!(look("tap0", Some("br0")), before, "{words}");
        assert_eq!(restore("tap0").unwrap(), Fields::MASTER, "{words}");
        looks_like(&before, "tap0", Some("br0"));
    }
    save("tap0").unwrap();
    ip("link set tap0 nomaster");
    assert_eq!(restore("tap0").unwrap(), Fields::MASTER);
    looks_like(&before, "tap0", Some("br0"));

    save("tap0").unwrap();
    ip("link del tap0");
    assert_eq!(restore("tap0").unwrap(), Fields::VANISHED);
    let now = look("tap0", Some("br0"));
    before["inode"] = now["inode"].clone();
    before["link"]["inet6_addr_gen_mode"] = now["link"]["inet6_addr_gen_mode"].clone();
    looks_like(&before, "tap0", Some("br0"));
    assert_eq!(vlans("tap0"), "5 PVID, 6, 7, 9");
}

fn vlans_separate(api: &dyn BridgeApi) {
    vlan_bridge("br0", 1);
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap_or_default();
    let guest = |name: &str, port| api.create_in(name, IFUP, &port).unwrap().tap.queues.into_iter().next().unwrap();
    let five = guest("five0", port("br0").vlan(5));
    let also_five = guest("five1", port("br0").vlan(5));
    let six = guest("six0", port("br0").vlan(6));
    let trunk = guest("trunk0", port("br0").vlans(true, &[5, 6], NativeMode::Default, 0));
    let plain = guest("plain0", port("br0"));
    let all = || [&five, &also_five, &six, &trunk, &plain].map(heard);
    all();
    send_from_guest(&five, &frame(100));
    assert_eq!(all(), [vec![], vec![(0, 100)], vec![], vec![(5, 100)], vec![]]);
    send_from_guest(&plain, &frame(100));
    assert_eq!(all(), [const { Vec::new() }; 5], "the default VLAN has no other port");
    send_from_guest(&trunk, &tagged(6, 100));
    assert_eq!(all(), [vec![], vec![], vec![(0, 100)], vec![], vec![]]);
    send_from_guest(&trunk, &frame(100));
    assert_eq!(all(), [const { Vec::new() }; 5], "a trunk without a native VLAN takes no frame without a tag");
}

each_api!(each_form, moves_and_force, bad_ones, native_vlans_of_trunks, vlans_separate);
netns_tests![saved_vlans_come_back];
