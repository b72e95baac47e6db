//! From Save to Restore when things do not go as planned: accomplices, renames, other namespaces, strangers, lost guards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{C, NONE, PERSIST, TapApi, VNET_HDR};
use common::hostile::{attack_named, need_users, set_persist};
use common::net::{
    Event, Events, exists, frame, gone, interfaces, ip, send_from_host, set_up_quietly, sysfs, try_ip, try_read_as_guest,
};
use common::process::{Forked, Holder, open_files};
use common::state::{
    Log, check, deletable, discard, hold, list, look, look_at_rest, looks_like, nothing_recorded, reclaim, record, restore,
    restore_with, save,
};
use common::{count, tun};
use nix::errno::Errno;
use serde_json::Value;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use virnetdevtap::state::{Fields, RestoreFlags};

const SINGLE: u16 = tun::TAP | tun::NO_PI | tun::VNET_HDR;
const MULTI: u16 = SINGLE | tun::MULTI_QUEUE;
/// Both, or the first where processes are slow.
fn kinds() -> impl Iterator<Item = u16> {
    [SINGLE, MULTI].into_iter().take(count(2, 1))
}

/// A tap in a bridge, at rest.
fn bridged(flags: u16) -> Value {
    if !exists("br0") {
        ip("link add br0 type bridge");
        set_up_quietly("br0");
    }
    tun::make_owned("tap0", flags, 1000);
    ip("link set tap0 alias mine master br0");
    set_up_quietly("tap0");
    look_at_rest("tap0", Some("br0"))
}

/// The queue of a hypervisor, and a guard for it.
fn begin(flags: u16) -> OwnedFd {
    save("tap0").unwrap();
    let queue = tun::open("tap0", flags).unwrap();
    hold("tap0", &[queue.try_clone().unwrap()]).unwrap();
    queue
}

fn clear_persist(queue: &OwnedFd) {
    set_persist(queue.as_fd(), false).unwrap();
}

fn made_anew(before: &Value) {
    let (mut before, now) = (before.clone(), look("tap0", Some("br0")));
    assert_ne!(before["inode"], now["inode"]);
    before["inode"] = now["inode"].clone();
    before["link"]["inet6_addr_gen_mode"] = now["link"]["inet6_addr_gen_mode"].clone();
    looks_like(&before, "tap0", Some("br0"));
}

fn end(flags: u16) {
    nothing_recorded();
    deletable("tap0", flags & tun::MULTI_QUEUE != 0);
}

/// Nobody touched anything: nothing is set, nothing flaps.
fn an_untouched_tap() {
    for flags in kinds() {
        let before = bridged(flags);
        let carrier_changes = sysfs("tap0", "carrier_changes").unwrap();
        let events = Events::listen_at_rest();
        save("tap0").unwrap();
        assert_eq!(restore("tap0").unwrap(), Fields::empty());
        assert_eq!(sysfs("tap0", "carrier_changes").unwrap(), carrier_changes, "the carrier was never on");
        let told = events.take();
        assert!(told.iter().all(|event| *event == Event::New) && told.len() <= 8, "{told:?}");
        looks_like(&before, "tap0", Some("br0"));
        // and after an honest hypervisor
        drop(begin(flags));
        let carrier_changes = sysfs("tap0", "carrier_changes").unwrap();
        assert_eq!(check("tap0").unwrap(), Fields::empty());
        assert_eq!(restore("tap0").unwrap(), Fields::empty());
        let now = sysfs("tap0", "carrier_changes").unwrap();
        assert_eq!(now.parse::<u32>().unwrap(), carrier_changes.parse::<u32>().unwrap() + 1, "the carrier went off");
        looks_like(&before, "tap0", Some("br0"));
        end(flags);
    }
}

fn the_guard_reads_nothing_and_is_not_inherited() {
    bridged(SINGLE);
    let queue = begin(SINGLE);
    let mine = queue.as_raw_fd();
    for fd in open_files().into_iter().filter(|fd| *fd != mine) {
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
        if link.to_string_lossy().ends_with("/net/tun") {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
            assert!(info.contains("iff:\ttap0"));
            let flags = u32::from_str_radix(info.split("flags:\t").nth(1).unwrap().split('\n').next().unwrap(), 8).unwrap();
            assert!(flags & libc::O_CLOEXEC as u32 != 0, "{info}");
        }
    }
    // frames wait for the guest: Check, Reclaim and time do not take them
    send_from_host("tap0", &frame(100));
    check("tap0").unwrap();
    reclaim("tap0", 0).unwrap();
    assert_eq!(try_read_as_guest(&queue, 10).unwrap()[10..], frame(100));
    drop(queue);
    restore("tap0").unwrap();
    end(SINGLE);
}

/// A process that keeps a copy of the file beyond the hypervisor's end.
fn an_accomplice() {
    for flags in kinds() {
        let before = bridged(flags);
        let queue = begin(flags);
        let accomplice = Holder::of(&queue);
        clear_persist(&queue);
        drop(queue);
        let failure = restore("tap0").unwrap_err();
        assert_eq!(failure.errno, Errno::EBUSY);
        assert!(failure.text.contains(&format!("sleep (pid {})", accomplice.pid())), "{failure:?}");
        assert_eq!(list(), ["tap0"]);
        assert!(tun::flags("tap0").unwrap() & tun::PERSIST != 0, "put back at once");
        // the guard was won back: what the accomplice does now is in vain, too
        let _stays = accomplice;
        Command::new("true").status().unwrap();
        drop(_stays);
        assert!(exists("tap0"));
        assert_eq!(restore("tap0").unwrap(), Fields::PERSIST, "also what the first call has found");
        looks_like(&before, "tap0", Some("br0"));
        end(flags);
    }
}

/// After the failed Restore the accomplice clears the flag again and goes.
fn an_accomplice_that_goes_on() {
    for flags in kinds() {
        let before = bridged(flags);
        let queue = begin(flags);
        let (mut go, wait) = std::os::unix::net::UnixStream::pair().unwrap();
        let accomplice = Forked::run(|| {
            use std::io::Read;
            // what it has inherited of the manager's is not its own
            for fd in open_files() {
                if fd != queue.as_raw_fd() && fd != wait.as_raw_fd() && fd > 2 {
                    // SAFETY: this process ends without using them
                    unsafe { libc::close(fd) };
                }
            }
            (&wait).read_exact(&mut [0]).unwrap();
            clear_persist(&queue);
        });
        drop(queue);
        assert_eq!(restore("tap0").unwrap_err().errno, Errno::EBUSY);
        std::io::Write::write_all(&mut go, &[1]).unwrap();
        accomplice.join();
        assert!(exists("tap0"), "kept alive by the guard");
        assert_eq!(restore("tap0").unwrap(), Fields::PERSIST);
        looks_like(&before, "tap0", Some("br0"));
        end(flags);
    }
}

/// A file that no process shows: it is in flight in a socket.
fn a_file_in_flight() {
    let before = bridged(SINGLE);
    let queue = begin(SINGLE);
    let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
    let fds = [queue.as_raw_fd()];
    let message = [nix::sys::socket::ControlMessage::ScmRights(&fds)];
    let bytes = [std::io::IoSlice::new(b"x")];
    nix::sys::socket::sendmsg::<()>(a.as_raw_fd(), &bytes, &message, nix::sys::socket::MsgFlags::empty(), None).unwrap();
    clear_persist(&queue);
    drop(queue);
    let failure = restore("tap0").unwrap_err();
    assert_eq!(failure.errno, Errno::EBUSY);
    assert!(failure.text.contains("/proc does not show"), "{failure:?}");
    assert_eq!(list(), ["tap0"]);
    drop((a, b));
    assert_eq!(restore("tap0").unwrap(), Fields::PERSIST);
    looks_like(&before, "tap0", Some("br0"));
    end(SINGLE);
}

fn rename(from: &str, to: &str) {
    if try_ip(&format!("link set {from} name {to}")).is_err() {
        // Linux 6.1 wants it down for that
        ip(&format!("link set {from} down"));
        ip(&format!("link set {from} name {to}"));
        ip(&format!("link set {to} up"));
    }
}

fn renamed_while_held() {
    for flags in kinds() {
        for stranger in [false, true] {
            let before = bridged(flags);
            let queue = begin(flags);
            rename("tap0", "moved0");
            if stranger {
                tun::make("tap0", SINGLE);
                ip("link set tap0 alias not-yours");
            }
            clear_persist(&queue);
            drop(queue);
            assert_eq!(check("tap0").unwrap(), Fields::NAME | Fields::PERSIST);
            let theirs = stranger.then(|| look_at_rest("tap0", None));
            let changed = restore("tap0").unwrap();
            if let Some(theirs) = theirs {
                assert_eq!(changed, Fields::NAME | Fields::PERSIST | Fields::UNRESTORED, "its name is taken");
                looks_like(&theirs, "tap0", None);
                assert!(tun::flags("moved0").unwrap() & tun::PERSIST != 0);
                ip("link del tap0");
                rename("moved0", "tap0");
            } else {
                assert_eq!(changed, Fields::NAME | Fields::PERSIST);
            }
            looks_like(&before, "tap0", Some("br0"));
            end(flags);
        }
    }
}

/// Somebody moves the tap to another network namespace, which takes it out of its bridge and down.
fn moved_to_another_namespace() {
    for flags in kinds() {
        let before = bridged(flags);
        let queue = begin(flags);
        let other = Command::new("unshare").args(["-n", "sleep", "1000"]).spawn().unwrap();
        let mut other = common::state::KillOnDrop(other);
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        while std::fs::read_link(format!("/proc/{}/ns/net", other.0.id())).unwrap() == own {
            std::thread::yield_now();
        }
        ip(&format!("link set tap0 netns {}", other.0.id()));
        clear_persist(&queue);
        drop(queue);
        assert!(gone("tap0"));
        let changed = check("tap0").unwrap();
        assert_eq!(changed, Fields::PERSIST | Fields::MASTER | Fields::UP);
        assert!(!exists("tap0"), "Check changes nothing");
        reclaim("tap0", 0).unwrap();
        assert!(!exists("tap0"), "nor does Reclaim");
        assert_eq!(restore("tap0").unwrap(), changed);
        ip("link set tap0 addrgenmode none"); // the kernel forgets it on the way
        looks_like(&before, "tap0", Some("br0"));
        other.0.kill().unwrap();
        end(flags);
    }
}

fn a_stranger_takes_the_name() {
    for flags in kinds() {
        // an administrator has deleted it, and made another one, perhaps with the same index
        for same_index in [false, true] {
            bridged(flags);
            let index = sysfs("tap0", "ifindex").unwrap();
            let queue = begin(flags);
            ip("link del tap0");
            let made = if same_index {
                ip(&format!("link add name tap0 index {index} type bridge"));
                None
            } else {
                tun::make("tap0", flags);
                Some(look_at_rest("tap0", None))
            };
            for call in [check("tap0"), restore("tap0"), restore_with("tap0", RestoreFlags::EVICT)] {
                assert_eq!(call.unwrap_err().errno, Errno::EEXIST);
            }
            assert_eq!(restore_with("tap0", RestoreFlags::REMOVE).unwrap_err().errno, Errno::EEXIST);
            assert_eq!(reclaim("tap0", 0).unwrap_err().errno, Errno::EEXIST);
            assert_eq!(hold("tap0", &[]).unwrap_err().errno, Errno::EEXIST);
            assert_eq!(list(), ["tap0"]);
            drop(queue);
            if let Some(made) = made {
                looks_like(&made, "tap0", None);
                // a new start is about the new device
                let log = Log::start();
                save("tap0").unwrap();
                assert!(log.take().iter().any(|line| line.contains("is gone")));
                drop(begin(flags));
                assert_eq!(restore("tap0").unwrap(), Fields::empty());
                looks_like(&made, "tap0", None);
                end(flags);
            } else {
                assert_eq!(restore_with("tap0", RestoreFlags::LEAVE).unwrap(), Fields::empty());
                nothing_recorded();
                ip("link del tap0");
            }
        }
    }
}

/// Without a guard: gone with the hypervisor, and made anew under the same name and index.
fn vanished() {
    for flags in kinds() {
        for deleted in [false, true] {
            let before = bridged(flags);
            ip("link set tap0 type bridge_slave cost 55 isolated on");
            ip("link property add dev tap0 altname tap-of-vm1");
            drop(before);
            let before = look_at_rest("tap0", Some("br0"));
            if deleted {
                drop(begin(flags));
                ip("link del tap0"); // the guard is of no use then
            } else {
                save("tap0").unwrap();
                let queue = tun::open("tap0", flags).unwrap();
                clear_persist(&queue);
            }
            assert!(gone("tap0"));
            assert_eq!(check("tap0").unwrap(), Fields::VANISHED);
            let log = Log::start();
            assert_eq!(restore("tap0").unwrap(), Fields::VANISHED);
            assert_eq!(log.take(), ["tap0: device had vanished, restored"]);
            drop(log);
            made_anew(&before);
            end(flags);
        }
    }
}

/// What the new device cannot have is told: here its bridge, which is gone as well, and its index.
fn vanished_with_its_bridge() {
    bridged(SINGLE);
    let index = sysfs("tap0", "ifindex").unwrap();
    save("tap0").unwrap();
    ip("link del tap0");
    ip("link del br0");
    ip(&format!("link add name other0 index {index} type bridge"));
    let log = Log::start();
    assert_eq!(restore("tap0").unwrap(), Fields::VANISHED | Fields::MASTER | Fields::UNRESTORED);
    let lines = log.take().join("\n");
    assert!(
        lines.contains("master br0 became none, not restored") && lines.contains(&format!("index {index} is taken")),
        "{lines}"
    );
    assert!(sysfs("tap0", "ifalias") == Some("mine".into()) && sysfs("tap0", "ifindex") != Some(index));
    end(SINGLE);
}

fn flags_of_restore() {
    for flags in kinds() {
        let before = bridged(flags);
        // EVICT: deleted under the holder, and made anew
        let queue = begin(flags);
        let holder = Holder::of(&queue);
        drop(queue);
        let log = Log::start();
        assert_eq!(restore_with("tap0", RestoreFlags::EVICT).unwrap(), Fields::VANISHED);
        assert!(log.take().iter().any(|line| line.contains("deleted under the process")));
        drop((log, holder));
        made_anew(&before);
        // LEAVE: the guard and the record go, the device stays as it is
        let queue = begin(flags);
        (attack_named("MAC").run)(queue.as_fd(), None).unwrap();
        drop(queue);
        assert_eq!(restore_with("tap0", RestoreFlags::LEAVE).unwrap(), Fields::empty());
        nothing_recorded();
        assert_eq!(sysfs("tap0", "address").unwrap(), "00:00:00:00:00:01");
        // REMOVE
        drop(begin(flags));
        restore_with("tap0", RestoreFlags::REMOVE).unwrap();
        assert!(!exists("tap0"));
        nothing_recorded();
        // REMOVE of a held one, and with EVICT
        bridged(flags);
        let queue = begin(flags);
        let holder = Holder::of(&queue);
        drop(queue);
        assert_eq!(restore_with("tap0", RestoreFlags::REMOVE).unwrap_err().errno, Errno::EBUSY);
        assert!(exists("tap0"));
        assert_eq!(list(), ["tap0"]);
        restore_with("tap0", RestoreFlags::REMOVE | RestoreFlags::EVICT).unwrap();
        assert!(!exists("tap0"));
        nothing_recorded();
        drop(holder);
    }
}

/// A tap that libvirt made for one run, with a generated name.
fn a_tap_that_was_absent() {
    for (queues, saved) in [(1, false), (2, true), (1, true), (2, false)].into_iter().take(count(4, 2)) {
        for (ends, persist) in [(false, false), (true, false), (false, true)] {
            if saved {
                save("tap0").unwrap();
            }
            let made = C.create(Some("tap0"), None, queues, VNET_HDR | if persist { PERSIST } else { NONE }).unwrap();
            let files = open_files();
            hold("tap0", &made.queues).unwrap();
            hold("tap0", &made.queues).unwrap();
            assert_eq!(files, open_files(), "nothing keeps it alive");
            assert_eq!(check("tap0").unwrap(), Fields::empty());
            reclaim("tap0", 0).unwrap();
            if ends {
                drop(made);
                assert!(gone("tap0"));
                assert_eq!(restore("tap0").unwrap(), Fields::empty());
            } else {
                let holder = Holder::of(&made.queues[0]);
                set_persist(made.queues[0].as_fd(), true).unwrap();
                drop(made);
                let expected = if persist { Fields::empty() } else { Fields::PERSIST };
                assert_eq!(check("tap0").unwrap(), expected);
                let failure = restore("tap0").unwrap_err();
                assert_eq!(failure.errno, Errno::EBUSY);
                assert!(failure.text.contains("sleep"), "{failure:?}");
                drop(holder);
                assert!(exists("tap0"));
                assert_eq!(restore("tap0").unwrap(), expected);
            }
            assert!(interfaces().is_empty());
            nothing_recorded();
        }
    }
}

fn an_absent_tap_and_strangers() {
    // recorded as absent, never held: whatever has the name now is anybody's
    save("tap0").unwrap();
    tun::make("tap0", SINGLE);
    let log = Log::start();
    assert_eq!(restore("tap0").unwrap(), Fields::empty());
    assert!(log.take()[0].contains("left alone"));
    drop(log);
    assert!(exists("tap0"));
    nothing_recorded();
    ip("link del tap0");
    // held, gone, and another one of the name
    let made = C.one("tap0", NONE);
    hold("tap0", &made.queues).unwrap();
    drop(made);
    tun::make("tap0", SINGLE);
    let theirs = look_at_rest("tap0", None);
    assert_eq!(restore("tap0").unwrap(), Fields::empty());
    looks_like(&theirs, "tap0", None);
    nothing_recorded();
}

/// A record that is left by a run which never came to its Restore, then a new start.
fn a_new_start_after_a_crash() {
    for flags in kinds() {
        let before = bridged(flags);
        save("tap0").unwrap();
        let queue = tun::open("tap0", flags & !tun::VNET_HDR).unwrap();
        (attack_named("MAC").run)(queue.as_fd(), None).unwrap();
        let first = std::fs::read(record("tap0")).unwrap();
        // somebody still has it
        let failure = save("tap0").unwrap_err();
        assert_eq!(failure.errno, Errno::EBUSY, "{failure:?}");
        assert!(failure.text.contains("an earlier run is not over"), "{failure:?}");
        assert_eq!(std::fs::read(record("tap0")).unwrap(), first);
        drop(queue);
        save("tap0").unwrap();
        looks_like(&before, "tap0", Some("br0"));
        assert_eq!(restore("tap0").unwrap(), Fields::empty());
        end(flags);
        // absent before: what that run left behind goes first
        let made = C.create(Some("tap0"), None, 1, PERSIST).unwrap();
        hold("tap0", &made.queues).unwrap();
        drop(made);
        save("tap0").unwrap();
        assert!(gone("tap0"));
        restore("tap0").unwrap();
        nothing_recorded();
    }
}

/// A manager that comes back and finds its hypervisors running.
fn reclaimed_after_a_restart() {
    need_users();
    for flags in kinds() {
        let before = bridged(flags);
        let queue = {
            save("tap0").unwrap();
            tun::open("tap0", flags).unwrap()
        };
        let holder = Holder::of(&queue);
        drop(queue);
        assert_eq!(reclaim("tap0", std::process::id() as i32).is_err(), flags & tun::MULTI_QUEUE == 0);
        reclaim("tap0", holder.pid()).unwrap();
        let files = open_files();
        reclaim("tap0", 0).unwrap();
        assert_eq!(files, open_files(), "once is enough");
        // what the hypervisor does now is in vain
        let pidfd = nix::unistd::Pid::from_raw(holder.pid());
        let theirs = common::state::file_of(pidfd, "tap0");
        clear_persist(&theirs);
        drop(theirs);
        drop(holder);
        assert!(exists("tap0"));
        assert_eq!(restore("tap0").unwrap(), Fields::PERSIST);
        looks_like(&before, "tap0", Some("br0"));
        // nobody has it
        save("tap0").unwrap();
        assert_eq!(reclaim("tap0", 0).unwrap_err().errno, Errno::ESRCH);
        assert_eq!(reclaim("tap0", 1).unwrap_err().errno, Errno::ESRCH);
        discard("tap0").unwrap();
        assert_eq!(reclaim("tap0", 0).unwrap_err().errno, Errno::ENOENT);
        end(flags);
    }
}

/// All 256 queues are the hypervisor's: no room for one of ours.
fn reclaimed_from_a_full_tap() {
    let before = bridged(MULTI);
    save("tap0").unwrap();
    let queues: Vec<_> = (0..256).map(|_| tun::open("tap0", MULTI).unwrap()).collect();
    let holder = Holder::of(&queues[3]);
    reclaim("tap0", holder.pid()).unwrap();
    clear_persist(&queues[0]);
    drop((queues, holder));
    assert_eq!(restore("tap0").unwrap(), Fields::PERSIST);
    looks_like(&before, "tap0", Some("br0"));
    end(MULTI);
}

/// A hypervisor in a network namespace of its own, as the hostile one may make it.
fn reclaimed_from_another_namespace() {
    let before = bridged(SINGLE);
    save("tap0").unwrap();
    let queue = tun::open("tap0", SINGLE).unwrap();
    let holder = Holder::elsewhere(&queue);
    drop(queue);
    let failure = restore("tap0").unwrap_err();
    assert!(failure.text.contains(&format!("(pid {})", holder.pid())), "{failure:?}");
    reclaim("tap0", holder.pid()).unwrap();
    clear_persist(&common::state::file_of(nix::unistd::Pid::from_raw(holder.pid()), "tap0"));
    drop(holder);
    assert_eq!(restore("tap0").unwrap(), Fields::PERSIST);
    looks_like(&before, "tap0", Some("br0"));
    end(SINGLE);
}

/// Not persistent and not ours: it lives as long as somebody else has it.
fn a_tap_that_somebody_else_keeps_alive() {
    let other = tun::open("tap0", MULTI).unwrap();
    save("tap0").unwrap();
    let queue = tun::open("tap0", MULTI).unwrap();
    hold("tap0", &[queue.try_clone().unwrap()]).unwrap();
    drop((other, queue));
    assert!(exists("tap0"), "the guard has it");
    assert_eq!(restore("tap0").unwrap(), Fields::VANISHED | Fields::UNRESTORED);
    assert!(gone("tap0"));
    nothing_recorded();
}

fn without_a_record() {
    assert_eq!(restore("tap0").unwrap(), Fields::empty());
    assert_eq!(check("tap0").unwrap(), Fields::empty());
    discard("tap0").unwrap();
    assert_eq!(list(), [""; 0]);
    assert!(!std::path::Path::new(common::state::DIR).exists(), "looking makes no directory");
    assert_eq!(hold("tap0", &[]).unwrap_err().errno, Errno::ENODEV);
    nothing_recorded();
    // a file of another device
    tun::make("tap0", SINGLE);
    let other = tun::open("other0", SINGLE).unwrap();
    save("tap0").unwrap();
    assert_eq!(hold("tap0", &[other.try_clone().unwrap()]).unwrap_err().errno, Errno::EINVAL);
    assert_eq!(hold("tap0", &[std::fs::File::open("/dev/null").unwrap().into()]).unwrap_err().errno, Errno::ENOTTY);
    for name in ["lo", "br9"] {
        if name == "br9" {
            ip("link add br9 type bridge");
        }
        assert_eq!(save(name).unwrap_err().errno, Errno::EINVAL);
    }
    assert_eq!(list(), ["tap0"]);
    restore("tap0").unwrap();
    nothing_recorded();
}

netns_tests![
    an_untouched_tap,
    the_guard_reads_nothing_and_is_not_inherited,
    an_accomplice,
    an_accomplice_that_goes_on,
    a_file_in_flight,
    renamed_while_held,
    moved_to_another_namespace,
    a_stranger_takes_the_name,
    vanished,
    vanished_with_its_bridge,
    flags_of_restore,
    a_tap_that_was_absent,
    an_absent_tap_and_strangers,
    a_new_start_after_a_crash,
    reclaimed_after_a_restart,
    reclaimed_from_a_full_tap,
    reclaimed_from_another_namespace,
    a_tap_that_somebody_else_keeps_alive,
    without_a_record,
];
