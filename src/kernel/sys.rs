//! The C library: errors and their texts, files.

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Another number for the same open file, close-on-exec.
pub(crate) fn duplicate(file: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    file.try_clone_to_owned().map_err(io_errno)
}

/// The caller's effective user and group.
pub(crate) fn effective_ids() -> (u32, u32) {
    // SAFETY: takes nothing and cannot fail
    let uid = unsafe { libc::geteuid() };
    // SAFETY: as above
    (uid, unsafe { libc::getegid() })
}

/// strerror(3), thread-safe, in the process's locale as libvirt's messages are.
pub(crate) fn strerror(errno: Errno) -> String {
    let mut buffer = [0_u8; 128];
    // SAFETY: the XSI strerror_r writes at most `len` bytes into the buffer, NUL included
    let rc = unsafe { libc::strerror_r(errno as libc::c_int, buffer.as_mut_ptr().cast(), buffer.len()) };
    match CStr::from_bytes_until_nul(&buffer) {
        Ok(text) if rc == 0 => text.to_string_lossy().into_owned(),
        _ => format!("error {}", errno as libc::c_int),
    }
}

/// The text of a small file of procfs or sysfs, without the newline: what one read() returns, which for these is all.
pub(crate) fn read_small<'a>(path: &std::path::Path, buffer: &'a mut [u8]) -> Result<&'a str, Errno> {
    let file = nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let len = nix::unistd::read(&file, buffer)?;
    let text = buffer.get(..len).and_then(|bytes| std::str::from_utf8(bytes).ok()).ok_or(Errno::EILSEQ)?;
    Ok(text.trim_end())
}

/// The errno in an error of the standard library.
#[allow(clippy::needless_pass_by_value)] // for map_err()
pub(crate) fn io_errno(e: std::io::Error) -> Errno {
    e.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Keeps signals from the calling thread: the process's own threads expect them.
#[cfg(feature = "preload")]
pub(crate) fn block_signals() {
    // SAFETY: sigset_t is plain C data, for which all zero bytes are a value
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: sigfillset() writes the set
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: reads the set; NULL asks for nothing back
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut()) };
}
