//! What a tap or macvtap is like at one moment: everything that can be read and put back.

use super::fields::{Change, Changes, Fields};
use crate::bridge::port::{self, Port};
use crate::json::json_object;
use crate::kernel::link::{self, By, Link, Tun};
use crate::kernel::netlink::Netlink;
use crate::kernel::tun::TunFlags;
use crate::kernel::tunprops::Offloads;
use crate::kernel::{IfName, features, sysfs, tunprops};
use nix::errno::Errno;
use std::fmt::Debug;
use std::os::fd::BorrowedFd;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Snapshot {
    pub ifindex: i32,
    /// Inode of the device's directory in sysfs, if sysfs showed this namespace.
    pub inode: Option<u64>,
    pub name: String,
    pub altnames: Vec<String>,
    pub mac: Vec<u8>,
    pub mtu: u32,
    pub txqlen: u32,
    pub up: bool,
    pub link_type: u16,
    pub link_group: u32,
    pub alias: Option<String>,
    /// The bridge that it is a port of, and how.
    pub port: Option<Port>,
    /// None for a macvtap.
    pub tap: Option<TapState>,
    /// None for a tap.
    pub macvtap: Option<Macvtap>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TapState {
    pub persist: bool,
    pub owner: Option<u32>,
    pub group: Option<u32>,
    /// [`TunFlags`]: MULTI_QUEUE, VNET_HDR, NO_PI.
    pub flags: u16,
    /// The NAPI ones of [`TunFlags`], if sysfs could be read.
    pub napi: Option<u16>,
    /// None where nobody could read it: it takes an attached queue.
    pub queue: Option<QueueState>,
    pub offloads: Option<u32>,
    /// Those that `ethtool -k` shows as requested. They follow TUNSETOFFLOAD and do nothing by themselves.
    pub offloads_requested: Option<u32>,
}

/// What only an attached queue tells.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct QueueState {
    pub vnet_hdr_size: i32,
    pub vnet_le: i32,
    /// None where the kernel has no CONFIG_TUN_VNET_CROSS_LE.
    pub vnet_be: Option<i32>,
    pub filter_len: u16,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Macvtap {
    pub lower_ifindex: Option<i32>,
    /// In passthru mode the device below has the same MAC, and loses it with the macvtap.
    pub passthru: bool,
    pub lower_mac: Vec<u8>,
}

json_object!(Snapshot { ifindex, inode, name, altnames, mac, mtu, txqlen, up, link_type, link_group, alias, port, tap, macvtap });
json_object!(TapState { persist, owner, group, flags, napi, queue, offloads, offloads_requested });
json_object!(QueueState { vnet_hdr_size, vnet_le, vnet_be, filter_len });
json_object!(Macvtap { lower_ifindex, passthru, lower_mac });

impl Snapshot {
    /// Reads the device behind `link`. What takes an attached queue is read from `queue`, if there is one.
    pub(crate) fn read(netlink: &mut Netlink, link: &Link, queue: Option<BorrowedFd<'_>>) -> Result<Self, Errno> {
        let name = link.name.ok_or(Errno::EILSEQ)?;
        let sysfs = sysfs::tap(link)?;
        let inode = match &sysfs {
            Some(sysfs) => Some(sysfs.inode),
            None => sysfs::inode(link)?,
        };
        let port = port::read(netlink, link).map_err(|e| e.errno())?;
        let macvtap = match link.lower {
            Some(lower) if link.kind.as_deref() == Some("macvtap") => {
                let device = if link.passthru { link::get(netlink, By::Index(lower))? } else { None };
                let lower_mac = device.map(|device| device.mac).unwrap_or_default();
                Some(Macvtap { lower_ifindex: Some(lower), passthru: link.passthru, lower_mac })
            }
            _ => None,
        };
        let features = link.tap().map(|_| features::read(netlink, &name)).transpose()?.flatten();
        let tap = match link.tap() {
            Some(tun) => Some(TapState {
                persist: tun.persist,
                owner: tun.owner,
                group: tun.group,
                flags: flags(tun).bits(),
                napi: sysfs.map(|sysfs| (sysfs.flags & TunFlags::KEPT).bits()),
                queue: queue.map(QueueState::read).transpose()?,
                offloads: features.map(|features| features.on.bits()),
                offloads_requested: features.map(|features| features.requested.bits()),
            }),
            None => None,
        };
        Ok(Self {
            ifindex: link.ifindex,
            inode,
            name: name.to_string(),
            altnames: link.altnames.clone(),
            mac: link.mac.clone(),
            mtu: link.mtu,
            txqlen: link.txqlen,
            up: link.is_up(),
            link_type: link.link_type,
            link_group: link.group,
            alias: link.alias.clone(),
            port,
            tap,
            macvtap,
        })
    }

    pub(crate) fn if_name(&self) -> Option<IfName> {
        IfName::new(self.name.as_bytes()).ok()
    }

    /// The flags to open the device with, for it to have them.
    pub(crate) fn tun_flags(&self) -> TunFlags {
        let bits = self.tap.as_ref().map_or(0, |tap| tap.flags | tap.napi.unwrap_or_default());
        TunFlags::TAP | TunFlags::from_bits_retain(bits)
    }

    /// What is different `now`. What could not be read on either side counts as the same.
    pub(crate) fn changes(&self, now: &Self) -> Vec<Change> {
        let mut all = Changes::default();
        all.compare(Fields::LINK_TYPE, "link type", &self.link_type, &now.link_type, ToString::to_string);
        all.compare(Fields::MAC, "MAC", &self.mac, &now.mac, |mac| show_mac(mac));
        all.compare(Fields::MTU, "MTU", &self.mtu, &now.mtu, ToString::to_string);
        all.compare(Fields::TXQLEN, "txqueuelen", &self.txqlen, &now.txqlen, ToString::to_string);
        all.compare(Fields::UP, "link", &self.up, &now.up, |up| if *up { "up" } else { "down" }.into());
        all.compare(Fields::ALIAS, "alias", &self.alias, &now.alias, show);
        all.compare(Fields::NAME, "name", &self.name, &now.name, Clone::clone);
        all.compare(Fields::LINK_GROUP, "link group", &self.link_group, &now.link_group, ToString::to_string);
        all.compare(Fields::ALTNAMES, "altnames", &self.altnames, &now.altnames, |names| names.join(" "));
        let port = port::changes(self.port.as_ref(), now.port.as_ref());
        all.0.extend(port.into_iter().map(|what| Change::new(Fields::MASTER, what)));
        if let (Some(was), Some(now)) = (&self.macvtap, &now.macvtap) {
            all.compare(Fields::MAC, "MAC of the device below", &was.lower_mac, &now.lower_mac, |mac| show_mac(mac));
        }
        if let (Some(was), Some(now)) = (&self.tap, &now.tap) {
            was.compare(now, &mut all);
        }
        all.0
    }
}

/// The sizes of `struct virtio_net_hdr`, `..._mrg_rxbuf` and `..._v1_hash` (linux/virtio_net.h).
const VIRTIO_NET_HDR_SIZES: [i32; 3] = [10, 12, 20];

impl TapState {
    pub(crate) fn owners_changed(&self, owner: Option<u32>, group: Option<u32>) -> Vec<Change> {
        let mut changes = Changes::default();
        self.compare_owners(owner, group, &mut changes);
        changes.0
    }

    fn compare_owners(&self, owner: Option<u32>, group: Option<u32>, all: &mut Changes) {
        all.compare(Fields::OWNER, "owner", &self.owner, &owner, show);
        all.compare(Fields::GROUP, "group", &self.group, &group, show);
    }

    fn compare(&self, now: &Self, all: &mut Changes) {
        let show_flags = |flags: &u16| format!("0x{flags:04x}");
        all.compare(Fields::PERSIST, "persist flag", &self.persist, &now.persist, ToString::to_string);
        all.compare(Fields::FLAGS, "flags", &self.flags, &now.flags, show_flags).map(Change::make_ordinary);
        self.compare_owners(now.owner, now.group, all);
        if let (Some(was), Some(now)) = (&self.napi, &now.napi) {
            all.compare(Fields::FLAGS, "NAPI flags", was, now, show_flags);
        }
        if let (Some(was), Some(now)) = (&self.offloads, &now.offloads) {
            let change = all.compare(Fields::OFFLOADS, "offloads", was, now, |bits| show_offloads(*bits));
            change.map(Change::make_ordinary);
        }
        if let (Some(was), Some(now)) = (&self.queue, &now.queue) {
            let (size, endian) = (Fields::VNET_HDR_SIZE, Fields::VNET_ENDIAN);
            let change = all.compare(size, "vnet_hdr size", &was.vnet_hdr_size, &now.vnet_hdr_size, ToString::to_string);
            change.filter(|_| VIRTIO_NET_HDR_SIZES.contains(&now.vnet_hdr_size)).map(Change::make_ordinary);
            all.compare(endian, "vnet little-endian", &was.vnet_le, &now.vnet_le, ToString::to_string);
            all.compare(endian, "vnet big-endian", &was.vnet_be, &now.vnet_be, show);
            let show = |len: &u16| format!("of {len} instructions");
            all.compare(Fields::FILTERS, "socket filter", &was.filter_len, &now.filter_len, show);
        }
    }
}

impl QueueState {
    pub(crate) fn read(queue: BorrowedFd<'_>) -> Result<Self, Errno> {
        Ok(Self {
            vnet_hdr_size: tunprops::vnet_hdr_size(queue)?,
            vnet_le: tunprops::vnet_le(queue)?,
            vnet_be: match tunprops::vnet_be(queue) {
                Err(Errno::EINVAL | Errno::ENOTTY) => None,
                result => Some(result?),
            },
            filter_len: tunprops::filter_len(queue)?,
        })
    }
}

fn flags(tun: &Tun) -> TunFlags {
    let mut flags = TunFlags::empty();
    flags.set(TunFlags::MULTI_QUEUE, tun.multi_queue);
    flags.set(TunFlags::VNET_HDR, tun.vnet_hdr);
    flags.set(TunFlags::NO_PI, !tun.pi);
    flags
}

#[allow(clippy::ref_option)] // for Changes::compare()
fn show<T: Debug>(value: &Option<T>) -> String {
    value.as_ref().map_or_else(|| "none".into(), |value| format!("{value:?}"))
}

pub(crate) fn show_mac(mac: &[u8]) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

fn show_offloads(bits: u32) -> String {
    let names: Vec<String> = Offloads::from_bits_truncate(bits).iter_names().map(|(name, _)| name.to_ascii_lowercase()).collect();
    if names.is_empty() { "none".into() } else { names.join("+") }
}
