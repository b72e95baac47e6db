//! Many devices with one call.
#![allow(
    clippy::multiple_unsafe_ops_per_block,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{C, Counters, NONE, Outcome, PERSIST, TapApi, c_stats, last_failure, outcome};
use common::net::{assert_as, exists, frame, interfaces, ip, ip_batch, ip_says, look, send_from_guest, set_up_quietly, soon};
use common::process::{NOBODY, TUN_NODE, as_nobody, node, with_room_for};
use common::steps::killed_at;
use common::{count, tun};
use nix::errno::Errno;
use std::ffi::{CString, c_char};
use std::ptr;
use virnetdevtap::capi::{self, types::virDomainInterfaceStatsStruct};
use virnetdevtap::stats::interface_stats_list;
use virnetdevtap::tap::interface_name;

const UNTOUCHED: i64 = -9;

fn strings(names: &[&str]) -> Vec<CString> {
    names.iter().map(|name| CString::new(*name).unwrap()).collect()
}

fn counters(s: &virDomainInterfaceStatsStruct) -> [i64; 8] {
    [s.rx_bytes, s.rx_packets, s.rx_errs, s.rx_drop, s.tx_bytes, s.tx_packets, s.tx_errs, s.tx_drop]
}

fn filled(value: i64) -> virDomainInterfaceStatsStruct {
    let (a, b) = (value, value);
    virDomainInterfaceStatsStruct {
        rx_bytes: a,
        rx_packets: a,
        rx_errs: a,
        rx_drop: a,
        tx_bytes: b,
        tx_packets: b,
        tx_errs: b,
        tx_drop: b,
    }
}

/// The number found, and what stands in the array. One element more than asked for must stay as it is.
fn stats_list(names: &[&str], swapped: bool) -> Outcome<(i32, Vec<[i64; 8]>)> {
    let names = strings(names);
    let pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let mut stats = vec![filled(UNTOUCHED); names.len() + 1];
    // SAFETY: as many names and structs as said
    let found = unsafe { capi::virNetDevTapInterfaceStatsList(pointers.as_ptr(), pointers.len(), stats.as_mut_ptr(), swapped) };
    let stats: Vec<_> = stats.iter().map(counters).collect();
    assert_eq!(stats.last(), Some(&[UNTOUCHED; 8]), "wrote past the array");
    if found < 0 {
        assert!(stats.iter().flatten().all(|&counter| counter == UNTOUCHED), "a failing call leaves the array");
        return Err(last_failure());
    }
    Ok((found, stats[..names.len()].to_vec()))
}

/// Both ways that the library has: one by one, and a dump.
fn few_and_many_names() -> [Vec<&'static str>; 2] {
    let some = vec!["tap1", "lo", "missing0", "tap0", "ap1", "tap10", "tap0", "alias0"];
    let mut many = some.clone();
    many.extend(std::iter::repeat_n("tap0", 100));
    [some, many]
}

fn exact_names_in_any_order() {
    ip_batch("tuntap add tap0 mode tap\ntuntap add tap10 mode tap\nlink property add dev tap10 altname alias0\n");
    let made = C.one("tap1", NONE);
    set_up_quietly("tap1");
    for _ in 0..3 {
        send_from_guest(&made.queues[0], &frame(100));
    }
    for names in few_and_many_names() {
        let (found, stats) = stats_list(&names, false).unwrap();
        assert_eq!(stats[0], counters(&c_stats("tap1", false).unwrap()));
        assert_eq!(stats[0][..2], [300, 3]);
        assert_eq!(stats[1], counters(&c_stats("lo", false).unwrap()));
        assert_eq!(stats[2], [-1; 8], "no such interface");
        assert_eq!(stats[4], [-1; 8], "the end of a name is no name");
        assert_eq!(stats[7], [-1; 8], "an alternative name is not in /proc/net/dev either");
        for i in (3..names.len()).filter(|i| ![4, 7].contains(i)) {
            assert_eq!(stats[i], [0; 8], "{}", names[i]);
        }
        assert_eq!(found as usize, names.len() - 3);
        let (_, swapped) = stats_list(&names, true).unwrap();
        assert_eq!(swapped[0], counters(&c_stats("tap1", true).unwrap()));
        assert_eq!(swapped[0][4..6], [300, 3]);
        assert_eq!(swapped[2], [-1; 8]);
        let rust = names.iter().map(|name| interface_name(name.as_bytes()).unwrap()).collect::<Vec<_>>();
        let rust = interface_stats_list(&rust).unwrap();
        assert_eq!(rust[0].map(|s| (s.rx_bytes, s.rx_packets)), Some((300, 3)));
        assert_eq!(rust[2], None);
    }
    assert_eq!(stats_list(&[], false).unwrap(), (0, vec![]));
}

fn the_same_as_one_at_a_time() {
    let many = count(1000, 50);
    ip_batch(&(0..many).map(|i| format!("tuntap add t{i} mode tap\n")).collect::<String>());
    let names: Vec<String> = (0..many).rev().map(|i| format!("t{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (found, stats) = stats_list(&names, false).unwrap();
    assert_eq!(found as usize, many);
    let one: Counters = C.stats("t7").unwrap();
    let of_list = stats[names.iter().position(|name| *name == "t7").unwrap()];
    assert_eq!(of_list.map(|counter| counter as u64), one);
    ip("link del t7");
    let (found, stats) = stats_list(&names, false).unwrap();
    assert_eq!(found as usize, many - 1);
    assert_eq!(stats.iter().filter(|stats| **stats == [-1; 8]).count(), 1);
}

fn bad_statistics_input() {
    for names in [vec!["lo", ""], vec!["lo", "a234567890123456"], vec!["a/b"], vec!["x%d"]] {
        let failure = stats_list(&names, false).unwrap_err();
        assert!([Errno::EINVAL, Errno::ERANGE].contains(&failure.errno), "{failure:?}");
    }
    let lo = c"lo";
    let mut stats = filled(UNTOUCHED);
    let list: unsafe extern "C" fn(_, _, _, _) -> _ = capi::virNetDevTapInterfaceStatsList;
    let pointers = [lo.as_ptr(), ptr::null()];
    // SAFETY: pointers are valid or NULL, as the function takes them
    unsafe {
        assert_eq!(list(pointers.as_ptr(), 2, &raw mut stats, false), -1, "a NULL among the names");
        assert_eq!(last_failure().errno, Errno::EINVAL);
        assert_eq!(list(ptr::null(), 1, &raw mut stats, false), -1);
        assert_eq!(list(ptr::null(), usize::MAX, &raw mut stats, false), -1);
        assert_eq!(list(pointers.as_ptr(), usize::MAX, &raw mut stats, false), -1);
        assert_eq!(list(pointers.as_ptr(), 1, ptr::null_mut(), false), -1);
        assert_eq!(list(ptr::null(), 0, ptr::null_mut(), false), 0);
    }
    assert_eq!(counters(&stats), [UNTOUCHED; 8]);
}

/// 0 or -1 with the error, and what stands in errnos.
fn delete_list(names: &[&str]) -> (Outcome<()>, Vec<Errno>) {
    const UNTOUCHED: i32 = -7;
    let names = strings(names);
    let pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let mut errnos = vec![UNTOUCHED; names.len() + 1];
    // SAFETY: as many names and numbers as said
    let rc = unsafe { capi::virNetDevTapDeleteList(pointers.as_ptr(), pointers.len(), ptr::null(), errnos.as_mut_ptr()) };
    let result = outcome(rc);
    assert_eq!(errnos.pop(), Some(UNTOUCHED), "wrote past the array");
    (result, errnos.into_iter().map(Errno::from_raw).collect())
}

const OK: Errno = Errno::UnknownErrno;

fn make_many(many: usize) -> Vec<String> {
    ip_batch(&(0..many).map(|i| format!("tuntap add t{i} mode tap\n")).collect::<String>());
    (0..many).map(|i| format!("t{i}")).collect()
}

fn strs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn many_at_once() {
    for many in [0, 1, 2, 3, 31, 32, 33, count(300, 40)] {
        let names = make_many(many);
        let (result, errnos) = delete_list(&strs(&names));
        assert_eq!(result, Ok(()));
        assert_eq!(errnos, vec![OK; many]);
        assert!(interfaces().is_empty());
    }
}

/// Everything that there is to be met, and all else is gone.
fn what_must_stay_stays() {
    let held = C.create(Some("held0"), None, 1, PERSIST).unwrap();
    let held_multi = C.create(Some("heldm0"), None, 2, PERSIST).unwrap();
    tun::detach(&held_multi.queues[0]);
    tun::make("tun0", tun::TUN);
    tun::make("multi0", tun::TAP | tun::MULTI_QUEUE | tun::VNET_HDR);
    tun::make("other0", tun::TAP);
    ip_batch(
        "link add br0 type bridge\nlink add veth0 type veth peer veth1\ntuntap add in0 mode tap\nlink set in0 master br0 up\n\
         link set held0 group 7 up\ntuntap add g0 mode tap\nlink set g0 group 7\nlink add d0 type bridge\nlink set d0 group 7\n",
    );
    let names =
        ["tun0", "multi0", "missing0", "held0", "br0", "in0", "g0", "veth0", "lo", "in0", "heldm0", "d0", "a234567890123456", ""];
    let stay = ["other0", "veth0", "veth1", "held0", "heldm0", "tun0", "br0", "d0"];
    let before = stay.map(look);
    let (result, errnos) = delete_list(&names);
    let failure = result.unwrap_err();
    assert_eq!(failure.errno, Errno::EINVAL, "{failure:?}");
    assert!(failure.text.contains("tun0") && failure.text.contains("not a tap"), "of the first that failed: {failure:?}");
    let (wrong, busy) = (Errno::EINVAL, Errno::EBUSY);
    assert_eq!(errnos, [wrong, OK, OK, busy, wrong, OK, OK, wrong, wrong, OK, busy, wrong, Errno::ERANGE, wrong]);
    let mut left = stay.to_vec();
    left.sort();
    assert_eq!(interfaces(), left);
    for (before, name) in before.iter().zip(stay) {
        if name != "br0" {
            assert_as(before, name); // the bridge has lost a port
        }
    }
    let (result, _) = delete_list(&["missing0", "held0"]);
    let failure = result.unwrap_err();
    assert!(failure.text.contains(&format!("(pid {})", std::process::id())), "{failure:?}");
    drop((held, held_multi));
    assert_eq!(delete_list(&["held0", "heldm0"]).0, Ok(()));
}

/// One that is let go while the call waits goes, too.
fn a_holder_that_goes_is_waited_for() {
    let names = make_many(5);
    let held = tun::open("t3", tun::TAP | tun::NO_PI).unwrap();
    let caller = std::thread::spawn(move || delete_list(&strs(&names)).1);
    assert!(soon(|| interfaces() == ["t3"]), "the others do not wait");
    drop(held);
    assert_eq!(caller.join().unwrap(), vec![OK; 5]);
    assert!(interfaces().is_empty());
}

/// Even a single one more that can be opened is enough.
fn with_little_room_for_files() {
    for room in [0, 1, 2, 3, 7] {
        let names = make_many(10);
        let (result, errnos) = with_room_for(room, || delete_list(&strs(&names)));
        if room >= 3 {
            assert_eq!((result, errnos), (Ok(()), vec![OK; 10]), "room for {room}");
        } else {
            let gone = errnos.iter().filter(|errno| **errno == OK).count();
            assert_eq!(interfaces().len(), 10 - gone, "room for {room}");
            assert!(gone == 10 || result.unwrap_err().errno == Errno::EMFILE);
        }
        delete_list(&strs(&names)).0.unwrap();
    }
}

/// The kernel lets them at no groups, but at their own taps.
fn by_the_owner_of_the_taps() {
    node("/tmp/tun", TUN_NODE, 0o666);
    for name in ["mine0", "mine1", "mine2"] {
        tun::make_owned(name, tun::TAP, NOBODY);
    }
    tun::make_owned("roots0", tun::TAP, 0);
    as_nobody(|| {
        let names = ["mine0", "roots0", "mine1", "mine2"].map(|name| interface_name(name.as_bytes()).unwrap());
        let results = virnetdevtap::tap::delete_list(&names, Some(c"/tmp/tun"));
        let errnos = results.iter().map(|result| result.as_ref().err().map(virnetdevtap::Error::errno));
        assert!(errnos.eq([None, Some(Errno::EPERM), None, None]), "{results:?}");
    });
    assert!(soon(|| interfaces() == ["roots0"]));
    assert_eq!(ip_says("-j link show group default type tun").matches("roots0").count(), 1);
}

/// Two managers that tidy up at the same time.
fn the_same_taps_twice_at_once() {
    for _ in 0..count(5, 1) {
        let names = make_many(60);
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..3).map(|_| scope.spawn(|| delete_list(&strs(&names)))).collect();
            for caller in callers {
                let (result, errnos) = caller.join().unwrap();
                assert_eq!((result, errnos), (Ok(()), vec![OK; 60]));
            }
        });
        assert!(interfaces().is_empty());
    }
}

/// Whoever is killed on the way leaves no tap in a group that it was not in: all that is done to a group is one system call.
fn killed_on_the_way() {
    for at in 0.. {
        let names = make_many(3);
        ip("link set t1 group 7");
        let ended = !killed_at(at, || assert_eq!(delete_list(&strs(&names)).0, Ok(())));
        let left = interfaces();
        for (name, group) in [("t0", "default"), ("t1", "7"), ("t2", "default")].iter().filter(|(name, _)| exists(name)) {
            let shown = ip_says(&format!("-j link show dev {name} group {group}"));
            assert!(shown.contains(&format!("\"{name}\"")), "killed at system call {at}: {name} is in another group");
        }
        assert!([0, 3].contains(&left.len()), "killed at system call {at}: {left:?}");
        assert_eq!(delete_list(&strs(&names)).0, Ok(()), "killed at system call {at}");
        assert!(interfaces().is_empty());
        if ended {
            assert!(at > 20, "{at}");
            return;
        }
    }
}

fn bad_deletion_input() {
    let names = [c"t0".as_ptr(), ptr::null(), c"t1".as_ptr()];
    make_many(2);
    let delete: unsafe extern "C" fn(_, _, _, _) -> _ = capi::virNetDevTapDeleteList;
    let mut errnos = [-7; 3];
    // SAFETY: pointers are valid or NULL, as the function takes them
    unsafe {
        assert_eq!(delete(ptr::null(), 1, ptr::null(), errnos.as_mut_ptr()), -1);
        assert_eq!(delete(names.as_ptr(), usize::MAX, ptr::null(), errnos.as_mut_ptr()), -1);
        assert_eq!(errnos, [-7; 3]);
        assert_eq!(delete(ptr::null(), 0, ptr::null(), ptr::null_mut()), 0);
        assert_eq!(delete(names.as_ptr(), 2, c"/dev/null".as_ptr(), errnos.as_mut_ptr()), -1);
        assert_eq!(errnos[..2], [Errno::ENOTTY as i32, Errno::EINVAL as i32]);
        assert_eq!(interfaces(), ["t0", "t1"]);
        assert_eq!(delete(names.as_ptr(), 3, ptr::null(), ptr::null_mut()), -1);
        assert_eq!(last_failure().errno, Errno::EINVAL);
    }
    assert!(interfaces().is_empty(), "a NULL spoils nothing for the others");
}

netns_tests![
    exact_names_in_any_order,
    the_same_as_one_at_a_time,
    bad_statistics_input,
    many_at_once,
    what_must_stay_stays,
    a_holder_that_goes_is_waited_for,
    with_little_room_for_files,
    by_the_owner_of_the_taps,
    the_same_taps_twice_at_once,
    killed_on_the_way,
    bad_deletion_input,
];
