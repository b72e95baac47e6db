//! Creating a tap that is not there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{ALLOW_EXISTING, C, NONE, PERSIST, TapApi, VNET_HDR};
use common::net::{Event, Events, exists, gone, interfaces, ip, no_news, only, sysfs, unchanged};
use common::process::{TUN_NODE, as_nobody, node, with_room_for};
use common::{count, net, tun};
use nix::errno::Errno;
use std::os::fd::AsFd;

fn a_named_tap(api: &dyn TapApi) {
    let events = Events::listen();
    let made = api.one("tap0", NONE);
    assert_eq!(made.name, "tap0");
    assert!(made.queues.iter().all(tun::is_cloexec));
    assert_eq!(tun::flags("tap0"), Some(tun::TAP | tun::NO_PI));
    assert_eq!(events.take().first(), Some(&Event::New));
    assert_eq!(api.name_of(made.queues[0].as_fd()).unwrap(), "tap0");
    drop(made);
    assert!(only(&[]), "it goes with its queue");
}

fn each_combination_of_flags(api: &dyn TapApi) {
    for flags in 0..32 {
        for queues in [1, 2, 3] {
            let made = api.create(Some("tap0"), None, queues, flags).unwrap();
            let mut expected = tun::TAP | tun::NO_PI;
            for (wanted, bit) in
                [(flags & VNET_HDR != 0, tun::VNET_HDR), (flags & PERSIST != 0, tun::PERSIST), (queues > 1, tun::MULTI_QUEUE)]
            {
                expected |= if wanted { bit } else { 0 };
            }
            assert_eq!(tun::flags("tap0"), Some(expected), "flags {flags}, {queues} queues");
            assert_eq!(sysfs("tap0", "flags").unwrap(), "0x1002", "broadcast, multicast, not up: IFUP is for bridge ports");
            assert_eq!(made.queues.len(), queues);
            for queue in &made.queues {
                assert_eq!(api.name_of(queue.as_fd()).unwrap(), "tap0");
                assert!(tun::is_cloexec(queue));
            }
            drop(made);
            assert!(if flags & PERSIST != 0 { exists("tap0") } else { gone("tap0") });
            api.delete("tap0", None).unwrap();
        }
    }
}

fn numbers_of_queues(api: &dyn TapApi) {
    for queues in [1, 2, count(256, 16)] {
        let made = api.create(Some("tap0"), None, queues, NONE).unwrap();
        assert_eq!(made.queues.len(), queues);
        assert_eq!(tun::flags("tap0").unwrap() & tun::MULTI_QUEUE != 0, queues > 1);
        ip("link del tap0"); // one RCU wait instead of one for each queue
    }
    for queues in [257, 1000, 1 << 20] {
        for flags in [NONE, PERSIST, ALLOW_EXISTING] {
            let failure = no_news(|| api.create(Some("tap0"), None, queues, flags).unwrap_err());
            assert_eq!((failure.code, failure.errno), (8, Errno::EINVAL), "{failure:?}");
            assert!(failure.text.contains("256"), "{failure:?}");
        }
    }
}

fn no_queue_takes_persist(api: &dyn TapApi) {
    let failure = no_news(|| api.create(Some("tap0"), None, 0, NONE).unwrap_err());
    assert_eq!((failure.code, failure.errno), (8, Errno::EINVAL));
    for (name, flags) in [(Some("tap0"), PERSIST), (Some("tap0"), PERSIST | ALLOW_EXISTING), (None, PERSIST | VNET_HDR)] {
        let made = api.create(name, None, 0, flags).unwrap();
        assert!(made.queues.is_empty());
        assert!(api.holders(&made.name).unwrap().is_empty());
        assert!(tun::flags(&made.name).unwrap() & tun::PERSIST != 0);
    }
}

fn a_taken_name_is_refused(api: &dyn TapApi) {
    tun::make("tap0", tun::TAP | tun::VNET_HDR);
    tun::make("tun0", tun::TUN);
    ip("link add br0 type bridge");
    ip("link property add dev br0 altname bridge-alias");
    let held = api.one("held0", NONE);
    for name in ["tap0", "tun0", "br0", "lo", "held0", "bridge-alias"] {
        for (queues, flags) in [(1, NONE), (3, VNET_HDR | PERSIST), (0, PERSIST)] {
            let device = if name == "bridge-alias" { "br0" } else { name };
            let failure = no_news(|| unchanged(device, || api.create(Some(name), None, queues, flags).unwrap_err()));
            assert_eq!((failure.code, failure.errno), (55, Errno::EEXIST));
            assert_eq!(failure.text, format!("Requested operation is not valid: The {name} interface already exists"));
        }
    }
    drop(held);
}

fn frames_go_both_ways(api: &dyn TapApi) {
    for (flags, header) in [(NONE, 0), (VNET_HDR, 10)] {
        let made = api.one("tap0", flags);
        net::set_up_quietly("tap0");
        net::send_from_host("tap0", &net::frame(100));
        let got = net::read_as_guest(&made.queues[0], header);
        assert_eq!(got[header..], net::frame(100));
        let mut sent = vec![0; header];
        sent.extend(net::frame(200));
        net::send_from_guest(&made.queues[0], &sent);
        assert_eq!(sysfs("tap0", "statistics/rx_bytes").unwrap(), "200");
    }
}

fn a_tunpath_of_another_kind(api: &dyn TapApi) {
    std::fs::write("/tmp/file", "").unwrap();
    nix::unistd::mkfifo("/tmp/fifo", nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind("/tmp/socket").unwrap();
    tun::make("old0", tun::TAP | tun::MULTI_QUEUE | tun::VNET_HDR);
    tun::make("one0", tun::TAP);
    for (path, errno) in [
        ("/tmp/missing", Errno::ENOENT),
        ("/tmp/file/x", Errno::ENOTDIR),
        ("", Errno::ENOENT),
        ("/tmp", Errno::EISDIR),
        ("/tmp/socket", Errno::ENXIO),
        ("/tmp/file", Errno::ENOTTY),
        ("/tmp/fifo", Errno::ENOTTY),
        ("/dev/null", Errno::ENOTTY),
    ] {
        let calls: [&dyn Fn() -> Result<(), common::api::Failure>; 6] = [
            &|| api.create(Some("tap0"), Some(path), 1, NONE).map(drop),
            &|| api.create(Some("tap0"), Some(path), 2, PERSIST | ALLOW_EXISTING).map(drop),
            &|| api.create(None, Some(path), 0, PERSIST).map(drop),
            &|| api.create(Some("old0"), Some(path), 1, ALLOW_EXISTING).map(drop),
            &|| api.create(Some("old0"), Some(path), 2, ALLOW_EXISTING).map(drop),
            &|| api.set_persist("old0", Some(path), false),
        ];
        for call in calls {
            let failure = no_news(|| unchanged("old0", || call().unwrap_err()));
            assert_eq!((failure.code, failure.errno), (38, errno), "{path}: {failure:?}");
            assert!(failure.text.contains(path), "{failure:?}");
        }
        // a multi-queue tap is deleted without opening it
        let failure = no_news(|| unchanged("one0", || api.delete("one0", Some(path)).unwrap_err()));
        assert_eq!((failure.code, failure.errno), (38, errno), "{path}: {failure:?}");
        api.delete("missing0", Some(path)).unwrap(); // there is nothing to open it for
    }
}

fn a_tunpath_of_macvtap(api: &dyn TapApi) {
    ip("link add veth0 type veth peer veth1");
    ip("link add link veth0 name mv0 type macvtap mode bridge");
    let number = std::fs::read_to_string(
        std::fs::read_dir("/sys/class/net/mv0/macvtap").unwrap().next().unwrap().unwrap().path().join("dev"),
    );
    let (major, minor) = number.as_ref().unwrap().trim().split_once(':').unwrap();
    ip("link set mv0 up");
    node("/tmp/macvtap", (major.parse().unwrap(), minor.parse().unwrap()), 0o666);
    tun::make("old0", tun::TAP | tun::MULTI_QUEUE);
    for (name, queues, flags) in
        [(Some("tap0"), 1, NONE), (None, 2, PERSIST), (Some("old0"), 1, ALLOW_EXISTING), (Some("old0"), 2, ALLOW_EXISTING)]
    {
        no_news(|| unchanged("old0", || api.create(name, Some("/tmp/macvtap"), queues, flags).unwrap_err()));
    }
    tun::make("one0", tun::TAP);
    no_news(|| unchanged("one0", || api.delete("one0", Some("/tmp/macvtap")).unwrap_err()));
    no_news(|| unchanged("old0", || api.set_persist("old0", Some("/tmp/macvtap"), false).unwrap_err()));
}

fn another_node_of_the_clone_device(api: &dyn TapApi) {
    node("/tmp/tun", TUN_NODE, 0o600);
    let made = api.create(Some("tap0"), Some("/tmp/tun"), 2, PERSIST).unwrap();
    drop(made);
    api.delete("tap0", Some("/tmp/tun")).unwrap();
    assert!(only(&[]));
}

fn without_permission(api: &dyn TapApi) {
    node("/tmp/tun", TUN_NODE, 0o666);
    node("/tmp/private", TUN_NODE, 0o600);
    as_nobody(|| {
        for (path, errno) in [("/tmp/tun", Errno::EPERM), ("/tmp/private", Errno::EACCES)] {
            for (name, queues, flags) in [
                (Some("tap0"), 1, NONE),
                (Some("tap0"), 3, PERSIST),
                (Some("tap0"), 1, ALLOW_EXISTING),
                (None, 2, NONE),
                (Some("a%db"), 0, PERSIST),
            ] {
                let failure = api.create(name, Some(path), queues, flags).unwrap_err();
                assert_eq!((failure.code, failure.errno), (38, errno), "{failure:?}");
            }
        }
    });
    assert!(only(&[]));
}

fn running_out_of_files(api: &dyn TapApi) {
    for (name, flags) in
        [(Some("tap0"), NONE), (Some("tap0"), PERSIST | ALLOW_EXISTING), (None, PERSIST), (Some("x%d"), VNET_HDR)]
    {
        for room in 0.. {
            match with_room_for(room, || api.create(name, None, 4, flags)) {
                Ok(made) => {
                    assert!(room >= 4);
                    api.delete("missing0", None).unwrap();
                    let name = made.name.clone();
                    drop(made);
                    api.delete(&name, None).unwrap();
                    break;
                }
                Err(failure) => {
                    assert_eq!((failure.code, failure.errno), (38, Errno::EMFILE), "{failure:?}");
                    assert!(only(&[]), "room for {room}: {:?}", interfaces());
                }
            }
        }
    }
}

/// libvirt's callers preset the slots, and close "while tapfd[i] >= 0".
fn a_null_tapfd_takes_persist() {
    use virnetdevtap::capi::virNetDevTapCreate;
    for (queues, flags, multi) in
        [(0, PERSIST, false), (1, PERSIST, false), (5, PERSIST, true), (5, PERSIST | ALLOW_EXISTING, true)]
    {
        let mut name = common::api::strdup(c"tap0");
        // SAFETY: a string from malloc(); tapfd may be NULL
        let rc = unsafe { virNetDevTapCreate(&raw mut name, std::ptr::null(), std::ptr::null_mut(), queues, flags) };
        assert_eq!(rc, 0, "{:?}", common::api::last_failure());
        assert_eq!(common::api::take_string(name).unwrap(), "tap0");
        assert_eq!(tun::flags("tap0").unwrap() & tun::MULTI_QUEUE != 0, multi);
        assert!(C.holders("tap0").unwrap().is_empty());
        C.delete("tap0", None).unwrap();
    }
}

each_api![
    a_named_tap,
    each_combination_of_flags,
    numbers_of_queues,
    no_queue_takes_persist,
    a_taken_name_is_refused,
    frames_go_both_ways,
    a_tunpath_of_another_kind,
    a_tunpath_of_macvtap,
    another_node_of_the_clone_device,
    without_permission,
    running_out_of_files,
];
netns_tests![a_null_tapfd_takes_persist];
