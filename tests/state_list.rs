//! Many taps restored with one call: those that were not there before go together.
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

use common::api::{C, NONE, Outcome, TapApi, last_failure, outcome};
use common::hostile::mac;
use common::net::{exists, interfaces, ip, sysfs};
use common::process::Holder;
use common::state::{DIR, Log, hold, list, nothing_recorded, restore, save};
use common::steps::killed_at;
use common::{count, figure, tun};
use nix::errno::Errno;
use std::ffi::{CString, c_char};
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;
use std::time::{Duration, Instant};
use virnetdevtap::capi;
use virnetdevtap::state::{Fields, RestoreFlags, restore_list};
use virnetdevtap::tap::interface_name;

const FLAGS: u16 = tun::TAP | tun::NO_PI;
const OK: Errno = Errno::UnknownErrno;

/// The outcome, and what stands in the two arrays.
fn list_of(names: &[Option<&str>], flags: u32) -> (Outcome<()>, Vec<Fields>, Vec<Errno>) {
    const UNTOUCHED: i32 = -7;
    let strings: Vec<_> = names.iter().map(|name| name.map(|name| CString::new(name).unwrap())).collect();
    let pointers: Vec<*const c_char> =
        strings.iter().map(|name| name.as_ref().map_or(ptr::null(), |name| name.as_ptr())).collect();
    let (mut changed, mut errnos) = (vec![UNTOUCHED as u32; names.len() + 1], vec![UNTOUCHED; names.len() + 1]);
    let dir = CString::new(DIR).unwrap();
    let (names, n) = (pointers.as_ptr(), pointers.len());
    // SAFETY: as many names and numbers as said
    let rc = unsafe {
        capi::virNetDevTapStateRestoreList(names, n, ptr::null(), dir.as_ptr(), flags, changed.as_mut_ptr(), errnos.as_mut_ptr())
    };
    let result = outcome(rc);
    assert_eq!((changed.pop(), errnos.pop()), (Some(UNTOUCHED as u32), Some(UNTOUCHED)), "wrote past the array");
    let changed = changed.into_iter().map(Fields::from_bits_retain).collect();
    (result, changed, errnos.into_iter().map(Errno::from_raw).collect())
}

fn some<'a>(names: &'a [&'a str]) -> Vec<Option<&'a str>> {
    names.iter().map(|name| Some(*name)).collect()
}

/// A tap that was not there before, as a hypervisor has it.
fn made(name: &str) -> OwnedFd {
    let queue = C.one(name, NONE).queues.remove(0);
    hold(name, &[queue.try_clone().unwrap()]).unwrap();
    queue
}

/// The same, made persistent and left.
fn left_behind(name: &str) {
    tun::set_persist(&made(name), true);
}

fn of_all_sorts() {
    for i in 0..20 {
        left_behind(&format!("own{i}"));
    }
    drop(made("own20")); // gone by itself
    let own: Vec<_> = (0..21).map(|i| format!("own{i}")).collect();
    tun::make("mine0", FLAGS);
    let address = sysfs("mine0", "address");
    save("mine0").unwrap();
    let queue = tun::open("mine0", FLAGS).unwrap();
    hold("mine0", &[queue.try_clone().unwrap()]).unwrap();
    mac(queue.as_fd(), [2, 0, 0, 0, 0, 1]).unwrap();
    tun::set_persist(&queue, false);
    drop(queue);
    tun::make("other0", FLAGS); // no record
    left_behind("stranger0");
    ip("link del stranger0");
    tun::make("stranger0", FLAGS);

    let mut names = some(&["mine0", "other0", "missing0", "stranger0", "a234567890123456"]);
    names.push(None);
    names.extend(own.iter().map(|name| Some(name.as_str())));
    names.push(Some("own3")); // twice
    let log = Log::start();
    let (result, changed, errnos) = list_of(&names, 0);
    let lines = log.take();
    let failure = result.unwrap_err();
    assert_eq!(failure.errno, Errno::ERANGE, "{failure:?}");
    assert_eq!(errnos[..6], [OK, OK, OK, OK, Errno::ERANGE, OK]);
    assert!(errnos[6..].iter().all(|errno| *errno == OK), "{errnos:?}");
    assert_eq!(changed[0] & (Fields::PERSIST | Fields::MAC | Fields::UNRESTORED), Fields::PERSIST | Fields::MAC);
    assert!(changed[1..6].iter().all(|changed| changed.is_empty()), "{changed:?}");
    assert!(changed[6..26].iter().all(|changed| *changed == Fields::PERSIST), "{changed:?}");
    assert_eq!(changed[26], Fields::empty(), "it had gone by itself");
    assert!(lines.iter().any(|line| line.contains("own7: persist flag was false, hypervisor left true, restored")), "{lines:?}");
    assert_eq!(sysfs("mine0", "address"), address);
    assert_eq!(interfaces(), ["mine0", "other0", "stranger0"]);
    nothing_recorded();
}

/// Held ones are waited for, but not each in turn; they stay as they are, and so do their records.
fn held_by_somebody() {
    let queues: Vec<_> = (0..3).map(|i| made(&format!("held{i}"))).collect();
    tun::set_persist(&queues[0], true);
    for i in 0..3 {
        tun::make(&format!("mine{i}"), FLAGS);
        save(&format!("mine{i}")).unwrap();
    }
    let mine: Vec<_> = (0..3).map(|i| tun::open(&format!("mine{i}"), FLAGS).unwrap()).collect();
    let holders: Vec<_> = queues.iter().chain(&mine).map(Holder::of).collect();
    left_behind("own0");
    let names = some(&["held0", "held1", "mine0", "mine1", "own0", "held2", "mine2"]);
    let start = Instant::now();
    let (result, changed, errnos) = list_of(&names, 0);
    figure(&format!("six taps that stay held: {:?}", start.elapsed()));
    let failure = result.unwrap_err();
    assert_eq!(failure.errno, Errno::EBUSY);
    assert!(failure.text.contains("held0") && failure.text.contains("(pid "), "{failure:?}");
    let busy = Errno::EBUSY;
    assert_eq!(errnos, [busy, busy, busy, busy, OK, busy, busy]);
    assert_eq!(changed[4], Fields::PERSIST);
    assert!(!exists("own0"));
    assert_eq!(list(), ["held0", "held1", "held2", "mine0", "mine1", "mine2"]);
    drop((holders, queues, mine));
    let (result, changed, errnos) = list_of(&names, 0);
    assert_eq!((result, errnos), (Ok(()), vec![OK; 7]));
    assert_eq!(changed[0], Fields::PERSIST, "what the first call has found is not forgotten");
    assert_eq!(interfaces(), ["mine0", "mine1", "mine2"]);
    nothing_recorded();
}

fn flags_for_all() {
    let evict = RestoreFlags::EVICT.bits();
    let queues: Vec<_> = (0..3).map(|i| made(&format!("held{i}"))).collect();
    let names = some(&["held0", "held1", "held2"]);
    assert_eq!(list_of(&names, RestoreFlags::LEAVE.bits()).2, [OK; 3]);
    assert_eq!(interfaces(), ["held0", "held1", "held2"]);
    nothing_recorded();
    for (i, queue) in queues.iter().enumerate() {
        hold(&format!("held{i}"), &[queue.try_clone().unwrap()]).unwrap();
    }
    assert_eq!(list_of(&names, evict).0, Ok(()));
    assert!(interfaces().is_empty());
    tun::make("mine0", FLAGS);
    save("mine0").unwrap();
    assert_eq!(list_of(&some(&["mine0"]), RestoreFlags::REMOVE.bits()).0, Ok(()));
    assert!(interfaces().is_empty());
    nothing_recorded();
}

fn from_rust() {
    let many = count(100, 40);
    let names: Vec<_> = (0..many).map(|i| format!("own{i}")).collect();
    names.iter().for_each(|name| left_behind(name));
    let names: Vec<_> = names.iter().map(|name| interface_name(name.as_bytes()).unwrap()).collect();
    let start = Instant::now();
    let results = restore_list(&names, None, DIR.as_ref(), RestoreFlags::empty());
    figure(&format!("{many} taps restored in {:?}", start.elapsed()));
    assert!(results.iter().all(|result| *result == Ok(Fields::PERSIST)), "{results:?}");
    assert!(interfaces().is_empty());
    nothing_recorded();
    assert_eq!(restore_list(&[], None, DIR.as_ref(), RestoreFlags::empty()), []);
    let missing = restore_list(&names[..1], None, "/tmp/missing".as_ref(), RestoreFlags::empty());
    assert_eq!(missing, [Ok(Fields::empty())]);
    let empty = restore_list(&names[..2], None, "".as_ref(), RestoreFlags::empty());
    assert!(empty.iter().all(|result| result.as_ref().is_err_and(|e| e.errno() == Errno::EINVAL)), "{empty:?}");
}

/// Whatever a manager leaves that is killed on the way, the next one puts right.
fn killed_on_the_way() {
    for at in (0..).step_by(count(5, 17)) {
        left_behind("own0");
        left_behind("own1");
        tun::make("mine0", FLAGS);
        save("mine0").unwrap();
        let names = some(&["own0", "mine0", "own1"]);
        let ended = !killed_at(at, || assert_eq!(list_of(&names, 0).0, Ok(())));
        for name in list() {
            restore(&name).unwrap();
        }
        assert_eq!(interfaces(), ["mine0"], "killed at system call {at}");
        assert_eq!(sysfs("mine0", "netdev_group").as_deref(), Some("0"));
        nothing_recorded();
        ip("link del mine0");
        if ended {
            return;
        }
    }
}

fn bad_arguments() {
    left_behind("own0");
    let dir = CString::new(DIR).unwrap();
    let name = c"own0".as_ptr();
    let call: unsafe extern "C" fn(_, _, _, _, _, _, _) -> _ = capi::virNetDevTapStateRestoreList;
    let (mut changed, mut errnos) = (7, 7);
    let (tunpath, none) = (ptr::null(), ptr::null());
    // SAFETY: pointers are valid or NULL, as the function takes them
    unsafe {
        for (rc, what) in [
            (call(none, 1, tunpath, dir.as_ptr(), 0, &raw mut changed, &raw mut errnos), "no names"),
            (call(&raw const name, usize::MAX, tunpath, dir.as_ptr(), 0, &raw mut changed, &raw mut errnos), "too many"),
            (call(&raw const name, 1, tunpath, ptr::null(), 0, &raw mut changed, &raw mut errnos), "no directory"),
            (call(&raw const name, 1, tunpath, dir.as_ptr(), 1 << 31, &raw mut changed, &raw mut errnos), "unknown flags"),
        ] {
            assert_eq!(rc, -1, "{what}");
            assert_eq!(last_failure().errno, Errno::EINVAL, "{what}");
        }
        assert_eq!((changed, errnos), (7, 7));
        assert!(exists("own0"));
        assert_eq!(call(none, 0, tunpath, dir.as_ptr(), 0, ptr::null_mut(), ptr::null_mut()), 0);
        assert_eq!(call(&raw const name, 1, tunpath, dir.as_ptr(), 0, ptr::null_mut(), ptr::null_mut()), 0);
    }
    assert!(!exists("own0"));
}

/// One that is let go while the call waits is restored, too.
fn a_holder_that_goes() {
    let queue = made("own0");
    tun::set_persist(&queue, true);
    left_behind("own1");
    let caller = std::thread::spawn(|| list_of(&some(&["own0", "own1"]), 0));
    assert!(common::net::soon(|| !exists("own1")), "the others do not wait");
    std::thread::sleep(Duration::from_millis(20));
    drop(queue);
    let (result, changed, _) = caller.join().unwrap();
    assert_eq!((result, changed), (Ok(()), vec![Fields::PERSIST; 2]));
    assert!(interfaces().is_empty());
}

netns_tests![of_all_sorts, held_by_somebody, flags_for_all, from_rust, killed_on_the_way, bad_arguments, a_holder_that_goes,];
