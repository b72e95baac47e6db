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
/// a little after an event, and again at short distances; without events, at longer and longer ones.
#[derive(Debug)]
pub(crate) struct CloseWatch(Option<Inotify>);

/// How long to wait before the first look, after an event or without one. What is waited for may be happening right now.
const FIRST: Duration = Duration::from_micros(200);
/// The longest distance between two looks.
const LONGEST: Duration = Duration::from_millis(50);
/// The same while others close such files all the time, as two waiters do for each other.
const LONGEST_AFTER_EVENT: Duration = Duration::from_millis(8);

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

    /// Waits for the next moment at which a look is worth while. What was closed until now does not count: the waiter's last
    /// look has most likely closed a file itself.
    pub(crate) fn wait(&self, pause: &mut Pause, at_most: Duration) {
        let distance = pause.distance.min(at_most);
        if self.is_closed_within(distance) {
            std::thread::sleep(pause.after_event.min(at_most));
            pause.distance = pause.after_event;
            pause.after_event = pause.after_event.saturating_mul(2).min(LONGEST_AFTER_EVENT);
        } else {
            pause.distance = pause.distance.saturating_mul(2).min(LONGEST);
        }
    }

    fn is_closed_within(&self, time: Duration) -> bool {
        let Some(inotify) = &self.0 else {
            std::thread::sleep(time);
            return false;
        };
        let _ = inotify.read_events();
        let millis = PollTimeout::try_from(time.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::ZERO);
        let ready = poll(&mut [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)], millis);
        if ready.is_err() {
            std::thread::sleep(time); // a signal, or no memory: no reason to look all the time
        }
        ready == Ok(1)
    }
}

/// How long to wait for an event, and after one.
#[derive(Debug)]
pub(crate) struct Pause {
    distance: Duration,
    after_event: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        Self { distance: FIRST, after_event: FIRST }
    }
}
