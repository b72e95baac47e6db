//! Taps made in a port of a Linux bridge.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{ALLOW_EXISTING, IFUP, NONE, PERSIST, VNET_HDR};
use common::bridge::{BridgeApi, MAC, USE_MAC_FOR_BRIDGE, bridge_state, brport, master, port, same_bridge, spare_tap};
use common::net::{exists, frame, gone, interfaces, ip, ip_batch, no_news, send_from_guest, sysfs, try_read_as_guest, unchanged};
use common::process::as_nobody;
use common::{count, skip, tun};
use nix::errno::Errno;
use std::os::fd::OwnedFd;

fn is_up(name: &str) -> bool {
    let flags = sysfs(name, "flags").unwrap();
    u32::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap() & 1 != 0
}

fn a_tap_in_a_port(api: &dyn BridgeApi) {
    ip("link add br0 type bridge");
    ip("link set br0 up mtu 1400");
    for flags in [NONE, IFUP, IFUP | VNET_HDR, PERSIST, IFUP | PERSIST] {
        for queues in [1, 2] {
            let made = api.create_with(None, Some(MAC), queues, flags, &port("br0"), None).unwrap();
            let name = &made.tap.name;
            assert_eq!((made.mtu, made.tap.queues.len()), (1400, queues));
            assert_eq!(master(name).as_deref(), Some("br0"));
            assert_eq!(sysfs(name, "mtu").unwrap(), "1400");
            assert_eq!(sysfs(name, "address").unwrap(), "fe:54:00:12:34:56");
            assert_eq!(is_up(name), flags & IFUP != 0);
            assert_eq!(brport(name, "isolated"), "0");
            assert_eq!(tun::flags(name).unwrap() & tun::VNET_HDR != 0, flags & VNET_HDR != 0);
            assert!(made.tap.queues.iter().all(tun::is_cloexec));
            let name = made.tap.name.clone();
            drop(made);
            assert_eq!(exists(&name), flags & PERSIST != 0);
            api.delete(&name, None).unwrap();
        }
    }
    let made = api.create_with(Some("none0"), Some(MAC), 0, IFUP | PERSIST, &port("br0").isolated(), None).unwrap();
    assert!(made.tap.queues.is_empty() && exists("none0"));
    assert_eq!((master("none0").as_deref(), brport("none0", "isolated").as_str()), (Some("br0"), "1"));
    let failure = no_news(|| api.create_with(None, Some(MAC), 0, IFUP, &port("br0"), None).unwrap_err());
    assert_eq!(failure.code, 8);
}

fn addresses(api: &dyn BridgeApi) {
    ip("link add br0 type bridge");
    let address = |mac, flags| {
        let made = api.create_with(Some("tap0"), mac, 1, flags, &port("br0"), None).unwrap();
        sysfs(&made.tap.name, "address").unwrap()
    };
    assert_eq!(address(Some(MAC), NONE), "fe:54:00:12:34:56");
    assert_eq!(address(Some(MAC), USE_MAC_FOR_BRIDGE), "52:54:00:12:34:56");
    assert_eq!(address(Some([0xfe, 1, 2, 3, 4, 5]), NONE), "fa:01:02:03:04:05");
    assert_eq!(address(Some([0xfe, 1, 2, 3, 4, 5]), USE_MAC_FOR_BRIDGE), "fe:01:02:03:04:05");
    let own = address(None, NONE); // the kernel's begins with 0xfe itself at times
    assert!(own.starts_with("fe:") || own.starts_with("fa:"), "{own}");
    let failure = no_news(|| {
        same_bridge("br0", || api.create_with(Some("tap0"), Some([1; 6]), 1, USE_MAC_FOR_BRIDGE, &port("br0"), None).unwrap_err())
    });
    assert_eq!((failure.code, failure.errno), (38, Errno::EADDRNOTAVAIL));
    assert!(failure.text.starts_with("Cannot set interface MAC to 01:01:01:01:01:01 on 'tap0'"), "{failure:?}");
}

fn mtus(api: &dyn BridgeApi) {
    ip("link add br0 type bridge");
    for mtu in [1280, 9000] {
        let made = api.create_in("tap0", IFUP, &port("br0").mtu(mtu)).unwrap();
        assert_eq!((made.mtu, sysfs("tap0", "mtu").unwrap()), (mtu, mtu.to_string()));
        assert_eq!(sysfs("br0", "mtu").unwrap(), mtu.to_string(), "the lowest of its ports");
    }
    let low = api.create_in("low0", IFUP, &port("br0").mtu(1300)).unwrap();
    let failure = no_news(|| same_bridge("br0", || api.create_in("tap0", IFUP, &port("br0").mtu(70_000)).unwrap_err()));
    assert_eq!((failure.code, failure.errno), (38, Errno::EINVAL));
    assert!(failure.text.starts_with("Cannot set interface MTU on 'tap0'"), "{failure:?}");
    assert!(failure.text.contains("maximum"), "the kernel's reason: {failure:?}");
    let high = api.create_in("high0", IFUP, &port("br0").mtu(9000)).unwrap();
    assert_eq!(sysfs("br0", "mtu").unwrap(), "1300");
    let third = api.create_in("tap0", IFUP, &port("br0")).unwrap();
    assert_eq!(third.mtu, 1300);
    drop((low, high, third));
}

fn what_is_no_bridge(api: &dyn BridgeApi) {
    spare_tap(api, "spare0");
    ip("link add veth0 type veth peer veth1");
    for (bridge, errno, text) in [
        ("missing0", Errno::ENODEV, "Cannot get interface MTU on 'missing0'"),
        ("spare0", Errno::EOPNOTSUPP, "is a tap device"),
        ("veth0", Errno::EOPNOTSUPP, "is a veth device"),
        ("lo", Errno::EOPNOTSUPP, "is a loopback device"),
    ] {
        let failure = no_news(|| api.create_in("tap0", IFUP | PERSIST, &port(bridge)).unwrap_err());
        assert_eq!((failure.code, failure.errno), (38, errno));
        assert!(failure.text.contains(text), "{failure:?}");
        let failure = unchanged("spare0", || api.attach("spare0", &port(bridge)).unwrap_err());
        assert_eq!(failure.errno, errno);
    }
    let failure = no_news(|| api.create_in("tap0", IFUP, &port("missing0").mtu(1500)).unwrap_err());
    assert!(failure.text.starts_with("Unable to add bridge missing0 port"), "{failure:?}");
    for bad in ["", "a/b", "0123456789abcdef"] {
        no_news(|| api.create_in("tap0", IFUP, &port(bad)).unwrap_err());
    }
    let failure = no_news(|| api.create_with(None, Some(MAC), 1, NONE, &port("missing0"), None).unwrap_err());
    assert_eq!(failure.errno, Errno::ENODEV);
}

fn a_bridge_without_a_port_gets_its_address_back(api: &dyn BridgeApi) {
    ip("link add br0 mtu 4000 type bridge");
    spare_tap(api, "old0");
    let mut numbers = [0; 22];
    numbers[0] = 5;
    for flags in [IFUP, IFUP | PERSIST] {
        no_news(|| same_bridge("br0", || api.create_in("tap0", flags, &port("br0").mtu(70_000)).unwrap_err()));
        no_news(|| same_bridge("br0", || api.create_with(None, Some(MAC), 1, flags, &port("br0"), Some(numbers)).unwrap_err()));
    }
    // a VLAN that cannot be had, after the port has been joined
    if exists("br0") && std::fs::read_to_string("/sys/class/net/br0/bridge/default_pvid").is_ok() {
        skip("this kernel has bridge VLAN filtering");
    }
    for flags in [IFUP, IFUP | PERSIST] {
        let failure = no_news(|| same_bridge("br0", || api.create_in("tap0", flags, &port("br0").vlan(5)).unwrap_err()));
        assert_eq!((failure.code, failure.errno), (38, Errno::EOPNOTSUPP));
        assert!(failure.text.starts_with("error adding vlan filter to interface tap0"), "{failure:?}");
    }
    unchanged("old0", || same_bridge("br0", || api.attach("old0", &port("br0").vlan(5)).unwrap_err()));
    unchanged("old0", || {
        same_bridge("br0", || api.create_in("old0", IFUP | ALLOW_EXISTING | VNET_HDR, &port("br0").vlan(5)).unwrap_err())
    });
}

fn an_existing_tap(api: &dyn BridgeApi) {
    ip("link add br0 type bridge");
    ip("link add br1 type bridge");
    spare_tap(api, "old0");
    let failure = unchanged("old0", || api.create_in("old0", IFUP, &port("br0")).unwrap_err());
    assert_eq!((failure.code, failure.errno), (55, Errno::EEXIST));
    let mut numbers = [0; 22];
    numbers[9] = 1;
    numbers[1] = 3;
    let failure = unchanged("old0", || {
        let flags = IFUP | ALLOW_EXISTING | VNET_HDR;
        same_bridge("br0", || api.create_with(Some("old0"), Some(MAC), 1, flags, &port("br0"), Some(numbers)).unwrap_err())
    });
    assert_eq!(failure.errno, Errno::EOPNOTSUPP);
    ip("link set old0 master br1");
    let failure = unchanged("old0", || api.create_in("old0", IFUP | ALLOW_EXISTING | VNET_HDR, &port("br0")).unwrap_err());
    assert_eq!((failure.code, failure.errno), (38, Errno::EBUSY));
    assert!(failure.text.starts_with("Unable to add bridge br0 port old0, it is a port of br1 already"), "{failure:?}");
    ip("link set old0 nomaster up");
    let made = api.create_in("old0", ALLOW_EXISTING | VNET_HDR, &port("br0").isolated()).unwrap();
    assert_eq!((master("old0").as_deref(), is_up("old0")), (Some("br0"), false));
    drop(made);
    assert!(exists("old0"));
}

fn coalescing(api: &dyn BridgeApi) {
    ip("link add br0 type bridge");
    let with = |numbers| api.create_with(Some("tap0"), Some(MAC), 1, IFUP | PERSIST, &port("br0"), Some(numbers));
    let mut numbers = [0; 22];
    numbers[1] = 17;
    let made = with(numbers).unwrap();
    assert_eq!(made.coalesce, Some(numbers), "read back");
    drop(made);
    api.delete("tap0", None).unwrap();
    numbers[1] = 1_000_000; // tun takes at most 64: NAPI_POLL_WEIGHT
    let made = with(numbers).unwrap();
    assert_eq!(made.coalesce.map(|values| values[1]), Some(64));
    drop(made);
    api.delete("tap0", None).unwrap();
    for (index, name) in [(0, "rx_coalesce_usecs"), (5, "tx_max_coalesced_frames"), (21, "rate_sample_interval")] {
        let mut numbers = [0; 22];
        numbers[index] = 1;
        numbers[1] = 2;
        let failure = no_news(|| same_bridge("br0", || with(numbers).unwrap_err()));
        assert_eq!((failure.code, failure.errno), (38, Errno::EOPNOTSUPP));
        let text = format!("Cannot set coalesce info on 'tap0', a tap has no {name}: Operation not supported");
        assert_eq!(failure.text, text);
    }
}

fn a_full_bridge(api: &dyn BridgeApi) {
    ip("link add br0 type bridge");
    if count(1, 0) == 0 {
        skip("1023 ports take too long in a slow machine");
    }
    // BR_MAX_PORTS is 1024, and number 0 is not given
    let fill = |numbers: std::ops::Range<u32>| {
        let lines = numbers.map(|i| format!("tuntap add port{i} mode tap\nlink set port{i} master br0\n"));
        ip_batch(&lines.collect::<String>());
    };
    fill(0..999);
    let thousandth = api.create_in("tap1000", IFUP, &port("br0").isolated()).unwrap();
    assert_eq!((master("tap1000").as_deref(), brport("tap1000", "isolated").as_str()), (Some("br0"), "1"));
    assert_eq!(brport("tap1000", "port_no"), "0x3e8");
    fill(1000..1023);
    let failure = same_bridge("br0", || api.create_in("tap0", IFUP | PERSIST, &port("br0")).unwrap_err());
    assert_eq!((failure.code, failure.errno), (38, Errno::EXFULL));
    assert!(failure.text.starts_with("Unable to add bridge br0 port tap0"), "{failure:?}");
    assert!(gone("tap0"));
    ip("link del port5");
    let made = api.create_in("tap0", IFUP, &port("br0")).unwrap();
    assert_eq!(master("tap0").as_deref(), Some("br0"));
    drop((made, thousandth));
}

fn without_permission(api: &dyn BridgeApi) {
    ip("link add br0 type bridge");
    spare_tap(api, "old0");
    let before = (interfaces(), bridge_state("br0"));
    as_nobody(|| {
        let failure = api.attach("old0", &port("br0").mtu(1400)).unwrap_err();
        assert_eq!((failure.code, failure.errno), (38, Errno::EPERM));
        assert!(failure.text.starts_with("Cannot set interface MTU on 'old0'"), "{failure:?}");
        api.reattach("old0", &port("br0"), true).unwrap_err();
        api.create_in("tap0", IFUP | PERSIST, &port("br0")).unwrap_err();
    });
    assert_eq!(before, (interfaces(), bridge_state("br0")));
}

/// Is there a frame of ours for this guest?
fn hears(queue: &OwnedFd) -> bool {
    try_read_as_guest(queue, 0).is_some_and(|frame| frame.len() == 100)
}

fn isolated_ports_do_not_talk(api: &dyn BridgeApi) {
    ip("link add br0 type bridge");
    ip("link set br0 addrgenmode none up");
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap_or_default();
    let guest = |name: &str, port| {
        let made = api.create_in(name, IFUP, &port).unwrap();
        ip(&format!("link set {name} addrgenmode none"));
        made.tap.queues.into_iter().next().unwrap()
    };
    let (plain, first, second) =
        (guest("plain0", port("br0")), guest("iso0", port("br0").isolated()), guest("iso1", port("br0").isolated()));
    let wanted = |name| brport(name, "isolated");
    assert_eq!((wanted("plain0").as_str(), wanted("iso0").as_str(), wanted("iso1").as_str()), ("0", "1", "1"));
    let drain = |queue: &OwnedFd| {
        let _ = nix::fcntl::fcntl(queue, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK));
        let mut buffer = [0; 2048];
        while nix::unistd::read(queue, &mut buffer).is_ok() {}
    };
    [&plain, &first, &second].into_iter().for_each(drain);
    // the bridge forwards within the write: whoever shall hear it has it when that returns
    send_from_guest(&first, &frame(100));
    assert!(hears(&plain) && !hears(&second), "isolated to isolated is cut");
    send_from_guest(&plain, &frame(100));
    assert!(hears(&first) && hears(&second));
}

each_api!(
    a_tap_in_a_port,
    addresses,
    mtus,
    what_is_no_bridge,
    a_bridge_without_a_port_gets_its_address_back,
    an_existing_tap,
    coalescing,
    a_full_bridge,
    without_permission,
    isolated_ports_do_not_talk,
);
