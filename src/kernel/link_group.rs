//! Groups of interfaces (`ip link set dev X group G`): the one thing by which the kernel removes many at once.

use super::attr::Request;
use super::batch::Answer;
use super::link::{self, By, IFLA_GROUP, IFLA_MTU, ifinfomsg};
use super::netlink::{Netlink, Refusal};
use super::removal::Sender;
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use nix::errno::Errno;
use std::time::{Duration, Instant};

const MOMENT: Duration = Duration::from_micros(50);

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
    netlink.batch(wanted.map(|(ifindex, group)| set(ifindex, group, NLM_F_ACK)).collect())
}

/// Puts interfaces into the group, and deletes the group: RTM_SETLINK for each and one RTM_DELLINK, sent together, so that
/// the kernel does one right after the other, whatever becomes of the caller. Returns as soon as the last one is gone, with
/// the time that it took and the thread that waits for the kernel's end of it (`removal`); None: that is over.
///
/// Which ones are left, because the kernel refuses, is to be looked at afterwards.
pub(crate) fn delete(netlink: &mut Netlink, members: &[i32], group: u32) -> Result<Option<(Duration, Sender)>, Errno> {
    let Some(last) = members.last() else { return Ok(None) };
    let mut requests: Vec<_> = members.iter().map(|ifindex| set(*ifindex, group, 0)).collect();
    if let Some(first) = members.first().zip(requests.first_mut()) {
        *first.1 = set(*first.0, group, NLM_F_ACK); // the answer that says that the kernel is at it
    }
    let mut delete = Request::new(libc::RTM_DELLINK, NLM_F_REQUEST, &ifinfomsg(0, 0, 0));
    delete.attr_u32(IFLA_GROUP, group);
    requests.push(delete);
    let bytes = netlink.together(&requests);
    let Some(sender) = netlink.send_aside(bytes.clone()) else {
        netlink.send_bytes(&bytes)?;
        return Ok(None);
    };
    let Ok((_, sender)) = netlink.first_answer(sender) else { return Ok(None) };
    let start = Instant::now();
    // an answer takes the lock of all links, which is only to be had before the deletion, for a moment, or after it
    while !sender.is_over() {
        match link::get(netlink, By::Index(*last)) {
            Ok(Some(_)) => std::thread::sleep(MOMENT),
            Ok(None) => break,
            Err(errno) => {
                let _ = sender.join();
                return Err(errno);
            }
        }
    }
    Ok(Some((start.elapsed(), sender)))
}

fn set(ifindex: i32, group: u32, flags: u16) -> Request {
    let mut request = Request::new(libc::RTM_SETLINK, NLM_F_REQUEST | flags, &ifinfomsg(ifindex, 0, 0));
    request.attr_u32(IFLA_GROUP, group);
    request
}
