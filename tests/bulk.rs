//! Many devices with one call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{C, Counters, NONE, Outcome, TapApi, c_stats, last_failure};
use common::count;
use common::net::{frame, ip, ip_batch, send_from_guest, set_up_quietly};
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
    let many = count(1000, 100);
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

netns_tests![exact_names_in_any_order, the_same_as_one_at_a_time, bad_statistics_input];
