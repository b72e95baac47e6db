//! Making a tap anew that is gone: the same name, the same index, and all that was recorded.

use super::apply::apply;
use super::fields::Fields;
use super::snapshot::Snapshot;
use crate::error::{Context, Error, Result};
use crate::host::warning;
use crate::kernel::link::{self, By};
use crate::kernel::netlink::Netlink;
use crate::kernel::tun::{self, TunFlags};
use crate::tap::open;
use nix::errno::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

/// Makes the tap. Takes CAP_NET_ADMIN. What is not ours to make (addresses, routes, tc) is lost.
pub(super) fn recreate(netlink: &mut Netlink, before: &Snapshot, tunpath: &CStr) -> Result<()> {
    let failed = || format!("Unable to make {} anew", before.name);
    let queue = make(before, tunpath)?;
    // from here on a failure takes the device away again: it is not persistent yet
    let (name, _) = tun::get_iff(queue.as_fd()).context(failed)?;
    let link = link::get(netlink, By::Name(&name)).context(failed)?.ok_or_else(|| Error::system(Errno::ENODEV, failed()))?;
    let now = Snapshot::read(netlink, &link, Some(queue.as_fd())).context(failed)?;
    let failures = apply(netlink, before, &now, Some(queue.as_fd()));
    if let Some(link) = link::get(netlink, By::Index(link.ifindex)).context(failed)? {
        let now = Snapshot::read(netlink, &link, Some(queue.as_fd())).context(failed)?;
        for left in before.changes(&now).iter().filter(|left| left.field != Fields::PERSIST) {
            let why = failures.of(left.field).unwrap_or("the kernel does not allow it");
            warning!("{}: made anew, but {}: {why}", before.name, left.what);
        }
    }
    tun::set_persist(queue.as_fd(), true).context(failed)
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
