//! What each function costs in system calls, counted by strace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{ALLOW_EXISTING, C, IFUP, NONE, PERSIST, TapApi};
use common::bridge::{BridgeApi, port};
use common::net::ip_batch;
use common::process::{Holder, TUN_NODE, node};
use common::strace::{marked, summary, trace};
use common::{count, figure, tun};

fn each_function() {
    let pieces = trace(|| {
        drop(C.create(None, None, 1, PERSIST).unwrap()); // what is set up only once
        C.delete("vnet0", None).unwrap();
        let one = marked("create, named", || C.one("tap0", NONE));
        let taken = marked("create, name taken", || C.create(Some("tap0"), None, 1, NONE));
        assert!(taken.is_err());
        let generated = marked("create, generated name", || C.create(None, None, 1, NONE).unwrap());
        let persistent = marked("create, persistent", || C.one("keep0", PERSIST));
        let four = marked("create, 4 queues", || C.create(Some("tap4"), None, 4, NONE).unwrap());
        drop(persistent);
        drop(marked("open existing", || C.one("keep0", ALLOW_EXISTING)));
        tun::make("multi0", tun::TAP | tun::MULTI_QUEUE);
        drop(marked("open existing, 4 queues", || C.create(Some("multi0"), None, 4, ALLOW_EXISTING).unwrap()));
        use std::os::fd::AsFd;
        marked("name of a queue", || C.name_of(one.queues[0].as_fd()).unwrap());
        marked("statistics", || C.stats("tap0").unwrap());
        marked("get persist", || C.get_persist("keep0").unwrap());
        marked("set persist", || C.set_persist("multi0", None, false).unwrap());
        let holder = Holder::of(&four.queues[0]);
        marked("set persist, held multi-queue", || C.set_persist("tap4", None, true).unwrap());
        drop(holder);
        drop(four);
        marked("delete", || C.delete("keep0", None).unwrap());
        marked("delete, multi-queue", || C.delete("tap4", None).unwrap());
        marked("delete, missing", || C.delete("missing0", None).unwrap());
        drop((one, generated));
    });
    for (name, calls) in &pieces {
        figure(&format!("{name}: {} system calls: {}", calls.len(), summary(calls)));
    }
    assert_eq!(pieces.len(), 15, "{:?}", pieces.keys());
    assert_eq!(summary(&pieces["create, named"]), "openat ioctl");
    assert_eq!(summary(&pieces["create, generated name"]), "openat ioctl");
    assert_eq!(summary(&pieces["create, persistent"]), "openat ioctl*2");
    assert_eq!(summary(&pieces["create, name taken"]), "openat ioctl close");
    assert_eq!(summary(&pieces["name of a queue"]), "ioctl");
    assert!(pieces["statistics"].len() <= 6, "{:?}", pieces["statistics"]);
    assert!(pieces["get persist"].len() <= 6, "{:?}", pieces["get persist"]);
    assert!(pieces["delete, missing"].len() <= 6, "{:?}", pieces["delete, missing"]);
    let detached = pieces["set persist, held multi-queue"].iter().find(|call| call.contains("TUNSETQUEUE"));
    let text = "the queue takes no frames from those who use the tap";
    assert!(detached.is_some_and(|call| call.ends_with("= 0")), "{text}: {:?}", pieces["set persist, held multi-queue"]);
    for (name, calls) in pieces {
        for call in calls.iter().filter(|call| call.starts_with("open") || call.starts_with("socket")) {
            assert!(call.contains("CLOEXEC"), "{name}: {call}");
        }
    }
}

fn statistics_among_many_interfaces() {
    let pieces = trace(|| {
        let tap = C.one("tap0", NONE);
        C.stats("tap0").unwrap();
        marked("few", || C.stats("tap0").unwrap());
        ip_batch(&(0..count(1000, 100)).map(|i| format!("tuntap add t{i} mode tap\n")).collect::<String>());
        marked("many", || C.stats("tap0").unwrap());
        marked("late", || C.stats("t99").unwrap());
        drop(tap);
    });
    figure(&format!("statistics among a thousand: {}", summary(&pieces["many"])));
    assert_eq!(summary(&pieces["few"]), summary(&pieces["many"]));
    assert_eq!(summary(&pieces["few"]), summary(&pieces["late"]));
    let read = |calls: &[String]| -> usize {
        calls
            .iter()
            .filter(|call| call.starts_with("recv"))
            .map(|call| call.rsplit("= ").next().unwrap().parse::<usize>().unwrap())
            .sum()
    };
    assert!(read(&pieces["many"]) <= read(&pieces["few"]) + 64, "the answer is about one interface");
}

/// Each look opens and closes a file, and such closing is what a waiter waits for. Other tests close those of another node.
fn waiting_for_a_held_tap() {
    const TUN: &str = "/tmp/tun";
    let pieces = trace(|| {
        node(TUN, TUN_NODE, 0o600);
        tun::make("tap0", tun::TAP);
        let holder = Holder::of(tun::open("tap0", tun::TAP).unwrap());
        let create = || C.create(Some("tap0"), Some(TUN), 1, ALLOW_EXISTING).unwrap_err();
        marked("create", create);
        if count(3, 1) == 3 {
            marked("delete", || C.delete("tap0", Some(TUN)).unwrap_err());
            std::thread::scope(|scope| {
                scope.spawn(create);
                marked("create, beside another waiter", create);
            });
        }
        drop(holder);
    });
    assert_eq!(pieces.len(), count(3, 1));
    for (name, calls) in &pieces {
        let looks = calls.iter().filter(|call| call.contains(TUN) && call.contains("O_RDWR")).count();
        figure(&format!("{name}, a second in vain: {looks} looks"));
        let most = if name.contains("another") { 200 } else { 40 };
        assert!((2..most).contains(&looks), "{name}: {}", summary(calls));
    }
}

fn bridge_ports() {
    let pieces = trace(|| {
        ip_batch("link add br0 type bridge\nlink add br1 type bridge\n");
        drop(C.create_in("tap0", IFUP, &port("br0")).unwrap());
        let made = marked("create in a port", || C.create_in("tap0", IFUP, &port("br0")).unwrap());
        let isolated = marked("create in an isolated port", || C.create_in("tap1", IFUP, &port("br0").isolated()).unwrap());
        marked("reattach, there already", || C.reattach("tap0", &port("br0"), false).unwrap());
        marked("reattach", || C.reattach("tap0", &port("br1"), false).unwrap());
        ip_batch("link set tap0 nomaster\n");
        marked("attach", || C.attach("tap0", &port("br0")).unwrap());
        drop((made, isolated));
    });
    for (name, calls) in &pieces {
        figure(&format!("{name}: {} system calls: {}", calls.len(), summary(calls)));
    }
    assert!(pieces["create in a port"].len() <= 12, "{:?}", pieces["create in a port"]);
    assert!(pieces["reattach, there already"].len() <= 8, "{:?}", pieces["reattach, there already"]);
    let changes =
        |name: &str| pieces[name].iter().filter(|call| call.starts_with("sendto") && call.contains("RTM_SETLINK")).count();
    assert_eq!((changes("create in a port"), changes("attach"), changes("reattach")), (1, 1, 1));
}

netns_tests![bridge_ports, each_function, statistics_among_many_interfaces, waiting_for_a_held_tap];
