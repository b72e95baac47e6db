//! Making a tap anew that is gone: the same name, the same index, and all that was recorded.

use super::apply::apply;
use super::fields::Fields;
use super::restore::{Outcome, Restore, verify};
use super::snapshot::Snapshot;
use crate::error::{Context, Error, Result};
use crate::host::warning;
use crate::kernel::link::{self, By};
use crate::kernel::tun::{self, TunFlags};
use crate::tap::open;
use nix::errno::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

/// Makes the tap; what could not be made as it was is `left`. Takes CAP_NET_ADMIN. What is not ours to make (addresses,
/// routes, tc) is lost.
///
/// The tap becomes persistent only after its identity was recorded: whatever comes between, it is either gone or known.
pub(super) fn recreate(restore: &mut Restore<'_>, before: &Snapshot, outcome: &mut Outcome) -> Result<()> {
    let failed = || format!("Unable to make {} anew", before.name);
    let queue = make(before, restore.tunpath)?;
    let netlink = &mut *restore.netlink;
    let (name, _) = tun::get_iff(queue.as_fd()).context(failed)?;
    let link = link::get(netlink, By::Name(&name)).context(failed)?.ok_or_else(|| Error::system(Errno::ENODEV, failed()))?;
    let now = Snapshot::read(netlink, &link, Some(queue.as_fd())).context(failed)?;
    outcome.failures = apply(netlink, before, &now, Some(queue.as_fd()));
    let now = verify(netlink, before, link.ifindex, Some(queue.as_fd()), outcome)?;
    restore.amend(|record| {
        if let Some(before) = &mut record.before {
            (before.ifindex, before.inode) = (now.ifindex, now.inode);
        }
    });
    tun::set_persist(queue.as_fd(), true).context(failed)?;
    outcome.left.retain(|left| left.field != Fields::PERSIST);
    Ok(())
}

fn make(before: &Snapshot, tunpath: &CStr) -> Result<OwnedFd> {
    let failed = || format!("Unable to make {} anew", before.name);
    let name = before.if_name().ok_or_else(|| Error::system(Errno::EBADMSG, failed()))?;
    let flags = before.tun_flags() | TunFlags::TUN_EXCL | TunFlags::NO_CARRIER;
    let queue = open::clone_device(tunpath)?;
    tun::set_ifindex(queue.as_fd(), before.ifindex.unsigned_abs()).context(failed)?;
    match tun::set_iff(queue.as_fd(), &name, flags) {
        Ok(_) => return Ok(queue),
        Err(Errno::EBUSY) => {} // the index is taken, or the name
        Err(errno) => return Err(Error::system(errno, failed())),
    }
    warning!("{name}: its index {} is taken, made anew with another", before.ifindex);
    let queue = open::clone_device(tunpath)?;
    tun::set_iff(queue.as_fd(), &name, flags).context(failed)?;
    Ok(queue)
}
