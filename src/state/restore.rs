//! Restore: a tap that was there before becomes what it was; one that was not goes.

use super::apply::{Failures, apply};
use super::device::{Located, locate, stranger};
use super::fields::{Change, Fields, fields};
use super::guard::{self, Guard};
use super::record::{Created, Record, StateDir, Stored};
use super::recreate;
use super::snapshot::{QueueState, Snapshot};
use crate::error::{Context, Result};
use crate::host::{info, warning};
use crate::kernel::IfName;
use crate::kernel::link::{self, By, Link};
use crate::kernel::netlink::Netlink;
use crate::kernel::tun::TunFlags;
use crate::tap::wait::{Attempt, until_free};
use crate::tap::{delete_device, open};
use bitflags::bitflags;
use nix::errno::Errno;
use std::ffi::CStr;
use std::os::fd::AsFd;
use std::time::Duration;

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

/// What libvirt's own way of opening a tap and every honest hypervisor change, each time: nothing to warn an administrator of
/// who did not ask for a restore.
const ORDINARY: Fields = Fields::FLAGS.union(Fields::VNET_HDR_SIZE).union(Fields::OFFLOADS);

/// One restore: which tap, by which means.
pub(super) struct Restore<'a> {
    pub name: &'a IfName,
    pub tunpath: &'a CStr,
    pub flags: RestoreFlags,
    pub netlink: &'a mut Netlink,
    /// How long to wait for a device that somebody holds.
    pub patience: Duration,
}

/// What is to be told about a device that was looked at.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    changes: Vec<Change>,
    failures: Failures,
    left: Vec<Change>,
}

impl Restore<'_> {
    /// Restores what the record says and takes the record out of the directory. On failure the record stays, with what
    /// has been found changed so far, and a guard if one can be had.
    pub(super) fn run(&mut self, dir: &StateDir, stored: &Stored) -> Result<Fields> {
        let mut guard = guard::take(dir, self.name)?;
        let mut outcome = Outcome::default();
        let result = match &stored.record {
            Record { before: Some(before), .. } => self.present(before, &mut guard, &mut outcome),
            Record { created: Some(created), .. } => self.absent(created, &mut outcome),
            Record { .. } => self.never_held(),
        };
        let fields = self.tell(&outcome) | Fields::from_bits_retain(stored.record.found);
        if result.is_err() {
            if let Some(file) = guard.take() {
                guard::keep(dir, self.name, file)?;
            }
            if fields.bits() != stored.record.found {
                let mut record = stored.record.clone();
                record.found = fields.bits();
                dir.replace(self.name, stored, &record)?;
            }
        }
        result?;
        dir.remove(self.name, stored)?;
        Ok(fields)
    }

    /// The device was absent, and Hold has seen which one came.
    fn absent(&mut self, created: &Created, outcome: &mut Outcome) -> Result<()> {
        let Located::Here(link) = locate(self.netlink, self.name, created.into(), None)? else { return Ok(()) };
        let persist = link.tap().is_some_and(|tun| tun.persist);
        let change = Change::of(Fields::PERSIST, "persist flag", &created.persist, &persist, ToString::to_string);
        outcome.changes.extend(change);
        self.remove(&link)
    }

    /// The device was absent, and Hold was never called: whatever has the name now may be anybody's.
    fn never_held(&mut self) -> Result<()> {
        let name = self.name;
        if link::get(self.netlink, By::Name(name)).context(|| format!("Unable to look for {name}"))?.is_some() {
            warning!("{name}: was absent before and never held, but is there now: left alone");
        }
        Ok(())
    }

    fn remove(&mut self, link: &Link) -> Result<()> {
        let failed = || format!("Unable to delete {}", self.name);
        if link.tap().is_none() {
            return gone(link::delete(self.netlink, link.ifindex).map_err(Into::into)).context(failed);
        }
        match delete_device(self.netlink, By::Index(link.ifindex), self.name, self.tunpath, self.patience) {
            Err(e) if e.errno() == Errno::EBUSY && self.flags.contains(RestoreFlags::EVICT) => self.evict(link.ifindex),
            result => result,
        }
    }

    fn evict(&mut self, ifindex: i32) -> Result<()> {
        warning!("{}: deleted under the process that still holds it", self.name);
        let deleted = link::delete(self.netlink, ifindex).map_err(Into::into);
        gone(deleted).context(|| format!("Unable to delete tap device {} under its holder", self.name))
    }

    fn present(&mut self, before: &Snapshot, guard: &mut Option<Guard>, outcome: &mut Outcome) -> Result<()> {
        let link = match locate(self.netlink, self.name, before.into(), guard.as_ref().map(AsFd::as_fd))? {
            Located::Stranger => return Err(stranger(self.name)),
            Located::Gone if self.flags.contains(RestoreFlags::REMOVE) => return Ok(()),
            Located::Gone => return self.vanished(before, outcome),
            Located::Here(link) => link,
        };
        if self.flags.contains(RestoreFlags::REMOVE) {
            *guard = None;
            return self.remove(&link);
        }
        if link.tap().is_none() {
            return self.macvtap(before, &link, outcome);
        }
        if let Some(file) = guard.take() {
            self.keep_alive(before, &link, &file, outcome)?;
        }
        match self.when_free(before, &link, outcome) {
            Err(e) if e.errno() == Errno::EBUSY && self.flags.contains(RestoreFlags::EVICT) => {
                self.evict(link.ifindex)?;
                recreate::recreate(self.netlink, before, self.tunpath)
            }
            Err(e) => {
                *guard = super::reclaim::win_back(self.netlink, &link).map(Guard::new);
                Err(e)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Sees to it that the device outlives the guard, which is let go after this. All else waits until it is sure that the
    /// hypervisor is gone.
    fn keep_alive(&mut self, before: &Snapshot, link: &Link, guard: &Guard, outcome: &mut Outcome) -> Result<()> {
        let failed = || format!("Unable to restore the persist flag of {}", self.name);
        if !link.carrier {
            // an attached queue sets it on, so somebody has set it off; the next one who attaches sets it on again
            outcome.changes.extend(Change::of(Fields::CARRIER, "carrier", &"on", &"off", ToString::to_string));
        }
        if let (Some(before), Some(now)) = (&before.tap, link.tap())
            && before.persist != now.persist
        {
            crate::kernel::tun::set_persist(guard.as_fd(), before.persist).context(failed)?;
            let change = Change::of(Fields::PERSIST, "persist flag", &before.persist, &now.persist, ToString::to_string);
            outcome.changes.extend(change);
        }
        Ok(())
    }

    /// Opens the tap for itself, which proves that nobody holds it and gives it its flags back; restores what is not as it
    /// was, and verifies.
    fn when_free(&mut self, before: &Snapshot, link: &Link, outcome: &mut Outcome) -> Result<()> {
        let (name, tunpath, patience, index) = (self.name, self.tunpath, self.patience, link.ifindex);
        let failed = || format!("Unable to restore tap device {name}");
        let flags = before.tun_flags() | TunFlags::NO_CARRIER;
        let netlink = &mut *self.netlink;
        let (mut now, queue) = until_free(name, tunpath, patience, failed, || {
            let Some(link) = link::get(netlink, By::Index(index)).context(failed)? else { return Ok(Attempt::Changed) };
            if link.queues() > 0 {
                return Ok(Attempt::Held);
            }
            let now = Snapshot::read(netlink, &link, None).context(failed)?;
            let queue = open::attach(netlink, tunpath, &link, flags | TunFlags::NO_PI, failed)?;
            Ok(queue.map(|queue| (now, queue)))
        })?;
        if let (Some(before), Some(now)) = (&before.tap, &mut now.tap) {
            now.queue = Some(QueueState::read(queue.as_fd()).context(failed)?);
            if before.persist != now.persist {
                crate::kernel::tun::set_persist(queue.as_fd(), before.persist).context(failed)?;
            }
        }
        outcome.changes.extend(before.changes(&now));
        outcome.failures = apply(netlink, before, &now, Some(queue.as_fd()));
        let queue = if flags.contains(TunFlags::NO_PI) {
            queue
        } else {
            drop(queue); // with the socket filter gone, attaching without NO_PI is safe
            until_free(name, tunpath, patience, failed, || {
                let link = link::get(netlink, By::Index(index)).context(failed)?;
                link.map_or(Ok(Attempt::Changed), |link| open::attach(netlink, tunpath, &link, flags, failed))
            })?
        };
        let Some(link) = link::get(netlink, By::Index(index)).context(failed)? else { return Ok(()) };
        let now = Snapshot::read(netlink, &link, Some(queue.as_fd())).context(failed)?;
        outcome.left = before.changes(&now);
        if self.flags.contains(RestoreFlags::RECREATE) && fields(&outcome.left).intersects(Fields::OWNER | Fields::GROUP) {
            gone(link::delete(self.netlink, index).map_err(Into::into)).context(failed)?;
            drop(queue);
            recreate::recreate(self.netlink, before, tunpath)?;
            outcome.left.clear();
        }
        Ok(())
    }

    /// A macvtap outlives every close, and only its MAC can be changed through a queue: no queue is needed.
    fn macvtap(&mut self, before: &Snapshot, link: &Link, outcome: &mut Outcome) -> Result<()> {
        let failed = || format!("Unable to restore {}", self.name);
        let now = Snapshot::read(self.netlink, link, None).context(failed)?;
        outcome.changes = before.changes(&now);
        outcome.failures = apply(self.netlink, before, &now, None);
        if !outcome.changes.is_empty()
            && let Some(link) = link::get(self.netlink, By::Index(link.ifindex)).context(failed)?
        {
            outcome.left = before.changes(&Snapshot::read(self.netlink, &link, None).context(failed)?);
        }
        Ok(())
    }

    fn vanished(&mut self, before: &Snapshot, outcome: &mut Outcome) -> Result<()> {
        let (change, why_not) = match &before.tap {
            Some(tap) if tap.persist => {
                recreate::recreate(self.netlink, before, self.tunpath)?;
                (Change { field: Fields::VANISHED, what: "device had vanished".into() }, None)
            }
            Some(_) => (lost(), Some("it was not persistent, so somebody else kept it alive")),
            None => (lost(), Some("it is not a tap")),
        };
        if let Some(why_not) = why_not {
            outcome.failures.note(Fields::VANISHED, why_not);
            outcome.left.push(change);
        } else {
            outcome.changes.push(change);
        }
        Ok(())
    }

    /// One warning for each change; the fields for the caller.
    fn tell(&self, outcome: &Outcome) -> Fields {
        for change in &outcome.changes {
            if outcome.left.iter().any(|left| left.field == change.field) {
                continue;
            }
            if cfg!(feature = "preload") && ORDINARY.contains(change.field) {
                info!("{}: {}, restored", self.name, change.what);
            } else {
                warning!("{}: {}, restored", self.name, change.what);
            }
        }
        for left in &outcome.left {
            let why = outcome.failures.of(left.field).unwrap_or("the kernel does not allow it");
            warning!("{}: {}, not restored: {why}", self.name, left.what);
        }
        let mut changed = fields(&outcome.changes) | fields(&outcome.left);
        changed.set(Fields::UNRESTORED, !outcome.left.is_empty());
        changed
    }
}

fn lost() -> Change {
    Change { field: Fields::VANISHED, what: "device has vanished".into() }
}

/// A device that is not there any more is as good as deleted.
fn gone(result: std::result::Result<(), Errno>) -> std::result::Result<(), Errno> {
    match result {
        Err(Errno::ENODEV) => Ok(()),
        result => result,
    }
}
