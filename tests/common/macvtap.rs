//! Macvtaps, which outlive every close.

use super::net::{exists, ip, try_ip};
use super::skip;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

/// A macvtap on one end of a veth pair. Its index is this namespace's alone: the node /dev/tapINDEX is one for all.
pub fn macvtap(mode: &str) {
    if !exists("low0") {
        ip("link add low0 type veth peer name low1");
        ip("link set low0 up");
        ip("link set low1 up");
    }
    let namespace = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
    let index = 900_000 + namespace % 1_000_000_000;
    let made = try_ip(&format!("link add link low0 name mvt0 index {index} type macvtap mode {mode}"));
    if let Err(e) = made {
        skip(&format!("no macvtap: {e}"));
    }
    ip("link set mvt0 alias mine");
    ip("link set mvt0 up");
}

/// The queue, opened through a node of our own, in case there is no devtmpfs.
pub fn open_queue() -> OwnedFd {
    let entry = std::fs::read_dir("/sys/class/net/mvt0/macvtap").unwrap().flatten().next().unwrap();
    let numbers = std::fs::read_to_string(entry.path().join("dev")).unwrap();
    let (major, minor) = numbers.trim().split_once(':').unwrap();
    let path = "/tmp/macvtap";
    let _ = std::fs::remove_file(path);
    if let Err(e) = mknod(path, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(major.parse().unwrap(), minor.parse().unwrap())) {
        skip(&format!("mknod: {e}"));
    }
    match File::options().read(true).write(true).open(path) {
        Ok(file) => file.into(),
        Err(e) => skip(&format!("{path}: {e}")),
    }
}
