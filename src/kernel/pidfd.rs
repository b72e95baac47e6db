//! Processes as files: pidfd_open(2), pidfd_getfd(2).

use nix::errno::Errno;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A file that stands for a process, and becomes readable when that ends; close-on-exec. Linux 5.3.
pub(crate) fn open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: pidfd_open() takes two numbers
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// A duplicate of file number `fd` of process `pid`, close-on-exec. Takes the right to attach to that process as a
/// debugger would: CAP_SYS_PTRACE, or the same user and a dumpable process; Linux 5.6.
pub(crate) fn get_file(pid: i32, fd: i32) -> Result<OwnedFd, Errno> {
    let process = open(pid)?;
    // SAFETY: pidfd_getfd() takes three numbers
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) })
}

fn owned(rc: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = Errno::result(rc)?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this file for us, close-on-exec
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
