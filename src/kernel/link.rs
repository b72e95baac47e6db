//! Links (network interfaces) over rtnetlink: reading one, changing one, removing one.
//!
//! Decodes only what the library uses; see rtnetlink(7), linux/if_link.h and `tun_fill_info()` in drivers/net/tun.c.

use super::attr::{self, Request, i32_at, string, u32_at};
use super::batch;
use super::counters::Stats;
use super::ifname::IfName;
use super::netlink::{Netlink, Refusal, is_shortage};
use nix::errno::Errno;

pub(crate) const IFLA_ADDRESS: u16 = 1;
pub(crate) const IFLA_IFNAME: u16 = 3;
pub(crate) const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
pub(crate) const IFLA_MASTER: u16 = 10;
pub(crate) const IFLA_TXQLEN: u16 = 13;
const IFLA_LINKINFO: u16 = 18;
pub(crate) const IFLA_IFALIAS: u16 = 20;
const IFLA_STATS64: u16 = 23;
pub(crate) const IFLA_GROUP: u16 = 27;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_CARRIER: u16 = 33;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_MACVLAN_MODE: u16 = 1;
const MACVLAN_MODE_PASSTHRU: u32 = 8;
const IFLA_BR_VLAN_DEFAULT_PVID: u16 = 39;
const IFLA_TUN_OWNER: u16 = 1;
const IFLA_TUN_GROUP: u16 = 2;
const IFLA_TUN_TYPE: u16 = 3;
const IFLA_TUN_PI: u16 = 4;
const IFLA_TUN_VNET_HDR: u16 = 5;
const IFLA_TUN_PERSIST: u16 = 6;
const IFLA_TUN_MULTI_QUEUE: u16 = 7;
const IFLA_TUN_NUM_QUEUES: u16 = 8;
const IFLA_TUN_NUM_DISABLED_QUEUES: u16 = 9;
pub(crate) const IFF_UP: u32 = 1;
pub(crate) const IFLA_NET_NS_FD: u16 = 28;
/// The value of `IFLA_TUN_TYPE` for a tap; 1 (`IFF_TUN`) is a tun.
const TUN_TYPE_TAP: u8 = 2;
const IFINFOMSG: usize = 16;
const NLA_F_NESTED: u16 = 0x8000;

/// What the kernel says about an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(clippy::struct_field_names)] // link_type is the kernel's term
pub(crate) struct Link {
    pub ifindex: i32,
    pub name: Option<IfName>,
    /// `IFF_UP` and the other flags of netdevice(7).
    pub flags: u32,
    /// ARPHRD_*
    pub link_type: u16,
    pub mac: Vec<u8>,
    pub mtu: u32,
    pub txqlen: u32,
    pub group: u32,
    pub master: Option<i32>,
    pub alias: Option<String>,
    pub altnames: Vec<String>,
    pub carrier: bool,
    /// The driver's kind: "tun", "macvtap", "bridge", ...; physical interfaces have none.
    pub kind: Option<String>,
    pub tun: Option<Tun>,
    /// The index of the device below a macvtap.
    pub lower: Option<i32>,
    /// A macvtap that has the device below for itself, and shares its MAC with it.
    pub passthru: bool,
    /// The kind of the master ("bridge", "openvswitch", ...), and what it keeps for this port, undecoded.
    pub port_kind: Option<String>,
    pub port_data: Vec<u8>,
    /// Of a bridge: the VLAN that a new port is put into, 0 for none. Missing without VLAN filtering in the kernel.
    pub default_pvid: Option<u16>,
    pub stats: Option<Stats>,
}

/// `IFLA_INFO_DATA` of the "tun" driver, which makes both tun and tap devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // six independent flags of the kernel
pub(crate) struct Tun {
    pub is_tap: bool,
    /// None: nobody in particular.
    pub owner: Option<u32>,
    pub group: Option<u32>,
    pub pi: bool,
    pub vnet_hdr: bool,
    pub persist: bool,
    pub multi_queue: bool,
    /// Attached queues, and detached ones. The kernel counts them for multi-queue devices only.
    pub queues: u32,
    pub disabled_queues: u32,
}

/// How to say which interface is meant.
#[derive(Debug, Clone, Copy)]
pub(crate) enum By<'a> {
    Index(i32),
    /// Alternative names count, too.
    Name(&'a IfName),
}

impl Link {
    /// A tap that /dev/net/tun made, as opposed to a tun, a macvtap or anything else.
    pub(crate) fn tap(&self) -> Option<&Tun> {
        self.tun.as_ref().filter(|tun| tun.is_tap)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.flags & IFF_UP != 0
    }

    /// Queues that are open, attached or detached; always 0 for a single-queue tap, which the kernel does not count.
    pub(crate) fn queues(&self) -> u32 {
        self.tun.map_or(0, |tun| tun.queues.saturating_add(tun.disabled_queues))
    }

    /// What it is, for people.
    pub(crate) fn describe(&self) -> &str {
        match (self.kind.as_deref(), self.tun) {
            (Some("tun"), Some(tun)) if tun.is_tap => "tap",
            (Some(kind), _) => kind,
            (None, _) if self.link_type == libc::ARPHRD_LOOPBACK => "loopback",
            (None, _) => "physical or unknown",
        }
    }

    /// Decodes `struct ifinfomsg` and its attributes. None: the message is cut short, or not about a link.
    pub(crate) fn decode(message: &[u8]) -> Option<Self> {
        let mut link = Self {
            link_type: attr::u16_at(message, 2)?,
            ifindex: i32_at(message, 4)?,
            flags: u32_at(message, 8)?,
            ..Self::default()
        };
        attr::decode(message.get(IFINFOMSG..)?, |kind, value| {
            match kind {
                IFLA_ADDRESS => link.mac = value.to_vec(),
                IFLA_IFNAME => link.name = IfName::from_kernel(value),
                IFLA_MTU => link.mtu = u32_at(value, 0)?,
                IFLA_LINK => link.lower = Some(i32_at(value, 0)?),
                IFLA_MASTER => link.master = Some(i32_at(value, 0)?),
                IFLA_TXQLEN => link.txqlen = u32_at(value, 0)?,
                IFLA_IFALIAS => link.alias = string(value).map(str::to_owned),
                IFLA_GROUP => link.group = u32_at(value, 0)?,
                IFLA_CARRIER => link.carrier = *value.first()? == 1,
                IFLA_STATS64 => link.stats = Some(Stats::decode(value)?),
                IFLA_PROP_LIST => attr::decode(value, |kind, name| {
                    link.altnames.extend(string(name).filter(|_| kind == IFLA_ALT_IFNAME).map(str::to_owned));
                    Some(())
                })?,
                IFLA_LINKINFO => link.decode_info(value)?,
                _ => {}
            }
            Some(())
        })?;
        Some(link)
    }

    fn decode_info(&mut self, info: &[u8]) -> Option<()> {
        attr::decode(info, |kind, value| {
            match kind {
                IFLA_INFO_KIND => self.kind = string(value).map(str::to_owned),
                IFLA_INFO_SLAVE_KIND => self.port_kind = string(value).map(str::to_owned),
                IFLA_INFO_SLAVE_DATA => {
                    attr::decode(value, |_, _| Some(()))?;
                    self.port_data = value.to_vec();
                }
                // the kind comes before the data: rtnl_link_info_fill() in net/core/rtnetlink.c
                IFLA_INFO_DATA if self.kind.as_deref() == Some("tun") => self.tun = Some(Tun::decode(value)?),
                IFLA_INFO_DATA if self.kind.as_deref() == Some("macvtap") => {
                    let mode = attr::find(value, IFLA_MACVLAN_MODE).and_then(|mode| u32_at(mode, 0));
                    self.passthru = mode? == MACVLAN_MODE_PASSTHRU;
                }
                IFLA_INFO_DATA if self.kind.as_deref() == Some("bridge") => {
                    self.default_pvid = attr::find(value, IFLA_BR_VLAN_DEFAULT_PVID).and_then(|pvid| attr::u16_at(pvid, 0));
                }
                _ => {}
            }
            Some(())
        })
    }
}

impl Tun {
    fn decode(data: &[u8]) -> Option<Self> {
        let mut tun = Self::default();
        attr::decode(data, |kind, value| {
            let flag = || value.first().map(|byte| *byte != 0);
            match kind {
                IFLA_TUN_OWNER => tun.owner = Some(u32_at(value, 0)?),
                IFLA_TUN_GROUP => tun.group = Some(u32_at(value, 0)?),
                IFLA_TUN_TYPE => tun.is_tap = *value.first()? == TUN_TYPE_TAP,
                IFLA_TUN_PI => tun.pi = flag()?,
                IFLA_TUN_VNET_HDR => tun.vnet_hdr = flag()?,
                IFLA_TUN_PERSIST => tun.persist = flag()?,
                IFLA_TUN_MULTI_QUEUE => tun.multi_queue = flag()?,
                IFLA_TUN_NUM_QUEUES => tun.queues = u32_at(value, 0)?,
                IFLA_TUN_NUM_DISABLED_QUEUES => tun.disabled_queues = u32_at(value, 0)?,
                _ => {}
            }
            Some(())
        })?;
        Some(tun)
    }
}

/// `struct ifinfomsg` of the family AF_UNSPEC.
pub(super) fn ifinfomsg(ifindex: i32, flags: u32, change: u32) -> [u8; IFINFOMSG] {
    let mut header = [0; IFINFOMSG];
    let [_, _, _, _, index @ .., _, _, _, _, _, _, _, _] = &mut header;
    *index = ifindex.to_ne_bytes();
    let [_, _, _, _, _, _, _, _, first @ .., _, _, _, _] = &mut header;
    *first = flags.to_ne_bytes();
    let [_, _, _, _, _, _, _, _, _, _, _, _, last @ ..] = &mut header;
    *last = change.to_ne_bytes();
    header
}

/// RTM_GETLINK without counters. None: there is no such interface.
pub(crate) fn get(netlink: &mut Netlink, by: By<'_>) -> Result<Option<Link>, Errno> {
    get_filtered(netlink, by, libc::RTEXT_FILTER_SKIP_STATS.unsigned_abs())
}

fn get_filtered(netlink: &mut Netlink, by: By<'_>, filter: u32) -> Result<Option<Link>, Errno> {
    let (header, name) = addressed(by);
    decode_answer(netlink.get(libc::RTM_GETLINK, &header, |request| question_about(request, name, filter)))
}

fn addressed(by: By<'_>) -> ([u8; IFINFOMSG], Option<&IfName>) {
    match by {
        By::Index(index) => (ifinfomsg(index, 0, 0), None),
        By::Name(name) => (ifinfomsg(0, 0, 0), Some(name)),
    }
}

fn question_about(request: &mut Request, name: Option<&IfName>, filter: u32) {
    if let Some(name) = name {
        request.attr_str(IFLA_IFNAME, name.as_str());
    }
    request.attr_u32(IFLA_EXT_MASK, filter);
}

fn decode_answer(answer: Result<Vec<u8>, Refusal>) -> Result<Option<Link>, Errno> {
    match answer {
        Ok(message) => Link::decode(&message).map(Some).ok_or(Errno::EBADMSG),
        Err(Refusal { errno: Errno::ENODEV, .. }) => Ok(None),
        Err(refusal) => Err(refusal.errno),
    }
}

/// RTM_DELLINK by index; returns as soon as the device is gone (`removal`).
pub(crate) fn delete(netlink: &mut Netlink, ifindex: i32) -> Result<(), Refusal> {
    if netlink.change_early(libc::RTM_DELLINK, &ifinfomsg(ifindex, 0, 0))? {
        // the news is sent while the lock of all links is held; when it can be had, sysfs has forgotten the device, too
        let _ = get(netlink, By::Index(ifindex));
    }
    Ok(())
}

/// RTM_SETLINK by index: all attributes that `fill` appends in one request, and those of the flags that are set in
/// `change`. Not atomic: the kernel applies one after the other and stops at the first that fails (`do_setlink()`).
pub(crate) fn set(
    netlink: &mut Netlink,
    ifindex: i32,
    flags: u32,
    change: u32,
    fill: impl FnOnce(&mut Request),
) -> Result<(), Refusal> {
    netlink.change(libc::RTM_SETLINK, &ifinfomsg(ifindex, flags, change), fill)
}

/// Takes away the alternative names that are in `now` and adds those in `wanted`, as far as they differ
/// (RTM_DELLINKPROP, RTM_NEWLINKPROP; Linux 5.5).
pub(crate) fn set_altnames(netlink: &mut Netlink, ifindex: i32, wanted: &[String], now: &[String]) -> Result<(), Refusal> {
    const RTM_NEWLINKPROP: u16 = 108;
    const RTM_DELLINKPROP: u16 = 109;
    for (message_type, names, others) in [(RTM_DELLINKPROP, now, wanted), (RTM_NEWLINKPROP, wanted, now)] {
        let names: Vec<&String> = names.iter().filter(|name| !others.contains(name)).collect();
        if names.is_empty() {
            continue;
        }
        netlink.change(message_type, &ifinfomsg(ifindex, 0, 0), |request| {
            request.nested(IFLA_PROP_LIST | NLA_F_NESTED, |request| {
                for name in names {
                    request.attr_str(IFLA_ALT_IFNAME, name);
                }
            });
        })?;
    }
    Ok(())
}

/// RTM_GETLINK for each, without counters unless asked for: few system calls for many. None: there is no such interface.
pub(crate) fn get_each<'a>(
    netlink: &mut Netlink,
    which: impl Iterator<Item = By<'a>> + Clone,
    stats: bool,
) -> Result<Vec<Option<Link>>, Errno> {
    let filter = if stats { 0 } else { libc::RTEXT_FILTER_SKIP_STATS.unsigned_abs() };
    let requests = which.clone().map(|by| {
        let (header, name) = addressed(by);
        let mut request = batch::question(libc::RTM_GETLINK, &header);
        question_about(&mut request, name, filter);
        request
    });
    let answers = match netlink.batch(requests.collect()) {
        // more than the receive buffer has room for, as it is set here
        Err(errno) if is_shortage(errno) => return which.map(|by| get_filtered(netlink, by, filter)).collect(),
        answers => answers?,
    };
    answers
        .into_iter()
        .zip(which)
        .map(|(answer, by)| match answer {
            Err(refusal) if is_shortage(refusal.errno) => get_filtered(netlink, by, filter),
            answer => decode_answer(answer.and_then(|message| message.ok_or_else(|| Errno::EBADMSG.into()))),
        })
        .collect()
}

/// RTM_GETLINK of all interfaces, with counters. `each` is told by None that it starts over.
pub(crate) fn dump(netlink: &mut Netlink, mut each: impl FnMut(Option<Link>)) -> Result<(), Errno> {
    let mut odd = false;
    netlink.dump(
        libc::RTM_GETLINK,
        &ifinfomsg(0, 0, 0),
        |request| {
            request.attr_u32(IFLA_EXT_MASK, 0);
        },
        |message| match message.map(Link::decode) {
            None => each(None),
            Some(Some(link)) => each(Some(link)),
            Some(None) => odd = true,
        },
    )?;
    if odd { Err(Errno::EBADMSG) } else { Ok(()) }
}
