//! The C library: errors and their texts, files.

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

/// Makes a system call again that a signal has interrupted.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Another number for the same open file, close-on-exec.
pub(crate) fn duplicate(file: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    file.try_clone_to_owned().map_err(io_errno)
}

/// flock(2), exclusive, until it is dropped. (`nix::fcntl::Flock` panics where the kernel refuses to unlock.)
#[derive(Debug)]
pub(crate) struct Lock(OwnedFd);

impl Lock {
    /// Waits for it. No other lock may be held through this file.
    pub(crate) fn take(file: OwnedFd) -> Result<Self, (OwnedFd, Errno)> {
        match uninterrupted(|| flock(&file, libc::LOCK_EX)) {
            Ok(()) => Ok(Self(file)),
            Err(errno) => Err((file, errno)),
        }
    }
}

impl AsRawFd for Lock {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Drop for Lock {
    /// A child that is just being started has the file, too, so closing it would not do. Where unlocking fails, it has to.
    fn drop(&mut self) {
        let _ = uninterrupted(|| flock(&self.0, libc::LOCK_UN));
    }
}

fn flock(file: &OwnedFd, operation: libc::c_int) -> Result<(), Errno> {
    // SAFETY: by value
    Errno::result(unsafe { libc::flock(file.as_raw_fd(), operation) }).map(drop)
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
    let file = uninterrupted(|| nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()))?;
    let len = uninterrupted(|| nix::unistd::read(&file, buffer))?;
    let text = buffer.get(..len).and_then(|bytes| std::str::from_utf8(bytes).ok()).ok_or(Errno::EILSEQ)?;
    Ok(text.trim_end())
}

/// The errno in an error of the standard library.
#[allow(clippy::needless_pass_by_value)] // for map_err()
pub(crate) fn io_errno(e: std::io::Error) -> Errno {
    e.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Has three functions called with each fork() from now on: before it, and after it in the parent and in the child.
pub(crate) fn at_fork(before: extern "C" fn(), in_parent: extern "C" fn(), in_child: extern "C" fn()) -> Result<(), Errno> {
    // SAFETY: pthread_atfork() takes three functions without arguments, and forgets them should the library be unloaded
    match unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) } {
        0 => Ok(()),
        errno => Err(Errno::from_raw(errno)),
    }
}

/// What a thread of ours is for.
pub(super) type Work = Box<dyn FnOnce() -> Result<(), Errno> + Send>;

static FORKED: AtomicBool = AtomicBool::new(false);

/// In a child that was forked amid calls: a thread that was just starting or ending in the parent may have held a lock of the
/// standard library's, for which each new thread here would wait for ever.
pub(crate) fn start_no_more_threads() {
    FORKED.store(true, Ordering::Relaxed);
}

/// Starts a thread that does no more than some system calls. None of the process's signal handlers runs there.
pub(super) fn start_thread(work: Work) -> Result<JoinHandle<Result<(), Errno>>, Errno> {
    /// Much more than that needs; the C library wants at least 16 KiB.
    const STACK: usize = 64 * 1024;
    crate::fork::protect();
    if FORKED.load(Ordering::Relaxed) {
        return Err(Errno::EAGAIN);
    }
    let thread = Builder::new().name("tap".into()).stack_size(STACK);
    without_signals(|| thread.spawn(work)).map_err(io_errno)
}

/// A new thread has the signal mask of the one that starts it: none of the process's handlers shall run there.
pub(crate) fn without_signals<T>(start: impl FnOnce() -> T) -> T {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset() writes the set
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: reads the one set, which is filled, and writes the other
    let masked = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) } == 0;
    let result = start();
    if masked {
        // SAFETY: the set was written by the call above
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    }
    result
}
