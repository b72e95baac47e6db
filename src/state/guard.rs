//! Guards: duplicates of the hypervisor's tap files, which keep a device alive whatever the hypervisor does to its persist
//! flag. They are never read, since that would take frames from the guest, and never polled.

use super::record::StateDir;
use crate::error::Result;
use crate::kernel::IfName;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

/// A guard belongs to the record of a tap in a directory (device, inode).
type Key = ((u64, u64), IfName);

/// Shared for a moment with whoever looks at the device through it.
pub(crate) type Guard = Arc<OwnedFd>;

static GUARDS: Mutex<BTreeMap<Key, Guard>> = Mutex::new(BTreeMap::new());

fn with<T>(work: impl FnOnce(&mut BTreeMap<Key, Guard>) -> T) -> T {
    // nothing that panics runs under the lock, so that a poisoned map is a whole one
    work(&mut GUARDS.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
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
