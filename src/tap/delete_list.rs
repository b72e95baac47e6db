//! Deleting many taps with few operations of the kernel.
//!
//! Deleting one takes 15 ms, nearly all of which the caller waits for RCU; a group of interfaces (`ip link set group`) is
//! deleted in the same time. Taps are put into a group of their own, some at a time, since the kernel lets nobody else at
//! any link while it deletes.

use super::delete::{failed, remove};
use super::wait::{Attempt, Patience, changing, held};
use super::{DEFAULT_TUNPATH, open, require_tap};
use crate::error::{Error, Result};
use crate::host::info;
use crate::kernel::IfName;
use crate::kernel::link::{self, By, Link};
use crate::kernel::link_group;
use crate::kernel::netlink::Netlink;
use nix::errno::Errno;
use std::ffi::CStr;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Taps that go at once. Each takes the kernel about 0.2 ms under the lock of all links: this many keep everybody else
/// waiting for less than 20 ms (docs/performance.md).
const TOGETHER: usize = 32;
/// How long taps that somebody holds are waited for, all of them together.
const LIMIT: Duration = Duration::from_secs(1);
/// Groups to try until one is found that nobody uses.
const GROUPS: usize = 8;

/// A tap that is about to be deleted. Of a single-queue one we have the queue, so that nobody else gets it.
struct Taken {
    link: Link,
    queue: Option<OwnedFd>,
}

/// Deletes each of these taps, as [`delete`](super::delete()) would. The results stand in the order of the names.
pub fn delete_list(names: &[IfName], tunpath: Option<&CStr>) -> Vec<Result<()>> {
    let tunpath = tunpath.unwrap_or(DEFAULT_TUNPATH);
    let mut netlink = match Netlink::open() {
        Ok(netlink) => netlink,
        Err(errno) => return names.iter().map(|name| Err(Error::system(errno, failed(name)))).collect(),
    };
    let mut verdicts: Vec<_> = names.iter().map(|name| (name, Ok(Attempt::Changed))).collect();
    let mut patience = Patience::new(tunpath, LIMIT);
    loop {
        let mut open: Vec<_> = verdicts.iter_mut().filter(|(_, verdict)| is_open(verdict)).collect();
        let mut rest = open.as_mut_slice();
        while !rest.is_empty() {
            let some: Vec<&IfName> = rest.iter().take(TOGETHER).map(|(name, _)| *name).collect();
            let new = delete_some(&mut netlink, tunpath, &some);
            let (done, later) = rest.split_at_mut(new.len());
            done.iter_mut().zip(new).for_each(|(slot, verdict)| slot.1 = verdict);
            rest = later;
        }
        if !verdicts.iter().any(|(_, verdict)| is_open(verdict)) || !patience.again() {
            break;
        }
    }
    let mut holders_wanted = true; // finding them takes a look at all processes
    let results = verdicts.into_iter().map(|(name, verdict)| match verdict? {
        Attempt::Done(()) => Ok(()),
        Attempt::Changed => Err(changing(&failed(name))),
        Attempt::Held if std::mem::take(&mut holders_wanted) => Err(held(name, &failed(name))),
        Attempt::Held => Err(Error::system(Errno::EBUSY, format!("{}, it is held, too", failed(name)))),
    });
    results.collect()
}

fn is_open(verdict: &Result<Attempt<()>>) -> bool {
    matches!(verdict, Ok(Attempt::Held | Attempt::Changed))
}

/// Tries to delete the first of these, as many as there is room for open files: at least one.
fn delete_some(netlink: &mut Netlink, tunpath: &CStr, names: &[&IfName]) -> Vec<Result<Attempt<()>>> {
    let links = match link::get_each(netlink, names.iter().map(|name| By::Name(name)), false) {
        Ok(links) => links,
        Err(errno) => return names.iter().map(|name| Err(Error::system(errno, failed(name)))).collect(),
    };
    let mut verdicts = Vec::new();
    let mut taken: Vec<(usize, Taken)> = Vec::new();
    for (name, link) in names.iter().zip(links) {
        verdicts.push(match take(netlink, tunpath, name, link) {
            Err(e) if matches!(e.errno(), Errno::EMFILE | Errno::ENFILE) && !taken.is_empty() => break,
            Err(e) => Err(e),
            Ok(Attempt::Held) => Ok(Attempt::Held),
            Ok(Attempt::Changed) => Ok(Attempt::Changed),
            Ok(Attempt::Done(None)) => Ok(Attempt::Done(())),
            Ok(Attempt::Done(Some(tap))) => {
                taken.push((verdicts.len(), tap));
                Ok(Attempt::Held) // until it is gone
            }
        });
    }
    let as_group = taken.len() > 1 && delete_group(netlink, &taken);
    for (at, Taken { link, queue }) in taken {
        let (Some(verdict), Some(name)) = (verdicts.get_mut(at), names.get(at)) else { continue };
        *verdict = if as_group { Ok(Attempt::Done(())) } else { remove(netlink, &link, queue, tunpath, || failed(name)) };
        if let Ok(Attempt::Done(())) = verdict {
            info!("delete device: '{name}'");
        }
    }
    verdicts
}

/// Done(None): there is no such device.
fn take(netlink: &mut Netlink, tunpath: &CStr, name: &IfName, link: Option<Link>) -> Result<Attempt<Option<Taken>>> {
    let failed = || failed(name);
    let Some(link) = link else { return Ok(Attempt::Done(None)) };
    require_tap(&link, name, failed)?;
    if link.queues() > 0 {
        return Ok(Attempt::Held);
    }
    if link.tap().is_some_and(|tun| tun.multi_queue) {
        return Ok(Attempt::Done(Some(Taken { link, queue: None }))); // its queues are counted: there are none
    }
    let queue = open::attach(netlink, tunpath, &link, open::present_flags(&link), failed)?;
    Ok(queue.map(|queue| Some(Taken { link, queue: Some(queue) })))
}

/// False: they are there, in the groups that they were in.
fn delete_group(netlink: &mut Netlink, taken: &[(usize, Taken)]) -> bool {
    let links = || taken.iter().map(|(_, tap)| &tap.link);
    let Some(group) = unused_group(netlink) else { return false };
    // nobody knows the number before they are in, and then they are gone
    let answers = link_group::delete(netlink, links().map(|link| link.ifindex), group).unwrap_or_default();
    let done = |errno: Option<Errno>| matches!(errno, None | Some(Errno::ENODEV));
    if answers.len() > taken.len() && answers.iter().all(|answer| done(answer.as_ref().err().map(|refusal| refusal.errno))) {
        return true;
    }
    // what is gone cannot be put back, and needs not be
    let _ = link_group::set_each(netlink, links().map(|link| (link.ifindex, link.group)));
    false
}

/// A number that nobody uses, and that nobody would think of. None: the kernel does not let us at groups.
fn unused_group(netlink: &mut Netlink) -> Option<u32> {
    for _ in 0..GROUPS {
        let [a, b, c, d, ..] = RandomState::new().hash_one(()).to_ne_bytes();
        let group = u32::from_ne_bytes([a, b, c, d]) >> 2 | 1 << 30;
        if link_group::is_unused(netlink, group).ok()? {
            return Some(group);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tun::{self, TunFlags};
    use nix::sched::{CloneFlags, unshare};
    use std::os::fd::AsFd;

    /// A group with a member that cannot be deleted is not deleted at all, and none of it stays behind.
    #[test]
    fn a_group_that_cannot_be_deleted() {
        let test = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("needs CAP_SYS_ADMIN");
            let mut netlink = Netlink::open().unwrap();
            let taken: Vec<_> = [(0, "tap0", 0), (1, "tap1", 7), (2, "lo", 0)]
                .into_iter()
                .map(|(at, name, group)| {
                    let queue = open::clone_device(DEFAULT_TUNPATH).unwrap();
                    let name = IfName::new(name.as_bytes()).unwrap();
                    let _ = tun::set_iff(queue.as_fd(), &name, TunFlags::TAP | TunFlags::NO_PI);
                    let mut link = link::get(&mut netlink, By::Name(&name)).unwrap().unwrap();
                    link_group::set_each(&mut netlink, [(link.ifindex, group)].into_iter()).unwrap();
                    link.group = group;
                    (at, Taken { link, queue: Some(queue) })
                })
                .collect();
            assert!(!delete_group(&mut netlink, &taken));
            for (_, tap) in &taken {
                let now = link::get(&mut netlink, By::Index(tap.link.ifindex)).unwrap().unwrap();
                assert_eq!(now.group, tap.link.group, "{:?}", now.name);
            }
            assert!(!link_group::is_unused(&mut netlink, 7).unwrap());
            assert!(delete_group(&mut netlink, &taken[..2]));
            assert!(link_group::is_unused(&mut netlink, 7).unwrap());
        };
        std::thread::spawn(test).join().unwrap();
    }
}
