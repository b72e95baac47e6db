//! Names that belong to somebody else from one moment to the next.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{ALLOW_EXISTING, NONE, PERSIST, TapApi, VNET_HDR};
use common::net::{assert_as, exists, gone, ip, ip_says, look, only, soon, try_ip};
use common::process::Forked;
use common::{count, figure, tun};
use nix::errno::Errno;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const TAP: u16 = tun::TAP | tun::NO_PI;

/// A process that for a while makes "tap0", renames it to "old0" and deletes it, now as one sort of tap, now as another,
/// and as a bridge.
fn churn(time: Duration) -> Forked {
    Forked::run(move || {
        let end = Instant::now() + time;
        for flags in [TAP, TAP | tun::VNET_HDR | tun::MULTI_QUEUE, tun::TUN, TAP | tun::NAPI].into_iter().cycle() {
            if Instant::now() > end {
                break;
            }
            if let Ok(queue) = tun::open("tap0", flags) {
                tun::set_persist(&queue, true);
                drop(queue);
                let _ = try_ip("link set tap0 name old0");
                let _ = try_ip("link del old0");
                let _ = try_ip("link add tap0 type bridge");
                let _ = try_ip("link del tap0 type bridge");
            }
        }
        let _ = try_ip("link del old0");
        let _ = try_ip("link del tap0");
    })
}

fn while_somebody_plays_with_the_name(api: &dyn TapApi) {
    tun::make("stranger0", TAP | tun::MULTI_QUEUE | tun::VNET_HDR);
    let strangers = look("stranger0");
    let other = churn(Duration::from_millis(count(2000, 500) as u64));
    let end = Instant::now() + Duration::from_millis(count(1800, 400) as u64);
    let (mut made, mut refused) = (0, 0);
    let mut kinds = std::collections::BTreeMap::new();
    while Instant::now() < end {
        for (queues, flags) in [(1, NONE), (2, VNET_HDR), (1, ALLOW_EXISTING), (1, ALLOW_EXISTING | VNET_HDR), (1, PERSIST)] {
            let failure = match api.create(Some("tap0"), None, queues, flags) {
                Ok(tap) => {
                    made += 1;
                    // the other may have renamed what we hold, but it is the same device for all queues
                    let names: Vec<_> = tap.queues.iter().map(|queue| api.name_of(queue.as_fd())).collect();
                    assert!(
                        names.iter().all(|name| name.is_err() || ["tap0", "old0"].contains(&name.as_ref().unwrap().as_str()))
                    );
                    None
                }
                Err(failure) => Some(failure),
            };
            let deleted = api.delete("tap0", None).err();
            for failure in failure.into_iter().chain(deleted) {
                refused += 1;
                *kinds.entry(failure.errno.to_string()).or_insert(0) += 1;
                let expected = [Errno::EEXIST, Errno::EBUSY, Errno::EAGAIN, Errno::EINVAL, Errno::EBADFD, Errno::ENODEV];
                assert!(expected.contains(&failure.errno), "{failure:?}");
            }
        }
    }
    other.join();
    figure(&format!("tap0 in a race: made {made} times, refused {refused} times: {kinds:?}"));
    assert!(made > 0);
    assert_as(&strangers, "stranger0");
    for name in ["tap0", "old0"] {
        let _ = try_ip(&format!("link del {name}"));
    }
    assert!(only(&["stranger0"]));
}

/// Two managers delete, and a third makes: nobody deletes what was made after he looked.
fn deleted_by_several(api: &dyn TapApi) {
    for flags in [TAP, TAP | tun::MULTI_QUEUE] {
        for _ in 0..count(20, 4) {
            tun::make("tap0", flags);
            std::thread::scope(|scope| {
                let handles: Vec<_> = (0..4).map(|_| scope.spawn(|| api.delete("tap0", None))).collect();
                for handle in handles {
                    handle.join().unwrap().unwrap(); // each one waits for the others
                }
            });
            assert!(gone("tap0"));
        }
    }
}

fn opened_by_several(api: &dyn TapApi) {
    for flags in [TAP, TAP | tun::MULTI_QUEUE, TAP | tun::MULTI_QUEUE | tun::VNET_HDR] {
        tun::make("tap0", flags);
        let before = look("tap0");
        for _ in 0..count(3, 1) {
            let results: Vec<_> = std::thread::scope(|scope| {
                let open =
                    || api.create(Some("tap0"), None, 1, ALLOW_EXISTING | if flags & tun::VNET_HDR == 0 { 0 } else { VNET_HDR });
                let handles: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
                handles.into_iter().map(|handle| handle.join().unwrap()).collect()
            });
            let held = results.iter().filter(|result| result.is_ok()).count();
            if flags & tun::MULTI_QUEUE == 0 {
                assert_eq!(held, 1, "{results:?}");
            }
            for failure in results.iter().flat_map(|result| result.as_ref().err()) {
                assert_eq!(failure.errno, Errno::EBUSY, "{failure:?}");
            }
            drop(results);
            assert_as(&before, "tap0");
        }
        ip("link del tap0");
    }
}

/// Two managers with two threads each open the same tap all the time. The threads of one may share it, the managers may not.
fn opened_by_two_managers(api: &dyn TapApi) {
    tun::make("tap0", TAP | tun::MULTI_QUEUE);
    std::fs::create_dir("/tmp/owned").unwrap();
    let end = Instant::now() + Duration::from_millis(count(2000, 500) as u64);
    let opens = |thread: u32| {
        let me = std::process::id().to_string();
        while Instant::now() < end {
            let Ok(tap) = api.create(Some("tap0"), None, 1, ALLOW_EXISTING) else { continue };
            let claim = format!("/tmp/owned/{me}-{thread}");
            std::fs::write(&claim, "").unwrap();
            for other in std::fs::read_dir("/tmp/owned").unwrap() {
                let other = other.unwrap().file_name().into_string().unwrap();
                assert_eq!(other.split_once('-').unwrap().0, me, "two guests have got one tap");
            }
            std::fs::remove_file(claim).unwrap();
            drop(tap);
        }
    };
    let manager = || {
        std::thread::scope(|scope| {
            scope.spawn(|| opens(0));
            scope.spawn(|| opens(1));
        });
    };
    let other = Forked::run(manager);
    manager();
    other.join();
}

/// A device that is renamed while we hold it stays ours, and its old name may be another's.
fn renamed_while_open(api: &dyn TapApi) {
    let made = api.create(Some("tap0"), None, 2, NONE).unwrap();
    ip("link set tap0 name renamed0");
    assert_eq!(api.name_of(made.queues[1].as_fd()).unwrap(), "renamed0");
    let other = api.one("tap0", NONE);
    assert_eq!(api.holders("tap0").unwrap().len(), 1);
    drop(made);
    assert!(only(&["tap0"]));
    drop(other);
}

/// As udev does it: each new tap gets another name at once.
fn renamed_while_it_is_made(api: &dyn TapApi) {
    let end = Instant::now() + Duration::from_millis(count(1500, 400) as u64);
    let udev = Forked::run(move || {
        while Instant::now() < end {
            let _ = try_ip("link set tap0 name udev0");
        }
    });
    let (mut old, mut new) = (0, 0);
    while Instant::now() < end {
        let made = match api.create(Some("tap0"), None, 24, NONE) {
            Ok(made) => made,
            Err(failure) => {
                assert!([Errno::EAGAIN, Errno::EEXIST].contains(&failure.errno), "{failure:?}");
                continue;
            }
        };
        let names: Vec<_> = made.queues.iter().map(|queue| api.name_of(queue.as_fd()).unwrap()).collect();
        assert!(names.iter().all(|name| name == "tap0" || name == "udev0"));
        assert_eq!(ip_says("-j link show type tun").matches("\"ifname\"").count(), 1, "all queues are of one device");
        let index = common::net::sysfs(names.last().unwrap(), "ifindex");
        assert!(index.is_some() || exists("udev0"), "{names:?}");
        if made.name == "tap0" {
            old += 1
        } else {
            new += 1
        }
        let _ = try_ip(&format!("link del {}", names.last().unwrap()));
        let _ = try_ip("link del udev0");
    }
    udev.join();
    let _ = try_ip("link del udev0");
    figure(&format!("24 queues while the tap is renamed: {old} with the old name, {new} with the new one"));
}

/// Two taps take turns with a name, and in between it is free. All queues are of one device, whichever has been met, and if
/// that is a new one, it goes with them.
fn renamed_while_it_is_opened(api: &dyn TapApi) {
    let names = || common::net::interfaces();
    let inode = |name: &str| std::fs::metadata(format!("/sys/class/net/{name}")).unwrap().ino();
    for name in ["tap0", "other0"] {
        tun::make(name, TAP | tun::MULTI_QUEUE);
    }
    let two = [inode("tap0"), inode("other0")];
    let end = Instant::now() + Duration::from_millis(count(1500, 400) as u64);
    let still = Mutex::new(());
    let opened = AtomicUsize::new(0);
    let (mut made, mut refused) = (0, 0);
    // one processor may need longer to come to it
    let over = || Instant::now() > if opened.load(Relaxed) == 0 { end + Duration::from_secs(10) } else { end };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over() {
                for names in [["tap0", "away0"], ["other0", "tap0"], ["tap0", "other0"], ["away0", "tap0"]] {
                    let _still = still.lock();
                    let _ = try_ip(&format!("link set {} name {}", names[0], names[1]));
                }
            }
        });
        while !over() {
            match api.create(Some("tap0"), None, 4, ALLOW_EXISTING) {
                Ok(tap) => {
                    let _still = still.lock();
                    let of: Vec<_> = tap.queues.iter().map(|queue| inode(&api.name_of(queue.as_fd()).unwrap())).collect();
                    assert!(of.len() == 4 && of.iter().all(|inode| *inode == of[0]), "{of:?} of {:?}", names());
                    let is_new = !two.contains(&of[0]);
                    assert_eq!(names().len(), 2 + usize::from(is_new), "{:?}", names());
                    if is_new {
                        made += 1;
                    } else {
                        opened.fetch_add(1, Relaxed);
                    }
                }
                Err(failure) => {
                    let expected = [Errno::EAGAIN, Errno::EBUSY];
                    assert!(expected.contains(&failure.errno), "{failure:?}");
                    refused += 1;
                }
            }
        }
    });
    let opened = opened.into_inner();
    figure(&format!("a name that two taps have in turn: opened {opened} times, made {made} times, refused {refused} times"));
    assert!(opened > 0 && soon(|| names().len() == 2), "{:?}", names());
}

each_api![
    while_somebody_plays_with_the_name,
    deleted_by_several,
    opened_by_several,
    opened_by_two_managers,
    renamed_while_open,
    renamed_while_it_is_made,
    renamed_while_it_is_opened,
];
