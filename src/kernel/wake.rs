//! What a thread sleeps on that waits for taps to be closed.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Wakes on a call from another thread, on the close of a tap file, and on the end of processes.
#[derive(Debug)]
pub(crate) struct Wake {
    call: EventFd,
    /// None where the system has no room for it; then taps that nobody guards are only looked at when a process ends.
    closes: Option<Inotify>,
}

/// Why a sleep has ended.
#[derive(Debug, Default)]
pub(crate) struct Woken {
    /// Some file of the clone device was closed, anywhere.
    pub closed: bool,
    /// Which of the processes have ended.
    pub ended: Vec<usize>,
}

impl Wake {
    pub(crate) fn new(tunpath: &CStr) -> Result<Self, Errno> {
        let closes = || -> Result<Inotify, Errno> {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            inotify.add_watch(tunpath, AddWatchFlags::IN_CLOSE_WRITE)?;
            Ok(inotify)
        };
        let call = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { call, closes: closes().ok() })
    }

    /// Wakes the sleeper, now or when it goes to sleep.
    pub(crate) fn call(&self) {
        let _ = self.call.write(1); // full: it is awake anyway
    }

    /// Sleeps until something happens or the time is over; None: no limit.
    pub(crate) fn sleep(&self, processes: &[BorrowedFd<'_>], limit: Option<Duration>) -> Woken {
        let limit = limit.map(|limit| PollTimeout::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX));
        let mut files = vec![PollFd::new(self.call.as_fd(), PollFlags::POLLIN)];
        files.extend(self.closes.iter().map(|closes| PollFd::new(closes.as_fd(), PollFlags::POLLIN)));
        let first = files.len();
        files.extend(processes.iter().map(|process| PollFd::new(*process, PollFlags::POLLIN)));
        let mut woken = Woken::default();
        if poll(&mut files, limit.unwrap_or(PollTimeout::NONE)).unwrap_or_default() > 0 {
            let ended = files.iter().skip(first).enumerate().filter(|(_, file)| file.any() == Some(true));
            woken.ended = ended.map(|(i, _)| i).collect();
            let _ = self.call.read(); // empty: it was not this
            woken.closed = self.closes.as_ref().is_some_and(|closes| closes.read_events().is_ok());
        }
        woken
    }
}
