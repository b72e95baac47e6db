//! Opening a queue of a tap that exists, without ever making one.

use super::wait::{Attempt, until_free};
use crate::error::{Context, Error, Result};
use crate::kernel::link::{self, By, Link};
use crate::kernel::netlink::Netlink;
use crate::kernel::tun::{self, TunFlags};
use crate::kernel::{IfName, sysfs};
use nix::errno::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The loopback device, which every network namespace has. A device that is to get its index cannot be made.
const LOOPBACK: u32 = 1;

/// Opens the clone device.
pub(crate) fn clone_device(tunpath: &CStr) -> Result<OwnedFd> {
    tun::open(tunpath).context(|| format!("Unable to open {}, is tun module loaded?", tunpath.to_string_lossy()))
}

/// TUNSETIFF that attaches to a device but never makes one: for a name that is not there it fails, with EBUSY, or
/// with EPERM without CAP_NET_ADMIN. Not documented, but so on Linux 5.10 to 6.18: `tun_set_iff()` registers a new
/// device under the index asked for, and that one is taken. Where the request is refused (seccomp), the device is
/// checked only afterwards.
pub(crate) fn set_iff_existing(fd: BorrowedFd<'_>, name: &IfName, flags: TunFlags) -> std::result::Result<IfName, Errno> {
    let _ = tun::set_ifindex(fd, LOOPBACK);
    tun::set_iff(fd, name, flags)
}

/// The flags to attach to a tap with if it is to stay as it is. NO_PI is always set: without it, a socket filter that
/// a hypervisor left behind can make TUNSETIFF return success without attaching.
pub(crate) fn present_flags(link: &Link) -> std::result::Result<TunFlags, Errno> {
    Ok(with_kept(link, sysfs::flags(link)?))
}

/// The same for a tap that is to be deleted: they count only if that fails. So it is not made sure that sysfs shows this
/// namespace, which takes most of the time.
pub(super) fn flags_to_delete(link: &Link) -> std::result::Result<TunFlags, Errno> {
    Ok(with_kept(link, sysfs::likely_flags(link)?))
}

fn with_kept(link: &Link, all: Option<TunFlags>) -> TunFlags {
    let Some(tun) = link.tap() else { return TunFlags::empty() };
    let mut flags = all.map_or(TunFlags::empty(), |all| all & TunFlags::KEPT);
    flags |= TunFlags::TAP | TunFlags::NO_PI;
    flags.set(TunFlags::MULTI_QUEUE, tun.multi_queue);
    flags.set(TunFlags::VNET_HDR, tun.vnet_hdr);
    flags
}

/// Attaches a new queue to the tap that `link` describes, and makes sure that it is this one. On failure the tap has the
/// flags that it had.
///
/// A multi-queue tap accepts more queues while others hold it, so `Held` is for single-queue taps only.
pub(crate) fn attach(
    netlink: &mut Netlink,
    tunpath: &CStr,
    link: &Link,
    flags: TunFlags,
    failed: &dyn Fn() -> String,
) -> Result<Attempt<OwnedFd>> {
    let attached = try_attach(netlink, tunpath, link, flags, failed);
    if attached.is_err() {
        put_flags_back(netlink, tunpath, link, flags);
    }
    attached
}

fn try_attach(
    netlink: &mut Netlink,
    tunpath: &CStr,
    link: &Link,
    flags: TunFlags,
    failed: &dyn Fn() -> String,
) -> Result<Attempt<OwnedFd>> {
    let (queue, name) = match try_attach_by_name(netlink, tunpath, link, flags, failed)? {
        Attempt::Done(attached) => attached,
        Attempt::Held => return Ok(Attempt::Held),
        Attempt::Changed => return Ok(Attempt::Changed),
    };
    let now = link::get(netlink, By::Name(&name)).context(failed)?;
    Ok(if is_still(link, now.as_ref()) { Attempt::Done(queue) } else { Attempt::Changed })
}

/// Attaches a new queue to what has the name of the tap. To be done by the caller: what has the name that is returned, and
/// [is it still](is_still) this tap? And if that cannot be told, [putting the flags back](put_flags_back).
pub(super) fn attach_by_name(
    netlink: &mut Netlink,
    tunpath: &CStr,
    link: &Link,
    flags: TunFlags,
    failed: &dyn Fn() -> String,
) -> Result<Attempt<(OwnedFd, IfName)>> {
    let attached = try_attach_by_name(netlink, tunpath, link, flags, failed);
    if attached.is_err() {
        put_flags_back(netlink, tunpath, link, flags);
    }
    attached
}

fn try_attach_by_name(
    netlink: &mut Netlink,
    tunpath: &CStr,
    link: &Link,
    flags: TunFlags,
    failed: &dyn Fn() -> String,
) -> Result<Attempt<(OwnedFd, IfName)>> {
    let Some(name) = link.name else { return Ok(Attempt::Changed) };
    let queue = clone_device(tunpath)?;
    if let Err(errno) = set_iff_existing(queue.as_fd(), &name, flags) {
        let now = link::get(netlink, By::Name(&name)).context(failed)?;
        let same = now.as_ref().is_some_and(|now| now.ifindex == link.ifindex && now.tap().is_some());
        return match errno {
            _ if !same => Ok(Attempt::Changed),
            Errno::EBUSY => Ok(Attempt::Held),
            Errno::ENOTTY => Err(not_tun(tunpath, &failed())),
            Errno::EPERM => Err(Error::system(errno, format!("{}{}", failed(), owner_hint(link)))),
            errno => Err(Error::system(errno, failed())),
        };
    }
    // whoever renames devices meanwhile, and whatever TUNSETIFF said (on a macvtap's node it takes any name): the queue says
    // which device it is attached to, if it is
    match tun::get_iff(queue.as_fd()) {
        Err(Errno::EBADFD) => Ok(Attempt::Changed), // somebody has deleted it under our queue
        answer => Ok(Attempt::Done((queue, answer.context(failed)?.0))),
    }
}

/// Is the device that a queue says it is attached to, `now`, the one that was meant?
pub(super) fn is_still(link: &Link, now: Option<&Link>) -> bool {
    now.is_some_and(|now| now.ifindex == link.ifindex)
}

/// Gives a tap the flags that `link` had back, where attaching with `flags` has overwritten them. By an owner of the device
/// that nobody holds this cannot fail; anything else is not ours any more. Whoever looks at our files in /proc at this
/// moment has them open a little longer than we do, and then the kernel refuses or ignores the flags: that is waited for.
pub(crate) fn put_flags_back(netlink: &mut Netlink, tunpath: &CStr, link: &Link, flags: TunFlags) {
    const AT_MOST: Duration = Duration::from_millis(200);
    let (Some(name), Some(before)) = (link.name, link.tap()) else { return };
    let mut wanted = TunFlags::TAP | TunFlags::NO_CARRIER | (flags & TunFlags::KEPT);
    wanted.set(TunFlags::MULTI_QUEUE, before.multi_queue);
    wanted.set(TunFlags::VNET_HDR, before.vnet_hdr);
    wanted.set(TunFlags::NO_PI, !before.pi);
    let is_back = |netlink: &mut Netlink| -> Result<bool> {
        let now = link::get(netlink, By::Index(link.ifindex)).context(String::new)?;
        // if it is gone, there is nothing to be put back
        Ok(now.is_none_or(|now| now.tap().is_none_or(|now| (now.vnet_hdr, now.pi) == (before.vnet_hdr, before.pi))))
    };
    if is_back(netlink) == Ok(true) {
        return;
    }
    let _ = until_free(&name, tunpath, AT_MOST, String::new, || {
        let attempt = try_attach(netlink, tunpath, link, wanted, &String::new)?.map(drop);
        Ok(if is_back(netlink)? { Attempt::Done(()) } else { attempt.or_held() })
    });
}

pub(crate) fn not_tun(tunpath: &CStr, failed: &str) -> Error {
    Error::system(Errno::ENOTTY, format!("{failed}, {} is not the tun clone device", tunpath.to_string_lossy()))
}

/// Whose tap it is, for somebody who may not touch it.
fn owner_hint(link: &Link) -> String {
    match link.tun.map(|tun| (tun.owner, tun.group)) {
        Some((Some(owner), Some(group))) => format!(", it belongs to uid {owner} and gid {group}"),
        Some((Some(owner), None)) => format!(", it belongs to uid {owner}"),
        Some((None, Some(group))) => format!(", it belongs to gid {group}"),
        _ => String::new(),
    }
}
