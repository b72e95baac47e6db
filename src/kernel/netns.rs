//! Network namespaces and the boot: where and when an interface index means something.

use super::netlink::Netlink;
use super::sys::{duplicate, read_small, start_thread, uninterrupted};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat};
use once_cell::race::OnceBox;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// A number that no other network namespace of this boot has: its cookie. None: before Linux 5.14.
pub(crate) fn cookie(netlink: &Netlink) -> Result<Option<u64>, Errno> {
    const SO_NETNS_COOKIE: libc::c_int = 71; // asm-generic/socket.h
    let mut cookie = 0_u64;
    let mut len = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or_default();
    // SAFETY: getsockopt writes at most `len` bytes to the cookie, and the length
    let rc = unsafe {
        libc::getsockopt(netlink.socket().as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, (&raw mut cookie).cast(), &raw mut len)
    };
    match Errno::result(rc) {
        Err(Errno::ENOPROTOOPT) => Ok(None),
        result => result.map(|_| Some(cookie)),
    }
}

/// The caller's own network namespace.
pub(crate) fn own() -> Result<OwnedFd, Errno> {
    uninterrupted(|| nix::fcntl::open("/proc/thread-self/ns/net", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()))
}

/// Are these two files the same namespace?
pub(crate) fn same(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> Result<bool, Errno> {
    let (a, b) = (fstat(a)?, fstat(b)?);
    Ok(a.st_ino == b.st_ino && a.st_dev == b.st_dev)
}

/// A netlink socket in another network namespace, opened by a thread of its own that ends with it. Takes CAP_SYS_ADMIN
/// there.
pub(crate) fn netlink_in(netns: BorrowedFd<'_>) -> Result<Netlink, Errno> {
    let netns = duplicate(netns)?;
    let slot = Arc::new(OnceLock::new());
    let opened = Arc::clone(&slot);
    let thread = start_thread(Box::new(move || {
        // SAFETY: setns() takes a file and a number, and moves only this thread
        Errno::result(unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) })?;
        opened.set(Netlink::open()?).map_err(|_| Errno::EEXIST)
    }));
    thread?.join().unwrap_or(Err(Errno::EFAULT))?;
    Arc::into_inner(slot).and_then(OnceLock::into_inner).ok_or(Errno::EFAULT)
}

/// The id of this boot, which no other boot has.
pub(crate) fn boot_id() -> Result<&'static str, Errno> {
    static BOOT_ID: OnceBox<String> = OnceBox::new();
    let read = || {
        let mut buffer = [0; 64];
        read_small(Path::new("/proc/sys/kernel/random/boot_id"), &mut buffer).map(|id| Box::new(id.to_owned()))
    };
    BOOT_ID.get_or_try_init(read).map(String::as_str)
}
