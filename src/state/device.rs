//! Finding a recorded device again, under whatever name and in whatever namespace it may be now.

use super::record::Created;
use super::snapshot::Snapshot;
use crate::error::{Context, Error, Result};
use crate::host::warning;
use crate::kernel::link::{self, By, IFLA_NET_NS_FD, Link};
use crate::kernel::netlink::Netlink;
use crate::kernel::tun::{self, TunFlags};
use crate::kernel::{IfName, netns, sysfs, tunprops};
use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// What tells a device from all others of this boot and namespace. An index alone does not: with the right capability one
/// can ask for an index that another device had.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    ifindex: i32,
    inode: Option<u64>,
}

impl From<&Snapshot> for Identity {
    fn from(snapshot: &Snapshot) -> Self {
        Self { ifindex: snapshot.ifindex, inode: snapshot.inode }
    }
}

impl From<&Created> for Identity {
    fn from(created: &Created) -> Self {
        Self { ifindex: created.ifindex, inode: created.inode }
    }
}

impl Identity {
    pub(crate) fn is(&self, link: &Link) -> std::result::Result<bool, Errno> {
        if self.ifindex != link.ifindex {
            return Ok(false);
        }
        Ok(match (self.inode, sysfs::inode(link)?) {
            (Some(recorded), Some(now)) => recorded == now,
            _ => true, // sysfs did not, or does not, show this namespace: the index has to do
        })
    }

    /// The same for a device that was in another namespace, where it may have got another index.
    fn is_after_a_move(&self, link: &Link) -> std::result::Result<bool, Errno> {
        Ok(match (self.inode, sysfs::inode(link)?) {
            (Some(recorded), Some(now)) => recorded == now,
            _ => self.ifindex == link.ifindex,
        })
    }
}

#[derive(Debug)]
pub(crate) enum Located {
    Here(Box<Link>),
    Gone,
    /// Gone, and another device has the name.
    Stranger,
}

/// Looks in this namespace for the device with this identity. A guard knows it under any name.
///
/// When a device is deleted, its files can be attached to another one, so what a guard knows is not believed blindly.
pub(crate) fn locate(netlink: &mut Netlink, name: &IfName, identity: Identity, guard: Option<BorrowedFd<'_>>) -> Result<Located> {
    let failed = || format!("Unable to look for {name}");
    if let Some(guard) = guard
        && let Some((now, _)) = attached_to(guard)?
    {
        let link = link::get(netlink, By::Name(&now)).context(failed)?;
        if let Some(link) = link.filter(|link| link.tap().is_some())
            && identity.is_after_a_move(&link).context(failed)?
        {
            return Ok(Located::Here(link.into()));
        }
    }
    if let Some(link) = link::get(netlink, By::Index(identity.ifindex)).context(failed)?
        && identity.is(&link).context(failed)?
    {
        return Ok(Located::Here(link.into()));
    }
    let stranger = link::get(netlink, By::Name(name)).context(failed)?;
    Ok(if stranger.is_some() { Located::Stranger } else { Located::Gone })
}

/// Is this file, now, a queue of the device behind `link`?
pub(crate) fn is_queue_of(guard: BorrowedFd<'_>, link: &Link) -> Result<bool> {
    Ok(attached_to(guard)?.is_some_and(|(name, _)| Some(name) == link.name))
}

/// The device that this file is a queue of, and the queue's flags. None: it is gone.
fn attached_to(guard: BorrowedFd<'_>) -> Result<Option<(IfName, TunFlags)>> {
    match tun::get_iff(guard) {
        Err(Errno::EBADFD) => Ok(None),
        attached => attached.map(Some).context(|| "Unable to tell which tap device a file belongs to".into()),
    }
}

/// A device that was moved to another network namespace, as seen from there. None: it is here, or it may not be known.
pub(crate) fn elsewhere(guard: BorrowedFd<'_>) -> Result<Option<(Netlink, Link)>> {
    let failed = || "Unable to look into another network namespace".to_owned();
    let Some(there) = other_netns(guard).context(failed)? else { return Ok(None) };
    let mut netlink = netns::netlink_in(there.as_fd()).context(failed)?;
    let (name, _) = tun::get_iff(guard).context(failed)?;
    let link = link::get(&mut netlink, By::Name(&name)).context(failed)?;
    Ok(link.map(|link| (netlink, link)))
}

fn other_netns(guard: BorrowedFd<'_>) -> std::result::Result<Option<OwnedFd>, Errno> {
    let Ok(there) = tunprops::device_netns(guard) else { return Ok(None) }; // not permitted to ask: assume it is here
    let here = netns::own()?;
    Ok(if netns::same(there.as_fd(), here.as_fd())? { None } else { Some(there) })
}

/// Brings the device of a guard back that was moved to another network namespace.
pub(crate) fn bring_back(name: &IfName, guard: BorrowedFd<'_>) -> Result<()> {
    let failed = || format!("Unable to bring {name} back from another network namespace");
    let Some(there) = other_netns(guard).context(failed)? else { return Ok(()) };
    let here = netns::own().context(failed)?;
    let (name, _) = tun::get_iff(guard).context(failed)?;
    let target = here.as_raw_fd().cast_unsigned();
    let mut netlink = netns::netlink_in(there.as_fd()).context(failed)?;
    let link = link::get(&mut netlink, By::Name(&name)).context(failed)?;
    let link = link.ok_or_else(|| Error::system(Errno::ENODEV, failed()))?;
    let moved = link::set(&mut netlink, link.ifindex, 0, 0, |request| {
        request.attr_u32(IFLA_NET_NS_FD, target);
    });
    match moved {
        // an answer that was lost may have been a good one
        Err(_) if other_netns(guard).context(failed)?.is_none() => {}
        moved => moved.context(failed)?,
    }
    warning!("{name}: was in another network namespace, brought back");
    Ok(())
}

/// The error for a name that another device has now.
pub(crate) fn stranger(name: &IfName) -> Error {
    Error::operation(Errno::EEXIST, format!("The {name} interface is not the device that was saved, it is left alone"))
}

/// An attached queue sets the carrier on; if it is off all the same, somebody has set it off. The next one who attaches sets
/// it on again. A guard that is detached says nothing.
pub(crate) fn carrier_was_set_off(link: &Link, guard: BorrowedFd<'_>) -> Result<bool> {
    Ok(!link.carrier && attached_to(guard)?.is_some_and(|(_, flags)| !flags.contains(TunFlags::DETACH_QUEUE)))
}
