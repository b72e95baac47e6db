//! Winning a guard back from the process that has the tap.

use crate::error::{Context, Error, Result};
use crate::kernel::IfName;
use crate::kernel::link::Link;
use crate::kernel::netlink::Netlink;
use crate::kernel::procfs::Holder;
use crate::kernel::tun::TunFlags;
use crate::kernel::{pidfd, procfs, tun};
use crate::tap::wait::Attempt;
use crate::tap::{DEFAULT_TUNPATH, open};
use nix::errno::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// A guard for the device behind `link`, which process `pid` (0: whoever it is) holds. On a multi-queue tap a queue of our
/// own that is detached at once; the hypervisor does not share it. Else a duplicate of the hypervisor's file.
pub(super) fn reclaim(netlink: &mut Netlink, name: &IfName, link: &Link, pid: i32) -> Result<OwnedFd> {
    let failed = || format!("Unable to reclaim tap device {name}");
    if link.tap().is_some_and(|tun| tun.multi_queue) {
        match detached_queue(netlink, name, link) {
            Err(e) if e.errno() == Errno::E2BIG => {} // all 256 are taken
            result => return result,
        }
    }
    let now = link.name.unwrap_or(*name);
    let holders = procfs::holders(&now).context(failed)?;
    let who = if pid == 0 { "no process".to_owned() } else { format!("process {pid} does not hold it, nor can be seen: it") };
    let mut failure = Error::system(Errno::ESRCH, format!("{}, {who} has no file of it", failed()));
    // whoever looks at open files has the file for a moment, too: the next one may be the one who keeps it
    for holder in holders.iter().filter(|holder| pid == 0 || holder.pid == pid) {
        match file_of(holder, &now, failed) {
            Ok(file) => return Ok(file),
            Err(e) => failure = e,
        }
    }
    Err(failure)
}

fn file_of(holder: &Holder, name: &IfName, failed: impl Fn() -> String) -> Result<OwnedFd> {
    let of = || format!("{} (pid {})", holder.comm, holder.pid);
    let closed = || Error::system(Errno::EAGAIN, format!("{}, {} has just closed it", failed(), of()));
    let file = match pidfd::get_file(holder.pid, holder.fd) {
        Err(Errno::EBADF) => return Err(closed()),
        file => file.context(|| format!("{}, a file of {}", failed(), of()))?,
    };
    // the number may be another file's by now
    match tun::get_iff(file.as_fd()) {
        Ok((attached, _)) if attached == *name => Ok(file),
        _ => Err(closed()),
    }
}

fn detached_queue(netlink: &mut Netlink, name: &IfName, link: &Link) -> Result<OwnedFd> {
    let failed = || format!("Unable to reclaim tap device {name}");
    if link.queues() == 0 {
        return Err(Error::system(Errno::ESRCH, format!("{}, no process holds it", failed())));
    }
    let flags = open::present_flags(link).context(failed)? | TunFlags::NO_CARRIER;
    match open::attach(netlink, DEFAULT_TUNPATH, link, flags, &failed)? {
        Attempt::Done(queue) => {
            tun::detach_queue(queue.as_fd()).context(failed)?;
            Ok(queue)
        }
        _ => Err(Error::system(Errno::EAGAIN, format!("{}, it is changing", failed()))),
    }
}

/// A guard for a tap that turned out to be held, if one can be had.
pub(super) fn win_back(netlink: &mut Netlink, link: &Link) -> Option<OwnedFd> {
    reclaim(netlink, &link.name?, link, 0).ok()
}
