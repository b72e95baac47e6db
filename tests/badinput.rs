//! What C can get wrong: -1, errno, a message; no crash, nothing made, nothing lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![allow(clippy::pedantic)]

mod common;

use common::api::{ALLOW_EXISTING, C, NONE, PERSIST, TapApi, last_failure, strdup, take_string};
use common::net::{Event, Events, exists, ip, no_news, only, unchanged};
use common::tun;
use nix::errno::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::AsRawFd;
use std::ptr;
use virnetdevtap::capi::types::virDomainInterfaceStatsStruct;
use virnetdevtap::capi::{
    virNetDevTapCreate, virNetDevTapDelete, virNetDevTapGetHolders, virNetDevTapGetLastErrorMessage, virNetDevTapGetName,
    virNetDevTapGetPersist, virNetDevTapGetRealDeviceName, virNetDevTapInterfaceStats, virNetDevTapSetPersist,
};

fn bad_names() -> Vec<(CString, Errno)> {
    let mut names: Vec<(&[u8], Errno)> = [
        &b""[..],
        b".",
        b"..",
        b"a/b",
        b"/",
        b"../../etc",
        b"a b",
        b" ",
        b"\t",
        b"tap0\n",
        b"a:b",
        b"\x0b",
        b"\xff\xfe",
        b"tap\xc3",
        b"\x80",
        b"%s",
        b"%n%n%n",
        b"a%db%d",
        b"tap%",
        b"%%d",
        b"%1$d",
    ]
    .into_iter()
    .map(|name| (name, Errno::EINVAL))
    .collect();
    let long = [b'x'; 100_000];
    names.extend([&b"a234567890123456"[..], &long[..16], &long[..255], &long[..256], &long].map(|name| (name, Errno::ERANGE)));
    names.into_iter().map(|(name, errno)| (CString::new(name).unwrap(), errno)).collect()
}

/// Asserts that a call failed in the way that it has to.
fn failed(rc: i32, errno: Errno, what: &dyn std::fmt::Debug) {
    assert_eq!(rc, -1, "{what:?}");
    let failure = last_failure();
    assert_eq!(failure.errno, errno, "{what:?}: {failure:?}");
    assert!(!failure.text.is_empty() && failure.text.len() < 400 + 4096, "{what:?}: {failure:?}");
    assert_ne!(failure.code, 0);
}

const STATS: virDomainInterfaceStatsStruct = virDomainInterfaceStatsStruct {
    rx_bytes: 7,
    rx_packets: 7,
    rx_errs: 7,
    rx_drop: 7,
    tx_bytes: 7,
    tx_packets: 7,
    tx_errs: 7,
    tx_drop: 7,
};

fn create(name: Option<&CStr>, tapfd: &mut [i32], size: usize, flags: u32) -> i32 {
    let mut ifname = name.map_or(ptr::null_mut(), strdup);
    let given = ifname;
    // SAFETY: a string from malloc() or NULL; the library does not touch slots that it does not believe in
    let rc = unsafe { virNetDevTapCreate(&raw mut ifname, ptr::null(), tapfd.as_mut_ptr(), size, flags) };
    assert!(rc == 0 || ifname == given, "a failing call leaves the name");
    let text = name.map(|name| name.to_bytes().to_vec());
    assert!(rc == 0 || take_bytes(ifname) == text);
    rc
}

fn take_bytes(string: *mut libc::c_char) -> Option<Vec<u8>> {
    if string.is_null() {
        return None;
    }
    // SAFETY: NUL-terminated
    let bytes = unsafe { CStr::from_ptr(string) }.to_bytes().to_vec();
    // SAFETY: from malloc(), and ours
    unsafe { libc::free(string.cast()) };
    Some(bytes)
}

fn names() {
    let events = Events::listen();
    for (name, errno) in bad_names() {
        let shown = &name.as_bytes()[..name.as_bytes().len().min(20)];
        for flags in [NONE, PERSIST, ALLOW_EXISTING, ALLOW_EXISTING | PERSIST] {
            let mut slots = [5, 6];
            failed(create(Some(&name), &mut slots, 2, flags), errno, &shown);
            assert_eq!(slots, [-1, -1]);
        }
        let pointer = name.as_ptr();
        // SAFETY: a string, and NULL for the default
        failed(unsafe { virNetDevTapDelete(pointer, ptr::null()) }, errno, &shown);
        let mut stats = STATS;
        // SAFETY: a string, and a struct to write to
        failed(unsafe { virNetDevTapInterfaceStats(pointer, &raw mut stats, true) }, errno, &shown);
        assert_eq!(stats, STATS);
        let mut persist = true;
        // SAFETY: a string, and a bool to write to
        failed(unsafe { virNetDevTapGetPersist(pointer, &raw mut persist) }, errno, &shown);
        assert!(persist);
        // SAFETY: a string, and NULL for the default
        failed(unsafe { virNetDevTapSetPersist(pointer, ptr::null(), false) }, errno, &shown);
        let mut pids = ptr::dangling_mut();
        // SAFETY: a string, and a pointer to write to
        failed(unsafe { virNetDevTapGetHolders(pointer, &raw mut pids) }, errno, &shown);
        assert_eq!(pids, ptr::dangling_mut());
    }
    assert_eq!(events.take(), []);
}

fn null_pointers() {
    let name = c"tap0".as_ptr();
    let missing = c"missing0".as_ptr();
    tun::make("tap0", tun::TAP);
    no_news(|| {
        unchanged("tap0", || {
            let mut slots = [9];
            for flags in [NONE, PERSIST, ALLOW_EXISTING | PERSIST] {
                // SAFETY: one slot; NULL is what is tested
                let rc = unsafe { virNetDevTapCreate(ptr::null_mut(), ptr::null(), slots.as_mut_ptr(), 1, flags) };
                failed(rc, Errno::EINVAL, &flags);
                assert_eq!(slots, [-1]);
            }
            for (size, flags) in [(0, NONE), (1, NONE), (2, ALLOW_EXISTING), (usize::MAX, NONE), (usize::MAX, PERSIST)] {
                let mut ifname = strdup(c"new0");
                // SAFETY: a string from malloc(); NULL is what is tested
                let rc = unsafe { virNetDevTapCreate(&raw mut ifname, ptr::null(), ptr::null_mut(), size, flags) };
                failed(rc, Errno::EINVAL, &size);
                assert_eq!(take_string(ifname).unwrap(), "new0");
            }
            // SAFETY: NULL is what is tested, here and below
            failed(unsafe { virNetDevTapDelete(ptr::null(), ptr::null()) }, Errno::EINVAL, &"delete");
            // SAFETY: as above
            failed(unsafe { virNetDevTapGetName(0, ptr::null_mut()) }, Errno::EINVAL, &"name");
            let mut stats = STATS;
            // SAFETY: as above
            failed(unsafe { virNetDevTapInterfaceStats(ptr::null(), &raw mut stats, false) }, Errno::EINVAL, &"stats");
            assert_eq!((stats, last_failure().code), (STATS, 1));
            assert_eq!(last_failure().text, "internal error: Interface name not provided", "libvirt's text");
            // SAFETY: as above
            failed(unsafe { virNetDevTapInterfaceStats(name, ptr::null_mut(), false) }, Errno::EINVAL, &"stats");
            // SAFETY: as above
            failed(unsafe { virNetDevTapGetPersist(name, ptr::null_mut()) }, Errno::EINVAL, &"persist");
            let mut persist = false;
            // SAFETY: as above
            failed(unsafe { virNetDevTapGetPersist(ptr::null(), &raw mut persist) }, Errno::EINVAL, &"persist");
            // SAFETY: as above
            failed(unsafe { virNetDevTapSetPersist(ptr::null(), ptr::null(), true) }, Errno::EINVAL, &"persist");
            // SAFETY: as above
            failed(unsafe { virNetDevTapGetHolders(name, ptr::null_mut()) }, Errno::EINVAL, &"holders");
            let mut pids = ptr::null_mut();
            // SAFETY: as above
            failed(unsafe { virNetDevTapGetHolders(ptr::null(), &raw mut pids) }, Errno::EINVAL, &"holders");
            // SAFETY: as above
            failed(unsafe { virNetDevTapGetPersist(missing, ptr::null_mut()) }, Errno::EINVAL, &"both");
        })
    });
}

/// GetRealDeviceName has no answer on Linux, and that is no error.
fn real_device_name() {
    // SAFETY: a string of ours
    assert_eq!(unsafe { virNetDevTapDelete(c"a/b".as_ptr(), ptr::null()) }, -1);
    let before = last_failure();
    Errno::set_raw(before.errno as i32);
    for name in [ptr::null_mut(), c"tap0".as_ptr().cast_mut(), c"a/b".as_ptr().cast_mut()] {
        assert!(virNetDevTapGetRealDeviceName(name).is_null());
        assert_eq!(last_failure(), before);
    }
}

/// An unknown bit of one fork means something else in another.
fn flags() {
    tun::make("tap0", tun::TAP);
    for bit in (5..32).step_by(common::count(1, 5)) {
        for known in [NONE, PERSIST | ALLOW_EXISTING] {
            for name in [None, Some(c"new0"), Some(c"tap0")] {
                let mut slots = [3];
                no_news(|| {
                    unchanged("tap0", || {
                        failed(create(name, &mut slots, 1, known | 1 << bit), Errno::EINVAL, &bit);
                        assert!(last_failure().text.contains(&format!("0x{:x}", 1_u32 << bit)), "{:?}", last_failure());
                    });
                });
                assert_eq!(slots, [-1]);
            }
        }
    }
    let mut slots = [3];
    failed(create(None, &mut slots, 1, u32::MAX), Errno::EINVAL, &"all");
    assert!(C.create(None, None, 1, NONE).unwrap().name == "vnet0", "no number is burnt");
}

fn sizes() {
    let events = Events::listen();
    for size in [257, 1 << 16, usize::MAX / 4, usize::MAX / 2, usize::MAX - 1, usize::MAX] {
        for flags in [NONE, PERSIST, ALLOW_EXISTING] {
            for name in [None, Some(c"tap0")] {
                let mut slots = [41, 42];
                failed(create(name, &mut slots, size, flags), Errno::EINVAL, &size);
                assert_eq!(slots, [41, 42], "slots that cannot be are not touched");
            }
        }
    }
    let mut slots = [41];
    failed(create(Some(c"tap0"), &mut slots, 0, NONE), Errno::EINVAL, &0);
    assert_eq!(slots, [41]);
    assert_eq!(events.take(), []);
}

fn files() {
    let file = std::fs::File::create("/tmp/file").unwrap();
    let (reader, _writer) = std::io::pipe().unwrap();
    let socket = std::net::UdpSocket::bind("[::]:0").unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let fresh = std::fs::File::open("/dev/net/tun").unwrap();
    let closed = file.try_clone().unwrap().as_raw_fd();
    for (fd, errno) in [
        (-1, Errno::EBADF),
        (i32::MIN, Errno::EBADF),
        (i32::MAX, Errno::EBADF),
        (closed, Errno::EBADF),
        (file.as_raw_fd(), Errno::ENOTTY),
        (reader.as_raw_fd(), Errno::ENOTTY),
        (socket.as_raw_fd(), Errno::ENOTTY),
        (null.as_raw_fd(), Errno::ENOTTY),
        (fresh.as_raw_fd(), Errno::EBADFD),
    ] {
        let mut name = ptr::dangling_mut();
        // SAFETY: a pointer to write to
        failed(unsafe { virNetDevTapGetName(fd, &raw mut name) }, errno, &fd);
        assert_eq!(name, ptr::dangling_mut(), "untouched");
        assert!(
            last_failure().text.contains("file descriptor") || last_failure().text.contains("Unable to query tap interface name")
        );
    }
}

/// A tap whose device has been deleted under it, and a tun.
fn files_of_other_devices() {
    let made = C.one("tap0", NONE);
    ip("link del tap0");
    let mut name = ptr::null_mut();
    // SAFETY: a pointer to write to
    failed(unsafe { virNetDevTapGetName(made.queues[0].as_raw_fd(), &raw mut name) }, Errno::EBADFD, &"deleted");
    let queue = tun::open("tap1", tun::TAP).unwrap();
    ip("link set tap1 name renamed1");
    // SAFETY: a pointer to write to
    assert_eq!(unsafe { virNetDevTapGetName(queue.as_raw_fd(), &raw mut name) }, 0);
    assert_eq!(take_string(name).unwrap(), "renamed1");
}

/// Whoever mixes up tunpath and tapfd meets errors, not accidents.
fn tunpaths() {
    let long = CString::new(vec![b'a'; 4096]).unwrap();
    tun::make("tap0", tun::TAP);
    for (path, errno) in
        [(c"", Errno::ENOENT), (c"\xff\xfe", Errno::ENOENT), (c"%s%n", Errno::ENOENT), (&long, Errno::ENAMETOOLONG)]
    {
        let mut ifname = strdup(c"new0");
        let mut slots = [4];
        no_news(|| {
            unchanged("tap0", || {
                let (tap, path) = (c"tap0".as_ptr(), path.as_ptr());
                // SAFETY: a string from malloc(), one slot
                failed(unsafe { virNetDevTapCreate(&raw mut ifname, path, slots.as_mut_ptr(), 1, NONE) }, errno, &"create");
                // SAFETY: strings
                failed(unsafe { virNetDevTapDelete(tap, path) }, errno, &"delete");
                // SAFETY: strings
                failed(unsafe { virNetDevTapSetPersist(tap, path, false) }, errno, &"persist");
            });
        });
        assert_eq!((take_string(ifname).unwrap().as_str(), slots), ("new0", [-1]));
    }
}

/// A message is text, whatever went into it.
fn messages_are_strings() {
    for name in [c"\xff\xfe%s%n", c"a\nb", c"\x1b[31m"] {
        // SAFETY: a string
        assert_eq!(unsafe { virNetDevTapDelete(name.as_ptr(), ptr::null()) }, if name == c"\x1b[31m" { 0 } else { -1 });
        // SAFETY: the library's string
        let text = unsafe { CStr::from_ptr(virNetDevTapGetLastErrorMessage()) };
        assert!(text.to_str().is_ok(), "{text:?}");
    }
}

/// Names that look odd but are good: the kernel takes them, and so do we.
fn odd_but_good_names() {
    for name in ["täp", "-a", "--help", "a'b\"c", "$(x)", "\\", "a;b", "\u{1F980}", "#", "0", "\x7f"] {
        let made = C.one(name, PERSIST);
        assert_eq!(made.name, name);
        assert!(exists(name));
        drop(made);
        assert!(C.get_persist(name).unwrap());
        assert_eq!(C.stats(name).unwrap(), [0; 8]);
        assert_eq!(C.one(name, ALLOW_EXISTING).name, name);
        C.delete(name, None).unwrap();
        assert!(only(&[]));
    }
    // these collide with directories of /proc/sys/net
    for name in ["all", "default"] {
        let failure = C.create(Some(name), None, 2, PERSIST).unwrap_err();
        assert_eq!(failure.errno, Errno::EINVAL);
        assert!(only(&[]));
    }
}

/// The name that a caller gave is free()d only where it is replaced.
fn ownership_of_the_name() {
    let mut ifname = strdup(c"tap0");
    let given = ifname;
    let mut slots = [-1];
    // SAFETY: a string from malloc(), one slot
    assert_eq!(unsafe { virNetDevTapCreate(&raw mut ifname, ptr::null(), slots.as_mut_ptr(), 1, NONE) }, 0);
    assert_eq!(ifname, given, "the same name stays where it is");
    take_string(ifname);
    let mut ifname = strdup(c"x%d");
    let mut others = [-1, -1];
    // SAFETY: a string from malloc(), two slots
    assert_eq!(unsafe { virNetDevTapCreate(&raw mut ifname, ptr::null(), others.as_mut_ptr(), 2, NONE) }, 0);
    assert_eq!(take_string(ifname).unwrap(), "x0");
    let mut name = ptr::dangling_mut(); // libvirt does not look at it either
    // SAFETY: a pointer to write to
    assert_eq!(unsafe { virNetDevTapGetName(others[1], &raw mut name) }, 0);
    assert_eq!(take_string(name).unwrap(), "x0");
    let events = Events::listen();
    for fd in slots.into_iter().chain(others) {
        nix::unistd::close(fd).unwrap();
    }
    assert_eq!(events.take().iter().filter(|event| **event == Event::Deleted).count(), 2);
}

netns_tests![
    names,
    null_pointers,
    real_device_name,
    flags,
    sizes,
    files,
    files_of_other_devices,
    tunpaths,
    messages_are_strings,
    odd_but_good_names,
    ownership_of_the_name,
];
