//! Deleting taps, and only taps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{NONE, PERSIST, TapApi, VNET_HDR};
use common::net::{Event, Events, assert_as, exists, gone, ip, look, no_news, only, unchanged};
use common::process::{Holder, NOBODY, TUN_NODE, as_nobody, node, with_room_for};
use common::{figure, tun};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const TAP: u16 = tun::TAP | tun::NO_PI;

/// Upstream makes a device and destroys it.
fn a_missing_name(api: &dyn TapApi) {
    let events = Events::listen();
    for name in ["missing0", "vnet0", "a23456789012345"] {
        no_news(|| api.delete(name, None)).unwrap();
    }
    assert_eq!(events.take(), [], "nobody hears of it");
    drop(api.one("tap0", NONE));
    assert_eq!(events.take().last(), Some(&Event::Deleted), "the listener works");
}

fn a_missing_name_needs_no_permission(api: &dyn TapApi) {
    let events = Events::listen();
    as_nobody(|| api.delete("missing0", None).unwrap());
    assert_eq!(events.take(), []);
}

fn taps_of_every_sort(api: &dyn TapApi) {
    tun::make("bystander", TAP | tun::MULTI_QUEUE);
    ip("link add br0 type bridge");
    for more in [0, tun::VNET_HDR, tun::NAPI, tun::VNET_HDR | tun::NAPI] {
        for flags in [TAP, TAP | tun::MULTI_QUEUE, tun::TAP, tun::TAP | tun::MULTI_QUEUE] {
            tun::make_owned("tap0", flags | more, 0);
            ip("link set tap0 master br0 up");
            unchanged("bystander", || api.delete("tap0", None)).unwrap();
            assert!(only(&["br0", "bystander"]));
        }
    }
    for (queues, flags) in [(0, PERSIST), (1, PERSIST), (3, PERSIST | VNET_HDR)] {
        drop(api.create(Some("tap0"), None, queues, flags).unwrap());
        api.delete("tap0", None).unwrap();
        assert!(only(&["br0", "bystander"]));
    }
}

fn devices_of_another_kind_are_refused(api: &dyn TapApi) {
    ip("link add veth0 type veth peer veth1");
    ip("link add br0 type bridge");
    ip("link add ifb7 type ifb");
    ip("link add link veth0 name mv0 type macvtap mode bridge");
    tun::make("tun0", tun::TUN);
    tun::make("tun1", tun::TUN | tun::MULTI_QUEUE);
    let kinds = [("lo", "loopback"), ("veth0", "veth"), ("br0", "bridge"), ("ifb7", "ifb"), ("mv0", "macvtap")];
    for (name, kind) in kinds.into_iter().chain([("tun0", "tun device"), ("tun1", "tun device")]) {
        let failure = no_news(|| unchanged(name, || api.delete(name, None).unwrap_err()));
        assert_eq!((failure.code, failure.errno), (38, Errno::EINVAL));
        assert!(failure.text.contains(name) && failure.text.contains(kind), "{failure:?}");
    }
}

fn a_held_one_stays(api: &dyn TapApi) {
    for persist in [NONE, PERSIST] {
        for queues in [1, 2, 3] {
            let made = api.create(Some("tap0"), None, queues, persist).unwrap();
            let holder = Holder::of(made.queues.last().unwrap());
            drop(made);
            tun::has_queues("tap0", if queues > 1 { tun::MULTI_QUEUE } else { 0 }, 1);
            let start = Instant::now();
            let failure = unchanged("tap0", || api.delete("tap0", None).unwrap_err());
            assert_eq!((failure.code, failure.errno), (38, Errno::EBUSY), "{failure:?}");
            assert!(failure.text.contains(&format!("sleep (pid {})", holder.pid())), "{failure:?}");
            assert!(failure.text.contains("tap0"), "{failure:?}");
            assert!(start.elapsed() >= Duration::from_secs(1), "it waits");
            drop(holder);
            assert_eq!(exists("tap0"), persist == PERSIST);
            api.delete("tap0", None).unwrap();
            assert!(gone("tap0"));
        }
    }
}

fn every_holder_is_named(api: &dyn TapApi) {
    let made = api.create(Some("tap0"), None, 2, NONE).unwrap();
    let holders = [Holder::of(&made.queues[0]), Holder::of(&made.queues[1]), Holder::of(&made.queues[0])];
    drop(made);
    let failure = api.delete("tap0", None).unwrap_err();
    for holder in &holders {
        assert!(failure.text.contains(&format!("sleep (pid {})", holder.pid())), "{failure:?}");
    }
    assert_eq!(api.holders("tap0").unwrap().len(), 3);
}

/// No other test has a tap of this name: whoever looks for the holders of a namesake of ours has our file for a moment.
fn name_of_our_own() -> String {
    format!("own{}", std::process::id())
}

/// A namesake in another network namespace is nobody's business.
fn a_namesake_elsewhere_is_not_named(api: &dyn TapApi) {
    let name = &name_of_our_own();
    let made = api.one(name, NONE);
    let holder = Holder::of(&made.queues[0]);
    drop(made);
    let ((mut reader, mut writer), (mut end, ends)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let ends_raw = ends.as_raw_fd();
    let elsewhere = common::process::Forked::run(|| {
        nix::unistd::close(ends_raw).unwrap();
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let _namesake = api.one(name, NONE);
        assert_eq!(api.holders(name).unwrap(), [nix::unistd::getpid().as_raw()]);
        writer.write_all(b"x").unwrap();
        assert_eq!(end.read(&mut [0]).unwrap(), 0);
    });
    reader.read_exact(&mut [0]).unwrap(); // it looks no more
    assert_eq!(api.holders(name).unwrap(), [holder.pid()]);
    drop(ends);
    elsewhere.join();
}

/// Nor while it ends.
fn a_namesake_that_ends_is_not_named(api: &dyn TapApi) {
    let own = nix::unistd::getpid().as_raw();
    let name = &name_of_our_own();
    for _ in 0..common::count(10, 3) {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let elsewhere = common::process::Forked::run(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let namesake = tun::open(name, TAP).unwrap();
            writer.write_all(b"x").unwrap();
            drop([(); 20].map(|()| Holder::of(&namesake)));
        });
        reader.read_exact(&mut [0]).unwrap(); // it has no file of ours
        let made = api.one(name, NONE);
        for _ in 0..10 {
            assert_eq!(api.holders(name).unwrap(), [own]);
        }
        elsewhere.join();
        drop(made);
        assert!(gone(name));
    }
}

fn a_detached_queue_holds(api: &dyn TapApi) {
    tun::make("tap0", TAP | tun::MULTI_QUEUE);
    let queue = tun::open("tap0", TAP | tun::MULTI_QUEUE).unwrap();
    tun::detach(&queue);
    let failure = unchanged("tap0", || api.delete("tap0", None).unwrap_err());
    assert_eq!(failure.errno, Errno::EBUSY, "{failure:?}");
    assert!(failure.text.contains(&format!("pid {}", std::process::id())), "{failure:?}");
    drop(queue);
    api.delete("tap0", None).unwrap();
    assert!(gone("tap0"));
}

/// No process shows a file that is under way in a socket.
fn a_file_in_flight_holds(api: &dyn TapApi) {
    let (one, other) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let made = api.one("tap0", PERSIST);
    let files = [made.queues[0].as_raw_fd()];
    let message = [ControlMessage::ScmRights(&files)];
    sendmsg::<()>(one.as_raw_fd(), &[std::io::IoSlice::new(b"x")], &message, MsgFlags::empty(), None).unwrap();
    drop(made);
    let failure = unchanged("tap0", || api.delete("tap0", None).unwrap_err());
    assert_eq!(failure.errno, Errno::EBUSY, "{failure:?}");
    assert!(failure.text.contains("in flight"), "{failure:?}");
    assert!(api.holders("tap0").unwrap().is_empty());
    drop((one, other));
    api.delete("tap0", None).unwrap();
    assert!(gone("tap0"));
}

fn a_holder_that_goes_away_is_waited_for(api: &dyn TapApi) {
    for flags in [TAP, TAP | tun::MULTI_QUEUE] {
        let mut reactions = Vec::new();
        for _ in 0..common::count(5, 2) {
            tun::make("tap0", flags);
            let holder = Holder::of(tun::open("tap0", flags).unwrap());
            let (released, deleted) = std::thread::scope(|scope| {
                let releaser = scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(150)); // how long a hypervisor takes to end
                    drop(holder);
                    Instant::now()
                });
                api.delete("tap0", None).unwrap();
                let deleted = Instant::now();
                (releaser.join().unwrap(), deleted)
            });
            assert!(gone("tap0"));
            reactions.push(deleted.saturating_duration_since(released));
        }
        reactions.sort();
        figure(&format!(
            "delete after the holder's end, flags 0x{flags:x}: {:?} to {:?} (one RCU wait included)",
            reactions[0],
            reactions.last().unwrap()
        ));
    }
}

/// What is waited for may take an instant.
fn a_holder_that_goes_away_at_once(api: &dyn TapApi) {
    for _ in 0..common::count(20, 5) {
        tun::make("tap0", TAP);
        let queue = tun::open("tap0", TAP).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || drop(queue));
            api.delete("tap0", None).unwrap();
        });
        assert!(gone("tap0"));
    }
}

fn the_owner_needs_no_capability(api: &dyn TapApi) {
    node("/tmp/tun", TUN_NODE, 0o666);
    node("/tmp/roots", TUN_NODE, 0o600);
    let none = None::<&str>;
    nix::mount::mount(Some("/tmp/roots"), "/dev/net/tun", none, nix::mount::MsFlags::MS_BIND, none).unwrap();
    for (name, flags) in [("mine0", TAP), ("mine1", TAP | tun::MULTI_QUEUE), ("mine2", tun::TAP | tun::VNET_HDR)] {
        tun::make_owned(name, flags, NOBODY);
    }
    tun::make_owned("other0", TAP, 1234);
    tun::make_owned("other1", TAP | tun::MULTI_QUEUE, 1234);
    let before = (look("other0"), look("other1"));
    as_nobody(|| {
        for name in ["mine0", "mine1", "mine2"] {
            let failure = api.delete(name, None).unwrap_err();
            assert_eq!(failure.errno, Errno::EACCES, "/dev/net/tun is for root here: {failure:?}");
            api.delete(name, Some("/tmp/tun")).unwrap();
        }
        for name in ["other0", "other1"] {
            let failure = api.delete(name, Some("/tmp/tun")).unwrap_err();
            assert_eq!((failure.code, failure.errno), (38, Errno::EPERM));
            assert!(failure.text.contains("1234"), "{failure:?}");
        }
        api.delete("missing0", Some("/tmp/tun")).unwrap();
    });
    assert!(only(&["other0", "other1"]));
    assert_as(&before.0, "other0");
    assert_as(&before.1, "other1");
}

fn running_out_of_files(api: &dyn TapApi) {
    for flags in [TAP | tun::VNET_HDR, tun::TAP | tun::MULTI_QUEUE | tun::NAPI] {
        tun::make("tap0", flags);
        for room in 0.. {
            let before = look("tap0");
            match with_room_for(room, || api.delete("tap0", None)) {
                Ok(()) => break,
                Err(failure) => assert_eq!((failure.code, failure.errno), (38, Errno::EMFILE), "{failure:?}"),
            }
            assert_as(&before, "tap0");
        }
        assert!(gone("tap0"));
    }
}

fn a_poisoned_filter(api: &dyn TapApi) {
    for flags in [TAP, tun::TAP] {
        tun::make("tap0", flags);
        let queue = tun::open_soon("tap0", flags);
        tun::attach_filter(&queue);
        drop(queue);
        api.delete("tap0", None).unwrap();
        assert!(gone("tap0"));
    }
}

each_api![
    a_missing_name,
    a_missing_name_needs_no_permission,
    taps_of_every_sort,
    devices_of_another_kind_are_refused,
    a_held_one_stays,
    every_holder_is_named,
    a_namesake_elsewhere_is_not_named,
    a_namesake_that_ends_is_not_named,
    a_detached_queue_holds,
    a_file_in_flight_holds,
    a_holder_that_goes_away_is_waited_for,
    a_holder_that_goes_away_at_once,
    the_owner_needs_no_capability,
    running_out_of_files,
    a_poisoned_filter,
];
