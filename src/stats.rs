//! Counters of an interface.

use crate::error::{Context, Error, Result};
use crate::kernel::link::{self, By};
use crate::kernel::netlink::Netlink;
use crate::kernel::{IfName, counters, names};
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
/// So many names are cheaper to ask for one by one, with requests that are sent together, than in a dump of all interfaces,
/// whose number nobody knows before.
const FEW: usize = 32;

/// The counters of each of these interfaces, None where there is no interface with exactly that name. A handful of system
/// calls, and for more than 32 names one pass over all interfaces.
pub fn interface_stats_list(names: &[IfName]) -> Result<Vec<Option<Stats>>> {
    let failed = || format!("Unable to get the statistics of {} interfaces", names.len());
    let mut netlink = Netlink::open().context(failed)?;
    if names.len() <= A_HANDFUL {
        return names.iter().map(|name| counters::get(&mut netlink, name).context(failed)).collect();
    }
    if names.len() > FEW {
        let all = dump(&mut netlink).or_else(|_| dump_links(&mut netlink)); // no ethtool before Linux 5.6
        match all {
            Err(Errno::EAGAIN) => {} // interfaces come and go all the time: none of the dumps was a consistent one
            all => {
                let all = all.context(failed)?;
                return Ok(names.iter().map(|name| all.get(name).copied()).collect());
            }
        }
    }
    let links = link::get_each(&mut netlink, names.iter().map(By::Name), true).context(failed)?;
    let found = names.iter().zip(links).map(|(name, link)| link.filter(|link| link.name == Some(*name))?.stats);
    Ok(found.collect())
}

/// First the counters, then the names of what has them: an interface is found under the name that it has last.
fn dump(netlink: &mut Netlink) -> std::result::Result<HashMap<IfName, Stats>, Errno> {
    let mut by_index = HashMap::new();
    counters::dump(netlink, |interface| match interface {
        Some((index, stats)) => drop(by_index.insert(index, stats)),
        None => by_index.clear(),
    })?;
    let mut all = HashMap::with_capacity(by_index.len());
    names::dump(|interface| match interface {
        Some((index, name)) => all.extend(by_index.get(&index).map(|stats| (name, *stats))),
        None => all.clear(),
    })?;
    Ok(all)
}

fn dump_links(netlink: &mut Netlink) -> std::result::Result<HashMap<IfName, Stats>, Errno> {
    let mut all = HashMap::new();
    link::dump(netlink, |link| match link {
        Some(link) => all.extend(link.name.zip(link.stats)),
        None => all.clear(),
    })?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};

    /// On a kernel without ethtool's netlink there is the other way.
    #[test]
    fn both_dumps_tell_the_same() {
        let test = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("needs CAP_SYS_ADMIN");
            let script = "ip link set lo up; ping -c 1 -q 127.0.0.1 > /dev/null 2>&1 || :
                for i in 0 1 2; do ip tuntap add tap$i mode tap; done; ip link property add dev tap1 altname other";
            assert!(std::process::Command::new("sh").args(["-ec", script]).status().expect("sh").success());
            let mut netlink = Netlink::open().unwrap();
            let all = dump(&mut netlink).unwrap();
            assert_eq!(all, dump_links(&mut netlink).unwrap());
            assert_eq!(all.len(), 4);
        };
        std::thread::spawn(test).join().unwrap();
    }
}
