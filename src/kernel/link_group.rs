//! Groups of interfaces (`ip link set dev X group G`): the one thing by which the kernel removes many at once.

use super::batch::{self, Answer};
use super::link::{IFLA_GROUP, IFLA_MTU, ifinfomsg};
use super::netlink::{Netlink, Refusal};
use nix::errno::Errno;

/// Does no interface belong to the group? RTM_NEWLINK for a group changes all its members, one after the other, and
/// succeeds if there are none (`rtnl_group_changelink()`); the MTU of -1 that is asked for here every interface refuses
/// (`dev_validate_mtu()`). Unlike a dump it costs the same whatever the number of interfaces.
pub(crate) fn is_unused(netlink: &mut Netlink, group: u32) -> Result<bool, Refusal> {
    let answer = netlink.change(libc::RTM_NEWLINK, &ifinfomsg(0, 0, 0), |request| {
        request.attr_u32(IFLA_GROUP, group).attr(IFLA_MTU, &(-1_i32).to_ne_bytes());
    });
    match answer {
        Ok(()) => Ok(true),
        Err(Refusal { errno: Errno::EINVAL, .. }) => Ok(false),
        Err(refusal) => Err(refusal),
    }
}

/// RTM_SETLINK for each (ifindex, group), sent together. One answer for each.
pub(crate) fn set_each(netlink: &mut Netlink, wanted: impl Iterator<Item = (i32, u32)>) -> Result<Vec<Answer>, Errno> {
    netlink.batch(wanted.map(|(ifindex, group)| set(ifindex, group)).collect())
}

/// Puts up to 32 interfaces into the group, and deletes the group: RTM_SETLINK for each and one RTM_DELLINK, sent together,
/// so that the kernel does one right after the other. The answers stand in the same order. The last one: ENODEV if the
/// group has no members, EOPNOTSUPP if one of them is of a kind that cannot be deleted, and then none was.
pub(crate) fn delete(netlink: &mut Netlink, members: impl Iterator<Item = i32>, group: u32) -> Result<Vec<Answer>, Errno> {
    let mut requests: Vec<_> = members.map(|ifindex| set(ifindex, group)).collect();
    let mut last = batch::order(libc::RTM_DELLINK, &ifinfomsg(0, 0, 0));
    last.attr_u32(IFLA_GROUP, group);
    requests.push(last);
    netlink.batch(requests)
}

fn set(ifindex: i32, group: u32) -> super::attr::Request {
    let mut request = batch::order(libc::RTM_SETLINK, &ifinfomsg(ifindex, 0, 0));
    request.attr_u32(IFLA_GROUP, group);
    request
}
