//! The link settings of a tap that goes into a bridge: changed in one request, and put back.

use crate::error::{Error, Result};
use crate::host::warning;
use crate::kernel::IfName;
use crate::kernel::link::{self, By, IFLA_ADDRESS, IFLA_MASTER, IFLA_MTU, Link};
use crate::kernel::netlink::{Netlink, Refusal};
use nix::errno::Errno;

const UP: u32 = libc::IFF_UP.unsigned_abs();

/// What to change; what is None stays.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Change {
    pub mac: Option<[u8; 6]>,
    pub mtu: Option<u32>,
    pub master: Option<i32>,
    pub up: Option<bool>,
}

/// Sends the change in one request. The kernel applies address, MTU, master and flags in this order (`do_setlink()`;
/// before Linux 5.17 flags before master), so that the bridge takes the address and MTU of its new port as they shall
/// be, and stops at the first that fails.
pub(super) fn set(netlink: &mut Netlink, tap: &Link, change: &Change, bridge: &IfName) -> Result<()> {
    request(netlink, tap.ifindex, change).map_err(|refusal| explain(netlink, tap, change, bridge, &refusal))
}

fn request(netlink: &mut Netlink, ifindex: i32, change: &Change) -> std::result::Result<(), Refusal> {
    let (flags, mask) = match change.up {
        Some(up) => (if up { UP } else { 0 }, UP),
        None => (0, 0),
    };
    if let Change { mac: None, mtu: None, master: None, up: None } = change {
        return Ok(());
    }
    link::set(netlink, ifindex, flags, mask, |request| {
        if let Some(mac) = change.mac {
            request.attr(IFLA_ADDRESS, &mac);
        }
        if let Some(mtu) = change.mtu {
            request.attr_u32(IFLA_MTU, mtu);
        }
        if let Some(master) = change.master {
            request.attr(IFLA_MASTER, &master.to_ne_bytes());
        }
    })
}

/// The first thing that is not as it was wanted is the one that has failed.
fn explain(netlink: &mut Netlink, tap: &Link, change: &Change, bridge: &IfName, refusal: &Refusal) -> Error {
    let name = tap.name.map_or_else(|| tap.ifindex.to_string(), |name| name.to_string());
    let now = link::get(netlink, By::Index(tap.ifindex)).unwrap_or_default().unwrap_or_default();
    let mut errno = refusal.errno;
    let text = if let Some(mac) = change.mac.filter(|mac| now.mac != mac) {
        format!("Cannot set interface MAC to {} on '{name}'", super::mac_text(&mac))
    } else if change.mtu.is_some_and(|mtu| now.mtu != mtu) {
        format!("Cannot set interface MTU on '{name}'")
    } else if change.master.is_some() && now.master != change.master {
        let there = change.master.map(|master| link::get(netlink, By::Index(master)));
        if there == Some(Ok(None)) {
            errno = Errno::ENODEV; // the kernel says EINVAL for a bridge that has just gone
        }
        format!("Unable to add bridge {bridge} port {name}")
    } else {
        format!("Cannot set interface flags on '{name}'")
    };
    Error::system(errno, format!("{text}{refusal}"))
}

/// Gives a tap its settings back: `before` as it was, on its old master if that is one that netlink can set.
pub(super) fn put_back(netlink: &mut Netlink, before: &Link, with_master: bool) {
    let Ok(Some(now)) = link::get(netlink, By::Index(before.ifindex)) else { return };
    let change = Change {
        mac: before.mac.as_slice().try_into().ok().filter(|mac: &[u8; 6]| now.mac != mac),
        mtu: Some(before.mtu).filter(|mtu| now.mtu != *mtu),
        master: Some(before.master.unwrap_or_default()).filter(|_| with_master && now.master != before.master),
        up: Some(before.flags & UP != 0).filter(|up| (now.flags & UP != 0) != *up),
    };
    if let Err(refusal) = request(netlink, before.ifindex, &change) {
        let name = before.name.map(|name| name.to_string()).unwrap_or_default();
        warning!("unable to put {name} back as it was: {}{refusal}", refusal.errno.desc());
    }
}

/// What a bridge does not put right by itself when a port leaves: an address that it had before its first port (then
/// it has none), and an MTU that was given when it was made.
pub(super) fn mend_bridge(netlink: &mut Netlink, before: &Link) {
    let Ok(Some(now)) = link::get(netlink, By::Index(before.ifindex)) else { return };
    let lost = now.mac.iter().all(|byte| *byte == 0);
    let change = Change {
        mac: before.mac.as_slice().try_into().ok().filter(|mac: &[u8; 6]| lost && now.mac != mac),
        mtu: Some(before.mtu).filter(|mtu| now.mtu != *mtu),
        ..Change::default()
    };
    if let Err(refusal) = request(netlink, before.ifindex, &change) {
        let name = before.name.map(|name| name.to_string()).unwrap_or_default();
        warning!("unable to put bridge {name} back as it was: {}{refusal}", refusal.errno.desc());
    }
}
