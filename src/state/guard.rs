//! Guards: duplicates of the hypervisor's tap files, which keep a device alive whatever the hypervisor does to its persist
//! flag. They are never read, since that would take frames from the guest, and never polled.

use super::record::StateDir;
use crate::error::Result;
use crate::fork;
use crate::kernel::IfName;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A guard belongs to the record of a tap in a directory (device, inode).
type Key = ((u64, u64), IfName);

/// Shared for a moment with whoever looks at the device through it.
pub(crate) type Guard = Arc<OwnedFd>;

pub(crate) type Guards = BTreeMap<Key, Guard>;

static GUARDS: Mutex<Guards> = Mutex::new(BTreeMap::new());

pub(crate) fn lock() -> MutexGuard<'static, Guards> {
    // nothing that panics runs under the lock, so that a poisoned map is a whole one
    GUARDS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with<T>(work: impl FnOnce(&mut Guards) -> T) -> T {
    fork::protect();
    work(&mut lock())
}

/// Keeps a guard; a former one is closed.
pub(crate) fn keep(dir: &StateDir, name: &IfName, file: Guard) -> Result<()> {
    let key = (dir.id()?, *name);
    let former = with(|guards| guards.insert(key, file));
    drop(former); // closing may take long, so not under the lock
    Ok(())
}

/// Takes the guard out; whoever drops it lets the device go.
pub(crate) fn take(dir: &StateDir, name: &IfName) -> Result<Option<Guard>> {
    let key = (dir.id()?, *name);
    Ok(with(|guards| guards.remove(&key)))
}

/// The guard, for a look.
pub(crate) fn get(dir: &StateDir, name: &IfName) -> Result<Option<Guard>> {
    let key = (dir.id()?, *name);
    Ok(with(|guards| guards.get(&key).cloned()))
}
