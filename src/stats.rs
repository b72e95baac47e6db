//! Counters of an interface.

use crate::error::{Context, Error, Result};
use crate::kernel::link::{self, By};
use crate::kernel::netlink::Netlink;
use crate::kernel::{IfName, counters};
use nix::errno::Errno;
use std::collections::HashMap;

pub use crate::kernel::counters::Stats;

/// The counters of the interface with exactly this name, as /proc/net/dev shows them. Costs the same
/// whatever the number of interfaces.
pub fn interface_stats(name: &IfName) -> Result<Stats> {
    let failed = || format!("Unable to get the statistics of {name}");
    let mut netlink = Netlink::open().context(failed)?;
    let stats = counters::get(&mut netlink, name).context(failed)?;
    stats.ok_or_else(|| Error::internal(Errno::ENODEV, format!("{name}: Interface not found")))
}

/// So many names are asked for each by itself, which is the fastest for one.
const A_HANDFUL: usize = 4;
/// So many names are cheaper to ask for one by one, with requests that are sent together, than in a dump of all interfaces, whose number nobody knows before.
const FEW: usize = 64;

/// The counters of each of these interfaces, None where there is no interface with exactly that name. A handful of system
/// calls, and for more than 64 names one pass over all interfaces.
pub fn interface_stats_list(names: &[IfName]) -> Result<Vec<Option<Stats>>> {
    let failed = || format!("Unable to get the statistics of {} interfaces", names.len());
    let mut netlink = Netlink::open().context(failed)?;
    if names.len() <= A_HANDFUL {
        return names.iter().map(|name| counters::get(&mut netlink, name).context(failed)).collect();
    }
    if names.len() > FEW {
        match dump_of(&mut netlink, names) {
            Err(Errno::EAGAIN) => {} // interfaces come and go all the time: none of the dumps was a consistent one
            result => return result.context(failed),
        }
    }
    let links = link::get_each(&mut netlink, names.iter().map(By::Name), true).context(failed)?;
    let found = names.iter().zip(links).map(|(name, link)| link.filter(|link| link.name == Some(*name))?.stats);
    Ok(found.collect())
}

fn dump_of(netlink: &mut Netlink, names: &[IfName]) -> std::result::Result<Vec<Option<Stats>>, Errno> {
    let mut all = HashMap::with_capacity(names.len());
    link::dump(netlink, |link| match link {
        Some(link) => all.extend(link.name.zip(link.stats)),
        None => all.clear(),
    })?;
    Ok(names.iter().map(|name| all.get(name).copied()).collect())
}
