//! /dev/net/tun without the library: to make devices that the library then finds, and to look at what it made.

use super::net::sysfs;
use nix::errno::Errno;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

pub const TUN: u16 = 0x0001;
pub const TAP: u16 = 0x0002;
pub const NAPI: u16 = 0x0010;
pub const NO_CARRIER: u16 = 0x0040;
pub const MULTI_QUEUE: u16 = 0x0100;
pub const PERSIST: u16 = 0x0800;
pub const NO_PI: u16 = 0x1000;
pub const VNET_HDR: u16 = 0x4000;

mod raw {
    nix::ioctl_readwrite_bad!(tunsetiff, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_write_int!(tunsetpersist, b'T', 203);
    nix::ioctl_write_int!(tunsetowner, b'T', 204);
    // its number is that of an int, though it takes an ifreq
    nix::ioctl_write_ptr_bad!(tunsetqueue, nix::request_code_write!(b'T', 217, size_of::<libc::c_int>()), libc::ifreq);
    nix::ioctl_none!(tungetdevnetns, b'T', 227);
    nix::ioctl_write_ptr!(tunattachfilter, b'T', 213, libc::sock_fprog);
}

fn ifreq(name: &str, flags: u16) -> libc::ifreq {
    // SAFETY: plain C data, for which all zero bytes are a value
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (target, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *target = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags as i16;
    request
}

/// An open queue; the device has no more flags than these.
pub fn open(name: &str, flags: u16) -> Result<OwnedFd, Errno> {
    open_at("/dev/net/tun", name, flags)
}

/// [`open`] of a tap that nobody has; whoever looks through all processes may have it for a moment.
pub fn open_soon(name: &str, flags: u16) -> OwnedFd {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match open(name, flags) {
            Err(Errno::EBUSY) if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
            result => return result.unwrap(),
        }
    }
}

pub fn open_at(node: &str, name: &str, flags: u16) -> Result<OwnedFd, Errno> {
    let file = File::options().read(true).write(true).open(node).unwrap().into();
    attach(&file, name, flags)?;
    Ok(file)
}

/// TUNSETIFF on a file that is not attached, or not any more.
pub fn attach(file: &OwnedFd, name: &str, flags: u16) -> Result<(), Errno> {
    let mut request = ifreq(name, flags);
    // SAFETY: TUNSETIFF reads and writes one ifreq
    unsafe { raw::tunsetiff(file.as_raw_fd(), &raw mut request) }.map(drop)
}

pub fn set_persist(queue: &OwnedFd, persist: bool) {
    try_set_persist(queue, persist).unwrap();
}

/// The same on a device that somebody may just have deleted.
pub fn try_set_persist(queue: &OwnedFd, persist: bool) -> Result<(), Errno> {
    // SAFETY: takes its argument by value
    unsafe { raw::tunsetpersist(queue.as_raw_fd(), persist.into()) }.map(drop)
}

/// Is the device in this network namespace?
pub fn is_here(queue: &OwnedFd) -> bool {
    // SAFETY: TUNGETDEVNETNS takes no argument
    let Ok(there) = (unsafe { raw::tungetdevnetns(queue.as_raw_fd()) }) else { return false };
    // SAFETY: the kernel has just made it for us
    let there = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(there) };
    let (there, here) = (File::from(there), File::open("/proc/thread-self/ns/net").unwrap());
    std::os::unix::fs::MetadataExt::ino(&there.metadata().unwrap())
        == std::os::unix::fs::MetadataExt::ino(&here.metadata().unwrap())
}

/// A persistent device that nobody holds.
pub fn make(name: &str, flags: u16) {
    set_persist(&open(name, flags).unwrap(), true);
    has_queues(name, flags, 0);
}

/// Waits until there are so many: another test that looks at open files may have a queue a moment longer, which can be seen of
/// a multi-queue tap.
pub fn has_queues(name: &str, flags: u16, count: u8) {
    let are_so_many = || super::link::link(name)["linkinfo"]["info_data"]["numqueues"] == format!("{count:02x}:00:00:00");
    assert!(flags & MULTI_QUEUE == 0 || super::net::soon(are_so_many), "{name}");
}

pub fn make_owned(name: &str, flags: u16, uid: u32) {
    let queue = open(name, flags).unwrap();
    set_persist(&queue, true);
    // SAFETY: takes its argument by value
    if let Err(e) = unsafe { raw::tunsetowner(queue.as_raw_fd(), uid.into()) } {
        set_persist(&queue, false);
        super::skip(&format!("owner {uid}: {e}")); // not in this user namespace
    }
    drop(queue);
    has_queues(name, flags, 0);
}

/// The queue stays open and gets no frames.
pub fn detach(queue: &OwnedFd) {
    let request = ifreq("", 0x0400);
    // SAFETY: TUNSETQUEUE reads one ifreq
    unsafe { raw::tunsetqueue(queue.as_raw_fd(), &raw const request) }.unwrap();
}

/// A socket filter that drops all, as a hostile hypervisor may leave it behind.
pub fn attach_filter(queue: &OwnedFd) {
    let mut code = [libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 }];
    let program = libc::sock_fprog { len: 1, filter: code.as_mut_ptr() };
    // SAFETY: TUNATTACHFILTER reads the program, which lives until the call is over
    unsafe { raw::tunattachfilter(queue.as_raw_fd(), &raw const program) }.unwrap();
}

/// All flags of a tap as sysfs shows them; None if there is no such device or it is not a tun or tap.
pub fn flags(name: &str) -> Option<u16> {
    let text = sysfs(name, "tun_flags")?;
    u16::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

pub fn is_cloexec(queue: &OwnedFd) -> bool {
    let flags = nix::fcntl::fcntl(queue.as_fd(), nix::fcntl::FcntlArg::F_GETFD).unwrap();
    flags & libc::FD_CLOEXEC != 0
}
