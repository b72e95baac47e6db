//! Restore: a tap that was there before becomes what it was; one that was not goes.

use super::apply::{Failures, apply, put_owners_back};
use super::device::{Located, bring_back, carrier_was_set_off, is_queue_of, locate, stranger};
use super::fields::{Change, Fields, fields};
use super::guard::{self, Guard};
use super::record::{Created, Record, StateDir, Stored};
use super::recreate;
use super::snapshot::{QueueState, Snapshot};
use crate::error::{Context, Error, Result};
use crate::host::{info, warning};
use crate::kernel::IfName;
use crate::kernel::link::{self, By, Link};
use crate::kernel::netlink::Netlink;
use crate::kernel::tun::{self, TunFlags};
use crate::tap::wait::{Attempt, until_free};
use crate::tap::{Doomed, delete_device, open};
use bitflags::bitflags;
use nix::errno::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
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

/// One restore: which tap, by which means.
pub(super) struct Restore<'a> {
    pub dir: &'a StateDir,
    pub stored: Stored,
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
    /// What the hypervisor had changed; one entry or more for a property.
    pub changes: Vec<Change>,
    pub failures: Failures,
    /// What is still not as it was.
    pub left: Vec<Change>,
}

impl Outcome {
    /// Adds what was found now to what was found, and perhaps put right, before.
    fn add(&mut self, changes: Vec<Change>) {
        let known = fields(&self.changes);
        self.changes.extend(changes.into_iter().filter(|change| !known.contains(change.field)));
    }
}

impl Restore<'_> {
    /// Restores what the record says and takes the record out of the directory.
    pub(super) fn run(&mut self) -> Result<Fields> {
        let mut guard = guard::take(self.dir, self.name)?;
        let mut outcome = Outcome::default();
        let result = match &self.stored.record.clone() {
            Record { before: Some(before), .. } => self.present(before, &mut guard, &mut outcome),
            Record { created: Some(created), .. } => self.absent(created, &mut outcome),
            Record { .. } => self.never_held(),
        };
        self.finish(result, guard, &outcome)
    }

    /// Tells what was found. On failure the record stays, with what has been found changed so far, and the guard if there
    /// is one.
    pub(super) fn finish(&mut self, result: Result<()>, guard: Option<Guard>, outcome: &Outcome) -> Result<Fields> {
        let fields = self.tell(outcome) | Fields::from_bits_retain(self.stored.record.found);
        match result {
            Ok(()) => self.dir.remove(self.name, &self.stored).map(|()| fields),
            Err(e) => {
                if let Some(file) = guard {
                    guard::keep(self.dir, self.name, file)?;
                }
                if fields.bits() != self.stored.record.found {
                    self.amend(|record| record.found = fields.bits());
                }
                Err(e)
            }
        }
    }

    /// Adds to the record. A directory that cannot be written to is no reason to stop.
    pub(super) fn amend(&mut self, change: impl FnOnce(&mut Record)) {
        let mut record = self.stored.record.clone();
        change(&mut record);
        if let Err(e) = self.dir.replace(self.name, &mut self.stored, record) {
            warning!("{}: the record is not up to date: {e}", self.name);
        }
    }

    /// The device was absent, and Hold has seen which one came.
    fn absent(&mut self, created: &Created, outcome: &mut Outcome) -> Result<()> {
        let Some(link) = self.find_created(created, outcome)? else { return Ok(()) };
        self.remove(&link)
    }

    fn find_created(&mut self, created: &Created, outcome: &mut Outcome) -> Result<Option<Box<Link>>> {
        let Located::Here(link) = locate(self.netlink, self.name, created.into(), None)? else { return Ok(None) };
        let persist = link.tap().is_some_and(|tun| tun.persist);
        if persist != created.persist {
            outcome.changes.push(Change::persist(created.persist, persist));
        }
        Ok(Some(link))
    }

    /// The tap of which all that is to be done is to delete it: one that was absent before. None: anything else.
    pub(super) fn doomed(&mut self, outcome: &mut Outcome) -> Result<Option<Doomed>> {
        let Record { before: None, created: Some(created), .. } = self.stored.record.clone() else { return Ok(None) };
        let link = self.find_created(&created, outcome)?.filter(|link| link.tap().is_some());
        Ok(link.map(|link| Doomed { name: *self.name, ifindex: Some(link.ifindex) }))
    }

    /// The tap is deleted or not, by somebody who has waited for its holders.
    pub(super) fn deleted(&mut self, doomed: Doomed, result: Result<()>, outcome: &Outcome) -> Result<Fields> {
        let result = match (result, doomed.ifindex) {
            (Err(e), Some(index)) if e.errno() == Errno::EBUSY && self.flags.contains(RestoreFlags::EVICT) => self.evict(index),
            (result, _) => result,
        };
        self.finish(result, None, outcome)
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
        if let Some(guard) = guard.as_ref() {
            bring_back(self.name, guard.as_fd())?;
        }
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
        if let Some(file) = guard
            && is_queue_of(file.as_fd(), &link)?
        {
            self.keep_alive(before, &link, file, outcome)?;
        }
        *guard = None;
        match self.when_free(before, &link, outcome) {
            Err(e) if e.errno() == Errno::ENODEV => self.vanished(before, outcome),
            Err(e) if e.errno() == Errno::EBUSY && self.flags.contains(RestoreFlags::EVICT) => {
                self.evict(link.ifindex)?;
                outcome.changes.push(Change::new(Fields::VANISHED, "device was deleted"));
                recreate::recreate(self, before, outcome)
            }
            Err(e) => {
                *guard = super::reclaim::win_back(self.netlink, &link).map(Guard::new);
                Err(e)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Sees to it that the device outlives the guard, which is let go after this, and that its owner may open it then. All
    /// else waits until it is sure that the hypervisor is gone.
    fn keep_alive(&mut self, before: &Snapshot, link: &Link, guard: &Guard, outcome: &mut Outcome) -> Result<()> {
        let failed = || format!("Unable to restore the persist flag of {}", self.name);
        if carrier_was_set_off(link, guard.as_fd())? {
            outcome.changes.push(Change::new(Fields::CARRIER, "carrier was on, hypervisor left off"));
        }
        let (Some(before), Some(now)) = (&before.tap, link.tap()) else { return Ok(()) };
        if before.persist != now.persist {
            tun::set_persist(guard.as_fd(), before.persist).context(failed)?;
            outcome.changes.push(Change::persist(before.persist, now.persist));
        }
        outcome.changes.extend(put_owners_back(before, now, guard.as_fd()));
        Ok(())
    }

    /// Opens the tap for itself, which proves that nobody holds it and gives it its flags back; restores what is not as it
    /// was, and verifies.
    fn when_free(&mut self, before: &Snapshot, link: &Link, outcome: &mut Outcome) -> Result<()> {
        let (name, tunpath, patience, index) = (self.name, self.tunpath, self.patience, link.ifindex);
        let failed = || format!("Unable to restore tap device {name}");
        let gone_meanwhile = || Error::system(Errno::ENODEV, failed());
        let flags = before.tun_flags() | TunFlags::NO_CARRIER;
        let netlink = &mut *self.netlink;
        let (mut now, queue) = until_free(name, tunpath, patience, failed, || {
            let link = link::get(netlink, By::Index(index)).context(failed)?.ok_or_else(gone_meanwhile)?;
            if link.queues() > 0 {
                return Ok(Attempt::Held);
            }
            let now = Snapshot::read(netlink, &link, None).context(failed)?;
            let queue = open::attach(netlink, tunpath, &link, flags | TunFlags::NO_PI, &failed)?;
            Ok(queue.map(|queue| (now, queue)))
        })?;
        if let (Some(before), Some(now)) = (&before.tap, &mut now.tap) {
            now.queue = Some(QueueState::read(queue.as_fd()).context(failed)?);
            if before.persist != now.persist {
                tun::set_persist(queue.as_fd(), before.persist).context(failed)?;
            }
        }
        outcome.add(before.changes(&now));
        outcome.failures = apply(netlink, before, &now, Some(queue.as_fd()));
        let queue = if flags.contains(TunFlags::NO_PI) {
            queue
        } else {
            drop(queue); // with the socket filter gone, attaching without NO_PI is safe
            until_free(name, tunpath, patience, failed, || {
                let link = link::get(netlink, By::Index(index)).context(failed)?;
                link.map_or(Ok(Attempt::Changed), |link| open::attach(netlink, tunpath, &link, flags, &failed))
            })?
        };
        verify(netlink, before, index, Some(queue.as_fd()), outcome)?;
        if self.flags.contains(RestoreFlags::RECREATE) && fields(&outcome.left).intersects(Fields::OWNER | Fields::GROUP) {
            gone(link::delete(self.netlink, index).map_err(Into::into)).context(failed)?;
            drop(queue);
            recreate::recreate(self, before, outcome)?;
        }
        Ok(())
    }

    /// A macvtap outlives every close, and only its MAC can be changed through a queue: no queue is needed.
    fn macvtap(&mut self, before: &Snapshot, link: &Link, outcome: &mut Outcome) -> Result<()> {
        let failed = || format!("Unable to restore {}", self.name);
        let now = Snapshot::read(self.netlink, link, None).context(failed)?;
        outcome.changes = before.changes(&now);
        outcome.failures = apply(self.netlink, before, &now, None);
        if outcome.changes.is_empty() {
            return Ok(());
        }
        match verify(self.netlink, before, link.ifindex, None, outcome) {
            Err(e) if e.errno() == Errno::ENODEV => Ok(()),
            result => result.map(drop),
        }
    }

    fn vanished(&mut self, before: &Snapshot, outcome: &mut Outcome) -> Result<()> {
        let (change, why_not) = match &before.tap {
            Some(tap) if tap.persist => {
                recreate::recreate(self, before, outcome)?;
                (Change::new(Fields::VANISHED, "device had vanished"), None)
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
        let (left, known) = (fields(&outcome.left), fields(&outcome.changes));
        for change in outcome.changes.iter().chain(outcome.left.iter().filter(|left| !known.contains(left.field))) {
            if left.contains(change.field) {
                let why = outcome.failures.of(change.field).unwrap_or("the kernel does not allow it");
                warning!("{}: {}, not restored: {why}", self.name, change.what);
            } else if cfg!(feature = "preload") && change.ordinary {
                info!("{}: {}, restored", self.name, change.what);
            } else {
                warning!("{}: {}, restored", self.name, change.what);
            }
        }
        let mut changed = fields(&outcome.changes) | fields(&outcome.left);
        changed.set(Fields::UNRESTORED, !outcome.left.is_empty());
        changed
    }
}

fn lost() -> Change {
    Change::new(Fields::VANISHED, "device has vanished")
}

/// Looks what is left after all has been put back, and puts it back once more if something has failed.
pub(super) fn verify(
    netlink: &mut Netlink,
    before: &Snapshot,
    ifindex: i32,
    queue: Option<BorrowedFd<'_>>,
    outcome: &mut Outcome,
) -> Result<Snapshot> {
    let failed = || format!("Unable to verify what {} is like", before.name);
    let look = |netlink: &mut Netlink| {
        let link = link::get(netlink, By::Index(ifindex)).context(failed)?;
        let link = link.ok_or_else(|| Error::system(Errno::ENODEV, failed()))?;
        Snapshot::read(netlink, &link, queue).context(failed)
    };
    let mut now = look(netlink)?;
    if outcome.failures.again {
        outcome.failures = apply(netlink, before, &now, queue);
        now = look(netlink)?;
    }
    outcome.left = left(before, &now, &outcome.failures);
    Ok(now)
}

/// What is not as it was. A socket filter that was there before is gone, as it should; if filters could not be taken away,
/// there may be others that cannot be seen.
fn left(before: &Snapshot, now: &Snapshot, failures: &Failures) -> Vec<Change> {
    let mut left = before.changes(now);
    left.retain(|left| left.field != Fields::FILTERS);
    if failures.of(Fields::FILTERS).is_some() {
        left.push(Change::new(Fields::FILTERS, "filters may be there"));
    }
    left
}

/// A device that is not there any more is as good as deleted.
fn gone(result: std::result::Result<(), Errno>) -> std::result::Result<(), Errno> {
    match result {
        Err(Errno::ENODEV) => Ok(()),
        result => result,
    }
}
