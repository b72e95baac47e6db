//! Ports of a Linux bridge over rtnetlink: options, VLANs, fixed forwarding entries.
//!
//! See linux/if_bridge.h, linux/neighbour.h, and `br_setlink()` and `br_port_policy` in net/bridge/br_netlink.c.

use super::attr::{self, Request, u16_at, u32_at};
use super::link::{IFLA_MASTER, ifinfomsg};
use super::netlink::{Netlink, Refusal};
use nix::errno::Errno;

const IFLA_PROTINFO: u16 = 12;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
/// Without it the kernel takes `IFLA_PROTINFO` for the old form with a single byte.
const NLA_F_NESTED: u16 = 1 << 15;
const AF_BRIDGE: u8 = 7;

/// The highest VLAN id there is.
const MAX_VID: u16 = 4095;
const VLAN_INFO_PVID: u16 = 1 << 1;
const VLAN_INFO_UNTAGGED: u16 = 1 << 2;
const RTM_GETVLAN: u16 = 114;
const BRIDGE_VLANDB_ENTRY: u16 = 1;
const BRIDGE_VLANDB_ENTRY_INFO: u16 = 1;
const BRIDGE_VLANDB_ENTRY_RANGE: u16 = 2;
const BRIDGE_VLANDB_DUMP_FLAGS: u16 = 1;
const BRIDGE_VLANDB_DUMPF_STATS: u32 = 1;
const BR_VLAN_MSG: usize = 8;

const NDMSG: usize = 12;
const NDA_LLADDR: u16 = 2;
const NDA_VLAN: u16 = 5;
const NDA_MASTER: u16 = 9;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
const NTF_MASTER: u8 = 0x04;
/// `NTF_EXT_LEARNED` and `NTF_STICKY`: the flags that an entry keeps.
const NTF_KEPT: u8 = 0x10 | 0x40;

/// An option of a bridge port: `IFLA_BRPORT_*` number, the name that bridge(8) has for it, its size in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PortOption {
    attr: u16,
    pub name: &'static str,
    size: usize,
}

const fn option(attr: u16, name: &'static str, size: usize) -> PortOption {
    PortOption { attr, name, size }
}

pub(crate) const ISOLATED: PortOption = option(33, "isolated", 1);
/// What bridge(8) shows for a port and what can be set. Not the spanning tree state: it follows the carrier.
pub(crate) const PORT_OPTIONS: [PortOption; 25] = [
    option(2, "priority", 2),
    option(3, "cost", 4),
    option(4, "hairpin", 1),
    option(5, "guard", 1),
    option(6, "root_block", 1),
    option(7, "fastleave", 1),
    option(8, "learning", 1),
    option(9, "flood", 1),
    option(10, "proxy_arp", 1),
    option(12, "proxy_arp_wifi", 1),
    option(25, "mcast_router", 1),
    option(27, "mcast_flood", 1),
    option(28, "mcast_to_unicast", 1),
    option(29, "vlan_tunnel", 1),
    option(30, "bcast_flood", 1),
    option(31, "group_fwd_mask", 2),
    option(32, "neigh_suppress", 1),
    ISOLATED,
    BACKUP_PORT,
    option(37, "mcast_eht_hosts_limit", 4),
    option(39, "locked", 1),
    option(40, "mab", 1),
    option(42, "mcast_max_groups", 4),
    option(43, "neigh_vlan_suppress", 1),
    option(44, "backup_nhid", 4),
];
/// The index of another port, 0 for none; the kernel leaves it out if there is none.
pub(crate) const BACKUP_PORT: PortOption = option(34, "backup_port", 4);

impl PortOption {
    /// The value in what the bridge keeps for a port (`Link::port_data`).
    pub(crate) fn read(self, port_data: &[u8]) -> Option<u32> {
        let value = attr::find(port_data, self.attr)?;
        match self.size {
            1 => value.first().copied().map(u32::from),
            2 => u16_at(value, 0).map(u32::from),
            _ => u32_at(value, 0),
        }
    }

    fn append(self, request: &mut Request, value: u32) {
        let [a, b, ..] = value.to_le_bytes();
        match self.size {
            1 => request.attr(self.attr, &[a]),
            2 => request.attr(self.attr, &u16::from_le_bytes([a, b]).to_ne_bytes()),
            _ => request.attr_u32(self.attr, value),
        };
    }
}

/// A VLAN that a port belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Vlan {
    pub vid: u16,
    /// Frames without a tag come in on this VLAN.
    pub pvid: bool,
    /// Frames of this VLAN go out without a tag.
    pub untagged: bool,
}

/// A forwarding entry that somebody has set, as opposed to one that the bridge has learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FdbEntry {
    pub mac: [u8; 6],
    /// 0: any
    pub vid: u16,
    /// For the host itself, not for the port.
    pub local: bool,
    /// `NTF_EXT_LEARNED` 0x10, `NTF_STICKY` 0x40
    pub flags: u8,
}

fn bridge_header(ifindex: i32) -> [u8; 16] {
    let mut header = ifinfomsg(ifindex, 0, 0);
    let [family, ..] = &mut header;
    *family = AF_BRIDGE;
    header
}

fn vlan_attrs(request: &mut Request, vlans: &[Vlan]) {
    request.nested(IFLA_AF_SPEC | NLA_F_NESTED, |spec| {
        for vlan in vlans {
            let flags = if vlan.pvid { VLAN_INFO_PVID } else { 0 } | if vlan.untagged { VLAN_INFO_UNTAGGED } else { 0 };
            let [a, b] = flags.to_ne_bytes();
            let [c, d] = vlan.vid.to_ne_bytes();
            spec.attr(IFLA_BRIDGE_VLAN_INFO, &[a, b, c, d]);
        }
    });
}

/// Sets options of a port, and adds it to VLANs, in one request. Not atomic: options first.
pub(crate) fn set_port(
    netlink: &mut Netlink,
    ifindex: i32,
    options: &[(PortOption, u32)],
    vlans: &[Vlan],
) -> Result<(), Refusal> {
    netlink.change(libc::RTM_SETLINK, &bridge_header(ifindex), |request| {
        if !options.is_empty() {
            request.nested(IFLA_PROTINFO | NLA_F_NESTED, |info| {
                for (option, value) in options {
                    option.append(info, *value);
                }
            });
        }
        if !vlans.is_empty() {
            vlan_attrs(request, vlans);
        }
    })
}

/// Takes a port out of VLANs.
pub(crate) fn delete_vlans(netlink: &mut Netlink, ifindex: i32, vlans: &[Vlan]) -> Result<(), Refusal> {
    netlink.change(libc::RTM_DELLINK, &bridge_header(ifindex), |request| vlan_attrs(request, vlans))
}

/// The VLANs of one port, in rising order (RTM_GETVLAN, Linux 5.6). EOPNOTSUPP: the kernel has no VLAN filtering.
pub(crate) fn vlans(netlink: &mut Netlink, ifindex: i32) -> Result<Vec<Vlan>, Errno> {
    // With counters, each VLAN has an entry of its own. Without, those that follow the PVID are made one range with it, of
    // which Linux up to 6.1 at least then tells the first only: br_vlan_dump_dev() and br_vlan_fill_vids().
    match dump_vlans(netlink, ifindex, BRIDGE_VLANDB_DUMPF_STATS) {
        Err(Errno::EINVAL) => dump_vlans(netlink, ifindex, 0), // older than these counters
        vlans => vlans,
    }
}

fn dump_vlans(netlink: &mut Netlink, ifindex: i32, flags: u32) -> Result<Vec<Vlan>, Errno> {
    let mut header = [0; BR_VLAN_MSG];
    let [family, _, _, _, index @ ..] = &mut header;
    *family = AF_BRIDGE;
    *index = ifindex.to_ne_bytes();
    let mut found = Found::default();
    let fill = |request: &mut Request| {
        if flags != 0 {
            request.attr_u32(BRIDGE_VLANDB_DUMP_FLAGS, flags);
        }
    };
    netlink.dump(RTM_GETVLAN, &header, fill, |message| found.add(message, Vlan::decode))?;
    found.sorted()
}

/// The fixed forwarding entries of one port, in order.
pub(crate) fn fdb(netlink: &mut Netlink, ifindex: i32, bridge: i32) -> Result<Vec<FdbEntry>, Errno> {
    // the header of old, which filters by port without a socket option: valid_fdb_dump_legacy() in net/core/rtnetlink.c
    let fill = |request: &mut Request| {
        request.attr(IFLA_MASTER, &bridge.to_ne_bytes());
    };
    let mut found = Found::default();
    netlink.dump(libc::RTM_GETNEIGH, &bridge_header(ifindex), fill, |message| {
        found.add(message, |message| FdbEntry::decode(message, ifindex));
    })?;
    found.sorted()
}

/// What the messages of a dump tell, in order.
struct Found<T> {
    items: Vec<T>,
    odd: bool,
}

impl<T> Default for Found<T> {
    fn default() -> Self {
        Self { items: Vec::new(), odd: false }
    }
}

impl<T: Ord> Found<T> {
    /// None: the dump starts over.
    fn add<I: IntoIterator<Item = T>>(&mut self, message: Option<&[u8]>, decode: impl FnOnce(&[u8]) -> Result<I, Errno>) {
        match message.map(decode) {
            None => *self = Self::default(),
            Some(Ok(items)) => items.into_iter().for_each(|item| self.insert(item)),
            Some(Err(_)) => self.odd = true,
        }
    }

    fn insert(&mut self, item: T) {
        let (Ok(at) | Err(at)) = self.items.binary_search(&item);
        self.items.insert(at, item);
    }

    fn sorted(self) -> Result<Vec<T>, Errno> {
        if self.odd { Err(Errno::EBADMSG) } else { Ok(self.items) }
    }
}

impl Vlan {
    /// All VLANs that a message of RTM_GETVLAN tells of. EBADMSG: it is cut short.
    pub(crate) fn decode(message: &[u8]) -> Result<Vec<Self>, Errno> {
        let mut vlans = Vec::new();
        let attrs = message.get(BR_VLAN_MSG..).ok_or(Errno::EBADMSG)?;
        let decoded = attr::decode(attrs, |kind, entry| {
            if kind != BRIDGE_VLANDB_ENTRY {
                return Some(());
            }
            let info = attr::find(entry, BRIDGE_VLANDB_ENTRY_INFO)?;
            let (flags, first) = (u16_at(info, 0)?, u16_at(info, 2)?);
            let last = attr::find(entry, BRIDGE_VLANDB_ENTRY_RANGE).map_or(Some(first), |last| u16_at(last, 0))?;
            let vlan = |vid| Self { vid, pvid: flags & VLAN_INFO_PVID != 0, untagged: flags & VLAN_INFO_UNTAGGED != 0 };
            vlans.extend((first..=last.min(MAX_VID)).map(vlan));
            Some(())
        });
        decoded.map(|()| vlans).ok_or(Errno::EBADMSG)
    }
}

impl FdbEntry {
    /// The entry that a message of RTM_GETNEIGH tells of, if it is a fixed one of this port. EBADMSG: it is cut short.
    pub(crate) fn decode(message: &[u8], ifindex: i32) -> Result<Option<Self>, Errno> {
        let (mut mac, mut vid, mut is_bridges) = (None, 0, false);
        let attrs = message.get(NDMSG..).ok_or(Errno::EBADMSG)?;
        let decoded = attr::decode(attrs, |kind, value| {
            match kind {
                NDA_LLADDR => mac = value.try_into().ok(),
                NDA_VLAN => vid = u16_at(value, 0)?,
                NDA_MASTER => is_bridges = true, // else it is the device's own list
                _ => {}
            }
            Some(())
        });
        decoded.ok_or(Errno::EBADMSG)?;
        let state = u16_at(message, 8).unwrap_or_default();
        if !is_bridges || attr::i32_at(message, 4) != Some(ifindex) || state & (NUD_NOARP | NUD_PERMANENT) == 0 {
            return Ok(None);
        }
        let flags = message.get(10).copied().unwrap_or_default();
        let entry = |mac| Self { mac, vid, local: state & NUD_PERMANENT != 0, flags: flags & NTF_KEPT };
        mac.map(entry).map(Some).ok_or(Errno::EBADMSG)
    }

    fn header(&self, ifindex: i32) -> [u8; NDMSG] {
        let state = if self.local { NUD_PERMANENT } else { NUD_NOARP };
        let mut header = [0; NDMSG];
        let [family, _, _, _, index @ .., _, _, flags, _] = &mut header;
        *family = AF_BRIDGE;
        *index = ifindex.to_ne_bytes();
        *flags = NTF_MASTER | self.flags;
        let [_, _, _, _, _, _, _, _, nud @ .., _, _] = &mut header;
        *nud = state.to_ne_bytes();
        header
    }

    fn fill(&self, request: &mut Request) {
        request.attr(NDA_LLADDR, &self.mac);
        if self.vid != 0 {
            request.attr(NDA_VLAN, &self.vid.to_ne_bytes());
        }
    }
}

/// Adds a forwarding entry, or makes the one that is there for this MAC fixed.
pub(crate) fn add_fdb(netlink: &mut Netlink, ifindex: i32, entry: &FdbEntry) -> Result<(), Refusal> {
    netlink.put(libc::RTM_NEWNEIGH, &entry.header(ifindex), |request| entry.fill(request))
}

/// Takes a forwarding entry away, if it is there.
pub(crate) fn delete_fdb(netlink: &mut Netlink, ifindex: i32, entry: &FdbEntry) -> Result<(), Refusal> {
    match netlink.change(libc::RTM_DELNEIGH, &entry.header(ifindex), |request| entry.fill(request)) {
        Err(Refusal { errno: Errno::ENOENT, .. }) => Ok(()),
        result => result,
    }
}
