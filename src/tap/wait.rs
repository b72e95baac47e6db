//! Waiting, for a bounded time, until nobody holds a tap.

use crate::error::{Error, Result};
use crate::kernel::IfName;
use crate::kernel::procfs::{self, Holder};
use crate::kernel::watch::{CloseWatch, Pause};
use nix::errno::Errno;
use std::ffi::CStr;
use std::time::{Duration, Instant};

/// How long a caller's call waits for a tap that somebody holds.
pub(crate) const LIMIT: Duration = Duration::from_secs(1);

/// What one try has come to.
#[derive(Debug)]
pub(crate) enum Attempt<T> {
    Done(T),
    /// A process holds the device.
    Held,
    /// The device was renamed, removed or replaced while the call looked at it.
    Changed,
}

impl<T> Attempt<T> {
    /// What was done has not had its effect, since somebody held the device at that moment.
    pub(crate) fn or_held(self) -> Self {
        match self {
            Self::Done(_) => Self::Held,
            other => other,
        }
    }

    pub(crate) fn map<U>(self, done: impl FnOnce(T) -> U) -> Attempt<U> {
        match self {
            Self::Done(value) => Attempt::Done(done(value)),
            Self::Held => Attempt::Held,
            Self::Changed => Attempt::Changed,
        }
    }
}

/// Tries until it is done, or fails, or the time is over; then the error names the holders.
pub(crate) fn until_free<T>(
    name: &IfName,
    tunpath: &CStr,
    limit: Duration,
    failed: impl Fn() -> String,
    mut attempt: impl FnMut() -> Result<Attempt<T>>,
) -> Result<T> {
    let mut patience = Patience::new(tunpath, limit);
    loop {
        let is_held = match attempt()? {
            Attempt::Done(done) => return Ok(done),
            Attempt::Held => true,
            Attempt::Changed => false,
        };
        if !patience.again() {
            return Err(if is_held { held(name, &failed()) } else { changing(&failed()) });
        }
    }
}

/// Says when to try again.
#[derive(Debug)]
pub(crate) struct Patience<'a> {
    tunpath: &'a CStr,
    limit: Duration,
    watch: Option<(CloseWatch, Option<Instant>)>,
    pause: Pause,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(tunpath: &'a CStr, limit: Duration) -> Self {
        Self { tunpath, limit, watch: None, pause: Pause::default() }
    }

    /// Waits for the next moment at which a try is worth while; false when the time is over. After the first try that is
    /// at once: what is closed from now on is heard of.
    pub(crate) fn again(&mut self) -> bool {
        let Some((watch, deadline)) = &self.watch else {
            self.watch = Some((CloseWatch::new(self.tunpath), Instant::now().checked_add(self.limit)));
            return true;
        };
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())).unwrap_or_default();
        if left.is_zero() {
            return false;
        }
        watch.wait(&mut self.pause, left);
        true
    }
}

/// The error for a device that looks different with each look.
pub(crate) fn changing(failed: &str) -> Error {
    Error::system(Errno::EAGAIN, format!("{failed}, it keeps changing"))
}

/// The error for a device that stays held.
pub(crate) fn held(name: &IfName, failed: &str) -> Error {
    let holders = procfs::holders(name).unwrap_or_default();
    let text = if holders.is_empty() { held_unseen(failed) } else { format!("{failed}, it is held by {}", list(&holders)) };
    Error::system(Errno::EBUSY, text)
}

/// The words for a holder that /proc does not show. A hypervisor may close its file when vhost has taken the tap.
fn held_unseen(failed: &str) -> String {
    let unseen = "another user's process, a file in flight, or the kernel";
    let text = format!("{failed}, it is held by something that /proc does not show: {unseen}");
    match procfs::users_of_vhost() {
        Ok(users) if !users.is_empty() => format!("{text}, which works through /dev/vhost-net for {}", list(&users)),
        _ => text,
    }
}

fn list(processes: &[Holder]) -> String {
    let each: Vec<_> = processes.iter().map(|process| format!("{} (pid {})", process.comm, process.pid)).collect();
    each.join(", ")
}
