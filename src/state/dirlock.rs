//! The lock on a state directory: while somebody has it, nobody else adds, replaces or removes a record there.

use crate::fork;
use crate::kernel::sys::{Lock, uninterrupted};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The numbers of all files that carry such a lock. A forked child has them, too, and would keep the directory locked should
/// its parent be killed: so it closes them.
pub(crate) type Open = Vec<RawFd>; // one for each thread that changes a record right now

static OPEN: Mutex<Open> = Mutex::new(Vec::new());

pub(crate) fn lock() -> MutexGuard<'static, Open> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In a forked child: closes what belongs to threads that it does not have.
pub(crate) fn give_up(open: &mut Open) {
    while let Some(number) = open.pop() {
        let _ = nix::unistd::close(number);
    }
}

fn forget(open: &mut Open, number: RawFd) {
    open.retain(|other| *other != number);
}

/// The lock, given back when dropped.
#[derive(Debug)]
pub(crate) struct DirLock(Option<Lock>);

impl DirLock {
    /// Takes the lock, through a file of the directory that `open` opens for it alone.
    pub(crate) fn take(open: impl FnMut() -> Result<OwnedFd, Errno>) -> Result<Self, Errno> {
        fork::protect();
        let file = {
            let mut known = lock(); // no child has the file without knowing of it
            let file = uninterrupted(open)?;
            known.push(file.as_raw_fd());
            file
        };
        Lock::take(file).map(|lock| Self(Some(lock))).map_err(|(file, errno)| {
            let mut known = lock();
            forget(&mut known, file.as_raw_fd());
            drop(file); // before another one gets its number
            errno
        })
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        let mut known = lock();
        if let Some(file) = self.0.take() {
            forget(&mut known, file.as_raw_fd());
        }
    }
}
