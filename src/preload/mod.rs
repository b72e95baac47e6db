//! The policy of the preload library: an unmodified libvirtd gets save, hold and restore without knowing of it.
//!
//! Each call of libvirt's goes through here. What libvirt does not call for (managed='no', bridges, hot-unplug, crashes)
//! the `watcher` sees by itself. In a process without libvirt, and with `VIRNETDEVTAP_POLICY=off`, there is no policy.

mod claims;
mod watcher;

use crate::bridge::{self, Coalesce, PortConfig};
use crate::error::Result;
use crate::fork;
use crate::host::{self, info, warning};
use crate::kernel::IfName;
use crate::kernel::link::{self, By};
use crate::kernel::netlink::Netlink;
use crate::state::{self, RestoreFlags};
use crate::tap::{self, CreateFlags, NameRequest, Tap};
use nix::errno::Errno;
use once_cell::race::OnceBox;
use std::collections::BTreeSet;
use std::ffi::CStr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const DEFAULT_STATE_DIR: &str = "/run/libvirt/virnetdevtap";
/// The taps that libvirt's network driver of old kept its bridges up with, and deletes where it still finds them:
/// "virbr0-nic". These are the only ones that it deletes without having made them.
const NETWORK_DRIVERS: &str = "-nic";

/// Names that libvirt was told it cannot have, since somebody else has them. libvirt's clean-up deletes them all the same.
static REFUSED: Mutex<BTreeSet<IfName>> = Mutex::new(BTreeSet::new());

fn refused<T>(work: impl FnOnce(&mut BTreeSet<IfName>) -> T) -> T {
    work(&mut REFUSED.lock().unwrap_or_else(PoisonError::into_inner))
}

/// All locks of the policy, while the process forks.
pub(crate) struct Held {
    claimed: MutexGuard<'static, claims::Claimed>,
    _refused: MutexGuard<'static, BTreeSet<IfName>>,
    watched: Option<MutexGuard<'static, watcher::State>>,
}

pub(crate) fn hold_still() -> Held {
    let refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    Held { claimed: claims::claimed(), _refused: refused, watched: watcher::hold_still() }
}

impl Held {
    /// The child has none of the threads that deal with taps, and no watcher: if it needs one, it starts its own.
    pub(crate) fn of_a_child(mut self) {
        self.claimed.clear();
        if let Some(watched) = &mut self.watched {
            watched.stopped();
        }
    }
}

/// The state directory, if there is a policy in this process.
fn state_dir() -> Option<&'static Path> {
    static DIR: OnceBox<Option<PathBuf>> = OnceBox::new();
    host::libvirt()?;
    fork::protect();
    let dir = DIR.get_or_init(|| {
        match std::env::var("VIRNETDEVTAP_POLICY").as_deref() {
            Ok("off") => return Box::new(None),
            Ok("restore") | Err(_) => {}
            Ok(other) => warning!("VIRNETDEVTAP_POLICY={other} is neither restore nor off: taken for restore"),
        }
        let dir = std::env::var_os("VIRNETDEVTAP_STATE_DIR").filter(|dir| !dir.is_empty());
        let dir = PathBuf::from(dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into()));
        info!("taps are restored after use; state directory {}", dir.display());
        Box::new(Some(dir))
    });
    dir.as_deref()
}

/// [`tap::create`] with the policy.
pub(crate) fn create(name: &NameRequest, tunpath: Option<&CStr>, queues: usize, flags: CreateFlags) -> Result<Tap> {
    guarded(name, tunpath, flags, |tap| tap, || tap::create(name, tunpath, queues, flags))
}

/// [`bridge::create`] with the policy.
pub(crate) fn create_on_bridge(
    name: &NameRequest,
    mac: Option<[u8; 6]>,
    tunpath: Option<&CStr>,
    queues: usize,
    flags: CreateFlags,
    config: &PortConfig,
    coalesce: Option<&Coalesce>,
) -> Result<bridge::Created> {
    let make = || bridge::create(name, mac, tunpath, queues, flags, config, coalesce);
    guarded(name, tunpath, flags, |created| &created.tap, make)
}

fn guarded<T>(
    request: &NameRequest,
    tunpath: Option<&CStr>,
    flags: CreateFlags,
    tap: impl Fn(&T) -> &Tap,
    make: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let Some(dir) = state_dir() else { return make() };
    let watcher = watcher::start(dir);
    let NameRequest::Exact(name) = request else {
        let created = make()?;
        hold(tap(&created), dir);
        watcher.add(*tap(&created).name(), tunpath);
        return Ok(created);
    };
    let _claim = claims::wait_for(name);
    let known = watcher.remove(name);
    let saved = before_create(name, dir, flags);
    let result = saved.clone().and_then(|_| make());
    match &result {
        Ok(created) => {
            refused(|names| names.remove(name));
            hold(tap(created), dir);
            watcher.add(*tap(created).name(), tunpath);
        }
        Err(e) => {
            if e.errno() == Errno::EEXIST {
                refused(|names| names.insert(*name));
            }
            if saved == Ok(true)
                && let Err(e) = state::discard(name, dir)
            {
                warning!("{name}: {e}");
            }
            if known {
                watcher.add(*name, tunpath); // whoever has it still has it
            }
        }
    }
    result
}

/// A macvtap that libvirt opens with `open`, which says whether it could: its MAC is what a hypervisor can change.
pub(crate) fn open_macvtap(name: &IfName, open: impl FnOnce() -> bool) {
    let Some(dir) = state_dir() else {
        open();
        return;
    };
    let watcher = watcher::start(dir);
    let _claim = claims::wait_for(name);
    watcher.remove(name);
    let saved = before_create(name, dir, CreateFlags::ALLOW_EXISTING);
    if open() {
        watcher.add(*name, None);
    } else if saved == Ok(true)
        && let Err(e) = state::discard(name, dir)
    {
        warning!("{name}: {e}");
    }
}

/// Puts right what an earlier run may have left, and records what is there if it may be opened. Says whether there is a
/// new record. A guest starts without the promise rather than not at all, but never on a tap that another one has.
fn before_create(name: &IfName, dir: &Path, flags: CreateFlags) -> Result<bool> {
    if !flags.contains(CreateFlags::ALLOW_EXISTING) {
        // a device that is still there after this is refused by the create itself
        if let Err(e) = state::restore_within(name, None, dir, RestoreFlags::empty(), Duration::ZERO) {
            info!("{name}: {e}");
        }
        return Ok(false);
    }
    match state::save(name, dir) {
        Ok(()) => Ok(true),
        Err(e) if e.errno() == Errno::EBUSY => Err(e),
        Err(e) => {
            warning!("{name}: its state cannot be saved, so it will not be restored: {e}");
            Ok(false)
        }
    }
}

fn hold(tap: &Tap, dir: &Path) {
    let queues: Vec<_> = tap.queues().iter().map(AsFd::as_fd).collect();
    if let Err(e) = state::hold(tap.name(), dir, &queues) {
        warning!("{}: cannot be held, so it may not be restored: {e}", tap.name());
    }
}

/// [`tap::delete`] with the policy: what was there before is restored, not deleted.
pub(crate) fn delete(name: &IfName, tunpath: Option<&CStr>) -> Result<()> {
    let Some(dir) = state_dir() else { return tap::delete(name, tunpath) };
    let watcher = watcher::start(dir);
    let _claim = claims::wait_for(name);
    if refused(|names| names.remove(name)) {
        info!("{name}: not deleted, since it is not libvirt's");
        return Ok(());
    }
    let known = watcher.remove(name);
    if state::recorded(name, dir)? {
        let restored = state::restore(name, tunpath, dir, RestoreFlags::empty());
        if restored.is_err() && known {
            watcher.add(*name, tunpath);
        }
        return restored.map(drop);
    }
    if is_foreign(name) {
        info!("{name}: not deleted, since libvirt did not make it");
        return Ok(());
    }
    tap::delete(name, tunpath)
}

/// A persistent tap without a record: libvirt has never had it, whatever start has failed before it came to that.
fn is_foreign(name: &IfName) -> bool {
    let link = Netlink::open().ok().and_then(|mut netlink| link::get(&mut netlink, By::Name(name)).ok().flatten());
    let persistent = link.is_some_and(|link| link.tap().is_some_and(|tun| tun.persist));
    persistent && !name.as_str().ends_with(NETWORK_DRIVERS)
}

/// The daemon comes up: taps that have records are seen to. Without any, there is nothing to watch yet.
pub(crate) fn come_up() {
    if let Some(dir) = state_dir()
        && state::list(dir).is_ok_and(|names| !names.is_empty())
    {
        watcher::start(dir);
    }
}

/// libvirt has just come up, and this is the tap of a guest that runs.
pub(crate) fn reserve(name: &IfName) {
    let Some(dir) = state_dir() else { return };
    let watcher = watcher::start(dir);
    let _claim = claims::wait_for(name);
    if !state::recorded(name, dir).unwrap_or(false) {
        return; // from before the preload library
    }
    if let Err(e) = state::reclaim(name, dir, 0) {
        warning!("{name}: {e}");
    }
    watcher.add(*name, None);
}
