//! Counters.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{Counters, NONE, TapApi, c_stats};
use common::net::{frame, ip, ip_batch, read_as_guest, send_from_guest, send_from_host, set_up_quietly, soon, sysfs};
use common::process::{as_nobody, with_room_for};
use common::{count, tun};
use nix::errno::Errno;

/// The line of /proc/net/dev in the order of `Counters`.
fn proc_net_dev(name: &str) -> Counters {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(&format!("{name}:"))).unwrap();
    let columns: Vec<u64> = line.split_whitespace().map(|column| column.parse().unwrap()).collect();
    [0, 1, 2, 3, 8, 9, 10, 11].map(|column| columns[column])
}

fn real_traffic(api: &dyn TapApi) {
    let made = api.one("net7", NONE);
    set_up_quietly("net7");
    assert_eq!(api.stats("net7").unwrap(), [0; 8]);
    for len in [100, 200, 1000] {
        send_from_guest(&made.queues[0], &frame(len));
    }
    // frames of a type that nobody takes count as dropped as well, once a softirq has looked at them; the socket that sends from
    // the host would take them, as does, before Linux 6.15, one in another namespace that listens to all
    let received = || api.stats("net7").unwrap();
    let dropped = count(3, 0) as u64..=3;
    let arrived = || received()[..3] == [1300, 3, 0] && dropped.contains(&received()[3]) && received()[4..] == [0; 4];
    assert!(soon(arrived), "rx is what the host receives: {:?}", received());
    for len in [60, 70] {
        send_from_host("net7", &frame(len));
        assert_eq!(read_as_guest(&made.queues[0], 0), frame(len));
    }
    let expected = proc_net_dev("net7");
    assert_eq!(received(), expected);
    assert_eq!((&expected[..3], &expected[4..]), (&[1300, 3, 0][..], &[130, 2, 0, 0][..]));
}

fn dropped_frames(api: &dyn TapApi) {
    tun::make("tap0", tun::TAP);
    ip("link set tap0 txqueuelen 2");
    let made = api.one("tap0", common::api::ALLOW_EXISTING);
    set_up_quietly("tap0");
    for _ in 0..10 {
        send_from_host("tap0", &frame(60)); // nobody reads
    }
    let counters = api.stats("tap0").unwrap();
    assert!(counters[7] >= 8, "{counters:?}");
    assert_eq!(counters, proc_net_dev("tap0"));
    drop(made);
}

fn swapped() {
    let made = common::api::C.one("tap0", NONE);
    set_up_quietly("tap0");
    send_from_guest(&made.queues[0], &frame(100));
    for _ in 0..2 {
        send_from_host("tap0", &frame(60));
        read_as_guest(&made.queues[0], 0);
    }
    let (plain, swapped) = (c_stats("tap0", false).unwrap(), c_stats("tap0", true).unwrap());
    assert_eq!((plain.rx_bytes, plain.rx_packets, plain.tx_bytes, plain.tx_packets), (100, 1, 120, 2));
    assert_eq!((swapped.rx_bytes, swapped.rx_packets, swapped.tx_bytes, swapped.tx_packets), (120, 2, 100, 1));
    // nobody takes our type of frame, unless somebody in another namespace listens to all (before Linux 6.15)
    let dropped = sysfs("tap0", "statistics/rx_dropped").unwrap().parse().unwrap();
    assert_eq!([plain.rx_errs, plain.tx_errs, plain.rx_drop, plain.tx_drop], [0, 0, dropped, 0]);
    assert_eq!([swapped.rx_errs, swapped.tx_errs, swapped.rx_drop, swapped.tx_drop], [0, 0, 0, dropped]);
}

fn swapped_drops() {
    tun::make("tap0", tun::TAP);
    set_up_quietly("tap0");
    ip("link set tap0 txqueuelen 1");
    let made = common::api::C.one("tap0", common::api::ALLOW_EXISTING);
    for _ in 0..5 {
        send_from_host("tap0", &frame(60));
    }
    let (plain, swapped) = (c_stats("tap0", false).unwrap(), c_stats("tap0", true).unwrap());
    assert!(plain.tx_drop >= 4 && plain.rx_drop == 0, "{plain:?}");
    assert_eq!((swapped.rx_drop, swapped.tx_drop), (plain.tx_drop, 0));
    drop(made);
}

fn names_that_end_alike(api: &dyn TapApi) {
    let names = ["net7", "vnet7", "xvnet7", "7"];
    let taps = names.map(|name| api.one(name, NONE));
    for (i, (name, tap)) in names.iter().zip(&taps).enumerate() {
        set_up_quietly(name);
        for _ in 0..=i {
            send_from_guest(&tap.queues[0], &frame(100));
        }
    }
    for (i, name) in names.iter().enumerate() {
        assert_eq!(api.stats(name).unwrap()[..2], [100 * (i as u64 + 1), i as u64 + 1], "{name}");
    }
    for missing in ["et7", "t7", "vnet", "net77", "x"] {
        let failure = api.stats(missing).unwrap_err();
        assert_eq!((failure.code, failure.errno), (1, Errno::ENODEV), "{failure:?}");
        assert!(failure.text.contains(missing) && failure.text.contains("Interface not found"), "{failure:?}");
    }
}

fn an_alternative_name_is_not_the_name(api: &dyn TapApi) {
    tun::make("tap0", tun::TAP);
    ip("link property add dev tap0 altname other0");
    assert_eq!(api.stats("other0").unwrap_err().errno, Errno::ENODEV);
}

fn any_interface(api: &dyn TapApi) {
    ip("link add br0 type bridge");
    ip("link set lo up");
    for name in ["lo", "br0"] {
        assert_eq!(api.stats(name).unwrap(), proc_net_dev(name));
    }
    assert_eq!(with_room_for(0, || api.stats("lo").unwrap_err()).errno, Errno::EMFILE);
}

fn any_user(api: &dyn TapApi) {
    as_nobody(|| assert_eq!(api.stats("lo").unwrap(), [0; 8]));
}

fn among_a_thousand(api: &dyn TapApi) {
    let many = count(1000, 100);
    ip_batch(&(0..many).map(|i| format!("tuntap add t{i} mode tap\n")).collect::<String>());
    let made = api.one("xt500", NONE);
    set_up_quietly("xt500");
    send_from_guest(&made.queues[0], &frame(123));
    assert_eq!(api.stats("xt500").unwrap()[..2], [123, 1]);
    assert_eq!(api.stats("t50").unwrap(), [0; 8]);
    assert_eq!(api.stats(&format!("t{many}")).unwrap_err().errno, Errno::ENODEV);
    for i in 0..many {
        assert_eq!(api.stats(&format!("t{i}")).unwrap(), [0; 8]);
    }
}

each_api![
    real_traffic,
    dropped_frames,
    names_that_end_alike,
    an_alternative_name_is_not_the_name,
    any_interface,
    any_user,
    among_a_thousand,
];
netns_tests![swapped, swapped_drops];
