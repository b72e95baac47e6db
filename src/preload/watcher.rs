//! Restores taps when nobody holds them any more, where libvirt makes no call for it.
//!
//! One thread, started with the first tap. It sleeps until a process ends that has a tap, or a tap file is closed. Of a tap
//! that we guard, the close cannot be seen (the guard shares the hypervisor's open file), so that twice a second the
//! thread looks whether the hypervisor still has its file: that is a hot-unplug. Without such taps it sleeps for good.

use super::claims;
use crate::host::{info, warning};
use crate::kernel::IfName;
use crate::kernel::link::{self, By};
use crate::kernel::netlink::Netlink;
use crate::kernel::procfs::{self, Sign};
use crate::kernel::wake::Wake;
use crate::kernel::{pidfd, sys};
use crate::state::{self, RestoreFlags};
use crate::tap::DEFAULT_TUNPATH;
use nix::errno::Errno;
use once_cell::race::OnceBox;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a hypervisor takes to start, at least: the distance of looks until it has the tap.
const STARTING: Duration = Duration::from_millis(200);
/// The distance of looks at a running hypervisor whose closes cannot be seen.
const RUNNING: Duration = Duration::from_millis(500);
/// The distance of tries to restore a tap that is held by somebody who cannot be seen.
const HELD: Duration = Duration::from_secs(1);
/// After so many failures of other kinds the record is left for people to look at.
const TRIES: u32 = 10;

/// A process that has the tap.
#[derive(Debug, Clone)]
struct Holder {
    pid: i32,
    fd: i32,
    process: Arc<OwnedFd>,
}

#[derive(Debug, Clone)]
struct Watched {
    /// How the files of its holders are known.
    sign: Sign,
    tunpath: Option<CString>,
    holder: Option<Holder>,
    /// When to look at it next; None: when something happens.
    look: Option<Instant>,
    failures: u32,
}

/// The taps that are watched, and the thread's bed.
#[derive(Debug, Default)]
pub(super) struct State {
    taps: BTreeMap<IfName, Watched>,
    wake: Option<Arc<Wake>>,
    /// In this process: a forked child has no thread but its own.
    running: bool,
}

impl State {
    /// Of a process that has not started the thread.
    pub(super) fn stopped(&mut self) {
        self.running = false;
        self.wake = None; // the parent sleeps on it
        self.taps.values_mut().for_each(|tap| tap.holder = None);
    }
}

#[derive(Debug)]
pub(super) struct Watcher {
    state: Mutex<State>,
    dir: &'static Path,
}

static WATCHER: OnceBox<Watcher> = OnceBox::new();

/// The watcher of this process; starts its thread, and takes over the taps that an earlier daemon has left records of.
pub(super) fn start(dir: &'static Path) -> &'static Watcher {
    let watcher = WATCHER.get_or_init(|| Box::new(Watcher { state: Mutex::default(), dir }));
    if std::mem::replace(&mut watcher.state().running, true) {
        return watcher;
    }
    match Wake::new(DEFAULT_TUNPATH) {
        Ok(wake) => watcher.state().wake = Some(wake.into()),
        Err(errno) => warning!("taps cannot be watched: {errno}"),
    }
    for name in state::list(dir).inspect_err(|e| warning!("{e}")).unwrap_or_default() {
        watcher.add(name, None);
    }
    let run = || watcher.run();
    let thread = std::thread::Builder::new().name("virnetdevtap".into());
    if let Err(e) = sys::without_signals(|| thread.spawn(run)) {
        warning!("taps cannot be watched: {e}");
    }
    watcher
}

/// For the time of a fork.
pub(super) fn hold_still() -> Option<MutexGuard<'static, State>> {
    WATCHER.get().map(Watcher::state)
}

impl Watcher {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a tap that libvirt has, or that a running guest has.
    pub(super) fn add(&self, name: IfName, tunpath: Option<&CStr>) {
        let (sign, tunpath) = (sign_of(&name), tunpath.map(CStr::to_owned));
        let watched = Watched { sign, tunpath, holder: None, look: Some(Instant::now()), failures: 0 };
        let mut state = self.state();
        state.taps.insert(name, watched);
        if let Some(wake) = &state.wake {
            wake.call();
        }
    }

    /// Stops watching a tap; says whether it was watched.
    pub(super) fn remove(&self, name: &IfName) -> bool {
        self.state().taps.remove(name).is_some()
    }

    fn run(&self) {
        let Some(wake) = self.state().wake.clone() else { return };
        loop {
            let held =
                self.state().taps.iter().filter_map(|(name, tap)| Some((*name, tap.holder.clone()?.process))).collect::<Vec<_>>();
            let processes: Vec<_> = held.iter().map(|(_, process)| process.as_fd()).collect();
            let next = self.state().taps.values().filter_map(|tap| tap.look).min();
            let limit = next.map(|next| next.saturating_duration_since(Instant::now()));
            let woken = wake.sleep(&processes, limit);
            let now = Instant::now();
            for (name, _) in woken.ended.iter().filter_map(|i| held.get(*i)) {
                self.update(name, |tap| (tap.holder, tap.look) = (None, Some(now)));
            }
            for name in self.due(now, woken.closed) {
                self.look(name);
            }
        }
    }

    /// Which taps to look at. A close concerns those that a hypervisor has; a try to restore makes closes of its own.
    fn due(&self, now: Instant, closed: bool) -> Vec<IfName> {
        let due = |tap: &Watched| tap.look.is_some_and(|look| look <= now) || (closed && tap.holder.is_some());
        self.state().taps.iter().filter(|(_, tap)| due(tap)).map(|(name, _)| *name).collect()
    }

    /// Looks at one tap, unless a call of libvirt's deals with it right now.
    fn look(&self, name: IfName) {
        let Some(_claim) = claims::try_now(&name) else { return self.look_again(&name, Some(STARTING)) };
        let Some(tap) = self.state().taps.get(&name).cloned() else { return };
        if let Some(holder) = &tap.holder
            && procfs::has_still(holder.pid, holder.fd, &tap.sign)
        {
            return self.look_again(&name, self.distance(&name, &tap));
        }
        let guard = state::guard_number(&name, self.dir);
        match procfs::own_files(&tap.sign) {
            Ok(files) if files.iter().all(|fd| Some(*fd) == guard) => {}
            _ => return self.look_again(&name, Some(STARTING)), // the hypervisor does not have it yet, or that cannot be seen
        }
        self.update(&name, |tap| tap.holder = None);
        match Self::find_holder(&tap.sign) {
            Err(_) => self.look_again(&name, Some(HELD)),
            Ok(Some(holder)) => {
                if let Err(e) = state::reclaim(&name, self.dir, holder.pid) {
                    warning!("{name}: {e}");
                }
                let distance = self.distance(&name, &tap);
                self.update(&name, |tap| {
                    tap.holder = Some(holder);
                    tap.look = distance.and_then(|distance| Instant::now().checked_add(distance));
                });
            }
            Ok(None) => self.restore(name, &tap),
        }
    }

    /// A close wakes us by itself where we have no guard and the clone device is the usual one.
    fn distance(&self, name: &IfName, tap: &Watched) -> Option<Duration> {
        let seen = tap.sign == Sign::of_tap(name) && tap.tunpath.as_deref().is_none_or(|path| path == DEFAULT_TUNPATH);
        (state::guard_number(name, self.dir).is_some() || !seen).then_some(RUNNING)
    }

    fn find_holder(sign: &Sign) -> Result<Option<Holder>, Errno> {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let holders = procfs::holders_by(sign)?;
        let Some(holder) = holders.into_iter().find(|holder| holder.pid != own) else { return Ok(None) };
        match pidfd::open(holder.pid) {
            Ok(process) => Ok(Some(Holder { pid: holder.pid, fd: holder.fd, process: Arc::new(process) })),
            Err(Errno::ESRCH) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn restore(&self, name: IfName, tap: &Watched) {
        match state::restore_within(&name, tap.tunpath.as_deref(), self.dir, RestoreFlags::empty(), Duration::ZERO) {
            Ok(changed) => {
                info!("{name}: restored after use, changed 0x{:x}", changed.bits());
                self.state().taps.remove(&name);
            }
            Err(e) if e.errno() == Errno::EBUSY => {
                self.look_again(&name, Some(HELD));
            }
            Err(e) if tap.failures < TRIES => {
                info!("{name}: {e}");
                self.update(&name, |tap| tap.failures = tap.failures.saturating_add(1));
                self.look_again(&name, Some(HELD));
            }
            Err(e) => {
                warning!("{name}: {e}; its record in {} stays", self.dir.display());
                self.state().taps.remove(&name);
            }
        }
    }

    fn look_again(&self, name: &IfName, distance: Option<Duration>) {
        self.update(name, |tap| tap.look = distance.and_then(|distance| Instant::now().checked_add(distance)));
    }

    fn update(&self, name: &IfName, change: impl FnOnce(&mut Watched)) {
        if let Some(tap) = self.state().taps.get_mut(name) {
            change(tap);
        }
    }
}

fn sign_of(name: &IfName) -> Sign {
    let link = Netlink::open().ok().and_then(|mut netlink| link::get(&mut netlink, By::Name(name)).ok().flatten());
    let macvtap = link.filter(|link| link.kind.as_deref() == Some("macvtap"));
    macvtap.map_or_else(|| Sign::of_tap(name), |link| Sign::of_macvtap(link.ifindex))
}
