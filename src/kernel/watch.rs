//! Waiting until a process closes a tap.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::ffi::CStr;
use std::os::fd::AsFd;
use std::time::Duration;

/// Wakes up when somebody closes a file that was opened through a given device node.
///
/// The kernel has no event for "the last queue of this persistent tap is closed". It has one for closing /dev/net/tun
/// (inotify), sent just before the queue is given up (`__fput()`: fsnotify_close, then release). So a waiter looks
/// again at short distances after an event, and at long ones otherwise.
#[derive(Debug)]
pub(crate) struct CloseWatch(Option<Inotify>);

/// First and longest distance between two looks after an event; without an event, the longest.
const FIRST: Duration = Duration::from_micros(200);
const LONGEST: Duration = Duration::from_millis(50);

impl CloseWatch {
    /// Starts watching. Where inotify has no room left (fs.inotify.max_user_instances), the waiter just looks at
    /// intervals.
    pub(crate) fn new(path: &CStr) -> Self {
        let watch = || -> Result<Inotify, Errno> {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            inotify.add_watch(path, AddWatchFlags::IN_CLOSE_WRITE)?;
            Ok(inotify)
        };
        Self(watch().ok())
    }

    /// Waits for the next moment at which a look is worth while; `settle` is how long ago the last event seems to be,
    /// to be handed in again.
    pub(crate) fn wait(&self, pause: &mut Pause, at_most: Duration) {
        let timeout = pause.0.min(at_most);
        pause.0 = pause.0.saturating_mul(2).min(LONGEST);
        let Some(inotify) = &self.0 else {
            std::thread::sleep(timeout.max(FIRST));
            return;
        };
        let millis = PollTimeout::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::ZERO);
        let mut fds = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, millis) == Ok(1) && inotify.read_events().is_ok() {
            pause.0 = FIRST;
        }
    }
}

/// The distance to the next look; starts short, since what is waited for may be happening right now.
#[derive(Debug)]
pub(crate) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(FIRST)
    }
}
