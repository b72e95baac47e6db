//! Opening a tap that is there already (`ALLOW_EXISTING`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{ALLOW_EXISTING, NONE, PERSIST, TapApi, VNET_HDR};
use common::net::{Events, assert_as, exists, gone, ip, look, no_news, only, sysfs, unchanged};
use common::process::{Holder, NOBODY, TUN_NODE, as_nobody, node, with_room_for};
use common::{count, tun};
use nix::errno::Errno;
use std::os::fd::AsFd;

const TAP: u16 = tun::TAP | tun::NO_PI;

fn an_absent_one_is_made(api: &dyn TapApi) {
    for name in [Some("tap0"), None, Some("x%d")] {
        let made = api.create(name, None, 2, ALLOW_EXISTING).unwrap();
        assert_eq!(tun::flags(&made.name), Some(TAP | tun::MULTI_QUEUE));
        drop(made);
        assert!(only(&[]));
    }
}

fn multi_queue_is_as_the_device_has_it(api: &dyn TapApi) {
    for flags in [TAP, TAP | tun::VNET_HDR, TAP | tun::MULTI_QUEUE, TAP | tun::MULTI_QUEUE | tun::VNET_HDR] {
        tun::make("tap0", flags);
        let index = sysfs("tap0", "ifindex");
        for wanted in [NONE, VNET_HDR] {
            let made = api.create(Some("tap0"), None, 1, ALLOW_EXISTING | wanted).unwrap();
            let vnet_hdr = if wanted == NONE { 0 } else { tun::VNET_HDR };
            let expected = flags & !tun::VNET_HDR | tun::PERSIST | vnet_hdr;
            assert_eq!(tun::flags("tap0"), Some(expected));
            assert_eq!(api.name_of(made.queues[0].as_fd()).unwrap(), "tap0");
            assert!(tun::is_cloexec(&made.queues[0]));
            assert_eq!(sysfs("tap0", "ifindex"), index);
        }
        assert!(exists("tap0"), "still persistent");
        ip("link del tap0");
    }
}

fn several_queues(api: &dyn TapApi) {
    tun::make("multi0", TAP | tun::MULTI_QUEUE);
    tun::make("single0", TAP | tun::VNET_HDR);
    for queues in [2, 5, count(256, 16)] {
        let made = api.create(Some("multi0"), None, queues, ALLOW_EXISTING).unwrap();
        assert_eq!(made.queues.len(), queues);
        for queue in &made.queues {
            assert_eq!(api.name_of(queue.as_fd()).unwrap(), "multi0");
        }
        for room in [1, 3] {
            let wanted = ALLOW_EXISTING | PERSIST;
            let failure = unchanged("single0", || api.create(Some("single0"), None, room + 1, wanted).unwrap_err());
            assert_eq!((failure.code, failure.errno), (38, Errno::EINVAL));
            assert!(failure.text.contains("single0") && failure.text.contains("multi_queue"), "{failure:?}");
        }
    }
}

fn other_flags_stay(api: &dyn TapApi) {
    for flags in [TAP | tun::NAPI, TAP | tun::NAPI | tun::MULTI_QUEUE] {
        tun::make("tap0", flags);
        api.create(Some("tap0"), None, 1, ALLOW_EXISTING).unwrap();
        assert_eq!(tun::flags("tap0"), Some(flags | tun::PERSIST));
        ip("link del tap0");
    }
}

fn packet_information_is_off_while_it_is_open(api: &dyn TapApi) {
    tun::make("tap0", tun::TAP);
    let made = api.one("tap0", ALLOW_EXISTING);
    assert_eq!(tun::flags("tap0"), Some(TAP | tun::PERSIST));
    common::net::set_up_quietly("tap0");
    common::net::send_from_host("tap0", &common::net::frame(64));
    assert_eq!(common::net::read_as_guest(&made.queues[0], 0), common::net::frame(64));
}

fn devices_of_another_kind_are_refused(api: &dyn TapApi) {
    let kinds = other_kinds();
    for (name, kind) in kinds {
        for queues in [0, 1, 4] {
            let wanted = ALLOW_EXISTING | PERSIST;
            let failure = no_news(|| unchanged(name, || api.create(Some(name), None, queues, wanted).unwrap_err()));
            assert_eq!((failure.code, failure.errno), (38, Errno::EINVAL), "{failure:?}");
            assert!(failure.text.contains(name) && failure.text.contains(kind), "{failure:?}");
        }
    }
}

/// Makes one of each kind; (name, what it is called in errors).
fn other_kinds() -> [(&'static str, &'static str); 6] {
    ip("link add veth0 type veth peer veth1");
    ip("link add br0 type bridge");
    ip("link add ifb7 type ifb");
    ip("link add link veth0 name mv0 type macvtap mode bridge");
    tun::make("tun0", tun::TUN);
    [("lo", "loopback"), ("veth0", "veth"), ("br0", "bridge"), ("ifb7", "ifb"), ("mv0", "macvtap"), ("tun0", "tun device")]
}

fn a_held_one_is_busy(api: &dyn TapApi) {
    for flags in [TAP, TAP | tun::MULTI_QUEUE, TAP | tun::MULTI_QUEUE | tun::VNET_HDR | tun::NAPI] {
        tun::make("tap0", flags);
        let queue = tun::open("tap0", flags).unwrap();
        let holder = Holder::of(&queue);
        drop(queue);
        for wanted in [NONE, VNET_HDR | PERSIST] {
            let failure = unchanged("tap0", || api.create(Some("tap0"), None, 1, ALLOW_EXISTING | wanted).unwrap_err());
            assert_eq!((failure.code, failure.errno), (38, Errno::EBUSY));
            assert!(failure.text.contains(&format!("sleep (pid {})", holder.pid())), "{failure:?}");
        }
        drop(holder);
        assert_eq!(api.create(Some("tap0"), None, 1, ALLOW_EXISTING).unwrap().name, "tap0");
        ip("link del tap0");
    }
}

fn a_holder_that_goes_away_is_waited_for(api: &dyn TapApi) {
    for flags in [TAP, TAP | tun::MULTI_QUEUE] {
        tun::make("tap0", flags);
        let holder = Holder::of(tun::open("tap0", flags).unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(200)); // how long a hypervisor takes to end
                drop(holder);
            });
            api.create(Some("tap0"), None, 1, ALLOW_EXISTING).unwrap();
        });
        ip("link del tap0");
    }
}

fn further_queues_of_our_own(api: &dyn TapApi) {
    let first = api.create(Some("tap0"), None, 2, VNET_HDR).unwrap();
    let more = api.create(Some("tap0"), None, 3, VNET_HDR | ALLOW_EXISTING).unwrap();
    assert_eq!(more.queues.len(), 3);
    let failure = unchanged("tap0", || api.create(Some("tap0"), None, 1, ALLOW_EXISTING | PERSIST).unwrap_err());
    assert!(failure.errno == Errno::EBUSY && failure.text.contains("vnet_hdr"), "{failure:?}");
    let failure = unchanged("tap0", || api.create(Some("tap0"), None, 252, VNET_HDR | ALLOW_EXISTING | PERSIST).unwrap_err());
    assert_eq!(failure.errno, Errno::E2BIG, "256 queues are the most: {failure:?}");
    drop(first);
    assert!(exists("tap0"));
    drop(more);
    assert!(gone("tap0"));
}

fn persist_is_added(api: &dyn TapApi) {
    let ours = api.create(Some("tap0"), None, 2, NONE).unwrap();
    drop(api.create(Some("tap0"), None, 1, ALLOW_EXISTING | PERSIST).unwrap());
    drop(ours);
    assert!(exists("tap0"));
    drop(api.create(Some("tap0"), None, 1, ALLOW_EXISTING).unwrap());
    assert!(exists("tap0"), "a persistent tap stays one");
}

/// Wherever the files run out, the tap is as it was.
fn running_out_of_files(api: &dyn TapApi) {
    const OWN: u16 = tun::TAP | tun::MULTI_QUEUE | tun::NAPI; // with packet information, without vnet_hdr
    tun::make("tap0", OWN);
    let before = look("tap0");
    for room in 0.. {
        let result = with_room_for(room, || api.create(Some("tap0"), None, 4, ALLOW_EXISTING | VNET_HDR | PERSIST));
        if result.is_ok() {
            assert!(room >= 4);
            break;
        }
        let failure = result.unwrap_err();
        assert_eq!((failure.code, failure.errno), (38, Errno::EMFILE), "{failure:?}");
        assert_eq!(tun::flags("tap0"), Some(OWN | tun::PERSIST), "room for {room} files");
        assert_as(&before, "tap0");
    }
}

fn the_owner_needs_no_capability(api: &dyn TapApi) {
    node("/tmp/tun", TUN_NODE, 0o666);
    tun::make_owned("mine0", TAP, NOBODY);
    tun::make_owned("mine1", TAP | tun::MULTI_QUEUE, NOBODY);
    tun::make_owned("other0", TAP | tun::MULTI_QUEUE | tun::VNET_HDR, 1234);
    let before = look("other0");
    as_nobody(|| {
        for (name, queues) in [("mine0", 1), ("mine1", 1), ("mine1", 4)] {
            let made = api.create(Some(name), Some("/tmp/tun"), queues, ALLOW_EXISTING | VNET_HDR).unwrap();
            assert_eq!(made.queues.len(), queues);
        }
        for queues in [1, 2] {
            let failure = api.create(Some("other0"), Some("/tmp/tun"), queues, ALLOW_EXISTING).unwrap_err();
            assert_eq!((failure.code, failure.errno), (38, Errno::EPERM));
            assert!(failure.text.contains("1234"), "{failure:?}");
        }
        // with a file too few for the third queue, an owner gets its flags back as well
        let failure = with_room_for(3, || api.create(Some("mine1"), Some("/tmp/tun"), 4, ALLOW_EXISTING)).unwrap_err();
        assert_eq!(failure.errno, Errno::EMFILE);
    });
    assert_as(&before, "other0");
    assert_eq!(tun::flags("mine1"), Some(TAP | tun::MULTI_QUEUE | tun::VNET_HDR | tun::PERSIST));
}

/// The socket filter of a former hypervisor must not make the kernel say yes without attaching.
fn a_poisoned_filter(api: &dyn TapApi) {
    tun::make("tap0", TAP);
    let queue = tun::open("tap0", TAP).unwrap();
    tun::attach_filter(&queue);
    drop(queue);
    let made = api.one("tap0", ALLOW_EXISTING);
    assert_eq!(api.name_of(made.queues[0].as_fd()).unwrap(), "tap0");
}

/// An alternative name leads to its device.
fn an_alternative_name(api: &dyn TapApi) {
    tun::make("tap0", TAP);
    ip("link property add dev tap0 altname other-name0");
    let events = Events::listen();
    let made = no_news(|| api.one("other-name0", ALLOW_EXISTING));
    assert_eq!(made.name, "tap0", "the name is the device's");
    assert_eq!(api.name_of(made.queues[0].as_fd()).unwrap(), "tap0");
    assert!(!events.take().contains(&common::net::Event::Deleted));
}

each_api![
    an_absent_one_is_made,
    multi_queue_is_as_the_device_has_it,
    several_queues,
    other_flags_stay,
    packet_information_is_off_while_it_is_open,
    devices_of_another_kind_are_refused,
    a_held_one_is_busy,
    a_holder_that_goes_away_is_waited_for,
    further_queues_of_our_own,
    persist_is_added,
    running_out_of_files,
    the_owner_needs_no_capability,
    a_poisoned_filter,
    an_alternative_name,
];
