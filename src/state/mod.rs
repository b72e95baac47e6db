//! A tap is afterwards as it was before the hypervisor had it.
//!
//! [`save`] records what a device is like before anybody opens it, [`hold`] keeps a guard while the hypervisor has it, and
//! [`restore`] puts everything back when the hypervisor is gone. [`check`], [`reclaim`], [`list`] and [`discard`] are for
//! managers that look, restart, clean up or think otherwise.
//!
//! - `snapshot`: what can be read; `fields`: what differs
//! - `record`: on disk, changed under a `dirlock`; `guard`: in this process
//! - `device`: which device it is; `apply`: setting properties; `restore`, `restore_list`, `recreate`, `reclaim`: what the
//!   names say

mod apply;
mod device;
pub(crate) mod dirlock;
mod fields;
pub(crate) mod guard;
mod reclaim;
mod record;
mod recreate;
mod restore;
mod restore_list;
mod snapshot;

pub use fields::Fields;
pub use restore::RestoreFlags;
pub use restore_list::restore_list;

use crate::error::{Context, Error, Result};
use crate::host::{info, warning};
use crate::kernel::link::{self, By, Link};
use crate::kernel::netlink::Netlink;
use crate::kernel::tun::{self, TunFlags};
use crate::kernel::{IfName, sys, sysfs, tunprops};
use crate::tap::wait::{Attempt, LIMIT, Patience};
use crate::tap::{DEFAULT_TUNPATH, open};
use device::{Located, carrier_was_set_off, is_queue_of, locate, stranger};
use nix::errno::Errno;
use record::{Created, Record, StateDir, Stored};
use restore::Restore;
use snapshot::{QueueState, Snapshot};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// How long [`save`] waits for a tap that somebody holds.
const A_MOMENT: Duration = Duration::from_millis(50);

/// Records what the device is like; call it before anything opens the tap, since the first opener changes its flags.
///
/// No device: recorded as absent. A record that is there already is of a run that never came to its [`restore`]; that is
/// made up for first, and fails while somebody holds the device.
pub fn save(name: &IfName, state_dir: &Path) -> Result<()> {
    let mut netlink = open_netlink(name)?;
    let dir = StateDir::open_or_make(state_dir)?;
    if let Some(stored) = dir.load(name)? {
        finish_earlier_run(&mut netlink, name, &dir, stored)?;
    }
    let before = snapshot_of_free_device(&mut netlink, name)?;
    dir.add(name, &Record::new(&netlink, before)?)
}

fn open_netlink(name: &IfName) -> Result<Netlink> {
    Netlink::open().context(|| format!("Unable to look for {name}"))
}

/// An older record: what it says is put right first. It is void if its device can't be there any more.
fn finish_earlier_run(netlink: &mut Netlink, name: &IfName, dir: &StateDir, stored: Stored) -> Result<()> {
    if !stored.record.is_of_this_boot()? {
        warning!("{name}: replacing a state record of an earlier boot");
        return dir.remove(name, &stored);
    }
    require_this_netns(netlink, name, &stored.record)?;
    let flags = RestoreFlags::empty();
    let mut restore = Restore { dir, stored, name, tunpath: DEFAULT_TUNPATH, flags, netlink, patience: LIMIT };
    match restore.run() {
        Ok(_) => Ok(()),
        Err(e) if e.errno() == Errno::EEXIST => {
            warning!("{name}: replacing the state record of a device that is gone");
            drop(guard::take(dir, name)?);
            dir.remove(name, &restore.stored)
        }
        Err(e) => {
            Err(Error::system(e.errno(), format!("Unable to save the state of {name}, an earlier run is not over: {}", e.text())))
        }
    }
}

fn require_this_netns(netlink: &Netlink, name: &IfName, record: &Record) -> Result<()> {
    if record.is_of_this_netns(netlink)? {
        return Ok(());
    }
    Err(Error::operation(Errno::EXDEV, format!("The state record of {name} is of another network namespace")))
}

/// Reads a device that nobody should hold yet. If somebody does, what takes a queue to be read stays unknown.
fn snapshot_of_free_device(netlink: &mut Netlink, name: &IfName) -> Result<Option<Snapshot>> {
    let failed = || format!("Unable to save the state of {name}");
    let Some(link) = link::get(netlink, By::Name(name)).context(failed)? else { return Ok(None) };
    if link.tap().is_none() && link.kind.as_deref() != Some("macvtap") {
        let text = format!("{}, {name} is a {} device, not a tap", failed(), link.describe());
        return Err(Error::system(Errno::EINVAL, text));
    }
    let mut before = Snapshot::read(netlink, &link, None).context(failed)?;
    let flags = before.tun_flags() | TunFlags::NO_CARRIER;
    if let Some(tap) = &mut before.tap
        && link.queues() == 0
    {
        // whoever looks into /proc has the files of others open for a moment
        let mut patience = Patience::new(DEFAULT_TUNPATH, A_MOMENT);
        loop {
            match attach_in_spite_of_filter(netlink, &link, flags, failed)? {
                Attempt::Done(queue) => tap.queue = Some(QueueState::read(queue.as_fd()).context(failed)?),
                Attempt::Held if patience.again() => continue,
                Attempt::Held => info!("{name}: is in use, so its header size and the like are not recorded"),
                Attempt::Changed => return Err(Error::system(Errno::EAGAIN, format!("{}, it is changing", failed()))),
            }
            break;
        }
    }
    Ok(Some(before))
}

/// A socket filter that a hypervisor left behind keeps everybody out who wants packet information: it goes first then.
fn attach_in_spite_of_filter(
    netlink: &mut Netlink,
    link: &Link,
    flags: TunFlags,
    failed: impl Fn() -> String,
) -> Result<Attempt<OwnedFd>> {
    let first = open::attach(netlink, DEFAULT_TUNPATH, link, flags, &failed);
    if flags.contains(TunFlags::NO_PI) || matches!(first, Ok(Attempt::Done(_) | Attempt::Held)) {
        return first;
    }
    if let Attempt::Done(queue) = open::attach(netlink, DEFAULT_TUNPATH, link, flags | TunFlags::NO_PI, &failed)? {
        tunprops::clear_filters(queue.as_fd()).context(&failed)?;
    }
    open::attach(netlink, DEFAULT_TUNPATH, link, flags, &failed)
}

/// Keeps the device alive from now on, whatever the hypervisor does; call it when the tap is open and before the
/// hypervisor starts. `queues` are the files that the hypervisor gets.
///
/// Without a record, writes one that says that the device was absent before: that is what a generated name means. Such a
/// device is not kept alive, only remembered.
pub fn hold(name: &IfName, state_dir: &Path, queues: &[BorrowedFd<'_>]) -> Result<()> {
    let failed = || format!("Unable to hold {name}");
    let mut netlink = open_netlink(name)?;
    let dir = StateDir::open_or_make(state_dir)?;
    let link = link::get(&mut netlink, By::Name(name)).context(failed)?;
    let link = link.ok_or_else(|| Error::system(Errno::ENODEV, failed()))?;
    for queue in queues {
        let (attached, _) = tun::get_iff(*queue).context(|| format!("{}, a file is not a queue of it", failed()))?;
        if Some(attached) != link.name {
            return Err(Error::system(Errno::EINVAL, format!("{}, a file is a queue of {attached}", failed())));
        }
    }
    let created = || -> Result<Created> {
        let inode = sysfs::inode(&link).context(failed)?;
        Ok(Created { ifindex: link.ifindex, inode, persist: link.tap().is_some_and(|tun| tun.persist) })
    };
    let Some(mut stored) = dir.load(name)? else {
        let mut record = Record::new(&netlink, None)?;
        record.created = Some(created()?);
        return dir.add(name, &record);
    };
    require_current(&netlink, name, &stored.record)?;
    match &stored.record.before {
        None => {
            let created = Some(created()?);
            if stored.record.created == created {
                return Ok(());
            }
            let mut record = stored.record.clone();
            record.created = created;
            dir.replace(name, &mut stored, record)
        }
        Some(before) if !device::Identity::from(before).is(&link).context(failed)? => Err(stranger(name)),
        Some(before) => match queues.first() {
            Some(queue) if before.tap.is_some() => guard::keep(&dir, name, sys::duplicate(*queue).context(failed)?.into()),
            _ => Ok(()),
        },
    }
}

fn require_current(netlink: &Netlink, name: &IfName, record: &Record) -> Result<()> {
    require_this_netns(netlink, name, record)?;
    if record.is_of_this_boot()? {
        return Ok(());
    }
    Err(Error::operation(Errno::ESTALE, format!("The state record of {name} is of an earlier boot")))
}

/// Wins the guard back after a restart of the manager, from the process that has the tap now (0: whichever has). A device
/// that has no guard, since it was absent before or is a macvtap, is fine as it is.
pub fn reclaim(name: &IfName, state_dir: &Path, pid: i32) -> Result<()> {
    let mut netlink = open_netlink(name)?;
    let missing = || Error::operation(Errno::ENOENT, format!("There is no state record of {name} in {}", state_dir.display()));
    let dir = StateDir::open(state_dir)?.ok_or_else(missing)?;
    let stored = dir.load(name)?.ok_or_else(missing)?;
    require_current(&netlink, name, &stored.record)?;
    let Some(before) = stored.record.before.as_ref().filter(|before| before.tap.is_some()) else { return Ok(()) };
    let guard = guard::get(&dir, name)?;
    let guard = guard.as_ref().map(AsFd::as_fd);
    if let Some(guard) = guard
        && device::elsewhere(guard)?.is_some()
    {
        return Ok(()); // moved to another namespace, but ours to bring back
    }
    match locate(&mut netlink, name, before.into(), guard)? {
        Located::Here(link) => {
            if guard.map_or(Ok(false), |guard| is_queue_of(guard, &link))? {
                return Ok(());
            }
            guard::keep(&dir, name, reclaim::reclaim(&mut netlink, name, &link, pid)?.into())
        }
        Located::Gone => Err(Error::system(Errno::ENODEV, format!("Unable to reclaim tap device {name}"))),
        Located::Stranger => Err(stranger(name)),
    }
}

/// What [`restore`] would find changed at this moment. Changes nothing. Properties that only a queue tells are left out
/// while a hypervisor has a tap without a guard of ours.
pub fn check(name: &IfName, state_dir: &Path) -> Result<Fields> {
    let mut netlink = open_netlink(name)?;
    let Some(dir) = StateDir::open(state_dir)? else { return Ok(Fields::empty()) };
    let Some(stored) = dir.load(name)? else { return Ok(Fields::empty()) };
    require_current(&netlink, name, &stored.record)?;
    let guard = guard::get(&dir, name)?;
    let guard = guard.as_ref().map(AsFd::as_fd);
    if let Some(guard) = guard
        && let Some((mut there, link)) = device::elsewhere(guard)?
    {
        return compare(&mut there, name, &stored.record, &link, Some(guard));
    }
    check_here(&mut netlink, name, &stored.record, guard)
}

fn check_here(netlink: &mut Netlink, name: &IfName, record: &Record, guard: Option<BorrowedFd<'_>>) -> Result<Fields> {
    let (identity, persist) = match (&record.before, &record.created) {
        (Some(before), _) => (before.into(), false),
        (None, Some(created)) => (created.into(), created.persist),
        (None, None) => return Ok(Fields::empty()),
    };
    match locate(netlink, name, identity, guard)? {
        Located::Here(link) if record.before.is_some() => {
            let guards = guard.map_or(Ok(false), |guard| is_queue_of(guard, &link))?;
            compare(netlink, name, record, &link, guard.filter(|_| guards))
        }
        Located::Here(link) if link.tap().is_some_and(|tun| tun.persist != persist) => Ok(Fields::PERSIST),
        Located::Stranger => Err(stranger(name)),
        Located::Gone if record.before.is_some() => Ok(Fields::VANISHED),
        Located::Here(_) | Located::Gone => Ok(Fields::empty()),
    }
}

fn compare(netlink: &mut Netlink, name: &IfName, record: &Record, link: &Link, guard: Option<BorrowedFd<'_>>) -> Result<Fields> {
    let failed = || format!("Unable to check the state of {name}");
    let Some(before) = &record.before else { return Ok(Fields::empty()) };
    let mut now = Snapshot::read(netlink, link, guard).context(failed)?;
    let flags = now.tun_flags() | TunFlags::NO_CARRIER;
    if let (Some(tap), None, 0) = (&mut now.tap, guard, link.queues()) {
        match open::attach(netlink, DEFAULT_TUNPATH, link, flags, &failed) {
            Ok(Attempt::Done(queue)) => tap.queue = Some(QueueState::read(queue.as_fd()).context(failed)?),
            Ok(_) => {}
            Err(e) if matches!(e.errno(), Errno::EPERM | Errno::EACCES) => {} // not for us to see
            Err(e) => return Err(e),
        }
    }
    let mut changed = fields::fields(&before.changes(&now));
    changed.set(Fields::CARRIER, guard.map_or(Ok(false), |guard| carrier_was_set_off(link, guard))?);
    Ok(changed)
}

/// Puts everything back; call it when the hypervisor is dead or has closed the tap. No record: nothing to do.
///
/// A device that was absent before goes. One that was there gets back what was changed, which is returned and logged; one
/// that has vanished is made anew. While a process still holds it: EBUSY, and the record stays.
pub fn restore(name: &IfName, tunpath: Option<&CStr>, state_dir: &Path, flags: RestoreFlags) -> Result<Fields> {
    restore_within(name, tunpath, state_dir, flags, LIMIT)
}

/// [`restore`] that waits this long for a device that somebody holds.
pub(crate) fn restore_within(
    name: &IfName,
    tunpath: Option<&CStr>,
    state_dir: &Path,
    flags: RestoreFlags,
    patience: Duration,
) -> Result<Fields> {
    if flags.contains(RestoreFlags::LEAVE) {
        return discard(name, state_dir).map(|()| Fields::empty());
    }
    let Some(dir) = StateDir::open(state_dir)? else { return Ok(Fields::empty()) };
    let Some(stored) = dir.load(name)? else { return Ok(Fields::empty()) };
    let mut netlink = open_netlink(name)?;
    require_current(&netlink, name, &stored.record)?;
    let tunpath = tunpath.unwrap_or(DEFAULT_TUNPATH);
    Restore { dir: &dir, stored, name, tunpath, flags, netlink: &mut netlink, patience }.run()
}

/// Lets the guard go and forgets the record, whatever it is like.
pub fn discard(name: &IfName, state_dir: &Path) -> Result<()> {
    let Some(dir) = StateDir::open(state_dir)? else { return Ok(()) };
    let guard = guard::take(&dir, name)?;
    dir.discard(name).or_else(|e| {
        guard.map_or(Ok(()), |guard| guard::keep(&dir, name, guard))?;
        Err(e)
    })
}

/// The taps that have a record in the directory, sorted by name.
pub fn list(state_dir: &Path) -> Result<Vec<IfName>> {
    StateDir::open(state_dir)?.map_or_else(|| Ok(Vec::new()), |dir| dir.names())
}

/// Is there a record of this tap, readable or not?
#[cfg(feature = "preload")]
pub(crate) fn recorded(name: &IfName, state_dir: &Path) -> Result<bool> {
    StateDir::open(state_dir)?.map_or(Ok(false), |dir| dir.present(name).map(|file| file.is_some()))
}

/// The number of the file that guards this tap here, if one does.
#[cfg(feature = "preload")]
pub(crate) fn guard_number(name: &IfName, state_dir: &Path) -> Option<i32> {
    use std::os::fd::AsRawFd;
    let dir = StateDir::open(state_dir).ok()??;
    guard::get(&dir, name).ok()?.map(|guard| guard.as_raw_fd())
}

/// Takes the text of a record, or of any JSON, apart and puts it together again; false if it is no record.
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used)] // it tests
pub(crate) fn check_record(text: &str) -> bool {
    use crate::json::{Json, Value};
    let Ok(value) = Value::parse(text) else { return false };
    assert_eq!(Value::parse(&value.to_string()), Ok(value));
    let Ok((record, _)) = Record::parse(text) else { return false };
    assert_eq!(Record::parse(&record.to_json().to_string()).unwrap().0, record);
    if let Some(before) = &record.before {
        let _ = (before.tun_flags(), before.if_name());
        assert!(before.changes(before).is_empty());
    }
    true
}
