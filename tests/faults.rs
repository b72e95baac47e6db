//! Each system call of each function fails once: the function fails and leaves everything as it was, or does its work.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{ALLOW_EXISTING, C, NONE, Outcome, PERSIST, TapApi, VNET_HDR, outcome};
use common::faults::{Scenario, Tally, refused, tap, taps, unseen};
use common::net::ip_batch;
use common::process::Holder;
use common::steps::piece;
use common::tun;
use nix::errno::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;
use virnetdevtap::capi::{self, types::virDomainInterfaceStatsStruct};

fn nothing() {}

fn old() {
    tap("old0");
}

fn creating() {
    let mut tally = Tally::default();
    let new = [
        ("named", Some("tap0"), 1, NONE),
        ("generated name", None, 1, NONE),
        ("persistent", Some("tap0"), 1, PERSIST),
        ("4 queues", Some("tap0"), 4, NONE),
        ("4 queues, persistent", Some("tap0"), 4, PERSIST | VNET_HDR),
        ("no queue", Some("tap0"), 0, PERSIST),
    ];
    for (case, name, queues, flags) in new {
        tally.whole(&format!("Create: {case}"), &nothing, &|()| C.create(name, None, queues, flags));
    }
    let existing = [
        ("existing", "old0", 1, NONE),
        ("existing, other flags", "old0", 1, VNET_HDR),
        ("existing with packet information", "pi0", 1, NONE),
        ("existing with NAPI", "napi0", 1, VNET_HDR),
        ("existing multi-queue", "multi0", 1, NONE),
        ("existing multi-queue, 4 queues", "multi0", 4, VNET_HDR),
    ];
    for (case, name, queues, flags) in existing {
        let call = |_: &()| C.create(Some(name), None, queues, flags | ALLOW_EXISTING);
        tally.whole(&format!("Create: {case}"), &|| tap(name), &call);
    }
    let missing = |_: &()| C.create(Some("tap0"), None, 2, PERSIST | ALLOW_EXISTING);
    tally.whole("Create: missing, existing allowed", &nothing, &missing);
    let taken = |_: &()| refused(C.create(Some("old0"), None, 1, PERSIST), Errno::EEXIST, "already exists");
    tally.whole("Create: taken", &old, &taken);
    let single = |_: &()| refused(C.create(Some("old0"), None, 2, ALLOW_EXISTING), Errno::EINVAL, "multi_queue");
    tally.whole("Create: too many queues", &old, &single);
    tally.finish("virNetDevTapCreate");
}

fn held(name: &str, flags: u16) -> (OwnedFd, Holder) {
    tap(name);
    let queue = tun::open_soon(name, flags);
    let holder = Holder::of(&queue);
    (queue, holder)
}

fn deleting() {
    let mut tally = Tally::default();
    for name in ["old0", "pi0", "multi0", "napi0"] {
        tally.whole(&format!("Delete: {name}"), &|| tap(name), &|()| C.delete(name, None));
    }
    tally.whole("Delete: missing", &old, &|()| C.delete("missing0", None));
    let call = |_: &_| refused(C.delete("old0", None), Errno::EBUSY, "held by sleep");
    let setup = || {
        let (queue, holder) = held("old0", tun::TAP | tun::NO_PI);
        drop(queue);
        holder
    };
    tally.whole("Delete: held", &setup, &call);
    let bridge = || ip_batch("link add br0 type bridge\n");
    tally.whole("Delete: a bridge", &bridge, &|()| refused(C.delete("br0", None), Errno::EINVAL, "bridge"));
    tally.finish("virNetDevTapDelete");
}

fn strings(names: &[&str]) -> (Vec<CString>, Vec<*const libc::c_char>) {
    let strings: Vec<_> = names.iter().map(|name| CString::new(*name).unwrap()).collect();
    let pointers = strings.iter().map(|string| string.as_ptr()).collect();
    (strings, pointers)
}

fn delete_list(names: &[&str]) -> Outcome<()> {
    let (_strings, pointers) = strings(names);
    let mut errnos = vec![-1; names.len()];
    // SAFETY: so many strings and numbers
    let call = || unsafe { capi::virNetDevTapDeleteList(pointers.as_ptr(), names.len(), ptr::null(), errnos.as_mut_ptr()) };
    let rc = piece(call);
    let result = outcome(rc);
    // one that is missing has an error where it could not be looked for
    for (name, errno) in names.iter().zip(&errnos).filter(|(name, _)| !name.starts_with("missing")) {
        assert_eq!(common::net::exists(name), *errno != 0, "{name} {errno}");
    }
    assert_eq!(rc == 0, errnos.iter().all(|errno| *errno == 0), "{rc} {errnos:?}");
    result
}

/// What is not deleted is as it was; so it is asked for in the call, where that is known.
fn deleting_many() {
    let mut tally = Tally::default();
    let names = ["old0", "missing0", "pi0", "multi0"];
    let call = |_: &()| {
        let looks = names.map(|name| common::net::exists(name).then(|| common::net::look(name)));
        let result = delete_list(&names);
        for (name, before) in names.iter().zip(looks) {
            if common::net::exists(name) {
                common::net::assert_as(&before.unwrap(), name);
            }
        }
        result
    };
    tally.each_call_fails(&Scenario { name: "DeleteList", setup: &taps, call: &call, partly: true });
    tally.finish("virNetDevTapDeleteList");
}

fn stats_list(names: &[&str]) -> Outcome<()> {
    let (_strings, pointers) = strings(names);
    let nothing = virDomainInterfaceStatsStruct {
        rx_bytes: -9,
        rx_packets: -9,
        rx_errs: -9,
        rx_drop: -9,
        tx_bytes: -9,
        tx_packets: -9,
        tx_errs: -9,
        tx_drop: -9,
    };
    let mut stats = vec![nothing; names.len()];
    let untouched = stats.clone();
    // SAFETY: so many strings and structs
    let found = unsafe { capi::virNetDevTapInterfaceStatsList(pointers.as_ptr(), names.len(), stats.as_mut_ptr(), false) };
    if found < 0 {
        assert_eq!(stats, untouched);
        return Err(outcome(found).unwrap_err());
    }
    assert_eq!(found as usize, names.iter().filter(|name| !name.starts_with("missing")).count());
    assert!(names.iter().zip(&stats).all(|(name, stats)| (stats.rx_bytes == -1) == name.starts_with("missing")));
    Ok(())
}

fn looking() {
    let mut tally = Tally::default();
    let open = || tun::open("tap0", tun::TAP).unwrap();
    tally.whole("GetName", &open, &|queue: &OwnedFd| C.name_of(queue.as_fd()).map(|name| assert_eq!(name, "tap0")));
    let real = |_: &()| {
        assert!(capi::virNetDevTapGetRealDeviceName(ptr::null_mut()).is_null());
        Ok(())
    };
    tally.whole("GetRealDeviceName", &nothing, &real);
    tally.whole("InterfaceStats", &old, &|()| C.stats("old0"));
    let missing = |_: &()| refused(C.stats("missing0"), Errno::ENODEV, "not found");
    tally.whole("InterfaceStats: missing", &nothing, &missing);
    let names = ["old0", "missing0", "lo", "pi0", "multi0", "lo"];
    tally.whole("InterfaceStatsList: 3", &taps, &|()| stats_list(&names[..3]));
    tally.whole("InterfaceStatsList: 6", &taps, &|()| stats_list(&names));
    let many: Vec<_> = names.iter().copied().cycle().take(100).collect();
    tally.whole("InterfaceStatsList: 100", &taps, &|()| stats_list(&many));
    tally.whole("GetPersist", &old, &|()| C.get_persist("old0").map(|persist| assert!(persist)));
    let setup = || held("old0", tun::TAP | tun::NO_PI);
    let call = |(_, holder): &(OwnedFd, Holder)| {
        let pids = C.holders("old0")?;
        let mut both = [std::process::id() as i32, holder.pid()];
        both.sort();
        // who may not look at one of them does not find it
        assert!(pids == both || (unseen() && pids.iter().all(|pid| both.contains(pid))), "{pids:?}, not {both:?}");
        Ok(())
    };
    tally.whole("GetHolders", &setup, &call);
    tally.finish("functions that look");
}

fn persist() {
    let mut tally = Tally::default();
    for name in ["old0", "pi0", "multi0"] {
        tally.whole(&format!("SetPersist: {name}, false"), &|| tap(name), &|()| C.set_persist(name, None, false));
    }
    tally.whole("SetPersist: already so", &old, &|()| C.set_persist("old0", None, true));
    let setup = || tun::open("tap0", tun::TAP | tun::MULTI_QUEUE | tun::VNET_HDR).unwrap();
    tally.whole("SetPersist: multi-queue in use, true", &setup, &|_| C.set_persist("tap0", None, true));
    let setup = || held("multi0", tun::TAP | tun::NO_PI | tun::MULTI_QUEUE);
    tally.whole("SetPersist: multi-queue in use, false", &setup, &|_| C.set_persist("multi0", None, false));
    tally.finish("virNetDevTapSetPersist");
}

shared_netns_tests![creating, deleting, deleting_many, looking, persist];
