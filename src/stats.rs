//! Counters of an interface.

use crate::error::{Context, Error, Result};
use crate::kernel::IfName;
use crate::kernel::link::{self, By};
use crate::kernel::netlink::Netlink;
use nix::errno::Errno;

pub use crate::kernel::link::Stats;

/// The counters of the interface with exactly this name, as /proc/net/dev shows them: one netlink request, whatever
/// the number of interfaces.
pub fn interface_stats(name: &IfName) -> Result<Stats> {
    let failed = || format!("Unable to get the statistics of {name}");
    let mut netlink = Netlink::open().context(failed)?;
    let link = link::get_with_stats(&mut netlink, By::Name(name)).context(failed)?;
    link.filter(|link| link.name == Some(*name)) // an alternative name is not listed in /proc/net/dev
        .and_then(|link| link.stats)
        .ok_or_else(|| Error::internal(Errno::ENODEV, format!("{name}: Interface not found")))
}
