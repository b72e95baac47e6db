//! Deleting many taps with few operations of the kernel.
//!
//! Deleting one takes 15 ms, nearly all of which the caller waits for RCU; a group of interfaces (`ip link set group`) is
//! deleted in the same time. Taps are put into a group of their own, some at a time, since the kernel lets nobody else at
//! any link while it deletes. The next ones need not wait for RCU.

use super::delete::{failed, give_back, remove};
use super::wait::{Attempt, Patience, changing, held};
use super::{DEFAULT_TUNPATH, open, require_tap};
use crate::error::{Context, Error, Result};
use crate::host::info;
use crate::kernel::IfName;
use crate::kernel::link::{self, By, Link};
use crate::kernel::link_group;
use crate::kernel::netlink::Netlink;
use crate::kernel::removal::Sender;
use nix::errno::Errno;
use std::collections::VecDeque;
use std::ffi::CStr;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How long taps that somebody holds are waited for, all of them together.
const LIMIT: Duration = Duration::from_secs(1);
/// Groups to try until one is found that nobody uses.
const GROUPS: usize = 8;

/// A tap that is to go. The index tells which one it is, the name is for the texts; until it has been looked up, the name
/// tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doomed {
    pub name: IfName,
    pub ifindex: Option<i32>,
}

impl Doomed {
    fn by(&self) -> By<'_> {
        self.ifindex.map_or(By::Name(&self.name), By::Index)
    }
}

/// A tap that is about to be deleted. Of a single-queue one we have the queue, so that nobody else gets it.
struct Taken {
    link: Link,
    queue: Option<OwnedFd>,
}

/// Deletes each of these taps, as [`delete`](super::delete()) would. The results stand in the order of the names.
pub fn delete_list(names: &[IfName], tunpath: Option<&CStr>) -> Vec<Result<()>> {
    let doomed: Vec<_> = names.iter().map(|name| Doomed { name: *name, ifindex: None }).collect();
    match Netlink::open() {
        Ok(mut netlink) => delete_each(&mut netlink, &doomed, tunpath.unwrap_or(DEFAULT_TUNPATH)),
        Err(errno) => names.iter().map(|name| Err(Error::system(errno, failed(name)))).collect(),
    }
}

pub(crate) fn delete_each(netlink: &mut Netlink, doomed: &[Doomed], tunpath: &CStr) -> Vec<Result<()>> {
    let mut verdicts: Vec<_> = doomed.iter().map(|doomed| (*doomed, Ok(Attempt::Changed))).collect();
    let mut patience = Patience::new(tunpath, LIMIT);
    let mut pace = Pace::default();
    loop {
        let mut open: Vec<_> = verdicts.iter_mut().filter(|(_, verdict)| is_open(verdict)).collect();
        let mut rest = open.as_mut_slice();
        while !rest.is_empty() {
            let mut some: Vec<_> = rest.iter_mut().take(pace.together).map(|(doomed, _)| doomed).collect();
            let new = delete_some(netlink, tunpath, &mut some, &mut pace);
            let (done, later) = rest.split_at_mut(new.len());
            done.iter_mut().zip(new).for_each(|(slot, verdict)| slot.1 = verdict);
            rest = later;
        }
        if !verdicts.iter().any(|(_, verdict)| is_open(verdict)) || !patience.again() {
            break;
        }
    }
    let mut holders_wanted = true; // finding them takes a look at all processes
    let results = verdicts.into_iter().map(|(Doomed { ref name, .. }, verdict)| match verdict? {
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

/// How many go at once, so that nobody else waits for long, and who still waits for RCU.
#[derive(Debug)]
struct Pace {
    together: usize,
    senders: VecDeque<Sender>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { together: Self::MOST, senders: VecDeque::new() }
    }
}

impl Pace {
    /// Each tap takes an idle machine about 0.2 ms, and a busy one ten times that, since tun waits for RCU while it has the
    /// lock (`tun_detach_all()`).
    const MOST: usize = 16;
    const LEAST: usize = 4;
    /// Others shall wait for no longer than twice that.
    const AIM: Duration = Duration::from_millis(8);
    /// The kernel's waits for RCU end together, so that more threads would gain nothing.
    const SENDERS: usize = 8;

    /// A group of taps has kept everybody else waiting for so long.
    fn learn(&mut self, took: Duration, sender: Sender) {
        if took > Self::AIM {
            self.together = (self.together / 2).max(Self::LEAST);
        } else if took.saturating_mul(2) < Self::AIM {
            self.together = self.together.saturating_mul(2).min(Self::MOST);
        }
        self.senders.push_back(sender);
        if self.senders.len() > Self::SENDERS
            && let Some(oldest) = self.senders.pop_front()
        {
            let _ = oldest.join();
        }
    }
}

/// Tries to delete the first of these, as many as there is room for open files: at least one.
fn delete_some(netlink: &mut Netlink, tunpath: &CStr, doomed: &mut [&mut Doomed], pace: &mut Pace) -> Vec<Result<Attempt<()>>> {
    let links = match link::get_each(netlink, doomed.iter().map(|doomed| doomed.by()), false) {
        Ok(links) => links,
        Err(errno) => return doomed.iter().map(|doomed| Err(Error::system(errno, failed(&doomed.name)))).collect(),
    };
    for (doomed, link) in doomed.iter_mut().zip(&links) {
        doomed.ifindex = link.as_ref().map(|link| link.ifindex).or(doomed.ifindex);
    }
    let mut verdicts = Vec::new();
    let mut taken: Vec<(usize, Taken)> = Vec::new();
    let mut attached: Vec<IfName> = Vec::new();
    for (Doomed { name, .. }, link) in doomed.iter().zip(links) {
        verdicts.push(match take(netlink, tunpath, name, link) {
            Err(e) if matches!(e.errno(), Errno::EMFILE | Errno::ENFILE) && !taken.is_empty() => break,
            Err(e) => Err(e),
            Ok(Attempt::Held) => Ok(Attempt::Held),
            Ok(Attempt::Changed) => Ok(Attempt::Changed),
            Ok(Attempt::Done(None)) => Ok(Attempt::Done(())),
            Ok(Attempt::Done(Some((tap, name)))) => {
                taken.push((verdicts.len(), tap));
                attached.push(name);
                Ok(Attempt::Changed) // until it is gone
            }
        });
    }
    let mut now = match link::get_each(netlink, attached.iter().map(By::Name), false) {
        Ok(links) => links.into_iter(),
        Err(errno) => {
            for (at, Taken { link, queue }) in taken {
                give_back(netlink, tunpath, &link, queue);
                if let (Some(verdict), Some(doomed)) = (verdicts.get_mut(at), doomed.get(at)) {
                    *verdict = Err(Error::system(errno, failed(&doomed.name)));
                }
            }
            return verdicts;
        }
    };
    taken.retain(|(_, tap)| open::is_still(&tap.link, now.next().flatten().as_ref()));
    let gone = if taken.len() > 1 { delete_group(netlink, &mut taken, pace) } else { Vec::new() };
    let one_by_one = taken.into_iter().map(|(at, Taken { link, queue })| {
        let failed = || doomed.get(at).map_or_else(String::new, |doomed| failed(&doomed.name));
        (at, remove(netlink, &link, queue, tunpath, failed))
    });
    for (at, new) in gone.into_iter().map(|at| (at, Ok(Attempt::Done(())))).chain(one_by_one) {
        let (Some(verdict), Some(Doomed { name, .. })) = (verdicts.get_mut(at), doomed.get(at)) else { continue };
        if let Ok(Attempt::Done(())) = new {
            info!("delete device: '{name}'");
        }
        *verdict = new;
    }
    verdicts
}

/// Done(None): there is no such device.
fn take(netlink: &mut Netlink, tunpath: &CStr, name: &IfName, link: Option<Link>) -> Result<Attempt<Option<(Taken, IfName)>>> {
    let failed = || failed(name);
    let Some(link) = link else { return Ok(Attempt::Done(None)) };
    require_tap(&link, name, failed)?;
    if link.queues() > 0 {
        return Ok(Attempt::Held);
    }
    if link.tap().is_some_and(|tun| tun.multi_queue) {
        let name = link.name.unwrap_or(*name);
        return Ok(Attempt::Done(Some((Taken { link, queue: None }, name)))); // its queues are counted: there are none
    }
    let flags = open::flags_to_delete(&link).context(failed)?;
    let queue = open::attach_by_name(netlink, tunpath, &link, flags, &failed)?;
    Ok(queue.map(|(queue, name)| Some((Taken { link, queue: Some(queue) }, name))))
}

/// Deletes all at once. Returns which are gone, by their numbers. Those that remain in `taken` are left, because the kernel
/// refuses, and as they were; any other has changed.
fn delete_group(netlink: &mut Netlink, taken: &mut Vec<(usize, Taken)>, pace: &mut Pace) -> Vec<usize> {
    let Some(group) = unused_group(netlink) else { return Vec::new() };
    let members: Vec<i32> = taken.iter().map(|(_, tap)| tap.link.ifindex).collect();
    // nobody knows the number before they are in, and then they are gone
    if let Ok(Some((took, sender))) = link_group::delete(netlink, &members, group) {
        pace.learn(took, sender);
    }
    let Ok(left) = link::get_each(netlink, members.into_iter().map(By::Index), false) else { return Vec::new() };
    let in_group = |link: &Option<Link>| link.as_ref().is_some_and(|link| link.group == group);
    if left.iter().any(in_group) {
        let strayed = taken.iter().zip(&left).filter(|(_, now)| in_group(now));
        let _ = link_group::set_each(netlink, strayed.map(|((_, tap), _)| (tap.link.ifindex, tap.link.group)));
    }
    let mut gone = Vec::new();
    let mut left = left.into_iter();
    taken.retain(|(at, tap)| match left.next().flatten() {
        None => {
            gone.push(*at);
            false
        }
        Some(now) => now.name == tap.link.name && now.mac == tap.link.mac,
    });
    gone
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
            let mut taken: Vec<_> = [(0, "tap0", 0), (1, "tap1", 7), (2, "lo", 0)]
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
            let mut pace = Pace::default();
            assert_eq!(delete_group(&mut netlink, &mut taken, &mut pace), [0; 0]);
            assert_eq!(taken.len(), 3);
            for (_, tap) in &taken {
                let now = link::get(&mut netlink, By::Index(tap.link.ifindex)).unwrap().unwrap();
                assert_eq!(now.group, tap.link.group, "{:?}", now.name);
            }
            assert!(!link_group::is_unused(&mut netlink, 7).unwrap());
            taken.pop();
            assert_eq!(delete_group(&mut netlink, &mut taken, &mut pace), [0, 1]);
            assert!(taken.is_empty());
            assert!(link_group::is_unused(&mut netlink, 7).unwrap());
        };
        std::thread::spawn(test).join().unwrap();
    }
}
