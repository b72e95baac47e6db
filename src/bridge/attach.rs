//! Putting a tap on a bridge, and moving it to another.

use super::PortConfig;
use super::plug::{Extra, Plug, Target};
use crate::error::{Context, Error, Result};
use crate::host::info;
use crate::kernel::IfName;
use crate::kernel::link::{self, By, Link};
use crate::kernel::netlink::Netlink;
use nix::errno::Errno;

/// Puts an interface that is on no bridge on one. Returns its MTU then.
pub fn attach(tap: &IfName, config: &PortConfig) -> Result<u32> {
    let mut netlink = open(tap, &config.bridge)?;
    let target = Target::find(&mut netlink, config, tap)?;
    let link = find_tap(&mut netlink, tap, config)?;
    let mut plug = Plug::start(netlink, link, &target)?;
    plug.require_free()?;
    plug.or_put_back(|plug| plug.join(Extra::default()))?;
    Ok(target.mtu)
}

/// Moves an interface from whatever bridge it is on to this one; if it is there already, nothing is done, unless
/// `force` asks for the port's settings to be made as they are wanted. Returns its MTU then.
pub fn reattach(tap: &IfName, config: &PortConfig, force: bool) -> Result<u32> {
    let mut netlink = open(tap, &config.bridge)?;
    let target = Target::find(&mut netlink, config, tap)?;
    let link = find_tap(&mut netlink, tap, config)?;
    let mtu = link.mtu;
    if !force && target.master().is_some() && target.master() == link.master {
        return Ok(mtu);
    }
    let mut plug = Plug::start(netlink, link, &target)?;
    if !force && plug.is_there() {
        return Ok(mtu);
    }
    if let Some(port) = &plug.before {
        info!("Removing {tap} from {}", port.bridge());
    }
    info!("Attaching {tap} to {}", config.bridge);
    plug.moves = true;
    plug.or_put_back(|plug| {
        plug.leave()?;
        plug.join(Extra::default())
    })?;
    Ok(target.mtu)
}

/// A socket for all that a call does, which carries the kernel's reasons.
pub(super) fn open(tap: impl std::fmt::Display, bridge: &IfName) -> Result<Netlink> {
    let failed = || format!("Unable to add bridge {bridge} port {tap}");
    let netlink = Netlink::open().context(failed)?;
    netlink.want_reasons().context(failed)?;
    Ok(netlink)
}

fn find_tap(netlink: &mut Netlink, tap: &IfName, config: &PortConfig) -> Result<Link> {
    let failed = || match config.mtu {
        Some(_) => format!("Cannot set interface MTU on '{tap}'"),
        None => format!("Unable to add bridge {} port {tap}", config.bridge),
    };
    link::get(netlink, By::Name(tap)).context(failed)?.ok_or_else(|| Error::system(Errno::ENODEV, failed()))
}
