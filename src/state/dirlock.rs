//! The lock on a state directory: while somebody has it, nobody else adds, replaces or removes a record there.

use crate::fork;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The numbers of all files that carry such a lock. A forked child has them, too, and would keep the directory locked should
/// its parent be killed: so it closes them.
pub(crate) type Open = BTreeSet<RawFd>;

static OPEN: Mutex<Open> = Mutex::new(BTreeSet::new());

pub(crate) fn lock() -> MutexGuard<'static, Open> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In a forked child: closes what belongs to threads that it does not have.
pub(crate) fn give_up(open: &mut Open) {
    while let Some(number) = open.pop_first() {
        let _ = nix::unistd::close(number);
    }
}

/// The lock, given back when dropped.
#[derive(Debug)]
pub(crate) struct DirLock(Option<Flock<OwnedFd>>);

impl DirLock {
    /// Takes the lock, through a file of the directory that `open` opens for it alone.
    pub(crate) fn take(open: impl FnOnce() -> Result<OwnedFd, Errno>) -> Result<Self, Errno> {
        fork::protect();
        let mut file = Some({
            let mut known = lock(); // no child has the file without knowing of it
            let file = open()?;
            known.insert(file.as_raw_fd());
            file
        });
        let mut failure = Errno::EINTR;
        while let Some(unlocked) = file.take() {
            match Flock::lock(unlocked, FlockArg::LockExclusive) {
                Ok(lock) => return Ok(Self(Some(lock))),
                Err((unlocked, Errno::EINTR)) => file = Some(unlocked),
                Err((unlocked, errno)) => {
                    failure = errno;
                    let mut known = lock();
                    known.remove(&unlocked.as_raw_fd());
                    drop(unlocked);
                }
            }
        }
        Err(failure)
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        let mut known = lock();
        if let Some(file) = self.0.take() {
            known.remove(&file.as_raw_fd());
        }
    }
}
