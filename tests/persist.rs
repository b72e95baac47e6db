//! The persist flag and the holders.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{NONE, PERSIST, TapApi, VNET_HDR};
use common::net::{Event, Events, assert_as, exists, gone, ip, look, no_news, set_up_quietly, soon, unchanged};
use common::process::{Holder, NOBODY, TUN_NODE, as_nobody, node, with_room_for};
use common::tun;
use nix::errno::Errno;

const TAP: u16 = tun::TAP | tun::NO_PI;

fn get(api: &dyn TapApi) {
    for persist in [NONE, PERSIST] {
        for queues in [1, 2] {
            let made = api.create(Some("tap0"), None, queues, persist).unwrap();
            let answer = unchanged("tap0", || api.get_persist("tap0").unwrap());
            assert_eq!(answer, persist == PERSIST);
            drop(made);
            api.delete("tap0", None).unwrap();
        }
    }
}

fn get_needs_no_permission(api: &dyn TapApi) {
    tun::make_owned("tap0", TAP, 1234);
    as_nobody(|| assert!(api.get_persist("tap0").unwrap()));
}

fn set_on_a_free_tap(api: &dyn TapApi) {
    for flags in
        [TAP, TAP | tun::VNET_HDR | tun::NAPI, tun::TAP, TAP | tun::MULTI_QUEUE, tun::TAP | tun::MULTI_QUEUE | tun::VNET_HDR]
    {
        tun::make_owned("tap0", flags, 0);
        unchanged("tap0", || api.set_persist("tap0", None, true).unwrap());
        api.set_persist("tap0", None, false).unwrap();
        assert!(gone("tap0"), "nobody holds it");
    }
}

fn set_on_a_held_multi_queue_tap(api: &dyn TapApi) {
    for flags in [NONE, VNET_HDR] {
        let made = api.create(Some("tap0"), None, 2, flags).unwrap();
        let before = look("tap0");
        let holder = Holder::of(&made.queues[0]);
        drop(made);
        api.set_persist("tap0", None, true).unwrap();
        assert!(api.get_persist("tap0").unwrap());
        unchanged("tap0", || api.set_persist("tap0", None, true).unwrap());
        api.set_persist("tap0", None, false).unwrap();
        assert!(exists("tap0"), "it is held");
        assert!(!api.get_persist("tap0").unwrap());
        assert_as(&before.replace("\"numqueues\": \"02", "\"numqueues\": \"01"), "tap0");
        api.set_persist("tap0", None, true).unwrap();
        drop(holder);
        assert!(exists("tap0"));
        api.delete("tap0", None).unwrap();
    }
}

fn a_held_single_queue_tap_is_busy(api: &dyn TapApi) {
    for (flags, change) in [(NONE, true), (PERSIST, false)] {
        let made = api.one("tap0", flags);
        let holder = Holder::of(&made.queues[0]);
        drop(made);
        let failure = unchanged("tap0", || api.set_persist("tap0", None, change).unwrap_err());
        assert_eq!((failure.code, failure.errno), (38, Errno::EBUSY));
        assert!(failure.text.contains(&format!("sleep (pid {})", holder.pid())), "{failure:?}");
        unchanged("tap0", || api.set_persist("tap0", None, !change).unwrap());
        drop(holder);
        api.delete("tap0", None).unwrap();
    }
}

/// Setting the flag is nothing that a bridge port's neighbours or the host's routing should notice.
fn the_carrier_stays_as_it_is(api: &dyn TapApi) {
    ip("link add br0 type bridge");
    for flags in [TAP, TAP | tun::MULTI_QUEUE] {
        tun::make("tap0", flags);
        set_up_quietly("tap0");
        ip("link set tap0 master br0");
        assert!(soon(|| look("tap0").contains("NO-CARRIER")), "the kernel takes its time to notice that nobody has it");
        unchanged("tap0", || api.set_persist("tap0", None, true).unwrap());
        let events = Events::listen();
        api.set_persist("tap0", None, false).unwrap();
        assert!(soon(|| events.take().last() == Some(&Event::Deleted)));
    }
}

fn other_devices_and_missing_ones(api: &dyn TapApi) {
    ip("link add br0 type bridge");
    tun::make("tun0", tun::TUN);
    for (name, errno) in [("missing0", Errno::ENODEV), ("br0", Errno::EINVAL), ("tun0", Errno::EINVAL), ("lo", Errno::EINVAL)] {
        let failures = no_news(|| {
            [
                api.get_persist(name).unwrap_err(),
                api.set_persist(name, None, true).unwrap_err(),
                api.set_persist(name, None, false).unwrap_err(),
                api.holders(name).unwrap_err(),
            ]
        });
        for failure in failures {
            assert_eq!((failure.code, failure.errno), (38, errno), "{failure:?}");
            assert!(failure.text.contains(name), "{failure:?}");
        }
    }
}

fn holders_are_listed_in_order(api: &dyn TapApi) {
    let made = api.create(Some("tap0"), None, 2, NONE).unwrap();
    let neighbour = api.one("tap00", NONE); // a name that begins like the other
    let own = nix::unistd::getpid().as_raw();
    assert_eq!(api.holders("tap0").unwrap(), [own], "once, however many queues");
    let others = [Holder::of(&made.queues[0]), Holder::of(&made.queues[1])];
    let mut expected = vec![own, others[0].pid(), others[1].pid()];
    expected.sort();
    assert_eq!(api.holders("tap0").unwrap(), expected);
    assert_eq!(api.holders("tap00").unwrap(), [own]);
    drop(made);
    ip("link set tap0 name renamed0");
    expected.retain(|&pid| pid != own);
    assert_eq!(api.holders("renamed0").unwrap(), expected);
    drop((others, neighbour));
    tun::make("free0", TAP);
    assert!(api.holders("free0").unwrap().is_empty());
}

fn the_owner_needs_no_capability(api: &dyn TapApi) {
    node("/tmp/tun", TUN_NODE, 0o666);
    for flags in [TAP, TAP | tun::MULTI_QUEUE] {
        tun::make_owned("mine0", flags, NOBODY);
        tun::make_owned("other0", flags, 1234);
        as_nobody(|| {
            api.set_persist("mine0", Some("/tmp/tun"), true).unwrap();
            api.set_persist("mine0", Some("/tmp/tun"), false).unwrap();
            let failure = api.set_persist("other0", Some("/tmp/tun"), false).unwrap_err();
            assert!(failure.errno == Errno::EPERM && failure.text.contains("1234"), "{failure:?}");
        });
        assert!(gone("mine0"));
        assert!(api.get_persist("other0").unwrap());
        api.delete("other0", None).unwrap();
    }
}

fn running_out_of_files(api: &dyn TapApi) {
    tun::make("tap0", tun::TAP | tun::MULTI_QUEUE | tun::NAPI);
    for room in 0.. {
        let before = look("tap0");
        assert_eq!(with_room_for(room, || api.get_persist("tap0")).is_ok(), room > 0);
        match with_room_for(room, || api.set_persist("tap0", None, false)) {
            Ok(()) => break,
            Err(failure) => assert_eq!((failure.code, failure.errno), (38, Errno::EMFILE), "{failure:?}"),
        }
        assert_as(&before, "tap0");
    }
    assert!(gone("tap0"));
}

each_api![
    get,
    get_needs_no_permission,
    set_on_a_free_tap,
    set_on_a_held_multi_queue_tap,
    a_held_single_queue_tap_is_busy,
    the_carrier_stays_as_it_is,
    other_devices_and_missing_ones,
    holders_are_listed_in_order,
    the_owner_needs_no_capability,
    running_out_of_files,
];
