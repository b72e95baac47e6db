//! Between any two system calls of a call somebody else renames, deletes, replaces or opens its tap. Nobody else's device is
//! touched, and a call that fails leaves the tap as it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{ALLOW_EXISTING, C, Failure, IFUP, Outcome, TapApi, VNET_HDR};
use common::bridge::{BridgeApi, MAC, port};
use common::faults::agree;
use common::hostile::{set_offloads, set_owner};
use common::machine::{empty, machine_from_outside, was_looked_at};
use common::net::{exists, ip_batch, try_ip};
use common::process::Forked;
use common::state::{DIR, check, differences, hold, reclaim, restore, save};
use common::steps::{Call, piece, watch, watch_while};
use common::{count, figure_of_all, is_deep, share, tun};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use virnetdevtap::tap::{self, interface_name};

/// What changes nothing even if it succeeds.
const LOOKS: [&str; 5] = ["StateSave", "StateHold", "StateReclaim", "StateCheck", "InterfaceStats"];
const SIOCETHTOOL: u64 = 0x8946;
const RESULT: &str = "/tmp/result";
const SINGLE: u16 = tun::TAP | tun::NO_PI | tun::VNET_HDR;
const MULTI: u16 = SINGLE | tun::MULTI_QUEUE;

/// What others do. They may keep a queue open.
type Deed = fn(u16) -> Option<OwnedFd>;

fn renamed(_: u16) -> Option<OwnedFd> {
    let _ = try_ip("link set tap0 name away0");
    None
}

fn another_has_its_name(_: u16) -> Option<OwnedFd> {
    let _ = try_ip("link set tap0 name away0");
    let _ = try_ip("link set other0 name tap0");
    None
}

fn deleted(_: u16) -> Option<OwnedFd> {
    let _ = try_ip("link del tap0");
    None
}

fn replaced(flags: u16) -> Option<OwnedFd> {
    let _ = try_ip("link del tap0");
    if !exists("tap0") {
        tun::make("tap0", flags);
        let _ = try_ip("link set tap0 address 02:00:00:00:00:99 alias new");
    }
    None
}

fn opened(flags: u16) -> Option<OwnedFd> {
    tun::open("tap0", flags).ok()
}

thread_local! {
    static HELD: RefCell<Option<OwnedFd>> = const { RefCell::new(None) };
}

/// By this process, which has had it.
fn closed(_: u16) -> Option<OwnedFd> {
    HELD.take();
    None
}

const DEEDS: [(&str, Deed); 6] = [
    ("renamed", renamed),
    ("another has its name", another_has_its_name),
    ("deleted", deleted),
    ("replaced", replaced),
    ("opened", opened),
    ("closed", closed),
];

/// A tap, and a stranger's which has nothing in common with it.
fn taps(flags: u16) {
    std::fs::create_dir_all(DIR).unwrap();
    tun::make("tap0", flags);
    let queue = tun::open("other0", SINGLE).unwrap(); // it refuses the queues of a multi-queue tap
    tun::set_persist(&queue, true);
    set_owner(queue.as_fd(), 1000).unwrap();
    set_offloads(queue.as_fd(), 0x0f).unwrap();
    drop(queue);
    ip_batch(
        "link set tap0 address 02:00:00:00:00:07 alias ours
         link set other0 address 02:00:00:00:00:08 alias other mtu 1400 group 3 txqueuelen 77\n",
    );
}

fn bridges() {
    ip_batch("link add br0 address 02:00:00:00:00:01 type bridge\nlink add br1 address 02:00:00:00:00:02 type bridge\n");
}

/// Taps by their identity, without their names.
fn devices() -> BTreeMap<u64, Value> {
    let machine = machine_from_outside();
    let devices = machine.as_object().unwrap().values().filter(|device| device["link"]["linkinfo"]["info_kind"] == "tun");
    let nameless = |device: &Value| {
        let mut device = device.clone();
        device["link"]["ifname"] = Value::Null;
        (device["rest"]["inode"].as_u64().unwrap(), device)
    };
    devices.map(nameless).collect()
}

fn identity(name: &str) -> Option<u64> {
    std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(format!("/sys/class/net/{name}")).ok()?).into()
}

/// What the call has come to: which devices it has opened, or why it has failed.
fn tell(result: Outcome<Vec<OwnedFd>>) {
    let told = match result {
        Ok(queues) => {
            let names = queues.iter().filter_map(|queue| C.name_of(queue.as_fd()).ok());
            json!({ "devices": names.filter_map(|name| identity(&name)).collect::<BTreeSet<_>>() })
        }
        Err(failure) => {
            let says_something = !failure.text.contains("internal error") || failure.text.ends_with("Interface not found");
            assert!(failure.text.len() > 10 && says_something && failure.errno != Errno::EBADF, "{failure:?}");
            json!({ "failure": failure.text })
        }
    };
    std::fs::write(RESULT, told.to_string()).unwrap();
}

/// Of all the runs.
#[derive(Default)]
struct Tally {
    runs: usize,
    refused: usize,
    complaints: Vec<String>,
}

fn each_moment(name: &str, flags: u16, setup: &dyn Fn(), call: &dyn Fn() -> Outcome<Vec<OwnedFd>>) {
    each_moment_and_then(name, flags, setup, call, &|| ());
}

/// `then` is done after the call, before anybody looks.
fn each_moment_and_then(name: &str, flags: u16, setup: &dyn Fn(), call: &dyn Fn() -> Outcome<Vec<OwnedFd>>, then: &dyn Fn()) {
    let body = || {
        std::panic::set_hook(Box::new(|info| std::fs::write(RESULT, info.to_string()).unwrap()));
        tell(piece(call));
    };
    let anew = || {
        empty();
        taps(flags);
        setup();
    };
    anew();
    let calls = agree(name, &watch(None, body).calls);
    // what comes before the first question is asked concerns whatever has the name then
    let asks = |call: &Call| matches!(call.number, libc::SYS_sendto | libc::SYS_sendmsg) || call.kind().1 == libc::TUNSETIFF;
    let others_first = usize::from(name.ends_with("ttachBridge")); // it looks at the bridge before
    let (asked, _) = calls.iter().enumerate().filter(|(_, call)| asks(call)).nth(others_first).unwrap();
    let deeds = if HELD.with_borrow(Option::is_some) { &DEEDS[..] } else { &DEEDS[..5] };
    let plans: Vec<_> = calls.iter().skip(asked + 1).flat_map(|call| deeds.iter().map(move |deed| (call, *deed))).collect();
    let step = if is_deep() { 1 } else { plans.len().div_ceil(count(12, 2)) };
    let mut tally = Tally::default();
    let all = plans.len();
    for (call, deed) in share(plans.into_iter().skip(name.len() % step).step_by(step)) {
        anew();
        tally.one(name, flags, call, deed, &body, then);
    }
    empty();
    let text = format!("{name}: {{}} of {all} deeds amid {} system calls; {{}} made it fail", calls.len());
    figure_of_all(&text, &[tally.runs, tally.refused]);
    assert!(tally.complaints.is_empty(), "{} complaints:\n{}", tally.complaints.len(), tally.complaints.join("\n"));
}

impl Tally {
    fn one(&mut self, name: &str, flags: u16, call: &Call, (what, deed): (&str, Deed), body: &dyn Fn(), then: &dyn Fn()) {
        let ours = identity("tap0").unwrap();
        let before = devices();
        let done = RefCell::new(None);
        let watched = watch_while(call, &mut || *done.borrow_mut() = Some((deed(flags), devices())), body);
        let Some((queue, meanwhile)) = done.into_inner() else { return };
        self.runs += 1;
        then();
        let after = devices();
        let in_use = queue.is_some();
        drop(queue);
        let told = std::fs::read_to_string(RESULT).unwrap_or_default();
        let told: Value = serde_json::from_str(&told).unwrap_or(Value::String(told));
        let mut wrong = Vec::new();
        if watched.status != Some(0) {
            wrong.push("it does not say what it should".to_owned());
        }
        // what has the name when it is opened is what is wanted
        let strangers = meanwhile.iter().filter(|(device, _)| **device != ours && told["devices"] != json!([device]));
        for (device, then) in strangers {
            wrong.extend(changes("a stranger", then, after.get(device)));
        }
        if call.kind() == (libc::SYS_ioctl, SIOCETHTOOL) {
            wrong.retain(|line| !line.contains("a stranger/rest/features")); // it knows devices by their names only
        }
        let failed = !told["failure"].is_null();
        self.refused += usize::from(failed);
        let must_be_as_before = failed || LOOKS.iter().any(|looks| name.starts_with(looks));
        if must_be_as_before && meanwhile.contains_key(&ours) {
            wrong.extend(changes("ours", &before[&ours], after.get(&ours)));
            wrong.retain(|line| !in_use || !line.contains("ours/link/linkinfo/info_data/numqueues: "));
        }
        let anew = what == "deleted" && ["StateSave", "StateRestore"].iter().any(|restored| name.starts_with(restored));
        if !anew && after.keys().any(|device| !meanwhile.contains_key(device)) {
            wrong.push("a device more".to_owned());
        }
        if told["devices"].as_array().is_some_and(|devices| devices.len() > 1) {
            wrong.push("of several devices".to_owned());
        }
        if !wrong.is_empty() {
            let place = format!("call {}, number {} {:x?}", call.at, call.number, &call.args[..3]);
            self.complaints.push(format!("{name}: {what} at {place}: {told}: {wrong:#?}"));
        }
    }
}

fn changes(whose: &str, then: &Value, now: Option<&Value>) -> Vec<String> {
    let Some(now) = now else { return vec![format!("{whose} is gone")] };
    let mut differences = differences(whose, then, now);
    differences.retain(|line| !was_looked_at(line));
    differences
}

fn none<T>(result: Outcome<T>) -> Outcome<Vec<OwnedFd>> {
    result.map(|_| Vec::new())
}

fn opening() {
    for (name, flags, queues) in
        [("Create", SINGLE, 1), ("Create, 1 of several queues", MULTI, 1), ("Create, 3 queues", MULTI, 3)]
    {
        let create = || C.create(Some("tap0"), None, queues, ALLOW_EXISTING | VNET_HDR).map(|made| made.queues);
        each_moment(name, flags, &|| (), &create);
    }
}

fn deleting() {
    for (name, flags) in [("Delete", SINGLE), ("Delete, multi-queue", MULTI)] {
        each_moment(name, flags, &|| (), &|| none(C.delete("tap0", None)));
    }
}

fn deleting_many() {
    let names = ["missing0", "tap0"].map(|name| interface_name(name.as_bytes()).unwrap());
    let delete = || {
        let all = tap::delete_list(&names, None).into_iter();
        all.collect::<Result<Vec<()>, _>>().map_err(Failure::from)
    };
    for (name, flags) in [("DeleteList", SINGLE), ("DeleteList, multi-queue", MULTI)] {
        each_moment(name, flags, &|| (), &|| none(delete()));
    }
}

fn persisting() {
    for (name, flags) in [("SetPersist", SINGLE), ("SetPersist, multi-queue", MULTI)] {
        each_moment(name, flags, &|| (), &|| none(C.set_persist("tap0", None, false)));
    }
}

fn on_a_bridge() {
    let there = port("br0").isolated().mtu(1300);
    each_moment("AttachBridge", SINGLE, &bridges, &|| none(C.attach("tap0", &there)));
    let setup = || {
        bridges();
        ip_batch("link set tap0 master br1\n");
    };
    each_moment("ReattachBridge", SINGLE, &setup, &|| none(C.reattach("tap0", &there, false)));
    let create = || C.create_with(Some("tap0"), Some(MAC), 2, IFUP | ALLOW_EXISTING | VNET_HDR, &there, None);
    each_moment("CreateInBridgePort", MULTI, &bridges, &|| create().map(|made| made.tap.queues));
}

/// What was saved is of one device: putting it back changes none.
fn saving() {
    let then = || Forked::run(|| drop(restore("tap0"))).join();
    for (name, flags) in [("StateSave", SINGLE), ("StateSave, multi-queue", MULTI)] {
        each_moment_and_then(name, flags, &|| (), &|| none(save("tap0")), &then);
    }
}

fn looking() {
    each_moment("InterfaceStats", SINGLE, &|| (), &|| none(C.stats("tap0")));
    let saved = || save("tap0").unwrap();
    each_moment("StateCheck", SINGLE, &saved, &|| none(check("tap0")));
    each_moment("StateReclaim, multi-queue", MULTI, &saved, &|| none(reclaim("tap0", 0)));
    let holding = || {
        saved();
        HELD.set(Some(tun::open_soon("tap0", SINGLE)));
    };
    let of_the_parent = || reclaim("tap0", nix::unistd::getppid().as_raw());
    each_moment("StateReclaim", SINGLE, &holding, &|| none(of_the_parent()));
    HELD.take();
    let queue = RefCell::new(None);
    let opened = || {
        saved();
        queue.replace(Some(tun::open_soon("tap0", MULTI)));
    };
    let hold = || hold("tap0", &[queue.borrow().as_ref().unwrap().try_clone().unwrap()]);
    each_moment("StateHold", MULTI, &opened, &|| none(hold()));
}

/// Another process keeps the file that the first one found has just let go.
fn first_holder_lets_go() {
    taps(SINGLE);
    save("tap0").unwrap();
    HELD.set(Some(tun::open_soon("tap0", SINGLE)));
    let keeper = Forked::run(|| std::thread::sleep(Duration::from_secs(20)));
    let body = || {
        HELD.take();
        assert_eq!(piece(|| reclaim("tap0", 0)), Ok(()));
    };
    let calls = watch(None, body).calls;
    let gets_file = calls.iter().find(|call| call.number == libc::SYS_pidfd_getfd).unwrap();
    let watched = watch_while(gets_file, &mut || drop(HELD.take()), body);
    assert!(watched.met && watched.status == Some(0), "{watched:?}");
    kill(keeper.pid(), Signal::SIGKILL).unwrap();
    waitpid(keeper.pid(), None).unwrap();
}

fn restoring() {
    for (name, flags) in [("StateRestore", SINGLE), ("StateRestore, multi-queue", MULTI)] {
        let ran = || {
            bridges();
            save("tap0").unwrap();
            let queue = tun::open_soon("tap0", flags);
            set_owner(queue.as_fd(), 1).unwrap();
            set_offloads(queue.as_fd(), 0x01).unwrap();
            ip_batch("link set tap0 mtu 1300 group 5 master br0 alias changed\n");
        };
        each_moment(name, flags, &ran, &|| none(restore("tap0")));
    }
}

shared_netns_tests![opening, deleting, deleting_many, persisting, on_a_bridge, saving, looking, first_holder_lets_go, restoring];
