//! Which interfaces there are: the index and the name of each, and little else.
//!
//! Of all dumps that tell both, ETHTOOL_MSG_FEATURES_GET (Linux 5.6) is the cheapest that leaves the devices alone: the other
//! messages of ethtool wake those that sleep (`ethnl_ops_begin()`), and RTM_GETLINK takes the kernel three times as long,
//! whatever is left out of it. See linux/ethtool_netlink.h, linux/genetlink.h.

use super::attr::{self, Request, i32_at};
use super::ifname::IfName;
use super::netlink::{Netlink, Refusal};
use nix::errno::Errno;
use once_cell::race::OnceBox;
use std::os::fd::AsRawFd;

const GENLMSGHDR: usize = 4; // u8 command, u8 version, two reserved
const VERSION: u8 = 1;
const NLA_F_NESTED: u16 = 0x8000;

/// `each` is told by None that it starts over.
pub(crate) fn dump(mut each: impl FnMut(Option<(i32, IfName)>)) -> Result<(), Errno> {
    const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
    const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
    const ETHTOOL_A_HEADER_FLAGS: u16 = 3;
    const ETHTOOL_FLAG_COMPACT_BITSETS: u32 = 1;
    let mut netlink = Netlink::open_generic()?;
    let family = ethtool_family(&mut netlink)?;
    let dumped = netlink.dump(
        family,
        &[ETHTOOL_MSG_FEATURES_GET, VERSION, 0, 0],
        |request| {
            request.nested(ETHTOOL_A_FEATURES_HEADER | NLA_F_NESTED, |header| {
                header.attr_u32(ETHTOOL_A_HEADER_FLAGS, ETHTOOL_FLAG_COMPACT_BITSETS);
            });
        },
        |message| match message.map(decode) {
            None => each(None),
            Some(Some(interface)) => each(Some(interface)),
            Some(None) => {}
        },
    );
    dumped.map_err(Errno::from)
}

pub(crate) fn decode(message: &[u8]) -> Option<(i32, IfName)> {
    const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
    const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
    const ETHTOOL_A_HEADER_DEV_NAME: u16 = 2;
    let header = attr::find(message.get(GENLMSGHDR..)?, ETHTOOL_A_FEATURES_HEADER)?;
    let index = i32_at(attr::find(header, ETHTOOL_A_HEADER_DEV_INDEX)?, 0)?;
    Some((index, IfName::from_kernel(attr::find(header, ETHTOOL_A_HEADER_DEV_NAME)?)?))
}

/// The number that this kernel has for the generic netlink family "ethtool".
fn ethtool_family(netlink: &mut Netlink) -> Result<u16, Errno> {
    static FAMILY: OnceBox<u16> = OnceBox::new(); // does not change while the kernel runs
    FAMILY.get_or_try_init(|| find_family(netlink, "ethtool").map(Box::new).map_err(Errno::from)).copied()
}

fn find_family(netlink: &mut Netlink, name: &str) -> Result<u16, Refusal> {
    const GENL_ID_CTRL: u16 = 16;
    const CTRL_CMD_GETFAMILY: u8 = 3;
    const CTRL_ATTR_FAMILY_ID: u16 = 1;
    const CTRL_ATTR_FAMILY_NAME: u16 = 2;
    let answer = netlink.get(GENL_ID_CTRL, &[CTRL_CMD_GETFAMILY, VERSION, 0, 0], |request: &mut Request| {
        request.attr_str(CTRL_ATTR_FAMILY_NAME, name);
    })?;
    let id = answer.get(GENLMSGHDR..).and_then(|attrs| attr::find(attrs, CTRL_ATTR_FAMILY_ID));
    id.and_then(|id| attr::u16_at(id, 0)).ok_or_else(|| Errno::EBADMSG.into())
}

/// SIOCGIFINDEX: the index of the interface that has this name, or this alternative name.
pub(crate) fn index_of(netlink: &Netlink, name: &IfName) -> Result<i32, Errno> {
    let mut request = super::tun::ifreq(name.as_bytes(), super::tun::TunFlags::empty());
    // SAFETY: SIOCGIFINDEX reads one ifreq and writes it back; `request` is one, and lives until the call is over
    unsafe { raw::siocgifindex(netlink.socket().as_raw_fd(), &raw mut request) }?;
    // SAFETY: the union is plain data; the kernel has written this member
    Ok(unsafe { request.ifr_ifru.ifru_ifindex })
}

/// SIOCGIFNAME.
pub(super) fn name_of(netlink: &Netlink, ifindex: i32) -> Result<IfName, Errno> {
    let mut request = super::tun::ifreq(b"", super::tun::TunFlags::empty());
    request.ifr_ifru.ifru_ifindex = ifindex;
    // SAFETY: SIOCGIFNAME reads one ifreq and writes it back; `request` is one, and lives until the call is over
    unsafe { raw::siocgifname(netlink.socket().as_raw_fd(), &raw mut request) }?;
    super::tun::name_of(&request)
}

mod raw {
    nix::ioctl_readwrite_bad!(siocgifindex, libc::SIOCGIFINDEX, libc::ifreq);
    nix::ioctl_readwrite_bad!(siocgifname, libc::SIOCGIFNAME, libc::ifreq);
}
