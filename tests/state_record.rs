//! The records on disk: what stands there is believed only if it can be, and nothing is destroyed if not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::Failure;
use common::net::{Events, exists, ip};
use common::process::{Forked, Holder};
use common::state::{
    DIR, Log, check, deletable, discard, hold, list, look_at_rest, looks_like, nothing_recorded, reclaim, record, restore, save,
};
use common::{count, tun};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};
use virnetdevtap::state::Fields;

const FLAGS: u16 = tun::TAP | tun::NO_PI;

fn read() -> Value {
    serde_json::from_slice(&fs::read(record("tap0")).unwrap()).unwrap()
}

fn write(value: &Value) {
    fs::write(record("tap0"), value.to_string()).unwrap();
}

/// Each function that needs a record fails in this way, and leaves the device and the file alone.
fn all_refuse(what: &str, errno: Errno, text: &str) {
    let before = fs::symlink_metadata(record("tap0")).unwrap();
    let content = if before.is_file() { fs::read(record("tap0")).unwrap() } else { Vec::new() };
    let queue = tun::open("tap0", FLAGS | tun::NO_CARRIER).unwrap();
    let events = Events::listen();
    let calls: [(&str, Result<(), Failure>); 5] = [
        ("save", save("tap0")),
        ("hold", hold("tap0", &[queue])),
        ("check", check("tap0").map(drop)),
        ("reclaim", reclaim("tap0", 0)),
        ("restore", restore("tap0").map(drop)),
    ];
    for (call, result) in calls {
        if call == "save" && errno == Errno::ESTALE {
            continue;
        }
        let failure = result.expect_err(call);
        assert_eq!(failure.errno, errno, "{what}, {call}: {failure:?}");
        assert!(failure.text.contains(text) && failure.text.contains("tap0"), "{what}, {call}: {failure:?}");
    }
    assert!(events.take().len() <= 2, "{what}: only the test's own queue");
    let after = fs::symlink_metadata(record("tap0")).unwrap();
    assert_eq!((before.file_type(), before.len()), (after.file_type(), after.len()), "{what}");
    assert!(content.is_empty() || content == fs::read(record("tap0")).unwrap(), "{what}");
    assert_eq!(list(), ["tap0"], "{what}");
}

fn permissions() {
    let _ = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    tun::make("tap0", FLAGS);
    save("tap0").unwrap();
    let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(DIR), mode("/tmp/state"), mode(&record("tap0"))), (0o700, 0o700, 0o600));
    assert_eq!(read()["version"], 1);
    restore("tap0").unwrap();
    nothing_recorded();
    deletable("tap0", false);
}

fn garbage() {
    tun::make("tap0", FLAGS);
    save("tap0").unwrap();
    let good = fs::read(record("tap0")).unwrap();
    let mut newer = read();
    newer["version"] = json!(2);
    let mut typed = read();
    typed["before"]["mtu"] = json!("many");
    let mut huge = good.clone();
    huge.resize(3 << 20, b' ');
    huge.push(b'x');
    let mut cases = vec![
        ("empty", Vec::new()),
        ("text", b"hello".to_vec()),
        ("binary", vec![0xff; 100]),
        ("zeroes", vec![0; 4096]),
        ("array", b"[]".to_vec()),
        ("null", b"null".to_vec()),
        ("object", b"{}".to_vec()),
        ("version only", br#"{"version":1}"#.to_vec()),
        ("deep", [b"[".repeat(100_000), b"]".repeat(100_000)].concat()),
        ("huge", huge),
        ("newer", newer.to_string().into_bytes()),
        ("wrong type", typed.to_string().into_bytes()),
    ];
    for len in (1..good.len() - 2).step_by(good.len() / count(20, 3)) {
        cases.push(("truncated", good[..len].to_vec()));
    }
    for (what, content) in cases {
        fs::write(record("tap0"), content).unwrap();
        all_refuse(what, Errno::EBADMSG, if what == "newer" { "version 2" } else { "" });
    }
    discard("tap0").unwrap();
    nothing_recorded();
}

fn another_boot() {
    tun::make("tap0", FLAGS);
    save("tap0").unwrap();
    let mut other = read();
    other["boot_id"] = json!("11111111-2222-3333-4444-555555555555");
    write(&other);
    for call in [restore("tap0"), check("tap0")] {
        let failure = call.unwrap_err();
        assert_eq!(failure.errno, Errno::ESTALE, "{failure:?}");
    }
    assert_eq!(reclaim("tap0", 0).unwrap_err().errno, Errno::ESTALE);
    assert_eq!(hold("tap0", &[]).unwrap_err().errno, Errno::ESTALE);
    assert_eq!(read(), other);
    let log = Log::start();
    save("tap0").unwrap();
    assert!(log.take()[0].contains("earlier boot"));
    drop(log);
    assert_eq!(restore("tap0").unwrap(), Fields::empty());
    nothing_recorded();
}

fn another_namespace() {
    tun::make("tap0", FLAGS);
    save("tap0").unwrap();
    let mut other = read();
    other["netns_cookie"] = json!(other["netns_cookie"].as_u64().unwrap() + 1);
    write(&other);
    all_refuse("another namespace", Errno::EXDEV, "network namespace");
    discard("tap0").unwrap();
}

fn something_else_in_its_place() {
    tun::make("tap0", FLAGS);
    save("tap0").unwrap();
    fs::rename(record("tap0"), "/tmp/target").unwrap();
    let target = fs::read("/tmp/target").unwrap();
    symlink("/tmp/target", record("tap0")).unwrap();
    all_refuse("symlink", Errno::ELOOP, "symbolic link");
    discard("tap0").unwrap();
    assert_eq!(fs::read("/tmp/target").unwrap(), target);
    symlink("/tmp/nothing", record("tap0")).unwrap();
    all_refuse("dangling", Errno::ELOOP, "symbolic link");
    discard("tap0").unwrap();
    assert!(!Path::new("/tmp/nothing").exists());
    nix::unistd::mkfifo(record("tap0").as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    all_refuse("fifo", Errno::EBADMSG, "");
    discard("tap0").unwrap();
    fs::create_dir(record("tap0")).unwrap();
    all_refuse("directory", Errno::EISDIR, "");
    assert_eq!(discard("tap0").unwrap_err().errno, Errno::EISDIR);
    fs::remove_dir(record("tap0")).unwrap();
    // in place of the temporary file
    symlink("/tmp/target", format!("{DIR}/.tap0.tmp")).unwrap();
    let _ = save("tap0");
    save("tap0").unwrap();
    assert_eq!(fs::read("/tmp/target").unwrap(), target);
    restore("tap0").unwrap();
    nothing_recorded();
}

fn the_directory() {
    tun::make("tap0", FLAGS);
    fs::write("/tmp/state", "a file").unwrap();
    for errno in [save("tap0").unwrap_err().errno, restore("tap0").unwrap_err().errno] {
        assert_eq!(errno, Errno::ENOTDIR);
    }
    fs::remove_file("/tmp/state").unwrap();
    fs::create_dir("/tmp/state").unwrap();
    fs::write(DIR, "a file").unwrap();
    assert_eq!(save("tap0").unwrap_err().errno, Errno::ENOTDIR);
    assert_eq!(discard("tap0").unwrap_err().errno, Errno::ENOTDIR);
    fs::remove_file(DIR).unwrap();
    // foreign files in it are no records, and stay
    fs::create_dir(DIR).unwrap();
    for name in ["README", "x.json.bak", ".json", "a name that is far too long.json", "tap0.json.tmp"] {
        fs::write(format!("{DIR}/{name}"), "x").unwrap();
    }
    fs::write(format!("{DIR}/.tap7.tmp"), "cut o").unwrap();
    save("tap0").unwrap();
    assert_eq!(list(), ["tap0"]);
    assert_eq!(fs::read_dir(DIR).unwrap().count(), 6, "what a writer left that died is gone");
    restore("tap0").unwrap();
}

fn tmpfs(options: &str) {
    fs::create_dir_all(DIR).unwrap();
    mount(Some("tmpfs"), DIR, Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
}

fn a_read_only_directory() {
    tun::make("tap0", FLAGS);
    let before = look_at_rest("tap0", None);
    tmpfs("size=1m");
    save("tap0").unwrap();
    ip("link set tap0 mtu 1300");
    let remount = |flags| mount(None::<&str>, DIR, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>).unwrap();
    remount(MsFlags::MS_RDONLY);
    assert_eq!(restore("tap0").unwrap_err().errno, Errno::EROFS);
    looks_like(&before, "tap0", None);
    assert_eq!(save("tap0").unwrap_err().errno, Errno::EROFS);
    assert_eq!(save("absent0").unwrap_err().errno, Errno::EROFS);
    assert_eq!(discard("tap0").unwrap_err().errno, Errno::EROFS);
    assert_eq!(list(), ["tap0"]);
    remount(MsFlags::empty());
    restore("tap0").unwrap();
    nothing_recorded();
}

fn a_full_directory() {
    tun::make("tap0", FLAGS);
    tmpfs("size=64k,nr_inodes=20");
    let fill = || {
        let mut size = 65536;
        while size > 0 {
            let mut all = fs::read(format!("{DIR}/fill")).unwrap_or_default();
            all.resize(all.len() + size, 1);
            if fs::write(format!("{DIR}/fill"), &all).is_err() {
                size /= 2;
            }
        }
    };
    fill();
    for name in ["tap0", "absent0"] {
        assert_eq!(save(name).unwrap_err().errno, Errno::ENOSPC);
    }
    assert_eq!(list(), [""; 0]);
    assert_eq!(fs::read_dir(DIR).unwrap().count(), 1, "nothing half-written is left");
    fs::remove_file(format!("{DIR}/fill")).unwrap();
    save("tap0").unwrap();
    save("new0").unwrap();
    let old = fs::read(record("new0")).unwrap();
    let queue = tun::open("tap0", FLAGS).unwrap();
    ip("link set tap0 mtu 1300");
    let new = tun::open("new0", FLAGS).unwrap();
    fill();
    assert_eq!(hold("new0", &[new.try_clone().unwrap()]).unwrap_err().errno, Errno::ENOSPC);
    assert_eq!(fs::read(record("new0")).unwrap(), old);
    // the reason that counts is told
    hold("tap0", &[queue.try_clone().unwrap()]).unwrap();
    tun::set_persist(&queue, false);
    let holder = Holder::of(&queue);
    drop((queue, new));
    assert_eq!(restore("tap0").unwrap_err().errno, Errno::EBUSY);
    drop(holder);
    // there is always room for removing
    assert_eq!(restore("tap0").unwrap(), Fields::MTU);
    restore("new0").unwrap();
    assert_eq!(fs::read_dir(DIR).unwrap().count(), 1);
}

/// What a newer version has written into a record of this version stays when this version rewrites it.
fn unknown_attributes() {
    ip("link add br0 type bridge");
    tun::make("tap0", FLAGS);
    ip("link set tap0 master br0");
    save("tap0").unwrap();
    let mut newer = read();
    let places = ["", "/before", "/before/tap", "/before/tap/queue", "/before/port", "/before/port/master"];
    for place in places {
        let object = newer.pointer_mut(place).unwrap_or_else(|| panic!("{place}"));
        object["from_the_future"] = json!({ "a": [1, 2, null], "where": place });
    }
    write(&newer);
    let queue = tun::open("tap0", FLAGS).unwrap();
    hold("tap0", &[queue.try_clone().unwrap()]).unwrap();
    tun::set_persist(&queue, false);
    let holder = Holder::of(&queue);
    drop(queue);
    assert_eq!(restore("tap0").unwrap_err().errno, Errno::EBUSY);
    let mut rewritten = read();
    assert_ne!(rewritten, newer, "what was found is in it");
    rewritten["found"] = newer["found"].clone();
    assert_eq!(rewritten, newer);
    drop(holder);
    assert_eq!(restore("tap0").unwrap(), Fields::PERSIST);
    // and what an older one did not know is missing
    save("tap0").unwrap();
    let mut older = read();
    older["before"]["tap"].as_object_mut().unwrap().remove("offloads_requested");
    older.as_object_mut().unwrap().remove("found");
    write(&older);
    assert_eq!(restore("tap0").unwrap(), Fields::empty());
    nothing_recorded();
}

/// Several managers in one directory, a reader beside them: nobody ever sees half a record.
fn several_managers() {
    for i in 0..3 {
        tun::make(&format!("tap{i}"), FLAGS);
    }
    fs::create_dir_all(DIR).unwrap();
    let rounds = count(40, 6);
    let managers: Vec<_> = (0..3)
        .map(|manager| {
            Forked::run(move || {
                for round in 0..rounds {
                    let own = format!("own{manager}");
                    let shared = format!("tap{}", (round + manager) % 3);
                    save(&own).unwrap();
                    restore(&own).unwrap();
                    // two managers with one tap: one may be in the other's way, and is told so
                    for result in [save(&shared), restore(&shared).map(drop)] {
                        if let Err(failure) = result {
                            let known = [Errno::EBUSY, Errno::EEXIST, Errno::ESTALE, Errno::EAGAIN];
                            assert!(known.contains(&failure.errno), "{failure:?}");
                        }
                    }
                }
            })
        })
        .collect();
    let (mut looks, mut seen) = (0, 0);
    let end = Instant::now() + Duration::from_secs(10);
    while looks < rounds * 50 || seen == 0 {
        assert!(Instant::now() < end, "there was nothing to be seen");
        looks += 1;
        for entry in fs::read_dir(DIR).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if !name.starts_with('.')
                && let Ok(text) = fs::read(entry.path())
            {
                seen += 1;
                serde_json::from_slice::<Value>(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
            }
        }
    }
    managers.into_iter().for_each(Forked::join);
    for name in list() {
        restore(&name).unwrap();
    }
    nothing_recorded();
    for i in 0..3 {
        assert!(exists(&format!("tap{i}")));
        deletable(&format!("tap{i}"), false);
    }
}

netns_tests![
    permissions,
    garbage,
    another_boot,
    another_namespace,
    something_else_in_its_place,
    the_directory,
    a_read_only_directory,
    a_full_directory,
    unknown_attributes,
    several_managers,
];
