//! Processes and threads that do everything at once with the same few names, for a while, and an observer.
//!
//! Devices of others must not see anything of it, no two guests may get the same tap, and in the end nothing is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{ALLOW_EXISTING, C, Failure, Made, NONE, PERSIST, Rust, TapApi, VNET_HDR};
use common::bridge::{BridgeApi, port};
use common::net::{Events, ip, look, only, soon, sysfs, try_ip};
use common::process::{Forked, Holder, open_files, threads};
use common::random::Random;
use common::state::{check, discard, hold, list, nothing_recorded, reclaim, restore, restore_with, save};
use common::{figure, is_deep, rounds, skip, tun};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use virnetdevtap::state::RestoreFlags;
use virnetdevtap::tap::{delete_list, interface_name};

const TAP: u16 = tun::TAP | tun::NO_PI;
/// Everybody's, also under each other's names and in the other namespace.
const SHARED: [&str; 4] = ["c0", "c1", "c2", "c3"];
/// Used by callers of the library, and for bridges by somebody who does not know of them.
const TAKEN: [&str; 2] = ["f0", "f1"];
/// Nobody's business.
const BYSTANDERS: [&str; 5] = ["by0", "by1", "by2", "by3", "by4"];
const PROCESSES: u64 = 2;
const THREADS: u64 = 3;

/// Whoever has a tap has a symbolic link, named after the device's sysfs inode, to the number of his process.
struct Owned(String);

impl Owned {
    fn claim(made: &Made) -> Option<Self> {
        let path = format!("/tmp/owned/{}", device_of(&made.queues[0])?);
        let me = std::process::id().to_string();
        match std::os::unix::fs::symlink(&me, &path) {
            Ok(()) => Some(Self(path)),
            Err(_) => {
                let other = std::fs::read_link(&path).unwrap_or_default();
                // a manager may open further queues of a multi-queue tap that it has already
                assert_eq!(other.to_str().unwrap(), me, "two guests have got one tap, {path}");
                None
            }
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// Which device this is a queue of; None if somebody has deleted it or moved it away.
fn device_of(queue: &OwnedFd) -> Option<u64> {
    let name = || Rust.name_of(queue.as_fd()).ok();
    loop {
        let first = name()?;
        let inode = std::fs::metadata(format!("/sys/class/net/{first}")).ok()?.ino();
        // renames take much longer than this
        if name()? == first && tun::is_here(queue) {
            return Some(inode);
        }
        tun::is_here(queue).then_some(())?;
    }
}

/// What a call may be refused for when everybody plays with its device; everything else is a mistake of ours.
fn expected(failure: &Failure) -> bool {
    use Errno::*;
    [EEXIST, EBUSY, EAGAIN, EINVAL, ENODEV, EBADFD, ENOENT, ESRCH, ESTALE, EXDEV, EOPNOTSUPP].contains(&failure.errno)
}

/// One caller: random calls until the time is over. How often each has worked and has been refused.
fn caller(api: &dyn BridgeApi, seed: u64, end: Instant) -> BTreeMap<String, (usize, usize)> {
    let mut random = Random::new(seed);
    let mut tally = BTreeMap::new();
    while Instant::now() < end {
        let names: Vec<&str> = SHARED.into_iter().chain(TAKEN).collect();
        let name = *random.pick(&names);
        let mut told = |what: &str, result: Result<(), Failure>| {
            let counts: &mut (usize, usize) = tally.entry(what.to_owned()).or_default();
            match result {
                Ok(()) => counts.0 += 1,
                Err(failure) => {
                    counts.1 += 1;
                    assert!(expected(&failure), "{what} {name}: {failure:?}");
                }
            }
        };
        match random.below(12) {
            0..=2 => {
                let flags = *random.pick(&[NONE, ALLOW_EXISTING, ALLOW_EXISTING | VNET_HDR, PERSIST, ALLOW_EXISTING | PERSIST]);
                let made = api.create(Some(name), None, 1 + random.below(2), flags);
                if let Ok(made) = &made {
                    let _owned = Owned::claim(made);
                    std::thread::sleep(Duration::from_micros(random.below(2000) as u64));
                }
                told("create", made.map(drop));
            }
            3..=6 => {
                // a guest's whole life, with or without an honest end
                told("save", save(name));
                let made = api.create(Some(name), None, 1 + random.below(2), ALLOW_EXISTING);
                if let Ok(made) = &made {
                    let owned = Owned::claim(made);
                    told("hold", hold(name, &made.queues));
                    if random.below(2) == 0 {
                        let _ = common::hostile::set_persist(made.queues[0].as_fd(), random.below(2) == 0);
                    }
                    told("check", check(name).map(drop));
                    if random.below(8) == 0 {
                        told("reclaim", reclaim(name, 0));
                    }
                    drop(owned);
                }
                told("create", made.map(drop));
                let flags = *random.pick(&[RestoreFlags::empty(), RestoreFlags::empty(), RestoreFlags::REMOVE]);
                told("restore", restore_with(name, flags).map(drop));
            }
            7 => told("delete", api.delete(name, None)),
            8 => {
                let names: Vec<_> = SHARED.iter().map(|name| interface_name(name.as_bytes()).unwrap()).collect();
                for result in delete_list(&names, None) {
                    told("delete list", result.map_err(Failure::from));
                }
            }
            9 => told("set persist", api.set_persist(name, None, random.below(2) == 0)),
            10 => {
                let name = *random.pick(&SHARED);
                told("attach", api.attach(name, &port("br0")).map(drop));
                told("reattach", api.reattach(name, &port("br1"), random.below(2) == 0).map(drop));
            }
            _ => {
                told("statistics", api.stats(name).map(drop));
                told("get persist", api.get_persist(name).map(drop));
                told("holders", api.holders(name).map(drop));
            }
        }
    }
    tally
}

/// Callers in several threads; tells what they did, and leaves nothing open.
fn manager(number: u64, end: Instant) {
    let before = open_files();
    let all = Mutex::new(BTreeMap::<String, (usize, usize)>::new());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let all = &all;
            scope.spawn(move || {
                let api: &dyn BridgeApi = if thread % 2 == 0 { &Rust } else { &C };
                for (what, (done, refused)) in caller(api, number * 100 + thread, end) {
                    let mut all = all.lock().unwrap();
                    let sum = all.entry(what).or_default();
                    *sum = (sum.0 + done, sum.1 + refused);
                }
            });
        }
    });
    let text: Vec<_> = all.into_inner().unwrap().iter().map(|(what, (a, b))| format!("{what} {a}+{b}")).collect();
    figure(&format!("manager {number}, calls that worked + were refused: {}", text.join(", ")));
    for name in SHARED.into_iter().chain(TAKEN) {
        discard(name).unwrap(); // the guards of this process
    }
    assert_eq!(before, open_files(), "files left open");
    assert!(soon(|| threads() == 1), "{} threads left", threads());
}

/// Makes taps, renames them, moves them to the other namespace and back, and deletes them, without the library.
fn somebody(seed: u64, elsewhere: i32, end: Instant) {
    let mut random = Random::new(seed);
    let here = std::process::id();
    while Instant::now() < end {
        let (name, other) = (*random.pick(&SHARED), *random.pick(&SHARED));
        match random.below(5) {
            0 => {
                let flags = *random.pick(&[TAP, TAP | tun::MULTI_QUEUE, TAP | tun::VNET_HDR, tun::TAP | tun::NAPI]);
                if let Ok(queue) = tun::open(name, flags) {
                    let _ = tun::try_set_persist(&queue, true);
                }
            }
            1 => drop(try_ip(&format!("link set {name} name {other}"))),
            2 => drop(try_ip(&format!("link set {name} netns {elsewhere}"))),
            3 => drop(try_in(elsewhere, &format!("link set {name} netns {here}"))),
            _ => drop(try_ip(&format!("link del {name}"))),
        }
    }
}

fn try_in(pid: i32, words: &str) -> std::process::Output {
    let pid = pid.to_string();
    let mut command = std::process::Command::new("nsenter");
    command.args(["-t", &pid, "-n", "ip"]).args(words.split_whitespace()).output().unwrap()
}

/// Has bridges of names that callers use, too. Each is there, and is the same, until its owner deletes it.
fn owner_of_bridges(end: Instant) {
    let (mut had, mut taken) = (0, 0);
    while Instant::now() < end {
        for name in TAKEN {
            if try_ip(&format!("link add {name} type bridge")).is_err() {
                taken += 1;
                continue;
            }
            had += 1;
            let before = sysfs(name, "ifindex").expect("a bridge that was made just now");
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(sysfs(name, "ifindex").as_ref(), Some(&before), "{name} is another one");
            assert!(sysfs(name, "bridge/bridge_id").is_some(), "{name} is no bridge any more");
            ip(&format!("link del {name} type bridge"));
        }
    }
    figure(&format!("bridges under names that callers use: {had} made and untouched, {taken} times the name was a tap's"));
    assert!(had > 0);
}

/// The bystanders when nothing moves any more: the kernel takes up to a second to tell about a carrier.
fn at_rest() -> Vec<String> {
    let mut last = Vec::new();
    loop {
        let now: Vec<String> = BYSTANDERS.iter().map(|name| look(name)).collect();
        if now == last {
            return now;
        }
        last = now;
        std::thread::sleep(Duration::from_millis(1200));
    }
}

fn everybody_at_once() {
    ip("link add br0 type bridge");
    ip("link add br1 type bridge");
    tun::make("by0", TAP);
    tun::make("by1", TAP | tun::MULTI_QUEUE | tun::VNET_HDR);
    tun::make_owned("by2", TAP, 0);
    ip("link add by3 type bridge");
    let held = tun::open("by4", TAP).unwrap();
    std::fs::create_dir("/tmp/owned").unwrap();
    let aside = tun::open("aside0", TAP).unwrap();
    let elsewhere = Holder::elsewhere(&aside); // keeps the namespace, too
    drop(aside);
    let there = elsewhere.pid();
    if !try_in(there, "link").status.success() {
        skip("nsenter does not work here");
    }
    let _guest = Holder::of(&held);
    drop(held);
    let indexes: Vec<i32> = BYSTANDERS.iter().map(|name| sysfs(name, "ifindex").unwrap().parse().unwrap()).collect();
    let before = at_rest();
    let links = Events::listen();

    let time = Duration::from_secs(rounds(120, 8, 3) as u64);
    let end = Instant::now() + time;
    let seed = std::env::var("VIRNETDEVTAP_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs());
    figure(&format!("everybody at once for {} s: VIRNETDEVTAP_SEED={seed}", time.as_secs()));
    let mut all: Vec<_> = (0..PROCESSES).map(|i| Forked::run(move || manager(seed * 10 + i, end))).collect();
    all.extend((0..if is_deep() { 3 } else { 2 }).map(|i| Forked::run(move || somebody(seed * 10 + 5 + i, there, end))));
    all.push(Forked::run(move || owner_of_bridges(end)));
    let (mut heard, mut lost) = (0, 0);
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
        let (news, overflow) = links.of_links();
        lost += usize::from(overflow);
        heard += news.len();
        for (what, index) in &news {
            assert!(!indexes.contains(index), "{what:?} of {}", BYSTANDERS[indexes.iter().position(|i| i == index).unwrap()]);
        }
    }
    all.into_iter().for_each(Forked::join);
    for (name, before) in BYSTANDERS.iter().zip(&before) {
        assert_eq!(*before, look(name), "{name} was touched");
    }
    figure(&format!("{heard} events of links, none of a bystander's; {lost} times events were lost"));

    // what is there is somebody's tap of a shared name, or a record whose manager is gone
    for name in list() {
        let _ = restore(&name);
        discard(&name).unwrap();
    }
    nothing_recorded();
    for name in SHARED {
        let _ = try_in(there, &format!("link del {name}"));
        Rust.delete(name, None).unwrap();
    }
    for name in TAKEN {
        Rust.delete(name, None).unwrap();
    }
    drop(elsewhere);
    assert!(only(&["br0", "br1", "by0", "by1", "by2", "by3", "by4"]));
    assert!(std::fs::read_dir("/tmp/owned").unwrap().next().is_none());
}

netns_tests![everybody_at_once];
