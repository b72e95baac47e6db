//! Restoring many taps: those that were not there before are deleted together, all others are restored one after the other.

use super::record::{StateDir, Stored};
use super::restore::{Outcome, Restore};
use super::{Fields, RestoreFlags, discard, open_netlink, require_current};
use crate::error::Result;
use crate::kernel::IfName;
use crate::kernel::netlink::Netlink;
use crate::tap::wait::LIMIT;
use crate::tap::{DEFAULT_TUNPATH, Doomed, delete_each};
use std::ffi::CStr;
use std::path::Path;
use std::time::Instant;

/// [`restore`](super::restore()) for each. The results stand in the order of the names. Taps that somebody holds are waited
/// for, up to a second, all of them together.
pub fn restore_list(names: &[IfName], tunpath: Option<&CStr>, state_dir: &Path, flags: RestoreFlags) -> Vec<Result<Fields>> {
    if flags.contains(RestoreFlags::LEAVE) {
        return names.iter().map(|name| discard(name, state_dir).map(|()| Fields::empty())).collect();
    }
    let tunpath = tunpath.unwrap_or(DEFAULT_TUNPATH);
    let opened = names.first().map(open_netlink).transpose().and_then(|netlink| Ok(netlink.zip(StateDir::open(state_dir)?)));
    match opened {
        Ok(Some((mut netlink, dir))) => restore_each(names, &dir, tunpath, flags, &mut netlink),
        Ok(None) => names.iter().map(|_| Ok(Fields::empty())).collect(),
        Err(e) => names.iter().map(|_| Err(e.clone())).collect(),
    }
}

/// A tap with a record. Of one that is only to be deleted, which device it is and what was found changed.
struct Item {
    stored: Stored,
    doomed: Option<(Doomed, Outcome)>,
}

fn restore_each(
    names: &[IfName],
    dir: &StateDir,
    tunpath: &CStr,
    flags: RestoreFlags,
    netlink: &mut Netlink,
) -> Vec<Result<Fields>> {
    let start = Instant::now();
    let mut look = |name: &IfName| -> Result<Option<Item>> {
        let Some(stored) = dir.load(name)? else { return Ok(None) };
        require_current(netlink, name, &stored.record)?;
        let mut outcome = Outcome::default();
        let mut restore = Restore { dir, stored, name, tunpath, flags, netlink, patience: LIMIT };
        let doomed = restore.doomed(&mut outcome)?;
        Ok(Some(Item { stored: restore.stored, doomed: doomed.map(|doomed| (doomed, outcome)) }))
    };
    let items: Vec<_> = names.iter().map(&mut look).collect();
    let doomed: Vec<_> = items.iter().flatten().flatten().filter_map(|item| Some(item.doomed.as_ref()?.0)).collect();
    let mut deleted = delete_each(netlink, &doomed, tunpath).into_iter();
    let mut finish = |(name, item): (&IfName, Result<Option<Item>>)| {
        let Some(Item { stored, doomed }) = item? else { return Ok(Fields::empty()) };
        let patience = LIMIT.saturating_sub(start.elapsed());
        let mut restore = Restore { dir, stored, name, tunpath, flags, netlink, patience };
        match doomed {
            Some((doomed, outcome)) => restore.deleted(doomed, deleted.next().unwrap_or(Ok(())), &outcome),
            None => restore.run(),
        }
    };
    names.iter().zip(items).map(&mut finish).collect()
}
