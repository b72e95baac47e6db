//! Creating a tap, or opening one that exists.

use super::names::NameRequest;
use super::wait::{Attempt, LIMIT, until_free};
use super::{DEFAULT_TUNPATH, open, require_tap};
use crate::error::{Context, Error, Result};
use crate::host::info;
use crate::kernel::IfName;
use crate::kernel::link::{self, By, Link};
use crate::kernel::netlink::Netlink;
use crate::kernel::procfs;
use crate::kernel::tun::{self, MAX_QUEUES, TunFlags};
use bitflags::bitflags;
use nix::errno::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

bitflags! {
    /// libvirt's `virNetDevTapCreateFlags`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct CreateFlags: u32 {
        /// Set the interface up; for a tap in a bridge port only.
        const IFUP = 1;
        /// Every frame carries a `struct virtio_net_hdr` in front.
        const VNET_HDR = 2;
        /// The tap has the MAC as given, not the one derived from it; for a tap in a bridge port only.
        const USE_MAC_FOR_BRIDGE = 4;
        /// The tap outlives its last queue.
        const PERSIST = 8;
        /// Open a tap of this name if there is one.
        const ALLOW_EXISTING = 16;
    }
}

/// A tap with its open queues. Dropping it closes them, and with the last one the kernel removes a tap that is not
/// persistent.
#[derive(Debug)]
pub struct Tap {
    name: IfName,
    queues: Vec<OwnedFd>,
    before: Before,
}

/// What has to be put back if the call turns out to have been in vain.
#[derive(Debug)]
enum Before {
    Absent { persist: bool },
    Present { link: Box<Link>, flags: TunFlags, persist: bool },
}

impl Tap {
    #[must_use]
    pub fn name(&self) -> &IfName {
        &self.name
    }

    /// The open queues.
    #[must_use]
    pub fn queues(&self) -> &[OwnedFd] {
        &self.queues
    }

    /// Hands the queues over, one close-on-exec file each.
    #[must_use]
    pub fn into_queues(self) -> Vec<OwnedFd> {
        self.queues
    }

    /// Is it the device of this name, or has that been renamed and another one taken the name?
    pub(crate) fn is_named(&self, name: &IfName) -> bool {
        self.current_name().as_ref() == Ok(name)
    }

    /// Was it made just now, and not opened?
    pub(crate) fn is_new(&self) -> bool {
        matches!(self.before, Before::Absent { .. })
    }

    /// A persistent tap stays without a queue.
    pub(crate) fn close_queues(&mut self) {
        self.queues.clear();
    }

    /// Takes back what [`create`] did: a new tap goes, one that was there gets its flags back. Needs no more open files
    /// than the tap had, so `netlink` has been opened before.
    pub(crate) fn undo(self, netlink: &mut Netlink, tunpath: &CStr) {
        let queue = self.queues.first().map(AsFd::as_fd);
        match self.before {
            Before::Absent { persist } | Before::Present { persist, .. } => {
                if let (true, Some(queue)) = (persist, queue) {
                    let _ = tun::set_persist(queue, false); // it has just been set on this very queue
                }
            }
        }
        drop(self.queues);
        if let Before::Present { link, flags, .. } = self.before {
            open::put_flags_back(netlink, tunpath, &link, flags);
        }
    }
}

/// Creates a tap with 1 to 256 queues, or opens an existing one if `flags` allow it.
///
/// Zero queues: the device is made and nothing is open, which takes `PERSIST`. A new tap is multi-queue if it has more
/// than one queue, an existing one stays what it is; it also keeps its NAPI flags. Whatever fails, nothing is left.
pub fn create(name: &NameRequest, tunpath: Option<&CStr>, queues: usize, flags: CreateFlags) -> Result<Tap> {
    let tunpath = tunpath.unwrap_or(DEFAULT_TUNPATH);
    if queues > MAX_QUEUES {
        return Err(Error::argument(format!("a tap device has at most {MAX_QUEUES} queues, not {queues}")));
    }
    if queues == 0 && !flags.contains(CreateFlags::PERSIST) {
        return Err(Error::argument("a tap device without a queue has to be persistent"));
    }
    let mut tap = match name {
        NameRequest::Exact(name) if flags.contains(CreateFlags::ALLOW_EXISTING) => open_or_make(name, tunpath, queues, flags)?,
        NameRequest::Exact(name) => make(name, tunpath, queues, flags)?
            .ok_or_else(|| Error::operation(Errno::EEXIST, format!("The {name} interface already exists")))?,
        NameRequest::Generate(template) => {
            let first = open::clone_device(tunpath)?;
            let name = template.try_each(|name| register(first.as_fd(), name, tunpath, queues, flags))?;
            finish(name, first, tunpath, queues, flags)?
        }
    };
    if queues == 0 {
        tap.close_queues();
    }
    info!("created device: '{}'", tap.name);
    Ok(tap)
}

fn wanted_flags(queues: usize, flags: CreateFlags) -> TunFlags {
    let mut wanted = TunFlags::TAP | TunFlags::NO_PI;
    wanted.set(TunFlags::MULTI_QUEUE, queues > 1);
    wanted.set(TunFlags::VNET_HDR, flags.contains(CreateFlags::VNET_HDR));
    wanted
}

/// Makes a device of this name. None: the name is taken.
fn make(name: &IfName, tunpath: &CStr, queues: usize, flags: CreateFlags) -> Result<Option<Tap>> {
    let first = open::clone_device(tunpath)?;
    match register(first.as_fd(), name, tunpath, queues, flags)? {
        Some(name) => finish(name, first, tunpath, queues, flags).map(Some),
        None => Ok(None),
    }
}

/// One TUNSETIFF that makes the device or finds the name taken; there is no moment between looking and making.
fn register(first: BorrowedFd<'_>, name: &IfName, tunpath: &CStr, queues: usize, flags: CreateFlags) -> Result<Option<IfName>> {
    match tun::set_iff(first, name, wanted_flags(queues, flags) | TunFlags::TUN_EXCL) {
        Ok(name) => Ok(Some(name)),
        Err(Errno::EBUSY) => Ok(None),
        Err(Errno::ENOTTY) => Err(open::not_tun(tunpath, &format!("Unable to create tap device {name}"))),
        Err(errno) => Err(Error::system(errno, format!("Unable to create tap device {name}"))),
    }
}

/// The other queues and the persist flag of a new device. On failure the device goes with its queues.
fn finish(name: IfName, first: OwnedFd, tunpath: &CStr, queues: usize, flags: CreateFlags) -> Result<Tap> {
    let mut tap = Tap { name, queues: vec![first], before: Before::Absent { persist: false } };
    if queues > 1 {
        tap.attach_rest(tunpath, queues, wanted_flags(queues, flags))?;
    }
    tap.persist_if(flags)?;
    Ok(tap)
}

impl Tap {
    /// Opens queues until there are `wanted`. Should somebody (udev, say) rename the device meanwhile, the first queue
    /// tells the new name.
    ///
    /// For a new device TUNSETIFF would make another one of the old name then, which goes again with its queue. That is so
    /// rare that it is only looked for when all are open: another question for each queue is felt where there are hundreds.
    fn attach_rest(&mut self, tunpath: &CStr, wanted: usize, flags: TunFlags) -> Result<()> {
        const TRIES: usize = 8;
        let failed = |name: &IfName| format!("Unable to create multiple fds for tap device {name}");
        for _ in 0..TRIES {
            while self.queues.len() < wanted {
                let queue = open::clone_device(tunpath)?;
                let set_iff = if self.is_new() { tun::set_iff } else { open::set_iff_existing };
                if let Err(errno) = set_iff(queue.as_fd(), &self.name, flags) {
                    let name = self.current_name()?;
                    if name == self.name {
                        return Err(Error::system(errno, failed(&name)));
                    }
                    self.name = name;
                    continue;
                }
                self.queues.push(queue);
            }
            if self.queues.len() < 2 || self.all_are_of_one_device()? {
                return Ok(());
            }
        }
        Err(Error::system(Errno::EAGAIN, format!("{}, it was renamed meanwhile", failed(&self.name))))
    }

    /// False: queues of other devices than the first one's were closed, or may be open still.
    ///
    /// A new device that has lost its name does not get it back while a queue of ours holds the one that was made under that
    /// name: if the first and the last queue are of one device, all are. One that was there may get it back at any moment.
    fn all_are_of_one_device(&mut self) -> Result<bool> {
        let name = self.current_name()?;
        self.name = name;
        let has_name = |queue: &OwnedFd| tun::get_iff(queue.as_fd()).is_ok_and(|(attached, _)| attached == name);
        if self.is_new() && self.queues.last().is_some_and(has_name) {
            return Ok(true);
        }
        let before = self.queues.len();
        let mut first = true;
        self.queues.retain(|queue| std::mem::take(&mut first) || has_name(queue));
        Ok(self.queues.len() == before && self.is_named(&name))
    }

    fn current_name(&self) -> Result<IfName> {
        let first = self.queues.first().ok_or_else(|| Error::internal(Errno::EBADF, "a tap without a queue"))?;
        super::name_of(first.as_fd())
    }

    fn persist_if(&mut self, flags: CreateFlags) -> Result<()> {
        if !flags.contains(CreateFlags::PERSIST) {
            return Ok(());
        }
        let (Before::Absent { persist } | Before::Present { persist, .. }) = &mut self.before;
        if let Some(queue) = self.queues.first() {
            tun::set_persist(queue.as_fd(), true).context(|| format!("Unable to set tap device {} to persistent", self.name))?;
            *persist = true;
        }
        Ok(())
    }
}

#[inline(never)] // it takes much of the stack, of which making a tap shall touch little
fn open_or_make(name: &IfName, tunpath: &CStr, queues: usize, flags: CreateFlags) -> Result<Tap> {
    let failed = || format!("Unable to create tap device {name}");
    until_free(name, tunpath, LIMIT, failed, || try_open_or_make(name, tunpath, queues, flags))
}

fn try_open_or_make(name: &IfName, tunpath: &CStr, queues: usize, flags: CreateFlags) -> Result<Attempt<Tap>> {
    let failed = || format!("Unable to create tap device {name}");
    let mut netlink = Netlink::open().context(failed)?;
    let Some(link) = link::get(&mut netlink, By::Name(name)).context(failed)? else {
        return Ok(make(name, tunpath, queues, flags)?.map_or(Attempt::Changed, Attempt::Done));
    };
    require_tap(&link, name, failed)?;
    let present = open::present_flags(&link).context(failed)?;
    let tun = link.tun.unwrap_or_default();
    if queues > 1 && !tun.multi_queue {
        let why = "the existing device was created without multi_queue flag";
        return Err(Error::system(Errno::EINVAL, format!("Unable to create multiple fds for tap device {name}, {why}")));
    }
    let others = link.queues();
    if others > 0 && !held_by_us_alone(&link) {
        return Ok(Attempt::Held); // the kernel would let two guests share it
    }
    let mut wanted = wanted_flags(queues, flags) | (present & TunFlags::KEPT);
    wanted.set(TunFlags::MULTI_QUEUE, tun.multi_queue);
    let first = match open::attach(&mut netlink, tunpath, &link, wanted, &failed)? {
        Attempt::Done(queue) => queue,
        Attempt::Held => return Ok(Attempt::Held),
        Attempt::Changed => return Ok(Attempt::Changed),
    };

    let persistent = tun.persist;
    let before = Before::Present { link: Box::new(link), flags: present, persist: false };
    let mut tap = Tap { name: *name, queues: vec![first], before };
    let opened = tap.complete(&mut netlink, tunpath, others, queues, wanted, flags, persistent);
    match opened {
        Ok(true) => Ok(Attempt::Done(tap)),
        Ok(false) => {
            tap.undo(&mut netlink, tunpath);
            Ok(Attempt::Held)
        }
        Err(e) => {
            tap.undo(&mut netlink, tunpath);
            Err(e)
        }
    }
}

impl Tap {
    /// What follows the first queue of an existing tap. False: somebody else opened a queue, too.
    #[allow(clippy::too_many_arguments)]
    fn complete(
        &mut self,
        netlink: &mut Netlink,
        tunpath: &CStr,
        others: u32,
        queues: usize,
        wanted: TunFlags,
        flags: CreateFlags,
        persistent: bool,
    ) -> Result<bool> {
        let failed = || format!("Unable to create tap device {}", self.name);
        let first = self.queues.first().ok_or_else(|| Error::internal(Errno::EBADF, failed()))?;
        let (name, got) = tun::get_iff(first.as_fd()).context(failed)?;
        // with another queue open, the kernel ignores the flags that are asked for
        if got.contains(TunFlags::VNET_HDR) != wanted.contains(TunFlags::VNET_HDR) {
            let (has, want) = if got.contains(TunFlags::VNET_HDR) { ("has", "off") } else { ("lacks", "on") };
            let text = format!("{}, it is in use and {has} vnet_hdr, which is wanted {want}", failed());
            return Err(Error::system(Errno::EBUSY, text));
        }
        self.name = name;
        self.attach_rest(tunpath, queues, wanted)?;
        if wanted.contains(TunFlags::MULTI_QUEUE) {
            let failed = || format!("Unable to create tap device {}", self.name);
            let now = link::get(netlink, By::Name(&self.name)).context(failed)?;
            let ours = u32::try_from(self.queues.len()).unwrap_or(u32::MAX);
            // what this process had before may be closed by now, and then as many queues are another's
            let are_ours = |now: &Link| now.queues() <= ours.saturating_add(others) && held_by_us_alone(now);
            if now.is_some_and(|now| now.queues() > ours && !are_ours(&now)) {
                return Ok(false);
            }
        }
        if !persistent {
            self.persist_if(flags)?;
        }
        Ok(true)
    }
}

/// A manager may open further queues of a tap that it has itself.
fn held_by_us_alone(link: &Link) -> bool {
    let Some(name) = link.name else { return false };
    let holders = procfs::holders(&name).unwrap_or_default();
    !holders.is_empty() && holders.iter().all(|holder| u32::try_from(holder.pid) == Ok(std::process::id()))
}
