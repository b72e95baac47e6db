//! A hostile hypervisor changes all that it can, one thing at a time and all together; Restore leaves no trace of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::hostile::{ATTACKS, Attack, Kind, attack_named, drop_program, hostile, need_users};
use common::net::{exists, frame, ip, set_up_quietly, sysfs, try_read_as_guest, try_send_from_host};
use common::process::{NOBODY, TUN_NODE, node};
use common::state::{
    Log, check, deletable, hold, look, look_at_rest, look_when_told, looks_like, nothing_recorded, reclaim, restore,
    restore_with, save,
};
use common::{count, tun};
use serde_json::Value;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use virnetdevtap::state::{Fields, RestoreFlags};

/// A tap that somebody made on purpose: in a bridge, up, with an owner, and nothing as the kernel makes it by itself.
fn bridged_tap(flags: u16) -> Value {
    ip("link add br0 type bridge");
    set_up_quietly("br0");
    tun::make_owned("tap0", tun::TAP | flags, 1000);
    let queue = open_as_it_is();
    common::hostile::set_group(queue.as_fd(), 1000).unwrap();
    drop(queue);
    for words in [
        "link set tap0 mtu 1400 txqueuelen 500 group 7",
        "link set tap0 alias of-the-administrator",
        "link property add dev tap0 altname tap-of-vm1",
        "link set tap0 address 52:54:00:12:34:56",
        "link set tap0 master br0",
        "link set tap0 type bridge_slave cost 77 isolated on hairpin on",
    ] {
        ip(words);
    }
    set_up_quietly("tap0");
    look_at_rest("tap0", Some("br0"))
}

/// A queue with the flags that the device has.
fn open_as_it_is() -> OwnedFd {
    tun::open("tap0", tun::flags("tap0").unwrap() & !tun::PERSIST).unwrap()
}

/// Frames go from the bridge to whoever opens tap0 next, and back.
fn frames_flow() {
    let flags = tun::flags("tap0").unwrap();
    let header = if flags & tun::VNET_HDR != 0 { 10 } else { 0 } + if flags & tun::NO_PI == 0 { 4 } else { 0 };
    let queue = open_as_it_is();
    let deadline = Instant::now() + Duration::from_secs(8);
    while !try_send_from_host("br0", &frame(200))
        || try_read_as_guest(&queue, header).is_none_or(|got| got[header..] != frame(200))
    {
        assert!(Instant::now() < deadline, "no frame comes from the bridge");
        std::thread::sleep(Duration::from_millis(10));
    }
    let received = || sysfs("br0", "statistics/rx_packets").unwrap().parse::<u64>().unwrap();
    let before = received();
    let mut sent = vec![0; header];
    sent.extend(frame(300));
    common::net::send_from_guest(&queue, &sent);
    while received() == before {
        assert!(Instant::now() < deadline, "no frame comes to the bridge");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One life of a hypervisor with these attacks.
fn life(before: &Value, master: Option<&str>, attacks: &[&Attack], program: Option<&OwnedFd>) {
    let names: Vec<_> = attacks.iter().map(|attack| attack.name).collect();
    save("tap0").unwrap();
    looks_like(before, "tap0", master);
    let queue = open_as_it_is();
    hold("tap0", &[queue.try_clone().unwrap()]).unwrap();
    hostile(|| {
        for attack in attacks {
            (attack.run)(queue.as_fd(), program.map(AsFd::as_fd)).unwrap_or_else(|e| panic!("{}: {e}", attack.name));
        }
    });
    drop(queue);
    let seen = attacks.iter().fold(Fields::empty(), |all, attack| all | attack.seen);
    let left = look_when_told("tap0", master);
    assert_eq!(check("tap0").unwrap(), seen, "{names:?}");
    assert_eq!(common::state::differences("", &left, &look("tap0", master)), [""; 0], "Check changes nothing");
    let log = Log::start();
    assert_eq!(restore("tap0").unwrap(), seen, "{names:?}");
    let lines = log.take();
    assert_eq!(lines.len(), seen.iter().count(), "one line for each: {lines:#?}");
    assert!(lines.iter().all(|line| line.starts_with("tap0: ") && line.ends_with(", restored")), "{lines:#?}");
    drop(log);
    looks_like(before, "tap0", master);
    nothing_recorded();
}

fn on_a_bridged_tap(flags: u16) {
    need_users();
    let program = drop_program();
    let before = bridged_tap(flags);
    let attacks: Vec<_> = ATTACKS.iter().filter(|attack| attack.kind != Kind::Down).collect();
    for attack in attacks.iter().take(count(attacks.len(), 3)) {
        life(&before, Some("br0"), &[attack], program.as_ref());
    }
    life(&before, Some("br0"), &attacks, program.as_ref());
    frames_flow();
    looks_like(&before, "tap0", Some("br0"));
    deletable("tap0", flags & tun::MULTI_QUEUE != 0);
}

fn a_single_queue() {
    on_a_bridged_tap(tun::NO_PI | tun::VNET_HDR);
}

fn without_vnet_hdr() {
    on_a_bridged_tap(tun::NO_PI);
}

/// The filter of one hypervisor must not keep the next opener from attaching.
fn with_packet_information() {
    on_a_bridged_tap(0);
}

fn several_queues() {
    on_a_bridged_tap(tun::NO_PI | tun::VNET_HDR | tun::MULTI_QUEUE);
}

/// The link type can be changed while the tap is down and in no bridge.
fn the_link_type_of_a_tap_that_is_down() {
    need_users();
    tun::make_owned("tap0", tun::TAP | tun::NO_PI, 1000);
    let before = look_at_rest("tap0", None);
    life(&before, None, &[attack_named("link type")], None);
    life(&before, None, &[attack_named("MAC"), attack_named("link type")], None);
    deletable("tap0", false);
}

/// The owner opens it by name while nobody holds it: its flags are overwritten.
fn an_owner_by_name() {
    need_users();
    node("/tmp/tun", TUN_NODE, 0o666);
    let before = bridged_tap(tun::NO_PI | tun::NAPI);
    let queue = open_as_it_is();
    common::hostile::set_owner(queue.as_fd(), NOBODY).unwrap();
    common::hostile::set_group(queue.as_fd(), NOBODY).unwrap();
    drop((queue, before));
    let before = look_at_rest("tap0", Some("br0"));
    let open = |flags| tun::open_at("/tmp/tun", "tap0", tun::TAP | flags).unwrap();
    let each = [tun::NO_PI | tun::NAPI | tun::VNET_HDR, tun::NAPI, tun::NO_PI, tun::VNET_HDR, tun::NO_PI | tun::NAPI | 0x2000];
    for flags in each.into_iter().take(count(5, 1)) {
        save("tap0").unwrap();
        hostile(|| drop(open(flags)));
        let log = Log::start();
        assert_eq!(check("tap0").unwrap(), Fields::FLAGS, "0x{flags:x}");
        assert_eq!(restore("tap0").unwrap(), Fields::FLAGS, "0x{flags:x}");
        assert!(!log.take().is_empty());
        drop(log);
        looks_like(&before, "tap0", Some("br0"));
    }
    // and all the rest
    save("tap0").unwrap();
    hostile(|| {
        let queue = open(tun::VNET_HDR);
        for attack in ATTACKS.iter().filter(|attack| attack.kind != Kind::Down && attack.name != "persist") {
            let mut id = attack.run;
            if attack.name == "owner" {
                id = |fd, _| common::hostile::set_owner(fd, 1);
            } else if attack.name == "group" {
                id = |fd, _| common::hostile::set_group(fd, 1);
            }
            id(queue.as_fd(), None).unwrap();
        }
    });
    let changed = restore("tap0").unwrap();
    let all = Fields::FLAGS | Fields::OWNER | Fields::GROUP | Fields::MAC | Fields::VNET_HDR_SIZE | Fields::VNET_ENDIAN;
    assert_eq!(changed, all | Fields::OFFLOADS | Fields::FILTERS);
    looks_like(&before, "tap0", Some("br0"));
    frames_flow();
    // deleting it, which an owner can
    save("tap0").unwrap();
    hostile(|| {
        let queue = open(tun::NO_PI);
        (attack_named("MAC").run)(queue.as_fd(), None).unwrap();
        tun::set_persist(&queue, false);
    });
    assert!(!exists("tap0"));
    assert_eq!(check("tap0").unwrap(), Fields::VANISHED);
    assert_eq!(restore("tap0").unwrap(), Fields::VANISHED);
    same_but_for_inode(&before, Some("br0"));
    frames_flow();
    nothing_recorded();
}

/// A device that was made anew.
fn same_but_for_inode(before: &Value, master: Option<&str>) {
    let mut before = before.clone();
    let now = look("tap0", master);
    before["inode"] = now["inode"].clone();
    // addresses, and how they are made, are not ours to bring back
    before["link"]["inet6_addr_gen_mode"] = now["link"]["inet6_addr_gen_mode"].clone();
    looks_like(&before, "tap0", master);
}

/// Each change is told with its old and new value.
fn the_log_tells_all() {
    need_users();
    bridged_tap(tun::NO_PI | tun::VNET_HDR);
    save("tap0").unwrap();
    let queue = open_as_it_is();
    hold("tap0", &[queue.try_clone().unwrap()]).unwrap();
    hostile(|| {
        for attack in ATTACKS.iter().filter(|attack| attack.kind != Kind::Down) {
            (attack.run)(queue.as_fd(), None).unwrap();
        }
    });
    drop(queue);
    let log = Log::start();
    restore("tap0").unwrap();
    let mut lines = log.take();
    lines.sort();
    let mut expected = [
        "tap0: persist flag was true, hypervisor left false, restored",
        "tap0: owner was 1000, hypervisor left 65534, restored",
        "tap0: group was 1000, hypervisor left 65534, restored",
        "tap0: MAC was 52:54:00:12:34:56, hypervisor left 00:00:00:00:00:01, restored",
        "tap0: vnet_hdr size was 10, hypervisor left 65000, restored",
        "tap0: vnet little-endian was 0, hypervisor left 1, restored",
        "tap0: offloads was none, hypervisor left csum+tso4+tso6+tso_ecn, restored",
        "tap0: socket filter was of 0 instructions, hypervisor left of 1 instructions, restored",
        "tap0: carrier was on, hypervisor left off, restored",
    ];
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

/// "Nobody in particular" cannot be given back: nobody gains, and it is told; or the device is made anew.
fn an_owner_of_none() {
    need_users();
    tun::make("tap0", tun::TAP | tun::NO_PI);
    ip("link set tap0 alias mine");
    let before = look_at_rest("tap0", None);
    let attack = || {
        save("tap0").unwrap();
        let queue = open_as_it_is();
        hold("tap0", &[queue.try_clone().unwrap()]).unwrap();
        hostile(|| {
            common::hostile::set_owner(queue.as_fd(), NOBODY).unwrap();
            common::hostile::set_group(queue.as_fd(), NOBODY).unwrap();
        });
    };
    attack();
    let log = Log::start();
    let changed = restore_with("tap0", RestoreFlags::RECREATE).unwrap();
    assert!(changed.contains(Fields::OWNER | Fields::GROUP) && !changed.contains(Fields::UNRESTORED), "{changed:?}");
    same_but_for_inode(&before, None);
    log.take();

    attack();
    assert_eq!(restore("tap0").unwrap(), Fields::OWNER | Fields::GROUP | Fields::UNRESTORED);
    assert_eq!((sysfs("tap0", "owner").unwrap(), sysfs("tap0", "group").unwrap()), ("0".into(), "0".into()));
    let lines = log.take();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[0].starts_with("tap0: owner was none, hypervisor left 65534, not restored: "), "{lines:#?}");
    nothing_recorded();
    deletable("tap0", false);
}

/// A filter that was left behind before anybody saved anything: whoever opens the tap with packet information is refused.
fn a_filter_from_before() {
    tun::make_owned("tap0", tun::TAP, 1000);
    let queue = tun::open("tap0", tun::TAP).unwrap();
    tun::attach_filter(&queue);
    drop(queue);
    let before = sysfs("tap0", "tun_flags");
    save("tap0").unwrap();
    assert_eq!(sysfs("tap0", "tun_flags"), before);
    restore("tap0").unwrap();
    assert_eq!(sysfs("tap0", "tun_flags"), before);
    set_up_quietly("tap0");
    common::net::send_from_host("tap0", &frame(100));
    nothing_recorded();
}

/// After RTM_DELLINK the hypervisor's file, and with it our duplicate, can be attached to another tap: not ours to restore.
fn a_stale_file_attached_to_another_tap() {
    need_users();
    tun::make_owned("tap0", tun::TAP | tun::NO_PI, 1000);
    tun::make("other0", tun::TAP | tun::NO_PI);
    ip("link set other0 alias of-somebody-else");
    let other = look_at_rest("other0", None);
    save("tap0").unwrap();
    let queue = open_as_it_is();
    hold("tap0", &[queue.try_clone().unwrap()]).unwrap();
    ip("link del tap0");
    // Linux 6.12 does not let nobody do this
    tun::attach(&queue, "other0", tun::TAP | tun::NO_PI).unwrap();
    drop(queue);
    assert_eq!(check("tap0").unwrap(), Fields::VANISHED);
    assert_eq!(restore("tap0").unwrap(), Fields::VANISHED);
    assert_eq!(sysfs("tap0", "owner").unwrap(), "1000");
    looks_like(&other, "other0", None);
    nothing_recorded();
}

/// A manager that lost its guard and has none of a superuser's rights.
fn as_the_owner_of_the_tap() {
    need_users();
    node("/tmp/tun", TUN_NODE, 0o666);
    nix::mount::mount(Some("/tmp/tun"), "/dev/net/tun", None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>).unwrap();
    bridged_tap(tun::NO_PI | tun::VNET_HDR);
    let queue = open_as_it_is();
    // without CAP_NET_ADMIN, what ethtool shows as requested but not on stays as a hypervisor has left it
    common::hostile::set_offloads(queue.as_fd(), 0).unwrap();
    drop(queue);
    let before = look_at_rest("tap0", Some("br0"));
    std::fs::create_dir_all("/tmp/state").unwrap();
    std::os::unix::fs::chown("/tmp/state", Some(1000), Some(1000)).unwrap();
    for lost in [false, true] {
        common::process::Forked::run(|| {
            common::hostile::drop_to(1000);
            save("tap0").unwrap();
            let queue = open_as_it_is();
            if !lost {
                hold("tap0", &[queue.try_clone().unwrap()]).unwrap();
            }
            let sleeper = common::process::Holder::of(&queue);
            for attack in ATTACKS.iter().filter(|attack| attack.kind != Kind::Down) {
                (attack.run)(queue.as_fd(), None).unwrap();
            }
            drop(queue);
            if lost {
                reclaim("tap0", sleeper.pid()).unwrap();
            }
            drop(sleeper);
            let changed = restore("tap0").unwrap();
            assert!(changed.contains(Fields::PERSIST | Fields::OWNER | Fields::GROUP | Fields::MAC | Fields::CARRIER));
            assert!(!changed.contains(Fields::UNRESTORED));
        })
        .join();
        looks_like(&before, "tap0", Some("br0"));
        nothing_recorded();
    }
    frames_flow();
}

netns_tests![
    a_single_queue,
    without_vnet_hdr,
    with_packet_information,
    several_queues,
    the_link_type_of_a_tap_that_is_down,
    an_owner_by_name,
    the_log_tells_all,
    an_owner_of_none,
    a_filter_from_before,
    a_stale_file_attached_to_another_tap,
    as_the_owner_of_the_tap,
];
