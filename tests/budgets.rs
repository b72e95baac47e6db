//! No function makes more system calls than docs/performance.md says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{ALLOW_EXISTING, C, NONE, PERSIST, TapApi, c_stats, outcome};
use common::net::{ip, ip_batch};
use common::strace::{marked, summary, trace};
use common::{figure, tun};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;
use virnetdevtap::capi;

const DOC: &str = include_str!("../docs/performance.md");
const EXPORTS: &str = include_str!("../virnetdevtap.syms");

/// The rows "| `function` | case | calls |" of the document.
fn budgets() -> BTreeMap<String, usize> {
    let rows = DOC.lines().filter(|line| line.starts_with("| `virNetDevTap"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let function = cells[1].trim_matches('`');
        (format!("{function}: {}", cells[2]), cells[3].parse().expect("a number"))
    })
    .collect()
}

fn strings(names: &[String]) -> Vec<CString> {
    names.iter().map(|name| CString::new(name.as_str()).unwrap()).collect()
}

fn pointers(names: &[CString]) -> Vec<*const c_char> {
    names.iter().map(|name| name.as_ptr()).collect()
}

fn many(count: usize) -> Vec<CString> {
    ip_batch(&(0..count).map(|i| format!("tuntap add t{i} mode tap\n")).collect::<String>());
    strings(&(0..count).map(|i| format!("t{i}")).collect::<Vec<_>>())
}

fn creating_and_deleting() {
    drop(C.create(None, None, 1, PERSIST).unwrap()); // what is set up only once
    C.delete("vnet0", None).unwrap();
    let one = marked("virNetDevTapCreate: new", || C.one("tap0", NONE));
    let generated = marked("virNetDevTapCreate: new, generated name", || C.create(None, None, 1, NONE).unwrap());
    let kept = marked("virNetDevTapCreate: new, persistent", || C.one("keep0", PERSIST));
    let four = marked("virNetDevTapCreate: new, 4 queues", || C.create(Some("tap4"), None, 4, NONE).unwrap());
    marked("virNetDevTapCreate: name taken", || C.create(Some("tap0"), None, 1, NONE).unwrap_err());
    drop(kept);
    drop(marked("virNetDevTapCreate: existing", || C.one("keep0", ALLOW_EXISTING)));
    marked("virNetDevTapGetName: a tap", || C.name_of(one.queues[0].as_fd()).unwrap());
    marked("virNetDevTapGetRealDeviceName: on Linux", || capi::virNetDevTapGetRealDeviceName(ptr::null_mut()));
    marked("virNetDevTapGetPersist: a tap", || C.get_persist("keep0").unwrap());
    marked("virNetDevTapSetPersist: already so", || C.set_persist("keep0", None, true).unwrap());
    tun::make("gone0", tun::TAP | tun::NO_PI);
    marked("virNetDevTapSetPersist: a free tap", || C.set_persist("gone0", None, false).unwrap());
    marked("virNetDevTapDelete: missing", || C.delete("missing0", None).unwrap());
    marked("virNetDevTapDelete: one queue", || C.delete("keep0", None).unwrap());
    tun::make("multi0", tun::TAP | tun::MULTI_QUEUE);
    marked("virNetDevTapDelete: multi-queue", || C.delete("multi0", None).unwrap());
    drop((one, generated, four));
}

fn errors_and_logs() {
    C.delete("", None).unwrap_err();
    marked("virNetDevTapGetLastErrorMessage: after a failure", || {
        // SAFETY: the library's string
        let _ = unsafe { CStr::from_ptr(capi::virNetDevTapGetLastErrorMessage()) };
    });
    marked("virNetDevTapGetLastErrorCode: after a failure", || capi::virNetDevTapGetLastErrorCode());
    marked("virNetDevTapGetLastErrorErrno: after a failure", || capi::virNetDevTapGetLastErrorErrno());
    // SAFETY: NULL is no function
    marked("virNetDevTapSetLogFunc: none", || unsafe { capi::virNetDevTapSetLogFunc(None, ptr::null_mut()) });
}

fn bridges() {
    use virnetdevtap::capi::types::{virMacAddr, virTristateBool::VIR_TRISTATE_BOOL_ABSENT as ABSENT};
    ip_batch("link add br0 type bridge\nlink add br1 type bridge\nlink set br0 up\nlink set br1 up\n");
    let mac = virMacAddr { addr: [0x52, 0x54, 0, 0, 0, 1] };
    let (uuid, none) = ([0_u8; 16], ptr::null_mut::<u8>());
    let (mut fd, mut name) = (-1, common::api::strdup(c"port0"));
    let (br0, br1) = (c"br0".as_ptr(), c"br1".as_ptr());
    let (no_profile, no_vlan) = (ptr::null(), ptr::null());
    let create = || unsafe {
        // SAFETY: strings, an address, room for one file, and NULL where that means nothing
        capi::virNetDevTapCreateInBridgePort(
            br0,
            &raw mut name,
            &raw const mac,
            uuid.as_ptr(),
            ptr::null(),
            &raw mut fd,
            1,
            no_profile,
            no_vlan,
            ABSENT as _,
            none.cast(),
            0,
            none.cast(),
            1,
        )
    };
    outcome(marked("virNetDevTapCreateInBridgePort: new", create)).unwrap();
    let tap = c"port0".as_ptr();
    let attach = |bridge| {
        // SAFETY: as above
        unsafe {
            capi::virNetDevTapAttachBridge(
                tap,
                bridge,
                &raw const mac,
                uuid.as_ptr(),
                no_profile,
                no_vlan,
                ABSENT as _,
                0,
                none.cast(),
            )
        }
    };
    let reattach = |bridge| {
        // SAFETY: as above
        unsafe {
            capi::virNetDevTapReattachBridge(
                tap,
                bridge,
                &raw const mac,
                uuid.as_ptr(),
                no_profile,
                no_vlan,
                ABSENT as _,
                0,
                none.cast(),
                false as _,
            )
        }
    };
    outcome(marked("virNetDevTapReattachBridge: same bridge", || reattach(br0))).unwrap();
    outcome(marked("virNetDevTapReattachBridge: another bridge", || reattach(br1))).unwrap();
    ip("link set port0 nomaster");
    outcome(marked("virNetDevTapAttachBridge: Linux bridge", || attach(br0))).unwrap();
    common::api::take_string(name);
    // SAFETY: ours
    drop(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) });
}

fn statistics() {
    let names = many(1000);
    let pointers = pointers(&names);
    let mut stats = vec![c_stats("lo", false).unwrap(); 1000];
    let mut list = |n: usize| {
        // SAFETY: at least as many names and structs
        let found = unsafe { capi::virNetDevTapInterfaceStatsList(pointers.as_ptr(), n, stats.as_mut_ptr(), false) };
        assert_eq!(found as usize, n);
    };
    list(100);
    marked("virNetDevTapInterfaceStats: one of 1000", || C.stats("t999").unwrap());
    marked("virNetDevTapInterfaceStatsList: 10 of 1000", || list(10));
    marked("virNetDevTapInterfaceStatsList: 1000 of 1000", || list(1000));
    let delete = |range: std::ops::Range<usize>| {
        // SAFETY: names of ours
        outcome(unsafe {
            capi::virNetDevTapDeleteList(pointers[range.clone()].as_ptr(), range.len(), ptr::null(), ptr::null_mut())
        })
        .unwrap();
    };
    delete(0..2);
    marked("virNetDevTapDeleteList: 32 taps", || delete(2..34));
    marked("virNetDevTapDeleteList: 320 taps", || delete(34..354));
    marked("virNetDevTapDeleteList: 32 missing", || delete(2..34));
}

fn state() {
    ip_batch("tuntap add tap0 mode tap\ntuntap add port0 mode tap\nlink set port0 master br0 up\n");
    std::fs::create_dir("/tmp/state").unwrap();
    let dir = c"/tmp/state".as_ptr();
    for round in ["", "first "] {
        // the second round counts: what is read once per process is known
        let say = |what: &str| if round.is_empty() { "ignored".to_owned() } else { what.to_owned() };
        for (name, what) in [(c"tap0", "a free tap"), (c"port0", "a bridge port")] {
            // SAFETY: strings
            outcome(marked(&say(&format!("virNetDevTapStateSave: {what}")), || unsafe {
                capi::virNetDevTapStateSave(name.as_ptr(), dir)
            }))
            .unwrap();
            let made = C.one(name.to_str().unwrap(), ALLOW_EXISTING);
            let fd = made.queues[0].as_raw_fd();
            let what_of = |function: &str| say(&format!("virNetDevTapState{function}: {what}"));
            // SAFETY: strings, and one file
            outcome(marked(&what_of("Hold"), || unsafe { capi::virNetDevTapStateHold(name.as_ptr(), dir, &raw const fd, 1) }))
                .unwrap();
            let pid = std::process::id() as i32;
            // SAFETY: strings
            outcome(marked(&what_of("Reclaim"), || unsafe { capi::virNetDevTapStateReclaim(name.as_ptr(), dir, pid) })).unwrap();
            // SAFETY: strings
            outcome(marked(&what_of("Check"), || unsafe { capi::virNetDevTapStateCheck(name.as_ptr(), dir, ptr::null_mut()) }))
                .unwrap();
            let mut names = ptr::null_mut();
            // SAFETY: a string, and room for a pointer
            assert_eq!(marked(&what_of("List"), || unsafe { capi::virNetDevTapStateList(dir, &raw mut names) }), 1);
            // SAFETY: the array has one name
            drop(common::api::take_string(unsafe { *names }));
            // SAFETY: from malloc(), and ours
            unsafe { libc::free(names.cast()) };
            drop(made);
            let restore = || unsafe {
                // SAFETY: strings
                capi::virNetDevTapStateRestore(name.as_ptr(), ptr::null(), dir, 0, ptr::null_mut())
            };
            outcome(marked(&what_of("Restore"), restore)).unwrap();
            // SAFETY: strings
            outcome(unsafe { capi::virNetDevTapStateSave(name.as_ptr(), dir) }).unwrap();
            // SAFETY: strings
            outcome(marked(&what_of("Discard"), || unsafe { capi::virNetDevTapStateDiscard(name.as_ptr(), dir) })).unwrap();
        }
    }
}

/// Taps that were not there before and that a hypervisor has made persistent.
fn state_of_many() {
    let names = strings(&(0..34).map(|i| format!("own{i}")).collect::<Vec<_>>());
    let pointers = pointers(&names);
    let dir = c"/tmp/state".as_ptr();
    for name in &names {
        let queue = C.create(Some(name.to_str().unwrap()), None, 1, NONE).unwrap().queues.remove(0);
        let fd = queue.as_raw_fd();
        // SAFETY: strings, and one file
        outcome(unsafe { capi::virNetDevTapStateHold(name.as_ptr(), dir, &raw const fd, 1) }).unwrap();
        tun::set_persist(&queue, true);
    }
    let restore = |names: &[*const c_char]| unsafe {
        // SAFETY: strings
        capi::virNetDevTapStateRestoreList(names.as_ptr(), names.len(), ptr::null(), dir, 0, ptr::null_mut(), ptr::null_mut())
    };
    outcome(restore(&pointers[..2])).unwrap();
    outcome(marked("virNetDevTapStateRestoreList: 32 taps, absent before", || restore(&pointers[2..]))).unwrap();
}

fn within_its_budget() {
    let pieces = trace(|| {
        creating_and_deleting();
        errors_and_logs();
        bridges();
        state();
        state_of_many();
        statistics();
    });
    let budgets = budgets();
    let mut over = Vec::new();
    for (what, calls) in pieces.iter().filter(|(what, _)| *what != "ignored") {
        figure(&format!("{what}: {} system calls: {}", calls.len(), summary(calls)));
        match budgets.get(what) {
            Some(budget) if calls.len() <= *budget => {}
            budget => over.push(format!("{what}: {} calls, budget {budget:?}: {calls:#?}", calls.len())),
        }
    }
    assert!(over.is_empty(), "{}", over.join("\n"));
    let unmeasured: Vec<_> = budgets.keys().filter(|what| !pieces.contains_key(*what)).collect();
    assert!(unmeasured.is_empty(), "in the document, but not measured: {unmeasured:?}");
}

/// Each exported function has a row, or is said to depend on something else.
fn every_function_has_a_budget() {
    for function in EXPORTS.lines().filter(|line| line.starts_with("vir")) {
        let mentioned = DOC.lines().filter(|line| line.contains(&format!("`{function}`")));
        assert!(mentioned.count() > 0, "{function} is not in docs/performance.md");
    }
}

#[test]
fn documented() {
    every_function_has_a_budget();
}

netns_tests![within_its_budget];
