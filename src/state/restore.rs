//! Restore: a tap that was there before becomes what it was; one that was not goes.

use super::apply::{Failures, apply};
use super::device::{Located, locate, stranger};
use super::fields::{Change, Fields, fields};
use super::guard::{self, Guard};
use super::record::{Created, Record, StateDir, Stored};
use super::recreate;
use super::snapshot::{QueueState, Snapshot};
use crate::error::{Context, Result};
use crate::host::warning;
use crate::kernel::link::{self, By, Link};
use crate::kernel::netlink::Netlink;
use crate::kernel::tun::TunFlags;
use crate::kernel::{IfName, tunprops};
use crate::tap::wait::{Attempt, until_free};
use crate::tap::{delete_device, open};
use bitflags::bitflags;
use nix::errno::Errno;
use std::ffi::CStr;
use std::os::fd::AsFd;

bitflags! {
    /// The C enum `virNetDevTapRestoreFlags`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct RestoreFlags: u32 {
        /// A device that a process still holds is deleted under it, and made anew.
        const EVICT = 1;
        /// Only let the guard and the record go.
        const LEAVE = 1 << 1;
        /// Delete the device although it was there before.
        const REMOVE = 1 << 2;
        /// What the kernel lets nobody put back (an owner of "none") may be had by making the device anew.
        const RECREATE = 1 << 3;
    }
}

/// One restore: which tap, by which means.
pub(super) struct Restore<'a> {
    pub name: &'a IfName,
    pub tunpath: &'a CStr,
    pub flags: RestoreFlags,
    pub netlink: &'a mut Netlink,
}

/// What is to be told about a device that was looked at.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    changes: Vec<Change>,
    failures: Failures,
    left: Vec<Change>,
    vanished: bool,
}

impl Restore<'_> {
    /// Restores what the record says and takes the record out of the directory. On failure the record stays, and the
    /// guard as far as it can be kept.
    pub(super) fn run(&mut self, dir: &StateDir, stored: &Stored) -> Result<Fields> {
        let mut guard = guard::take(dir, self.name)?;
        let result = match &stored.record {
            Record { before: Some(before), .. } => self.present(before, &mut guard).map(|outcome| self.tell(&outcome)),
            Record { created: Some(created), .. } => self.absent(created),
            Record { .. } => self.never_held(),
        };
        if result.is_err()
            && let Some(file) = guard.take()
        {
            guard::keep(dir, self.name, file)?;
        }
        let fields = result?;
        drop(guard);
        dir.remove(self.name, stored)?;
        Ok(fields)
    }

    /// The device was absent, and Hold has seen which one came.
    fn absent(&mut self, created: &Created) -> Result<Fields> {
        let Located::Here(link) = locate(self.netlink, self.name, created.into(), None)? else { return Ok(Fields::empty()) };
        let persist = link.tap().is_some_and(|tun| tun.persist);
        let mut changed = Fields::empty();
        if persist != created.persist {
            warning!("{}: persist flag was {}, hypervisor left {persist}", self.name, created.persist);
            changed = Fields::PERSIST;
        }
        self.remove(&link)?;
        Ok(changed)
    }

    /// The device was absent, and Hold was never called: whatever has the name now may be anybody's.
    fn never_held(&mut self) -> Result<Fields> {
        let name = self.name;
        if link::get(self.netlink, By::Name(name)).context(|| format!("Unable to look for {name}"))?.is_some() {
            warning!("{name}: was absent before and never held, but is there now: left alone");
        }
        Ok(Fields::empty())
    }

    fn remove(&mut self, link: &Link) -> Result<()> {
        let failed = || format!("Unable to delete {}", self.name);
        if link.tap().is_none() {
            return gone(link::delete(self.netlink, link.ifindex).map_err(Into::into)).context(failed);
        }
        match delete_device(self.netlink, By::Index(link.ifindex), self.name, self.tunpath) {
            Err(e) if e.errno() == Errno::EBUSY && self.flags.contains(RestoreFlags::EVICT) => self.evict(link.ifindex),
            result => result,
        }
    }

    fn evict(&mut self, ifindex: i32) -> Result<()> {
        warning!("{}: deleted under the process that still holds it", self.name);
        let deleted = link::delete(self.netlink, ifindex).map_err(Into::into);
        gone(deleted).context(|| format!("Unable to delete tap device {} under its holder", self.name))
    }

    fn present(&mut self, before: &Snapshot, guard: &mut Option<Guard>) -> Result<Outcome> {
        let located = locate(self.netlink, self.name, before.into(), guard.as_ref().map(AsFd::as_fd))?;
        let link = match located {
            Located::Stranger => return Err(stranger(self.name)),
            Located::Gone if self.flags.contains(RestoreFlags::REMOVE) => return Ok(Outcome::default()),
            Located::Gone => return self.vanished(before),
            Located::Here(link) => link,
        };
        if self.flags.contains(RestoreFlags::REMOVE) {
            *guard = None;
            return self.remove(&link).map(|()| Outcome::default());
        }
        if link.tap().is_none() {
            return self.macvtap(before, &link);
        }
        let mut outcome = self.through_guard(before, &link, guard)?;
        match self.when_free(before, &link, &mut outcome) {
            Err(e) if e.errno() == Errno::EBUSY && self.flags.contains(RestoreFlags::EVICT) => {
                self.evict(link.ifindex)?;
                recreate::recreate(self.netlink, before, self.tunpath)?;
                outcome.left.clear();
                Ok(outcome)
            }
            Err(e) => {
                *guard = super::reclaim::win_back(self.netlink, &link).map(Guard::new);
                Err(e)
            }
            Ok(()) => Ok(outcome),
        }
    }

    /// What the guard can do while it keeps the device alive; then it is let go. The persist flag comes first, so that
    /// from there on the device is safe.
    fn through_guard(&mut self, before: &Snapshot, link: &Link, guard: &mut Option<Guard>) -> Result<Outcome> {
        let failed = || format!("Unable to read the state of {}", self.name);
        let Some(file) = guard.as_ref() else { return Ok(Outcome::default()) };
        let queue = file.as_fd();
        let now = Snapshot::read(self.netlink, link, Some(queue)).context(failed)?;
        let mut changes = before.changes(&now);
        if let (Some(before), Some(now)) = (&before.tap, &now.tap)
            && before.persist != now.persist
        {
            let failed = || format!("Unable to restore the persist flag of {}", self.name);
            crate::kernel::tun::set_persist(queue, before.persist).context(failed)?;
        }
        if !link.carrier {
            // an attached queue sets it on, so somebody has set it off
            let (was, now) = ("on".into(), "off".into());
            changes.push(Change { field: Fields::CARRIER, what: "carrier", was, now });
            let _ = tunprops::set_carrier(queue, 1); // off again in a moment, when the last queue is closed
        }
        let failures = apply(self.netlink, before, &now, Some(queue));
        *guard = None;
        Ok(Outcome { changes, failures, ..Outcome::default() })
    }

    /// Opens the tap for itself, which proves that nobody holds it and gives it its flags back; restores what is still
    /// not as it was, and verifies.
    fn when_free(&mut self, before: &Snapshot, link: &Link, outcome: &mut Outcome) -> Result<()> {
        let (name, tunpath) = (self.name, self.tunpath);
        let failed = || format!("Unable to restore tap device {name}");
        let quiet = before.tun_flags() | TunFlags::NO_CARRIER;
        let netlink = &mut *self.netlink;
        let (mut now, mut queue) = until_free(name, tunpath, failed, || {
            let Some(link) = link::get(netlink, By::Index(link.ifindex)).context(failed)? else {
                return Ok(Attempt::Changed);
            };
            if link.queues() > 0 {
                return Ok(Attempt::Held);
            }
            let now = Snapshot::read(netlink, &link, None).context(failed)?;
            Ok(match open::attach(netlink, tunpath, &link, quiet | TunFlags::NO_PI, failed)? {
                Attempt::Held => Attempt::Held,
                Attempt::Changed => Attempt::Changed,
                Attempt::Done(queue) => Attempt::Done((now, queue)),
            })
        })?;
        if let Some(tap) = &mut now.tap {
            tap.queue = QueueState::read(queue.as_fd()).ok();
            if let (Some(before), true) = (&before.tap, before.tap.as_ref().map(|tap| tap.persist) != Some(tap.persist)) {
                crate::kernel::tun::set_persist(queue.as_fd(), before.persist).context(failed)?;
            }
        }
        for change in before.changes(&now) {
            if !fields(&outcome.changes).contains(change.field) {
                outcome.changes.push(change);
            }
        }
        outcome.failures.append(apply(netlink, before, &now, Some(queue.as_fd())));
        if !before.tun_flags().contains(TunFlags::NO_PI) {
            // with the socket filter gone, attaching without NO_PI is safe
            drop(queue);
            queue = until_free(name, tunpath, failed, || {
                let Some(link) = link::get(netlink, By::Index(link.ifindex)).context(failed)? else {
                    return Ok(Attempt::Changed);
                };
                open::attach(netlink, tunpath, &link, quiet, failed)
            })?;
        }
        let Some(link) = link::get(netlink, By::Index(link.ifindex)).context(failed)? else { return Ok(()) };
        let now = Snapshot::read(netlink, &link, Some(queue.as_fd())).context(failed)?;
        outcome.left = before.changes(&now);
        if self.flags.contains(RestoreFlags::RECREATE) && fields(&outcome.left).intersects(Fields::OWNER | Fields::GROUP) {
            gone(link::delete(self.netlink, link.ifindex).map_err(Into::into)).context(failed)?;
            drop(queue);
            recreate::recreate(self.netlink, before, tunpath)?;
            outcome.left.clear();
        }
        Ok(())
    }

    /// A macvtap outlives every close, and only its MAC can be changed through a queue: no queue is needed.
    fn macvtap(&mut self, before: &Snapshot, link: &Link) -> Result<Outcome> {
        let failed = || format!("Unable to restore {}", self.name);
        let now = Snapshot::read(self.netlink, link, None).context(failed)?;
        let changes = before.changes(&now);
        let failures = apply(self.netlink, before, &now, None);
        let mut left = Vec::new();
        if let (false, Some(link)) = (changes.is_empty(), link::get(self.netlink, By::Index(link.ifindex)).context(failed)?) {
            left = before.changes(&Snapshot::read(self.netlink, &link, None).context(failed)?);
        }
        Ok(Outcome { changes, failures, left, vanished: false })
    }

    fn vanished(&mut self, before: &Snapshot) -> Result<Outcome> {
        let mut outcome = Outcome { vanished: true, ..Outcome::default() };
        if before.tap.as_ref().is_some_and(|tap| tap.persist) {
            recreate::recreate(self.netlink, before, self.tunpath)?;
            warning!("{}: had vanished, made anew", self.name);
        } else {
            warning!("{}: has vanished, and cannot be made anew: {}", self.name, recreate::why_not(before));
            outcome.left.push(Change { field: Fields::UNRESTORED, what: "device", was: "there".into(), now: "gone".into() });
        }
        Ok(outcome)
    }

    /// One warning for each change; the fields for the caller.
    fn tell(&self, outcome: &Outcome) -> Fields {
        for change in &outcome.changes {
            if !outcome.left.iter().any(|left| left.field == change.field) {
                warning!("{}: {change}, restored", self.name);
            }
        }
        for left in &outcome.left {
            let why = outcome.failures.of(left.field).unwrap_or("the kernel does not allow it");
            warning!("{}: {left}, not restored: {why}", self.name);
        }
        let mut changed = fields(&outcome.changes) | fields(&outcome.left);
        changed.set(Fields::UNRESTORED, !outcome.left.is_empty());
        changed.set(Fields::VANISHED, outcome.vanished);
        changed
    }
}

/// A device that is not there any more is as good as deleted.
fn gone(result: std::result::Result<(), Errno>) -> std::result::Result<(), Errno> {
    match result {
        Err(Errno::ENODEV) => Ok(()),
        result => result,
    }
}
