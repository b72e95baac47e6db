//! Each system call of the functions for a tap's state fails once: nothing is lost, and the next call does what this one
//! could not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::Failure;
use common::faults::{Scenario, Tally, unseen};
use common::hostile::{self, ATTACKS, Kind, set_group, set_owner, set_persist};
use common::macvtap::{macvtap, open_queue};
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
    tally.whole("StateSave: absent", &no_tap, &call);
    tally.whole("StateSave: no directory", &|| (), &call);
    tally.whole("StateSave: a tap", &a_tap, &call);
    tally.whole("StateSave: a tap with packet information and NAPI", &a_strange_tap, &call);
    tally.whole("StateSave: multi-queue", &a_multi_queue_tap, &call);
    tally.whole("StateSave: a port", &a_port, &call);
    tally.again("StateSave: after a run without a restore", &|| hostile_run(a_port, FLAGS, false), &call);
    tally.finish("virNetDevTapStateSave");
}

fn holding() {
    let mut tally = Tally::default();
    let call = |queues: &[OwnedFd; 1]| hold("tap0", queues);
    tally.whole("StateHold: a tap", &|| [opened(a_tap, FLAGS)], &call);
    tally.whole("StateHold: multi-queue", &|| [opened(a_multi_queue_tap, MULTI)], &call);
    tally.whole("StateHold: absent before", &|| [opened(no_tap, FLAGS)], &call);
    tally.whole("StateHold: no record", &|| [tun::open_soon("tap0", FLAGS)], &call);
    tally.whole("StateHold: once more", &|| [running(a_tap, FLAGS)], &call);
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
    tally.whole("StateReclaim: a tap", &setup(a_tap, FLAGS), &of_that);
    tally.whole("StateReclaim: a tap, of whomever", &setup(a_tap, FLAGS), &of_any);
    tally.whole("StateReclaim: multi-queue", &setup(a_multi_queue_tap, MULTI), &of_that);
    let elsewhere = || Holder::elsewhere(opened(a_tap, FLAGS));
    tally.whole("StateReclaim: from another network namespace", &elsewhere, &of_that);
    tally.whole("StateReclaim: absent before", &setup(no_tap, FLAGS), &of_that);
    tally.whole("StateReclaim: has it", &|| running(a_tap, FLAGS), &|_| reclaim("tap0", 0));
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
    tally.whole("StateCheck: no record", &a_tap, &none);
    tally.whole("StateCheck: untouched", &|| drop(running(a_port, FLAGS)), &none);
    let hostile = |_: &()| check("tap0").map(finds(changed | Fields::CARRIER, true));
    tally.whole("StateCheck: hostile", &|| hostile_run(a_port, FLAGS, true), &hostile);
    let unheld = |_: &()| check("tap0").map(finds(changed.difference(Fields::PERSIST), false));
    tally.whole("StateCheck: hostile, no guard", &|| hostile_run(a_tap, FLAGS, false), &unheld);
    let absent = |_: &()| check("tap0").map(finds(Fields::PERSIST, true));
    tally.whole("StateCheck: absent before", &|| persistent(running(no_tap, FLAGS)), &absent);
    let vanished = |_: &()| check("tap0").map(finds(Fields::VANISHED, true));
    tally.whole("StateCheck: vanished", &vanishes, &vanished);
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
    tally.whole("StateRestore: no record", &a_tap, &call);
    tally.again("StateRestore: untouched", &|| drop(running(a_tap, FLAGS)), &call);
    tally.again("StateRestore: untouched port", &|| drop(running(a_port, FLAGS)), &call);
    tally.again("StateRestore: hostile", &|| hostile_run(a_tap, FLAGS, true), &call);
    tally.again("StateRestore: hostile, a port", &|| hostile_run(a_port, FLAGS, true), &call);
    tally.again("StateRestore: hostile, packet information and NAPI", &|| hostile_run(a_strange_tap, tun::TAP, true), &call);
    tally.again("StateRestore: hostile, multi-queue", &|| hostile_run(a_multi_queue_tap, MULTI, true), &call);
    tally.again("StateRestore: hostile, no guard", &|| hostile_run(a_port, FLAGS, false), &call);
    tally.finish("virNetDevTapStateRestore");
}

fn restoring_the_rest() {
    let mut tally = Tally::default();
    let call = |_: &()| restore("tap0");
    tally.again("StateRestore: absent before", &|| persistent(running(no_tap, FLAGS)), &call);
    tally.again("StateRestore: absent before, never held", &|| drop(opened(no_tap, FLAGS)), &call);
    tally.again("StateRestore: vanished", &vanishes, &call);
    let moved = || {
        drop(running(a_port, FLAGS));
        ip("link set tap0 nomaster name tap7 group 3 txqueuelen 77");
        ip("link property add dev tap7 altname another");
    };
    tally.again("StateRestore: renamed, off its bridge", &moved, &call);
    let other = || {
        let queue = running(a_port, FLAGS);
        let other = Holder::elsewhere(std::fs::File::open("/dev/null").unwrap());
        ip(&format!("link set tap0 netns {}", other.pid()));
        drop(queue);
        other
    };
    tally.again("StateRestore: moved to another network namespace", &other, &|_| restore("tap0"));
    let with = |flags| move |_: &Option<Holder>| restore_with("tap0", flags);
    let held = || Some(Holder::of(running(a_port, FLAGS)));
    tally.again("StateRestore: EVICT", &held, &with(RestoreFlags::EVICT));
    let gone = || {
        hostile_run(a_port, FLAGS, true);
        None
    };
    tally.again("StateRestore: REMOVE", &gone, &with(RestoreFlags::REMOVE));
    tally.whole("StateRestore: LEAVE", &gone, &with(RestoreFlags::LEAVE));
    let ownerless = || {
        hostile_run(a_strange_tap, tun::TAP, true);
        None
    };
    tally.again("StateRestore: RECREATE", &ownerless, &with(RestoreFlags::RECREATE));
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
    tally.again("StateRestoreList", &setup, &call);
    tally.finish("virNetDevTapStateRestoreList");
}

fn the_rest() {
    let mut tally = Tally::default();
    tally.whole("StateDiscard", &|| drop(running(a_tap, FLAGS)), &|()| discard("tap0"));
    tally.whole("StateDiscard: no record", &a_tap, &|()| discard("tap0"));
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

/// Their hypervisor has changed the MAC.
fn macvtaps() {
    let made = || {
        no_tap();
        macvtap("bridge");
        ip("link set mvt0 address 02:00:00:00:00:09");
    };
    let ran = || {
        made();
        save("mvt0").unwrap();
        let queue = open_queue();
        hold("mvt0", &[queue.try_clone().unwrap()]).unwrap();
        hostile::mac(queue.as_fd(), [2, 0, 0, 0, 0, 1]).unwrap();
    };
    let mut tally = Tally::default();
    tally.whole("StateSave: a macvtap", &made, &|()| save("mvt0"));
    tally.whole("StateCheck: a macvtap", &ran, &|()| check("mvt0").map(|found| assert_eq!(found, Fields::MAC)));
    tally.again("StateRestore: a macvtap", &ran, &|()| restore("mvt0"));
    tally.finish("macvtaps");
}

shared_netns_tests![saving, holding, reclaiming, checking, restoring, restoring_the_rest, restoring_many, the_rest, macvtaps];
