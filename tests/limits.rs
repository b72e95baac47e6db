//! Where the machine gives less than a call wants: a clear error and nothing changed, or the work done with a lesser
//! guarantee.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{ALLOW_EXISTING, C, Failure, NONE, Outcome, PERSIST, Rust, TapApi, last_failure};
use common::bridge::{BridgeApi, port};
use common::link::links;
use common::net::{exists, gone, ip, ip_batch, ip_says, no_news, unchanged};
use common::process::{Forked, Holder, NOBODY, TUN_NODE, as_nobody, node, with_room_for};
use common::state::{
    DIR, Log, check, discard, hold, list, look_at_rest, looks_like, nothing_recorded, reclaim, record, restore, save,
};
use common::{figure, skip, tun};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use virnetdevtap::capi;
use virnetdevtap::capi::types::virDomainInterfaceStatsStruct;
use virnetdevtap::state::Fields;
use virnetdevtap::stats::interface_stats_list;
use virnetdevtap::tap::interface_name;

const FLAGS: u16 = tun::TAP | tun::NO_PI;

fn a_port() {
    tun::make("tap0", FLAGS);
    ip_batch("link add br0 type bridge\nlink add br1 type bridge\nlink set tap0 master br0\n");
}

/// With room for so many more files each call is either done, or fails for want of files and changes nothing.
fn each_room(what: &str, call: &dyn Fn() -> Outcome<()>, undo: &dyn Fn()) {
    let (mut failures, mut done) = (0, 0);
    for room in 0..14 {
        let before = machine();
        match with_room_for(room, call) {
            Ok(()) => {
                done += 1;
                undo();
            }
            Err(failure) => {
                failures += 1;
                assert!(done == 0, "{what}, room for {room}: more room, but {failure:?}");
                assert_eq!(failure.errno, Errno::EMFILE, "{what}, room for {room}: {failure:?}");
            }
        }
        assert_eq!(before, machine(), "{what}, room for {room}");
    }
    assert!(failures > 0 && done > 0, "{what}: {failures} failures, {done} successes");
    figure(&format!("{what} needs {failures} files"));
}

fn machine() -> String {
    let records = if fs::exists(DIR).unwrap() { list() } else { Vec::new() };
    let links = links();
    let links =
        links.iter().map(|link| ["ifindex", "ifname", "flags", "mtu", "master"].map(|key| link[key].to_string()).join(" "));
    format!("{} {records:?} {:?}", links.collect::<Vec<_>>().join("\n"), common::process::open_files())
}

fn no_more_files() {
    a_port();
    tun::make("free0", FLAGS);
    let none: &dyn Fn() = &|| ();
    each_room("holders", &|| Rust.holders("tap0").map(drop), none);
    let list_of = |count: usize| -> Outcome<()> {
        let names: Vec<_> = (0..count).map(|i| interface_name(format!("tap{i}").as_bytes()).unwrap()).collect();
        Ok(interface_stats_list(&names).map(drop)?)
    };
    each_room("10 statistics", &|| list_of(10), none);
    each_room("100 statistics", &|| list_of(100), none);
    let (br0, br1) = (port("br0"), port("br1"));
    each_room("attach", &|| Rust.attach("free0", &br1).map(drop), &|| ip("link set free0 nomaster"));
    each_room("reattach", &|| Rust.reattach("tap0", &br1, false).map(drop), &|| drop(Rust.reattach("tap0", &br0, false)));
    each_room("create in a port", &|| Rust.create_in("new0", NONE, &br0).map(drop), &|| assert!(gone("new0")));
    each_room("save", &|| save("tap0"), &|| discard("tap0").unwrap());
    save("tap0").unwrap();
    let made = Rust.one("tap0", ALLOW_EXISTING);
    let queue = || made.queues[0].try_clone().unwrap();
    each_room("check", &|| check("tap0").map(drop), none);
    each_room("list", &|| Ok(virnetdevtap::state::list(DIR.as_ref()).map(drop)?), none);
    // the guard is one file more, and stays until all is over
    let queues = [queue()];
    let failures = (0..14).take_while(|room| with_room_for(*room, || hold_one("tap0", &queues)).is_err()).count();
    assert!((1..10).contains(&failures), "{failures}");
    drop((queues, made));
    let restored = (0..20).find_map(|room| match with_room_for(room, || restore("tap0")) {
        Ok(fields) => Some(fields),
        Err(failure) => {
            assert_eq!(failure.errno, Errno::EMFILE, "room for {room}: {failure:?}");
            assert_eq!(list(), ["tap0"]);
            None
        }
    });
    assert_eq!(restored, Some(Fields::empty()));
    nothing_recorded();
    save("tap0").unwrap();
    each_room("discard", &|| discard("tap0"), &|| save("tap0").unwrap());
    discard("tap0").unwrap();
}

fn hold_one(name: &str, queues: &[OwnedFd]) -> Outcome<()> {
    use std::os::fd::AsFd;
    let queues: Vec<_> = queues.iter().map(AsFd::as_fd).collect();
    Ok(virnetdevtap::state::hold(&interface_name(name.as_bytes()).unwrap(), DIR.as_ref(), &queues)?)
}

/// A list that there is no memory for is refused before anything is done.
fn no_memory() {
    tun::make("tap0", FLAGS);
    Forked::run(|| {
        let name = CString::new("tap0").unwrap();
        let names = vec![name.as_ptr(); 4 << 20];
        let mut stats: Vec<virDomainInterfaceStatsStruct> = Vec::with_capacity(names.len());
        let mut errnos = vec![7; names.len()];
        let text = fs::read_to_string("/proc/self/statm").unwrap();
        let used = text.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096;
        let limit = libc::rlimit { rlim_cur: used + (64 << 20), rlim_max: libc::RLIM_INFINITY };
        // SAFETY: reads one rlimit
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
        let n = names.len();
        // SAFETY: as many strings and structs as are said
        let rc = unsafe { capi::virNetDevTapInterfaceStatsList(names.as_ptr(), n, stats.as_mut_ptr(), false) };
        assert_eq!((rc, last_failure().errno), (-1, Errno::ENOMEM));
        // SAFETY: as many strings and numbers as are said
        let rc = unsafe { capi::virNetDevTapDeleteList(names.as_ptr(), n, ptr::null(), errnos.as_mut_ptr()) };
        assert_eq!((rc, last_failure().errno), (-1, Errno::ENOMEM));
        let dir = c"/tmp/state".as_ptr();
        // SAFETY: as above
        let rc = unsafe {
            capi::virNetDevTapStateRestoreList(names.as_ptr(), n, ptr::null(), dir, 0, ptr::null_mut(), errnos.as_mut_ptr())
        };
        assert_eq!((rc, last_failure().errno), (-1, Errno::ENOMEM));
        assert!(exists("tap0") && errnos.iter().all(|errno| *errno == 7));
        // and what there is memory for is done
        // SAFETY: as above
        let rc = unsafe { capi::virNetDevTapInterfaceStatsList(names.as_ptr(), 1000, stats.as_mut_ptr(), false) };
        assert_eq!(rc, 1000);
    })
    .join();
    let name = c"tap0".as_ptr();
    for n in [usize::MAX, usize::MAX / 8, usize::MAX / 16, 1 << 50] {
        // SAFETY: lists as long as that there are not, and they are not read
        let rc = unsafe { capi::virNetDevTapInterfaceStatsList(&raw const name, n, ptr::dangling_mut(), false) };
        assert_eq!(rc, -1);
        assert!([Errno::EINVAL, Errno::ENOMEM].contains(&last_failure().errno));
        // SAFETY: as above
        let rc = unsafe { capi::virNetDevTapDeleteList(&raw const name, n, ptr::null(), ptr::null_mut()) };
        assert_eq!(rc, -1);
        assert!([Errno::EINVAL, Errno::ENOMEM].contains(&last_failure().errno));
    }
    assert!(exists("tap0"));
}

fn mounted(kind: &str, target: &str, options: Option<&str>) {
    if let Err(e) = mount(Some(kind), target, Some(kind), MsFlags::empty(), options) {
        skip(&format!("cannot mount {kind} on {target}: {e}"));
    }
}

/// A process whose system calls are refused where `program` says so.
fn forbidden(code: &mut [libc::sock_filter], body: impl FnOnce()) {
    Forked::run(|| {
        let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
        // SAFETY: system calls with numbers, and a program that lives until the call is over
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
        // SAFETY: as above
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) }, 0);
        body();
    })
    .join();
}

/// EPERM for a system call; with `second`, only where its second argument is this.
fn refusing(call: libc::c_long, second: Option<u32>) -> Vec<libc::sock_filter> {
    const SECOND: u32 = 24; // the lower half of seccomp_data.args[1], on little-endian machines
    let filter = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |at| filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at);
    let unless = |value, skip| filter(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, skip, value);
    let give = |what| filter(libc::BPF_RET | libc::BPF_K, 0, 0, what);
    let refuse = give(libc::SECCOMP_RET_ERRNO | Errno::EPERM as u32);
    let allow = give(libc::SECCOMP_RET_ALLOW);
    match second {
        None => vec![load(0), unless(call as u32, 1), refuse, allow],
        Some(second) => vec![load(0), unless(call as u32, 3), load(SECOND), unless(second, 1), refuse, allow],
    }
}

/// Save, a hostile run, restore: all is as it was.
fn a_whole_run(name: &str) {
    let before = look_at_rest(name, None);
    save(name).unwrap();
    let made = Rust.one(name, ALLOW_EXISTING);
    hold(name, &[made.queues[0].try_clone().unwrap()]).unwrap();
    ip(&format!("link set {name} mtu 1300"));
    tun::set_persist(&made.queues[0], false);
    drop(made);
    let changed = restore(name).unwrap();
    assert!(changed.contains(Fields::MTU) && !changed.contains(Fields::UNRESTORED), "{changed:?}");
    looks_like(&before, name, None);
    nothing_recorded();
}

/// Without a way to know the device's number in sysfs, its index has to do. The sysfs that is left is that of another
/// namespace, which may have a device of the same name.
fn sysfs_of_another_namespace() {
    tun::make("tap0", FLAGS);
    umount2("/sys", MntFlags::MNT_DETACH).unwrap();
    let run = || {
        save("tap0").unwrap();
        let record: serde_json::Value = serde_json::from_slice(&fs::read(record("tap0")).unwrap()).unwrap();
        assert!(record["before"]["inode"].is_null(), "{record:#}");
        let made = Rust.one("tap0", ALLOW_EXISTING);
        hold("tap0", &[made.queues[0].try_clone().unwrap()]).unwrap();
        ip("link set tap0 mtu 1300 name other0");
        tun::set_persist(&made.queues[0], false);
        drop(made);
        assert_eq!(restore("tap0").unwrap(), Fields::MTU | Fields::NAME | Fields::PERSIST);
        assert!(ip_says("-o link show dev tap0").contains("mtu 1500"));
        Rust.delete("tap0", None).unwrap();
        tun::make("tap0", FLAGS);
    };
    run();
    mounted("tmpfs", "/sys", None);
    run();
    fs::create_dir_all("/sys/class/net/tap0").unwrap();
    for (file, text) in [("address", "02:00:00:00:00:77\n"), ("tun_flags", "0x5112\n"), ("ifindex", "77\n")] {
        fs::write(format!("/sys/class/net/tap0/{file}"), text).unwrap();
    }
    run();
}

/// Taps can be made, opened and deleted; who has them, and which boot it is, nobody knows.
fn without_proc() {
    tun::make("tap0", FLAGS);
    let held = tun::open("held0", FLAGS).unwrap();
    // cached values would hide it
    Forked::run(|| {
        mounted("tmpfs", "/proc", None);
        drop(Rust.one("new0", NONE));
        drop(Rust.one("tap0", ALLOW_EXISTING));
        assert_eq!(Rust.stats("tap0").unwrap(), [0; 8]);
        let failure = Rust.delete("held0", None).unwrap_err();
        assert_eq!(failure.errno, Errno::EBUSY);
        assert!(failure.text.contains("/proc does not show"), "{failure:?}");
        assert_eq!(Rust.holders("held0").unwrap_err().errno, Errno::ENOENT);
        let failure = unchanged("tap0", || save("tap0").unwrap_err());
        assert!(failure.text.contains("which boot"), "{failure:?}");
        nothing_recorded();
        umount2("/proc", MntFlags::MNT_DETACH).unwrap();
        save("tap0").unwrap();
        hold("tap0", &[]).unwrap();
        ip("link set tap0 mtu 1300");
    })
    .join();
    Forked::run(|| {
        mounted("tmpfs", "/proc", None);
        let failure = unchanged("tap0", || restore("tap0").unwrap_err());
        assert!(failure.text.contains("which boot"), "{failure:?}");
        assert_eq!(list(), ["tap0"]);
        umount2("/proc", MntFlags::MNT_DETACH).unwrap();
    })
    .join();
    assert_eq!(restore("tap0").unwrap(), Fields::MTU);
    drop(held);
}

/// Other users' processes are not shown: whoever holds the tap has no name.
fn processes_of_others_hidden() {
    node("/tmp/tun", TUN_NODE, 0o666);
    tun::make_owned("tap0", FLAGS, NOBODY);
    let queue = tun::open("tap0", FLAGS).unwrap();
    let holder = Holder::of(&queue);
    drop(queue);
    mounted("proc", "/proc", Some("hidepid=2"));
    assert!(Rust.holders("tap0").unwrap().contains(&holder.pid()), "root sees them");
    as_nobody(|| {
        assert!(Rust.holders("tap0").unwrap().is_empty());
        let failure = unchanged("tap0", || Rust.delete("tap0", Some("/tmp/tun")).unwrap_err());
        assert_eq!(failure.errno, Errno::EBUSY);
        assert!(failure.text.contains("another user's process"), "{failure:?}");
    });
    umount2("/proc", MntFlags::MNT_DETACH).unwrap();
}

/// A guard on a single-queue tap cannot be won back; one on a multi-queue tap needs no other process's file.
fn without_pidfd_getfd() {
    for (name, flags) in [("single0", FLAGS), ("multi0", FLAGS | tun::MULTI_QUEUE)] {
        tun::make(name, flags);
        save(name).unwrap();
        let queue = tun::open(name, flags).unwrap();
        let holder = Holder::of(&queue);
        drop(queue);
        forbidden(&mut refusing(libc::SYS_pidfd_getfd, None), || {
            if name == "multi0" {
                return reclaim(name, holder.pid()).unwrap();
            }
            let failure = unchanged(name, || reclaim(name, holder.pid()).unwrap_err());
            assert_eq!(failure.errno, Errno::EPERM);
            assert!(failure.text.contains(&format!("pid {}", holder.pid())), "{failure:?}");
            assert_eq!(restore(name).unwrap_err().errno, Errno::EBUSY);
        });
        drop(holder);
        assert_eq!(restore(name).unwrap(), Fields::empty());
        assert!(exists(name));
    }
    nothing_recorded();
}

/// TUNSETIFINDEX makes sure that opening an existing tap never makes one, and gives a tap that is made anew its old index.
fn without_tunsetifindex() {
    tun::make("tap0", FLAGS);
    let index = common::net::sysfs("tap0", "ifindex");
    forbidden(&mut refusing(libc::SYS_ioctl, Some(0x4004_54da)), || {
        a_whole_run("tap0");
        assert_eq!(common::net::sysfs("tap0", "ifindex"), index);
        drop(Rust.create(Some("new0"), None, 3, NONE).unwrap());
        no_news(|| Rust.delete("missing0", None).unwrap());
        Rust.set_persist("tap0", None, false).unwrap();
        assert!(gone("tap0"));
        // one that has vanished is not made anew with another index without a word
        tun::make("tap0", FLAGS);
        save("tap0").unwrap();
        ip("link del tap0");
        let failure = restore("tap0").unwrap_err();
        assert_eq!(failure.errno, Errno::EPERM, "{failure:?}");
        assert!(failure.text.contains("anew"), "{failure:?}");
        assert_eq!(list(), ["tap0"]);
    });
    assert_eq!(restore("tap0").unwrap(), Fields::VANISHED);
    assert!(exists("tap0"));
}

/// What an owner may do with the tap alone is restored; what takes CAP_NET_ADMIN is told.
fn without_cap_net_admin() {
    mounted("tmpfs", "/dev/net", None);
    node("/dev/net/tun", TUN_NODE, 0o666);
    tun::make_owned("tap0", FLAGS, NOBODY);
    let _ = fs::set_permissions("/tmp", std::os::unix::fs::PermissionsExt::from_mode(0o777));
    ip("link set tap0 address 02:00:00:00:00:01");
    let before = look_at_rest("tap0", None);
    as_nobody(|| {
        save("tap0").unwrap();
        let made = Rust.one("tap0", ALLOW_EXISTING);
        hold("tap0", &[made.queues[0].try_clone().unwrap()]).unwrap();
        tun::set_persist(&made.queues[0], false);
        drop(made);
        assert_eq!(restore("tap0").unwrap(), Fields::PERSIST);
        save("tap0").unwrap();
    });
    looks_like(&before, "tap0", None);
    ip("link set tap0 mtu 1300 address 02:00:00:00:00:02");
    as_nobody(|| {
        let log = Log::start();
        assert_eq!(restore("tap0").unwrap(), Fields::MTU | Fields::MAC | Fields::UNRESTORED);
        let log = log.take().join("\n");
        assert!(log.contains("MTU was 1500, hypervisor left 1300, not restored: Operation not permitted"), "{log}");
        assert_eq!(Rust.create(Some("new0"), None, 1, NONE).unwrap_err().errno, Errno::EPERM);
    });
    ip("link set tap0 mtu 1500");
    looks_like(&before, "tap0", None);
}

/// Nothing can be opened; what netlink alone does works.
fn without_the_clone_device() {
    tun::make("tap0", FLAGS);
    tun::make("multi0", FLAGS | tun::MULTI_QUEUE);
    save("tap0").unwrap();
    mounted("tmpfs", "/dev/net", None);
    let missing = |result: Result<(), Failure>| {
        let failure = result.unwrap_err();
        assert_eq!(failure.errno, Errno::ENOENT);
        assert!(failure.text.contains("is tun module loaded?"), "{failure:?}");
    };
    for api in [&Rust as &dyn TapApi, &C] {
        unchanged("tap0", || {
            no_news(|| {
                missing(api.create(Some("new0"), None, 1, PERSIST).map(drop));
                missing(api.create(None, None, 1, PERSIST).map(drop));
                missing(api.create(Some("tap0"), None, 1, ALLOW_EXISTING).map(drop));
                missing(api.delete("tap0", None));
                missing(api.set_persist("tap0", None, false));
                missing(restore("tap0").map(drop));
                missing(save("tap0"));
            });
        });
        assert!(api.get_persist("tap0").unwrap());
        assert_eq!(api.stats("tap0").unwrap(), [0; 8]);
    }
    assert_eq!(list(), ["tap0"]);
    Rust.delete("multi0", None).unwrap();
    umount2("/dev/net", MntFlags::MNT_DETACH).unwrap();
    assert_eq!(restore("tap0").unwrap(), Fields::empty());
    assert!(tun::open("tap0", FLAGS).unwrap().as_raw_fd() >= 0);
}

netns_tests![
    no_memory,
    no_more_files,
    processes_of_others_hidden,
    sysfs_of_another_namespace,
    without_cap_net_admin,
    without_pidfd_getfd,
    without_proc,
    without_the_clone_device,
    without_tunsetifindex,
];
