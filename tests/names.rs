//! Names that the library makes up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{ALLOW_EXISTING, NONE, PERSIST, TapApi, VNET_HDR};
use common::net::{Events, interfaces, ip, ip_batch, no_news, only};
use common::{count, tun};
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::os::fd::AsFd;
use virnetdevtap::tap::reserve;

fn one_counter_for_all_templates(api: &dyn TapApi) {
    let mut open = Vec::new();
    for (template, name) in [
        (None, "vnet0"),
        (None, "vnet1"),
        (Some("foo%d"), "foo2"),
        (Some("vnet%d"), "vnet3"),
        (Some("%d"), "4"),
        (Some("%dx"), "5x"),
        (Some("a%db"), "a6b"),
        (Some("abcdefghijklm%d"), "abcdefghijklm7"),
        (None, "vnet8"),
    ] {
        let made = api.create(template, None, 1, NONE).unwrap();
        assert_eq!(made.name, name);
        assert_eq!(api.name_of(made.queues[0].as_fd()).unwrap(), name);
        open.push(made);
    }
    drop(open);
    assert!(only(&[]));
    assert_eq!(api.create(None, None, 1, NONE).unwrap().name, "vnet9", "numbers are not used again");
}

fn reserved_and_taken_names_are_passed_over(api: &dyn TapApi) {
    for taken in ["vnet0", "vnet2"] {
        tun::make(taken, tun::TAP);
    }
    ip("link add vnet1 type bridge");
    ip("link property add dev vnet1 altname vnet3");
    for flags in [NONE, ALLOW_EXISTING, PERSIST | VNET_HDR] {
        let made = api.create(None, None, 2, flags).unwrap();
        let expected = if flags == NONE { 4 } else { 5 + u32::from(flags & PERSIST != 0) };
        assert_eq!(made.name, format!("vnet{expected}"), "a made-up name never opens somebody's tap");
    }
    reserve("vnet41");
    reserve("vnet7");
    reserve("macvtap99");
    assert_eq!(api.create(None, None, 1, NONE).unwrap().name, "vnet42");
}

fn bad_templates_burn_nothing(api: &dyn TapApi) {
    let events = Events::listen();
    for (template, errno) in [
        ("abcdefghijklmno%d", Errno::ERANGE),
        ("a23456789012345678901234567890%d", Errno::ERANGE),
        ("a%db%d", Errno::EINVAL),
        ("x%s", Errno::EINVAL),
        ("x%", Errno::EINVAL),
        ("%%d", Errno::EINVAL),
        ("%5d", Errno::EINVAL),
        ("a/%d", Errno::EINVAL),
        ("a %d", Errno::EINVAL),
        ("a:%d", Errno::EINVAL),
        ("%n", Errno::EINVAL),
    ] {
        let failure = no_news(|| api.create(Some(template), None, 1, NONE).unwrap_err());
        assert_eq!(failure.errno, errno, "{template}: {failure:?}");
        assert!(failure.text.contains(&template[..4.min(template.len())]), "{failure:?}");
    }
    assert_eq!(events.take(), []);
    assert_eq!(api.create(None, None, 1, NONE).unwrap().name, "vnet0");
}

fn a_template_with_no_name_left(api: &dyn TapApi) {
    let names: String = (0..10).map(|i| format!("tuntap add abcdefghijklmn{i} mode tap\n")).collect();
    ip_batch(&names);
    let failure = no_news(|| api.create(Some("abcdefghijklmn%d"), None, 1, ALLOW_EXISTING).unwrap_err());
    assert_eq!((failure.code, failure.errno), (1, Errno::EEXIST));
    assert_eq!(failure.text, "internal error: no unused abcdefghijklmn%d names available");
    ip("tuntap del abcdefghijklmn6 mode tap");
    assert_eq!(api.create(Some("abcdefghijklmn%d"), None, 1, NONE).unwrap().name, "abcdefghijklmn6");
}

/// A fresh process on a host that has many taps.
fn past_a_thousand_taken_names(api: &dyn TapApi) {
    let many = count(1000, 100);
    let names: String = (0..many).map(|i| format!("tuntap add vnet{i} mode tap\n")).collect();
    ip_batch(&names);
    let events = Events::listen();
    assert_eq!(api.create(None, None, 1, NONE).unwrap().name, format!("vnet{many}"));
    assert!(events.take().len() < 10);
}

fn eight_threads_get_different_names(api: &dyn TapApi) {
    let (threads, each) = (8, count(25, 5));
    let made: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|i| {
                scope.spawn(move || {
                    let make = |k| api.create(None, None, 1 + (i + k) % 3, if k % 2 == 0 { NONE } else { VNET_HDR }).unwrap();
                    (0..each).map(make).collect::<Vec<_>>()
                })
            })
            .collect();
        handles.into_iter().flat_map(|handle| handle.join().unwrap()).collect()
    });
    let names: BTreeSet<_> = made.iter().map(|made| made.name.clone()).collect();
    assert_eq!(names.len(), threads * each);
    assert_eq!(names, interfaces().into_iter().collect());
    for made in &made {
        for queue in &made.queues {
            assert_eq!(api.name_of(queue.as_fd()).unwrap(), made.name);
        }
    }
    ip_batch(&names.iter().map(|name| format!("link set {name} group 7\n")).collect::<String>());
    ip("link del group 7");
}

fn eight_threads_want_the_same_name(api: &dyn TapApi) {
    for flags in [NONE, PERSIST] {
        let results: Vec<_> = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..8).map(|_| scope.spawn(move || api.create(Some("tap0"), None, 1, flags))).collect();
            handles.into_iter().map(|handle| handle.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert!(results.iter().flat_map(|result| result.as_ref().err()).all(|failure| failure.errno == Errno::EEXIST));
        drop(results);
        api.delete("tap0", None).unwrap();
    }
}

each_api![
    one_counter_for_all_templates,
    reserved_and_taken_names_are_passed_over,
    bad_templates_burn_nothing,
    a_template_with_no_name_left,
    past_a_thousand_taken_names,
    eight_threads_get_different_names,
    eight_threads_want_the_same_name,
];
