//! IFF_PERSIST: does a tap outlive its last queue?

use super::open;
use super::wait::{Attempt, LIMIT, until_free};
use super::{DEFAULT_TUNPATH, existing_tap};
use crate::error::{Context, Result};
use crate::kernel::IfName;
use crate::kernel::link::{By, Link, Tun};
use crate::kernel::netlink::Netlink;
use crate::kernel::tun::{self, TunFlags};
use nix::errno::Errno;
use std::ffi::CStr;
use std::os::fd::AsFd;

/// Is the tap persistent? Needs no permission.
pub fn get_persist(name: &IfName) -> Result<bool> {
    let failed = || format!("Unable to get the persist flag of {name}");
    let mut netlink = Netlink::open().context(failed)?;
    let link = existing_tap(&mut netlink, By::Name(name), name, failed)?;
    Ok(link.tap().is_some_and(|tun| tun.persist))
}

/// Makes the tap persistent or not; all else stays as it is.
///
/// A queue has to be attached for that: a single-queue tap that somebody holds is waited for, up to one second, then
/// EBUSY. A tap that nobody holds is gone at once when it loses the flag, as with `ip tuntap del`.
pub fn set_persist(name: &IfName, tunpath: Option<&CStr>, persist: bool) -> Result<()> {
    let tunpath = tunpath.unwrap_or(DEFAULT_TUNPATH);
    let failed = || format!("Unable to set tap device {name} to {}persistent", if persist { "" } else { "non-" });
    let mut netlink = Netlink::open().context(failed)?;
    let mut by = By::Name(name);
    until_free(name, tunpath, LIMIT, failed, || {
        let link = existing_tap(&mut netlink, by, name, failed)?;
        by = By::Index(link.ifindex); // whatever has the name by the next try
        let tun = link.tap().copied().unwrap_or_default();
        if tun.persist == persist {
            return Ok(Attempt::Done(()));
        }
        let flags = quiet_flags(&link, &tun).context(failed)?;
        let queue = match open::attach(&mut netlink, tunpath, &link, flags, &failed)? {
            Attempt::Done(queue) => queue,
            Attempt::Held => return Ok(Attempt::Held),
            Attempt::Changed => return Ok(Attempt::Changed),
        };
        if tun.queues > 0 {
            let _ = tun::detach_queue(queue.as_fd()); // do not take frames from those who use the tap
        }
        tun::set_persist(queue.as_fd(), persist).context(failed)?;
        Ok(Attempt::Done(()))
    })
}

/// As it is, and without setting the carrier on.
fn quiet_flags(link: &Link, tun: &Tun) -> std::result::Result<TunFlags, Errno> {
    let mut flags = open::present_flags(link)? | TunFlags::NO_CARRIER;
    flags.set(TunFlags::NO_PI, !tun.pi);
    Ok(flags)
}
