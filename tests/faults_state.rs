//! Each system call of the functions for a tap's state fails once: nothing is lost, and the next call does what this one
//! could not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{Failure, Outcome};
use common::faults::{Scenario, Tally, unseen};
use common::hostile::{ATTACKS, Kind, set_group, set_owner, set_persist};
use common::net::{ip, ip_batch, set_up_quietly};
use common::process::Holder;
use common::state::{DIR, check, discard, hold, reclaim, restore, restore_with, save};
use common::steps::piece;
use common::tun;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use virnetdevtap::state::{self, Fields, RestoreFlags};
use virnetdevtap::tap::interface_name;

const FLAGS: u16 = tun::TAP | tun::NO_PI | tun::VNET_HDR;
const MULTI: u16 = tun::TAP | tun::MULTI_QUEUE;

fn whole<T, R>(tally: &mut Tally, name: &str, setup: &dyn Fn() -> T, call: &dyn Fn(&T) -> Outcome<R>) {
    tally.each_call_fails(&Scenario { name, setup, call: &|made: &T| piece(|| call(made)), partly: false });
}

/// A call that is to be made again if it fails.
fn again<T, R>(tally: &mut Tally, name: &str, setup: &dyn Fn() -> T, call: &dyn Fn(&T) -> Outcome<R>) {
    tally.each_call_fails(&Scenario { name, setup, call: &|made: &T| piece(|| call(made)), partly: true });
}

fn no_tap() {
    std::fs::create_dir_all(DIR).unwrap();
}

fn a_tap() {
    no_tap();
    tun::make("tap0", FLAGS);
    let queue = tun::open_soon("tap0", FLAGS);
    set_owner(queue.as_fd(), 1000).unwrap();
    set_group(queue.as_fd(), 1000).unwrap();
    ip("link set tap0 address 02:00:00:00:00:07 alias mine mtu 1400");
}

fn a_strange_tap() {
    no_tap();
    tun::make("tap0", tun::TAP | tun::NAPI);
    ip("link set tap0 address 02:00:00:00:00:07 group 5");
}

fn a_multi_queue_tap() {
    no_tap();
    tun::make("tap0", MULTI);
    ip("link set tap0 address 02:00:00:00:00:07");
}

fn a_port() {
    a_tap();
    ip_batch("link add br0 address 02:00:00:00:00:01 type bridge\nlink set tap0 master br0\n");
    set_up_quietly("br0");
    set_up_quietly("tap0");
    let options = ["link", "set", "dev", "tap0", "cost", "77", "hairpin", "on", "isolated", "on"];
    assert!(std::process::Command::new("bridge").args(options).status().unwrap().success());
}

/// Saved, and opened as the hypervisor does.
fn opened(make: impl Fn(), flags: u16) -> OwnedFd {
    make();
    save("tap0").unwrap();
    tun::open_soon("tap0", flags)
}

/// Held, too.
fn running(make: impl Fn(), flags: u16) -> OwnedFd {
    let queue = opened(make, flags);
    hold("tap0", &[queue.try_clone().unwrap()]).unwrap();
    queue
}

/// The hypervisor has done its worst and is gone.
fn hostile_run(make: impl Fn(), flags: u16, held: bool) {
    let queue = if held { running(make, flags) } else { opened(make, flags) };
    for attack in ATTACKS.iter().filter(|attack| attack.kind == Kind::Any) {
        (attack.run)(queue.as_fd(), None).unwrap();
    }
    if !held {
        set_persist(queue.as_fd(), true).unwrap();
    }
}

fn saving() {
    let mut tally = Tally::default();
    let call = |_: &()| save("tap0");
    whole(&mut tally, "StateSave: absent", &no_tap, &call);
    whole(&mut tally, "StateSave: no directory", &|| (), &call);
    whole(&mut tally, "StateSave: a tap", &a_tap, &call);
    whole(&mut tally, "StateSave: a tap with packet information and NAPI", &a_strange_tap, &call);
    whole(&mut tally, "StateSave: multi-queue", &a_multi_queue_tap, &call);
    whole(&mut tally, "StateSave: a port", &a_port, &call);
    again(&mut tally, "StateSave: after a run without a restore", &|| hostile_run(a_port, FLAGS, false), &call);
    tally.finish("virNetDevTapStateSave");
}

fn holding() {
    let mut tally = Tally::default();
    let call = |queues: &[OwnedFd; 1]| hold("tap0", queues);
    whole(&mut tally, "StateHold: a tap", &|| [opened(a_tap, FLAGS)], &call);
    whole(&mut tally, "StateHold: multi-queue", &|| [opened(a_multi_queue_tap, MULTI)], &call);
    whole(&mut tally, "StateHold: absent before", &|| [opened(no_tap, FLAGS)], &call);
    whole(&mut tally, "StateHold: no record", &|| [tun::open_soon("tap0", FLAGS)], &call);
    whole(&mut tally, "StateHold: once more", &|| [running(a_tap, FLAGS)], &call);
    tally.finish("virNetDevTapStateHold");
}

fn reclaiming() {
    let mut tally = Tally::default();
    let setup = |make: fn(), flags| {
        move || {
            let queue = opened(make, flags);
            Holder::of(&queue)
        }
    };
    let of_that = |holder: &Holder| reclaim("tap0", holder.pid());
    let of_any = |_: &Holder| reclaim("tap0", 0);
    whole(&mut tally, "StateReclaim: a tap", &setup(a_tap, FLAGS), &of_that);
    whole(&mut tally, "StateReclaim: a tap, of whomever", &setup(a_tap, FLAGS), &of_any);
    whole(&mut tally, "StateReclaim: multi-queue", &setup(a_multi_queue_tap, MULTI), &of_that);
    whole(&mut tally, "StateReclaim: absent before", &setup(no_tap, FLAGS), &of_that);
    whole(&mut tally, "StateReclaim: has it", &|| running(a_tap, FLAGS), &|_| reclaim("tap0", 0));
    tally.finish("virNetDevTapStateReclaim");
}

/// The same answer as without a fault, unless the call fails; but what a queue tells is left out where none can be had, as
/// are the offloads where they may not be seen.
fn finds(fields: Fields, guard: bool) -> impl Fn(Fields) {
    let of_a_queue = Fields::VNET_HDR_SIZE | Fields::VNET_ENDIAN | Fields::FILTERS;
    move |found| {
        let mut may_be_missing = if guard { Fields::empty() } else { of_a_queue };
        may_be_missing.set(Fields::OFFLOADS, unseen());
        assert!(fields.contains(found) && may_be_missing.contains(fields - found), "{found:?}, not {fields:?}");
    }
}

fn checking() {
    let mut tally = Tally::default();
    let changed = Fields::PERSIST
        | Fields::OWNER
        | Fields::GROUP
        | Fields::MAC
        | Fields::VNET_HDR_SIZE
        | Fields::VNET_ENDIAN
        | Fields::OFFLOADS
        | Fields::FILTERS;
    let none = |_: &()| check("tap0").map(finds(Fields::empty(), true));
    whole(&mut tally, "StateCheck: no record", &a_tap, &none);
    whole(&mut tally, "StateCheck: untouched", &|| drop(running(a_port, FLAGS)), &none);
    let hostile = |_: &()| check("tap0").map(finds(changed | Fields::CARRIER, true));
    whole(&mut tally, "StateCheck: hostile", &|| hostile_run(a_port, FLAGS, true), &hostile);
    let unheld = |_: &()| check("tap0").map(finds(changed.difference(Fields::PERSIST), false));
    whole(&mut tally, "StateCheck: hostile, no guard", &|| hostile_run(a_tap, FLAGS, false), &unheld);
    let absent = |_: &()| check("tap0").map(finds(Fields::PERSIST, true));
    whole(&mut tally, "StateCheck: absent before", &|| persistent(running(no_tap, FLAGS)), &absent);
    let vanished = |_: &()| check("tap0").map(finds(Fields::VANISHED, true));
    whole(&mut tally, "StateCheck: vanished", &vanishes, &vanished);
    tally.finish("virNetDevTapStateCheck");
}

fn persistent(queue: OwnedFd) {
    set_persist(queue.as_fd(), true).unwrap();
}

fn vanishes() {
    let queue = opened(a_port, FLAGS);
    set_persist(queue.as_fd(), false).unwrap();
}

fn restoring() {
    let mut tally = Tally::default();
    let call = |_: &()| restore("tap0");
    whole(&mut tally, "StateRestore: no record", &a_tap, &call);
    again(&mut tally, "StateRestore: untouched", &|| drop(running(a_tap, FLAGS)), &call);
    again(&mut tally, "StateRestore: untouched port", &|| drop(running(a_port, FLAGS)), &call);
    again(&mut tally, "StateRestore: hostile", &|| hostile_run(a_tap, FLAGS, true), &call);
    again(&mut tally, "StateRestore: hostile, a port", &|| hostile_run(a_port, FLAGS, true), &call);
    again(
        &mut tally,
        "StateRestore: hostile, packet information and NAPI",
        &|| hostile_run(a_strange_tap, tun::TAP, true),
        &call,
    );
    again(&mut tally, "StateRestore: hostile, multi-queue", &|| hostile_run(a_multi_queue_tap, MULTI, true), &call);
    again(&mut tally, "StateRestore: hostile, no guard", &|| hostile_run(a_port, FLAGS, false), &call);
    tally.finish("virNetDevTapStateRestore");
}

fn restoring_the_rest() {
    let mut tally = Tally::default();
    let call = |_: &()| restore("tap0");
    again(&mut tally, "StateRestore: absent before", &|| persistent(running(no_tap, FLAGS)), &call);
    again(&mut tally, "StateRestore: absent before, never held", &|| drop(opened(no_tap, FLAGS)), &call);
    again(&mut tally, "StateRestore: vanished", &vanishes, &call);
    let moved = || {
        drop(running(a_port, FLAGS));
        ip("link set tap0 nomaster name tap7 group 3 txqueuelen 77");
        ip("link property add dev tap7 altname another");
    };
    again(&mut tally, "StateRestore: renamed, off its bridge", &moved, &call);
    let with = |flags| move |_: &Option<Holder>| restore_with("tap0", flags);
    let held = || Some(Holder::of(running(a_port, FLAGS)));
    again(&mut tally, "StateRestore: EVICT", &held, &with(RestoreFlags::EVICT));
    let gone = || {
        hostile_run(a_port, FLAGS, true);
        None
    };
    again(&mut tally, "StateRestore: REMOVE", &gone, &with(RestoreFlags::REMOVE));
    whole(&mut tally, "StateRestore: LEAVE", &gone, &with(RestoreFlags::LEAVE));
    let ownerless = || {
        hostile_run(a_strange_tap, tun::TAP, true);
        None
    };
    again(&mut tally, "StateRestore: RECREATE", &ownerless, &with(RestoreFlags::RECREATE));
    tally.finish("virNetDevTapStateRestore, the rest");
}

/// Two that were there, one that was not, and one without a record.
fn restoring_many() {
    let mut tally = Tally::default();
    let names = ["tap0", "tap1", "tap2", "tap3"].map(|name| interface_name(name.as_bytes()).unwrap());
    let setup = || {
        hostile_run(a_port, FLAGS, true);
        tun::make("tap1", FLAGS);
        ip("link set tap1 address 02:00:00:00:00:08");
        for name in ["tap1", "tap2", "tap3"] {
            if name != "tap3" {
                save(name).unwrap();
            }
            let queue = tun::open_soon(name, FLAGS);
            hold(name, &[queue.try_clone().unwrap()]).unwrap();
            set_persist(queue.as_fd(), true).unwrap();
        }
    };
    let call = |_: &()| {
        let all = state::restore_list(&names, None, DIR.as_ref(), RestoreFlags::empty());
        all.into_iter().try_for_each(|restored| restored.map(drop).map_err(Failure::from))
    };
    again(&mut tally, "StateRestoreList", &setup, &call);
    tally.finish("virNetDevTapStateRestoreList");
}

fn the_rest() {
    let mut tally = Tally::default();
    whole(&mut tally, "StateDiscard", &|| drop(running(a_tap, FLAGS)), &|()| discard("tap0"));
    whole(&mut tally, "StateDiscard: no record", &a_tap, &|()| discard("tap0"));
    let left = format!("{DIR}/.tap1.tmp");
    let list = |_: &()| {
        let names = piece(|| state::list(DIR.as_ref())).map_err(Failure::from)?;
        assert_eq!(names.iter().map(ToString::to_string).collect::<Vec<_>>(), ["tap0"]);
        if Path::new(&left).exists() {
            state::list(DIR.as_ref()).unwrap(); // one that may not lock the directory leaves it to the next
        }
        Ok(())
    };
    let setup = || {
        drop(running(a_tap, FLAGS));
        std::fs::write(&left, "half a reco").unwrap();
    };
    tally.each_call_fails(&Scenario { name: "StateList", setup: &setup, call: &list, partly: true });
    tally.finish("virNetDevTapStateDiscard and List");
}

shared_netns_tests![saving, holding, reclaiming, checking, restoring, restoring_the_rest, restoring_many, the_rest];
