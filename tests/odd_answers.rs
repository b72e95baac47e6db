//! The kernel's real answers, short, odd, late or lost: a call does its work all the same, or says that it could not, and
//! leaves the machine as it was.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{ALLOW_EXISTING, Failure, NONE, PERSIST, Rust, TapApi};
use common::bridge::{BridgeApi, port};
use common::link::links;
use common::net::{exists, interfaces, ip, ip_batch, try_ip};
use common::state::{DIR, check, discard, hold, list, restore, save};
use common::tamper::with_odd_answers;
use common::{count, figure, tun};
use nix::errno::Errno;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use virnetdevtap::state::Fields;
use virnetdevtap::stats::interface_stats_list;
use virnetdevtap::tap::{delete_list, interface_name};

type Outcome = Result<String, Failure>;

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Oddity {
    /// The socket had no room for it.
    Lost,
    NoMemory,
    /// It answers another request; the real one does not come.
    WrongSequence,
    /// The kernel had no memory for it, and says so.
    Refused,
    /// Something changed while the table was dumped.
    Interrupted,
    /// There is more in it than anybody knows.
    UnknownAttribute,
    /// Less was received than the message has.
    Short,
    /// More was sent than there is room for.
    TooLong,
    /// An attribute has two bytes of four.
    ShortAttribute,
    /// An attribute claims more than there is.
    LongAttribute,
    /// An attribute of no length at all.
    EmptyAttribute,
}

use Oddity::*;

/// These a call gets over.
const SURVIVED: [Oddity; 6] = [Lost, NoMemory, WrongSequence, Refused, Interrupted, UnknownAttribute];
/// These it may fail for.
const FATAL: [Oddity; 5] = [Short, TooLong, ShortAttribute, LongAttribute, EmptyAttribute];

const HEADER: usize = 16;

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().unwrap()
}

/// Where the messages of a datagram start and how long they are.
fn messages(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at + HEADER <= bytes.len() {
        let len = u32::from_ne_bytes(number(bytes, at)) as usize;
        found.push((at, len));
        at += len.next_multiple_of(4);
    }
    found
}

/// Where the attributes of a message start, by its type: behind struct ifinfomsg and the like.
fn attributes(bytes: &[u8], at: usize) -> Option<usize> {
    match u16::from_ne_bytes(number(bytes, at + 4)) {
        libc::RTM_NEWLINK => Some(at + HEADER + 16),
        libc::RTM_NEWNEIGH | libc::RTM_NEWSTATS => Some(at + HEADER + 12),
        112 => Some(at + HEADER + 8), // RTM_NEWVLAN
        _ => None,
    }
}

/// What the library gets instead of a datagram.
enum Instead {
    Failure(Errno),
    Length(usize),
    Bytes(Vec<u8>),
}

impl Oddity {
    /// None: there is nothing in the datagram to be changed so.
    fn instead_of(self, datagram: &[u8]) -> Option<Instead> {
        let mut bytes = datagram.to_vec();
        let messages = messages(&bytes);
        let (last, len) = *messages.last().unwrap();
        let end = last + len;
        let attributes = attributes(&bytes, last);
        let is_of_a_dump = bytes[last + 6] & 2 != 0; // NLM_F_MULTI
        Some(match self {
            Lost => Instead::Failure(Errno::ENOBUFS),
            NoMemory => Instead::Failure(Errno::ENOMEM),
            TooLong => Instead::Length(40_000),
            Short => Instead::Length(bytes.len() - len / 2),
            WrongSequence if !is_of_a_dump => {
                bytes[last + 8] ^= 0x80;
                Instead::Bytes(bytes)
            }
            Refused => {
                let mut error = bytes[last..last + HEADER].to_vec();
                error[..8].copy_from_slice(&[36, 0, 0, 0, 2, 0, 0, 0]); // the length, NLMSG_ERROR, no flags
                error.extend((-(Errno::ENOMEM as i32)).to_ne_bytes());
                error.extend([0; HEADER]);
                Instead::Bytes(error)
            }
            Interrupted if is_of_a_dump => {
                bytes[last + 6] |= 0x10; // NLM_F_DUMP_INTR
                Instead::Bytes(bytes)
            }
            UnknownAttribute if attributes.is_some() && end == bytes.len() => {
                bytes.extend([7, 0, 0xfe, 0x3f, 1, 2, 3, 0]);
                bytes[last..last + 4].copy_from_slice(&((len + 8) as u32).to_ne_bytes());
                Instead::Bytes(bytes)
            }
            ShortAttribute | LongAttribute | EmptyAttribute => {
                let mut at = attributes?;
                // the MTU of a link
                while at + 8 <= end && u16::from_ne_bytes(number(&bytes, at + 2)) != 4 {
                    at += usize::from(u16::from_ne_bytes(number(&bytes, at))).next_multiple_of(4);
                }
                if at + 8 > end {
                    return None;
                }
                let len: u16 = if self == ShortAttribute {
                    6
                } else if self == LongAttribute {
                    60_000
                } else {
                    0
                };
                bytes[at..at + 2].copy_from_slice(&len.to_ne_bytes());
                Instead::Bytes(bytes)
            }
            _ => return None,
        })
    }
}

/// A call, what has to be there before it, and what makes it so again.
struct Scenario {
    set_up: fn(),
    call: fn() -> Outcome,
    reset: fn(),
}

/// What matters of all devices and records.
fn machine() -> String {
    let mut all = Vec::new();
    for link in links() {
        let mut seen = json!({ "up": link["flags"].as_array().unwrap().contains(&json!("UP")) });
        for key in ["ifname", "mtu", "master", "group", "ifalias", "txqlen"] {
            seen[key] = link[key].clone();
        }
        if link["linkinfo"]["info_kind"] == "tun" {
            seen["tun"] = link["linkinfo"]["info_data"].clone();
            seen["address"] = link["address"].clone();
        }
        all.push(seen.to_string());
    }
    all.sort();
    let records = if std::fs::exists(DIR).unwrap() { list() } else { Vec::new() };
    format!("{}\n{records:?}", all.join("\n"))
}

const RESULT: &str = "/tmp/result";

/// The call, in a process of its own. `instead` says what it gets for the datagram with this number.
fn run(call: fn() -> Outcome, mut instead: impl FnMut(usize, Vec<u8>) -> Option<Instead>) -> Outcome {
    let body = || match call() {
        Ok(result) => {
            std::fs::write(RESULT, result).unwrap();
            0
        }
        Err(failure) => {
            std::fs::write(RESULT, &failure.text).unwrap();
            failure.errno as i32
        }
    };
    let mut number = 0;
    let status = with_odd_answers(body, |answer| {
        for datagram in answer.datagrams() {
            match instead(number, answer.bytes(&datagram)) {
                None => {}
                Some(Instead::Failure(errno)) => answer.fail(errno),
                Some(Instead::Length(len)) => answer.set_len(&datagram, len),
                Some(Instead::Bytes(bytes)) => answer.replace(&datagram, &bytes),
            }
            number += 1;
        }
    });
    assert_ne!(status, 255, "panicked");
    let text = std::fs::read_to_string(RESULT).unwrap();
    if status == 0 { Ok(text) } else { Err(Failure { code: 0, errno: Errno::from_raw(status), text }) }
}

fn every_answer(scenario: &Scenario) {
    each_answer(scenario, &[&SURVIVED[..], &FATAL].concat());
}

fn each_answer(scenario: &Scenario, oddities: &[Oddity]) {
    let Scenario { set_up, call, reset } = scenario;
    let deep = common::is_deep();
    set_up();
    let before = machine();
    let mut possible = Vec::new();
    let good = run(*call, |number, datagram| {
        let all = oddities.iter().copied().enumerate();
        let some = all.filter(|(i, oddity)| oddity.instead_of(&datagram).is_some() && (deep || (i + number) % count(3, 30) == 0));
        possible.extend(some.map(|(_, oddity)| (number, oddity)));
        None
    });
    let (good, after) = (good.unwrap(), machine());
    reset();
    assert_eq!(before, machine(), "reset");
    let mut failed = 0;
    for (at, oddity) in &possible {
        let what = format!("{oddity:?}, answer {at}");
        match run(*call, |number, datagram| if number == *at { oddity.instead_of(&datagram) } else { None }) {
            Ok(result) if result.contains("UNRESTORED") => {
                failed += 1; // and it says so
                assert!(FATAL.contains(oddity), "{what}: {result}");
            }
            Ok(result) => assert_eq!((&result, machine()), (&good, after.clone()), "{what}"),
            Err(failure) => {
                failed += 1;
                assert!(FATAL.contains(oddity), "{what}: {failure:?}");
                assert!([Errno::EBADMSG, Errno::EMSGSIZE].contains(&failure.errno), "{what}: {failure:?}");
                if machine() != before {
                    // what could not be seen to its end is done by the next call
                    run(*call, |_, _| None).unwrap_or_else(|e| panic!("{what}: {e:?} after {failure:?}"));
                    assert_eq!(machine(), after, "{what}: after {failure:?}");
                }
            }
        }
        reset();
    }
    assert!(!possible.is_empty());
    figure(&format!("{} odd answers, {failed} failures", possible.len()));
    for name in interfaces() {
        let _ = try_ip(&format!("link del {name}"));
    }
}

const FLAGS: u16 = tun::TAP | tun::NO_PI;

fn nothing() {}

fn a_tap() {
    tun::make("tap0", FLAGS);
    ip_batch("link set tap0 address 02:00:00:00:00:01 mtu 1400\n");
}

fn a_port() {
    a_tap();
    ip_batch("link add br0 type bridge\nlink add br1 type bridge\n");
    as_port();
}

fn as_port() {
    ip_batch("link set br0 mtu 1500 up\nlink set tap0 mtu 1400 nomaster\nlink set tap0 master br0\nlink set tap0 alias good\n");
}

fn creating() {
    let existing = || Rust.create(Some("tap0"), None, 1, ALLOW_EXISTING | PERSIST).map(|made| made.name);
    every_answer(&Scenario { set_up: a_tap, call: existing, reset: nothing });
    let in_a_port = || Rust.create_in("tap1", NONE, &port("br0").isolated()).map(|made| format!("{}", made.mtu));
    every_answer(&Scenario { set_up: a_port, call: in_a_port, reset: nothing });
}

fn moving() {
    let attach = || Rust.reattach("tap0", &port("br1").mtu(1300), false).map(|mtu| mtu.to_string());
    every_answer(&Scenario { set_up: a_port, call: attach, reset: as_port });
}

fn three_taps() {
    for i in 0..3 {
        if !exists(&format!("tap{i}")) {
            tun::make(&format!("tap{i}"), FLAGS);
        }
        ip_batch(&format!("link set tap{i} address 02:00:00:00:00:0{i}\n"));
    }
}

fn deleting() {
    let one = || Rust.delete("tap0", None).map(|()| String::new());
    every_answer(&Scenario { set_up: three_taps, call: one, reset: three_taps });
    let list = || {
        let names = ["tap0", "tap1", "tap2", "tap9"].map(|name| interface_name(name.as_bytes()).unwrap());
        delete_list(&names, None).into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(String::new())
    };
    every_answer(&Scenario { set_up: three_taps, call: list, reset: three_taps });
}

fn counting() {
    let one = || Rust.stats("tap0").map(|all| format!("{all:?}"));
    every_answer(&Scenario { set_up: a_tap, call: one, reset: nothing });
    fn listed(count: usize) -> Outcome {
        let names: Vec<_> = (0..count).map(|i| interface_name(format!("tap{i}").as_bytes()).unwrap()).collect();
        let found = interface_stats_list(&names)?;
        Ok(format!("{}", found.iter().flatten().count()))
    }
    every_answer(&Scenario { set_up: a_port, call: || listed(10), reset: nothing });
    every_answer(&Scenario { set_up: a_port, call: || listed(100), reset: nothing });
}

fn saving() {
    let save = || save("tap0").map(|()| record());
    every_answer(&Scenario { set_up: a_port, call: save, reset: || discard("tap0").unwrap() });
}

/// What matters of the record.
fn record() -> String {
    let record: Value = serde_json::from_slice(&std::fs::read(common::state::record("tap0")).unwrap()).unwrap();
    let before = &record["before"];
    format!("{} {} {} {}", before["mtu"], before["mac"], before["tap"]["flags"], before["port"]["master"]["name"])
}

fn an_evil_end() {
    discard("tap0").unwrap();
    as_port();
    save("tap0").unwrap();
    ip_batch("link set tap0 mtu 1300 alias evil nomaster\n");
}

fn looking() {
    let set_up = || {
        a_port();
        an_evil_end();
    };
    every_answer(&Scenario { set_up, call: || check("tap0").map(|fields| format!("{fields:?}")), reset: nothing });
    discard("tap0").unwrap();
}

fn restoring(oddities: &[Oddity]) {
    let set_up = || {
        a_port();
        an_evil_end();
    };
    let call = || {
        let queue = tun::open("tap0", FLAGS).unwrap();
        hold("tap0", &[queue])?;
        restore("tap0").map(|fields| format!("{fields:?}"))
    };
    each_answer(&Scenario { set_up, call, reset: an_evil_end }, oddities);
    discard("tap0").unwrap();
}

fn restoring_all_the_same() {
    restoring(&SURVIVED);
}

fn restoring_or_not() {
    restoring(&FATAL);
}

/// A file of sysfs that is gone between one look and the next, or of which half is read: the rest has to do.
fn sysfs_that_fades() {
    a_port();
    save("tap0").unwrap();
    let good = record();
    let call = || {
        discard("tap0").unwrap();
        save("tap0").unwrap();
        assert_eq!(record(), std::fs::read_to_string(RESULT).unwrap());
        ip("link set tap0 mtu 1300");
        i32::from(restore("tap0").unwrap() != Fields::MTU)
    };
    std::fs::write(RESULT, good).unwrap();
    let (mut seen, mut tampered) = (BTreeSet::new(), 0);
    for short in [false, true] {
        for at in 0.. {
            let mut number = 0;
            let status = with_odd_answers(call, |answer| {
                let of_sysfs = answer.call == libc::SYS_openat && answer.path().starts_with("/sys/class/net/tap0");
                if of_sysfs && answer.result >= 0 {
                    seen.insert((answer.pid.as_raw(), answer.result as u64));
                }
                let read = answer.call == libc::SYS_read && seen.remove(&(answer.pid.as_raw(), answer.args[0]));
                if if short { read } else { of_sysfs } {
                    if number == at {
                        tampered += 1;
                        answer.result = if short { 1 } else { -(Errno::ENOENT as i64) };
                    }
                    number += 1;
                }
            });
            assert_eq!(status, 0, "short {short}, number {at}");
            ip("link set tap0 mtu 1400");
            if at >= number {
                break;
            }
        }
    }
    figure(&format!("{tampered} files of sysfs were gone or cut short"));
    assert!(tampered > 10);
}

netns_tests![counting, creating, deleting, looking, moving, restoring_all_the_same, restoring_or_not, saving, sysfs_that_fades,];
