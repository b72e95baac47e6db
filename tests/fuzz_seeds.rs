//! The seeds of the fuzzers, `fuzz/seeds`: real messages of this kernel and real records. With VIRNETDEVTAP_BLESS=1 they are
//! made anew.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{ALLOW_EXISTING, NONE, Rust, TapApi};
use common::bridge::{BridgeApi, port};
use common::net::ip_batch;
use common::state::{check, hold, restore, save};
use common::tamper::{Answer, with_odd_answers};
use common::{state, tun};
use std::collections::BTreeSet;
use std::fs;
use virnetdevtap::stats::interface_stats_list;
use virnetdevtap::tap::interface_name;

/// A larger datagram is not worth its weight: dumps repeat themselves.
const LARGEST: usize = 6000;
const SIOCETHTOOL: u64 = 0x8946;

fn all_that_reads() {
    save("tap0").unwrap();
    save("multi0").unwrap();
    save("macvtap0").unwrap();
    let made = Rust.one("tap0", ALLOW_EXISTING);
    hold("tap0", &made.queues).unwrap();
    check("tap0").unwrap();
    drop(made);
    for (name, file) in [("tap0", "port"), ("multi0", "tap"), ("macvtap0", "macvtap")] {
        fs::copy(state::record(name), format!("/tmp/seeds/record/{file}")).unwrap();
    }
    let absent = Rust.one("new0", NONE);
    hold("new0", &absent.queues).unwrap();
    fs::copy(state::record("new0"), "/tmp/seeds/record/absent").unwrap();
    restore("tap0").unwrap();
    Rust.stats("tap0").unwrap();
    for count in [8, 100] {
        let names: Vec<_> = (0..count).map(|i| interface_name(format!("tap{i}").as_bytes()).unwrap()).collect();
        interface_stats_list(&names).unwrap();
    }
    Rust.reattach("tap0", &port("br0").isolated(), true).unwrap();
    Rust.reattach("tap0", &port("none0"), true).unwrap_err();
    Rust.reattach("missing0", &port("br0"), true).unwrap_err();
    Rust.reattach("multi0", &port("br0").mtu(70_000), true).unwrap_err(); // with the kernel's reason
    Rust.delete("multi0", None).unwrap();
}

/// The strings, and a bit set, of ethtool's ioctls.
fn ethtool(answer: &Answer, strings: &mut Vec<u8>) -> Option<Vec<u8>> {
    if answer.call != libc::SYS_ioctl || answer.args[1] != SIOCETHTOOL || answer.result != 0 {
        return None;
    }
    let at = u64::from_ne_bytes(answer.read(answer.args[2] + 16, 8).try_into().unwrap());
    let head: Vec<u32> = answer.read(at, 12).as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word)).collect();
    match head[0] {
        0x1b => *strings = answer.read(at + 12, head[2] as usize * 32), // ETHTOOL_GSTRINGS
        0x3a => {
            let words = answer.read(at, 8 + head[1] as usize * 16); // ETHTOOL_GFEATURES
            return Some([&(strings.len() as u16).to_le_bytes()[..], strings, &words].concat());
        }
        _ => {}
    }
    None
}

const NAMES: [&str; 16] = [
    "tap0",
    "vnet%d",
    "vnet7",
    "vnet2147483647",
    "a23456789012345",
    "a234567890123456",
    "%d",
    "x%d%d",
    "x%s",
    ".",
    "..",
    "a/b",
    "a b",
    "t\u{e4}p",
    "tap\u{e0}",
    "abcdefghijklm%d",
];

/// The answer to RTM_GETVLAN by the words of linux/if_bridge.h, since not every kernel has VLAN filtering: the VLANs 1
/// (native, untagged) and 10 to 20 of interface 2.
fn vlans() -> Vec<u8> {
    let attr = |kind: u16, value: &[u8]| [&(value.len() as u16 + 4).to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    let entry = |flags: u16, vid: u16, range: &[u8]| {
        let info = attr(1, &[flags.to_ne_bytes(), vid.to_ne_bytes()].concat());
        attr(0x8001, &[info, range.to_vec()].concat())
    };
    let range = [attr(2, &20_u16.to_ne_bytes()), vec![0, 0]].concat();
    let payload = [vec![7, 0, 0, 0, 2, 0, 0, 0], entry(6, 1, &[]), entry(0, 10, &range)].concat();
    let mut header = vec![0; 16];
    header[..4].copy_from_slice(&(16 + payload.len() as u32).to_ne_bytes());
    header[4..8].copy_from_slice(&[112, 0, 2, 0]); // RTM_NEWVLAN, NLM_F_MULTI
    [header, payload].concat()
}

fn recorded() {
    for target in ["netlink", "features", "record", "names"] {
        fs::create_dir_all(format!("/tmp/seeds/{target}")).unwrap();
    }
    ip_batch(
        "link add br0 type bridge\nlink set br0 up\nlink add v0 type veth peer v1\nlink add link v0 name macvtap0 type macvtap\n\
         link property add dev v0 altname another-name-of-v0\n",
    );
    tun::make("tap0", tun::TAP | tun::NO_PI | tun::VNET_HDR);
    tun::make("multi0", tun::TAP | tun::MULTI_QUEUE);
    ip_batch(
        "link set tap0 alias an-alias master br0\nlink property add dev tap0 altname another-name\n\
         link set tap0 type bridge_slave isolated on\n",
    );
    let _ = std::process::Command::new("bridge").args("fdb add 02:00:00:00:00:99 dev tap0 master static".split(' ')).status();
    let (mut datagrams, mut features, mut strings) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    let body = || {
        all_that_reads();
        0
    };
    let status = with_odd_answers(body, |answer| {
        let received = answer.datagrams();
        datagrams.extend(received.iter().map(|datagram| answer.bytes(datagram)).filter(|bytes| bytes.len() < LARGEST));
        features.extend(ethtool(answer, &mut strings));
    });
    assert_eq!(status, 0);
    // one of each kind and size: sequence numbers and counters make no difference
    let mut kinds = BTreeSet::new();
    datagrams.retain(|bytes| kinds.insert((bytes.get(4..6).map(<[u8]>::to_vec), bytes.len())));
    for (i, bytes) in datagrams.iter().enumerate() {
        fs::write(format!("/tmp/seeds/netlink/{i:02}"), bytes).unwrap();
    }
    for (i, bytes) in features.iter().enumerate() {
        fs::write(format!("/tmp/seeds/features/{i:02}"), bytes).unwrap();
    }
    for (i, name) in NAMES.iter().enumerate() {
        fs::write(format!("/tmp/seeds/names/{i:02}"), name).unwrap();
    }
    fs::write("/tmp/seeds/netlink/vlans", vlans()).unwrap();
    assert!(datagrams.len() > 10 && !features.is_empty());
    if std::env::var("VIRNETDEVTAP_BLESS").as_deref() == Ok("1") {
        // the working directory is that of the sources, even where /tmp has been mounted over them
        let copied = std::process::Command::new("cp").args(["-rT", "/tmp/seeds", "fuzz/seeds"]).status();
        assert!(copied.unwrap().success());
    }
}

netns_tests![recorded];
