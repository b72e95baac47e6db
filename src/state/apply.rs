//! Putting properties back.

use super::fields::{Change, Fields};
use super::snapshot::{Snapshot, TapState};
use crate::bridge::port;
use crate::kernel::features;
use crate::kernel::link::{self, IFF_UP, IFLA_ADDRESS, IFLA_GROUP, IFLA_IFALIAS, IFLA_IFNAME, IFLA_MTU, IFLA_TXQLEN, Tun};
use crate::kernel::netlink::{Netlink, Refusal};
use crate::kernel::sys::{self, strerror};
use crate::kernel::tun;
use crate::kernel::tunprops::{self, Offloads};
use nix::errno::Errno;
use std::os::fd::BorrowedFd;

/// Why a property was not put back.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    noted: Vec<(Fields, String)>,
    /// Something has failed that may work the next time.
    pub again: bool,
}

impl Failures {
    pub(crate) fn note(&mut self, field: Fields, why: impl Into<String>) {
        self.noted.push((field, why.into()));
    }

    fn note_if<E: Into<Refusal>>(&mut self, field: Fields, result: Result<(), E>) {
        if let Err(refusal) = result.map_err(Into::into) {
            self.again = true;
            self.note(field, format!("{}{refusal}", strerror(refusal.errno)));
        }
    }

    pub(crate) fn of(&self, field: Fields) -> Option<&str> {
        self.noted.iter().find(|(failed, _)| *failed == field).map(|(_, why)| why.as_str())
    }
}

/// Makes the device, which is like `now`, what it was `before`, as far as the properties differ. Everything that filters
/// frames is taken away whether it was there or not, since it cannot be read.
pub(crate) fn apply(netlink: &mut Netlink, before: &Snapshot, now: &Snapshot, queue: Option<BorrowedFd<'_>>) -> Failures {
    let mut failures = Failures::default();
    if let (Some(before), Some(tap), Some(queue)) = (&before.tap, &now.tap, queue) {
        apply_tap(&mut failures, before, tap, queue);
        apply_requested_offloads(&mut failures, netlink, before, tap, queue);
    }
    if let Some(queue) = queue
        && before.link_type != now.link_type
    {
        failures.note_if(Fields::LINK_TYPE, tunprops::set_link_type(queue, before.link_type.into()));
    }
    apply_link(&mut failures, netlink, before, now, queue);
    failures
}

type SetId = fn(BorrowedFd<'_>, u32) -> Result<(), Errno>;

/// Gives the tap back its owner and its group through a queue that is still open, for an owner to be able to open another.
/// Where there was none, it is the caller's until [`apply`], which also tells what does not work.
pub(crate) fn put_owners_back(before: &TapState, now: &Tun, queue: BorrowedFd<'_>) -> Vec<Change> {
    let (uid, gid) = sys::effective_ids();
    if before.owner != now.owner {
        let _ = tunprops::set_owner(queue, before.owner.unwrap_or(uid));
    }
    if before.group != now.group {
        let _ = tunprops::set_group(queue, before.group.unwrap_or(gid));
    }
    before.owners_changed(now.owner, now.group)
}

fn apply_tap(failures: &mut Failures, before: &TapState, now: &TapState, queue: BorrowedFd<'_>) {
    for (was, now, field, set) in [
        (before.owner, now.owner, Fields::OWNER, tunprops::set_owner as SetId),
        (before.group, now.group, Fields::GROUP, tunprops::set_group),
    ] {
        if was != now {
            // "nobody in particular" cannot be set: root, so that nobody gains
            failures.note_if(field, set(queue, was.unwrap_or_default()));
            if was.is_none() {
                failures.note(field, "the kernel does not take \"none\", so it is 0 now");
            }
        }
    }
    failures.note_if(Fields::FILTERS, tunprops::clear_filters(queue));
    if let (Some(before), Some(now)) = (&before.queue, &now.queue) {
        if before.vnet_hdr_size != now.vnet_hdr_size {
            failures.note_if(Fields::VNET_HDR_SIZE, tunprops::set_vnet_hdr_size(queue, before.vnet_hdr_size));
        }
        if before.vnet_le != now.vnet_le {
            failures.note_if(Fields::VNET_ENDIAN, tunprops::set_vnet_le(queue, before.vnet_le));
        }
        if let (Some(before), true) = (before.vnet_be, before.vnet_be != now.vnet_be) {
            failures.note_if(Fields::VNET_ENDIAN, tunprops::set_vnet_be(queue, before));
        }
    }
    if let (Some(before), true) = (before.offloads, before.offloads != now.offloads) {
        failures.note_if(Fields::OFFLOADS, tunprops::set_offloads(queue, Offloads::from_bits_retain(before)));
    }
}

/// TUNSETOFFLOAD leaves its mark also where it was taken back. Only for the eye, so no failure without CAP_NET_ADMIN.
fn apply_requested_offloads(
    failures: &mut Failures,
    netlink: &Netlink,
    before: &TapState,
    now: &TapState,
    queue: BorrowedFd<'_>,
) {
    let Some(requested) = before.offloads_requested else { return };
    if (now.offloads_requested, now.offloads) == (before.offloads_requested, before.offloads) {
        return;
    }
    // ethtool knows devices by their names only: by the one that it has at this moment
    let name = tun::get_iff(queue).map(|(name, _)| name);
    match name.and_then(|name| features::request(netlink, &name, Offloads::from_bits_retain(requested))) {
        Err(Errno::EPERM) => {}
        result => failures.note_if(Fields::OFFLOADS, result),
    }
}

fn apply_link(failures: &mut Failures, netlink: &mut Netlink, before: &Snapshot, now: &Snapshot, queue: Option<BorrowedFd<'_>>) {
    let index = now.ifindex;
    let mut set = |field: Fields, differs: bool, attr: u16, value: &[u8]| {
        if differs {
            let result = link::set(netlink, index, 0, 0, |request| drop_ref(request.attr(attr, value)));
            failures.note_if(field, result);
        }
    };
    set(Fields::MTU, before.mtu != now.mtu, IFLA_MTU, &before.mtu.to_ne_bytes());
    set(Fields::TXQLEN, before.txqlen != now.txqlen, IFLA_TXQLEN, &before.txqlen.to_ne_bytes());
    set(Fields::LINK_GROUP, before.link_group != now.link_group, IFLA_GROUP, &before.link_group.to_ne_bytes());
    let alias = before.alias.clone().unwrap_or_default();
    set(Fields::ALIAS, before.alias != now.alias, IFLA_IFALIAS, alias.as_bytes()); // an empty one takes it away
    if before.name != now.name {
        failures.note_if(Fields::NAME, rename(netlink, now, &before.name));
    }
    if before.mac != now.mac {
        failures.note_if(Fields::MAC, set_mac(netlink, before, index, queue));
    }
    if let (Some(before), Some(now)) = (&before.macvtap, &now.macvtap)
        && before.passthru
        && before.lower_mac != now.lower_mac
        && let Some(lower) = before.lower_ifindex
    {
        let result = link::set(netlink, lower, 0, 0, |request| drop_ref(request.attr(IFLA_ADDRESS, &before.lower_mac)));
        failures.note_if(Fields::MAC, result);
    }
    if !port::changes(before.port.as_ref(), now.port.as_ref()).is_empty()
        && let Err(e) = port::apply(netlink, index, before.port.as_ref())
    {
        failures.again = true;
        failures.note(Fields::MASTER, e.to_string());
    }
    if before.altnames != now.altnames {
        failures.note_if(Fields::ALTNAMES, link::set_altnames(netlink, index, &before.altnames, &now.altnames));
    }
    if before.up != now.up {
        let flags = if before.up { IFF_UP } else { 0 };
        failures.note_if(Fields::UP, link::set(netlink, index, flags, IFF_UP, |_| {}));
    }
}

/// Before Linux 6.2 only a device that is down can be renamed.
fn rename(netlink: &mut Netlink, now: &Snapshot, name: &str) -> Result<(), Refusal> {
    let index = now.ifindex;
    let name = [name.as_bytes(), b"\0"].concat();
    let set = |netlink: &mut Netlink| link::set(netlink, index, 0, 0, |request| drop_ref(request.attr(IFLA_IFNAME, &name)));
    match set(netlink) {
        Err(Refusal { errno: Errno::EBUSY, .. }) if now.up => {
            link::set(netlink, index, 0, IFF_UP, |_| {})?;
            let result = set(netlink);
            link::set(netlink, index, IFF_UP, IFF_UP, |_| {})?;
            result
        }
        result => result,
    }
}

/// By netlink or, for an owner without CAP_NET_ADMIN, through the queue.
fn set_mac(netlink: &mut Netlink, before: &Snapshot, index: i32, queue: Option<BorrowedFd<'_>>) -> Result<(), Refusal> {
    let result = link::set(netlink, index, 0, 0, |request| drop_ref(request.attr(IFLA_ADDRESS, &before.mac)));
    match (result, queue, <[u8; 6]>::try_from(before.mac.as_slice())) {
        (Err(Refusal { errno: Errno::EPERM, .. }), Some(queue), Ok(mac)) => {
            tunprops::set_mac(queue, before.link_type, mac).map_err(Into::into)
        }
        (result, _, _) => result,
    }
}

fn drop_ref<T>(_: &mut T) {}
