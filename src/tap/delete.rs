//! Deleting a tap.

use super::open;
use super::wait::{Attempt, LIMIT, until_free};
use super::{DEFAULT_TUNPATH, require_tap};
use crate::error::{Context, Error, Result};
use crate::host::info;
use crate::kernel::IfName;
use crate::kernel::link::{self, By, Link};
use crate::kernel::netlink::Netlink;
use crate::kernel::tun;
use nix::errno::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Deletes the tap with this name, persistent or not, multi-queue or not. Success if there is none.
///
/// Devices of another kind are refused. A tap that somebody holds is waited for, up to one second, and then left alone
/// with EBUSY and an error that names the holders. The owner of a tap needs no CAP_NET_ADMIN.
pub fn delete(name: &IfName, tunpath: Option<&CStr>) -> Result<()> {
    let tunpath = tunpath.unwrap_or(DEFAULT_TUNPATH);
    let mut netlink = Netlink::open().context(|| failed(name))?;
    delete_device(&mut netlink, By::Name(name), name, tunpath, LIMIT)
}

/// The same for a device that is found `by` its index; `name` is for the texts.
pub(crate) fn delete_device(netlink: &mut Netlink, mut by: By<'_>, name: &IfName, tunpath: &CStr, limit: Duration) -> Result<()> {
    if until_free(name, tunpath, limit, || failed(name), || try_delete(netlink, &mut by, name, tunpath))? {
        info!("delete device: '{name}'");
    }
    Ok(())
}

pub(super) fn failed(name: &IfName) -> String {
    format!("Unable to delete tap device {name}")
}

/// Done(false): there was none. The device that has been found is the one that the next try is for, whatever has its name
/// by then.
fn try_delete(netlink: &mut Netlink, by: &mut By<'_>, name: &IfName, tunpath: &CStr) -> Result<Attempt<bool>> {
    let failed = || failed(name);
    let Some(link) = link::get(netlink, *by).context(failed)? else { return Ok(Attempt::Done(false)) };
    require_tap(&link, name, failed)?;
    *by = By::Index(link.ifindex);
    if link.queues() > 0 {
        return Ok(Attempt::Held);
    }
    // A single-queue tap tells only by being opened whether somebody holds it; while its queue is ours nobody gets it. A
    // multi-queue tap has just told, and would let others in all the same.
    let mut queue = None;
    if link.tap().is_some_and(|tap| !tap.multi_queue) {
        let flags = open::flags_to_delete(&link).context(failed)?;
        match open::attach(netlink, tunpath, &link, flags, &failed)? {
            Attempt::Done(ours) => queue = Some(ours),
            Attempt::Held => return Ok(Attempt::Held),
            Attempt::Changed => return Ok(Attempt::Changed),
        }
    }
    Ok(remove(netlink, &link, queue, tunpath, failed)?.map(|()| true))
}

/// Deletes a device that nobody holds but us, with this queue. On failure it is as it was before it was opened.
pub(super) fn remove(
    netlink: &mut Netlink,
    link: &Link,
    queue: Option<OwnedFd>,
    tunpath: &CStr,
    failed: impl Fn() -> String,
) -> Result<Attempt<()>> {
    let removed = try_remove(netlink, link, queue.as_ref(), tunpath, failed);
    if removed.is_err() {
        give_back(netlink, tunpath, link, queue);
    }
    removed
}

/// A tap that was opened to be deleted stays, and is as it was.
pub(super) fn give_back(netlink: &mut Netlink, tunpath: &CStr, link: &Link, queue: Option<OwnedFd>) {
    let flags = queue.as_ref().and_then(|queue| tun::get_iff(queue.as_fd()).ok()).map(|(_, flags)| flags);
    drop(queue);
    if let Some(flags) = flags {
        open::put_flags_back(netlink, tunpath, link, flags);
    }
}

fn try_remove(
    netlink: &mut Netlink,
    link: &Link,
    queue: Option<&OwnedFd>,
    tunpath: &CStr,
    failed: impl Fn() -> String,
) -> Result<Attempt<()>> {
    match link::delete(netlink, link.ifindex).map_err(Errno::from) {
        Ok(()) | Err(Errno::ENODEV) => Ok(Attempt::Done(())),
        // the owner of a tap may do this much: it goes with its last queue
        Err(Errno::EPERM) => {
            let own;
            let queue = match queue {
                Some(queue) => queue,
                None => match open::attach(netlink, tunpath, link, open::flags_to_delete(link).context(&failed)?, &failed)? {
                    Attempt::Done(attached) => {
                        own = attached;
                        &own
                    }
                    _ => return Ok(Attempt::Changed),
                },
            };
            match tun::set_persist(queue.as_fd(), false) {
                Ok(()) | Err(Errno::EBADFD) => Ok(Attempt::Done(())), // EBADFD: somebody else has deleted it
                Err(errno) => Err(Error::system(errno, failed())),
            }
        }
        Err(errno) => Err(Error::system(errno, failed())),
    }
}
