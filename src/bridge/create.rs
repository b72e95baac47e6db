//! Making a tap that is a port of a bridge from the start.

use super::plug::{Extra, Plug, Target};
use super::{Coalesce, PortConfig, attach};
use crate::error::{Context, Error, Result};
use crate::host::warning;
use crate::kernel::IfName;
use crate::kernel::ethtool;
use crate::kernel::link::{self, By, Link};
use crate::kernel::names;
use crate::kernel::netlink::Netlink;
use crate::tap::{self, CreateFlags, DEFAULT_TUNPATH, NameRequest, Tap};
use nix::errno::Errno;
use std::ffi::CStr;
use std::os::fd::AsFd;

/// `ETH_DATA_LEN`, with which tun makes its devices (`tun_net_init()`).
const NEW_MTU: u32 = 1500;

/// A tap in its bridge port.
#[derive(Debug)]
pub struct Created {
    pub tap: Tap,
    pub mtu: u32,
    /// As the kernel has them, if they were to be set.
    pub coalesce: Option<Coalesce>,
}

/// Creates or opens a tap as [`tap::create`] does and puts it on a bridge, down or up.
///
/// Without a MAC the kernel's own is taken. The first byte becomes 0xfe, or 0xfa if it is that already, unless `flags`
/// say to use it as it is: the bridge takes the lowest address of its ports, and the guest's shall never be it.
pub fn create(
    name: &NameRequest,
    mac: Option<[u8; 6]>,
    tunpath: Option<&CStr>,
    queues: usize,
    flags: CreateFlags,
    config: &PortConfig,
    coalesce: Option<&Coalesce>,
) -> Result<Created> {
    if queues == 0 && !flags.contains(CreateFlags::PERSIST) {
        return Err(Error::argument("a tap device without a queue has to be persistent"));
    }
    let mut netlink = attach::open("of a new tap device", &config.bridge)?;
    let target = Target::find(&mut netlink, config, "of a new tap device")?;
    let mut tap = tap::create(name, tunpath, queues.max(1), flags)?; // the queue is the way back
    match plug(netlink, &tap, mac, flags, &target, coalesce) {
        Ok(coalesce) => {
            if queues == 0 {
                tap.close_queues();
            }
            Ok(Created { tap, mtu: target.mtu, coalesce })
        }
        Err(e) => {
            match Netlink::open() {
                Ok(mut netlink) => tap.undo(&mut netlink, tunpath.unwrap_or(DEFAULT_TUNPATH)),
                Err(errno) => warning!("{}: cannot be taken back: {errno}", tap.name()),
            }
            Err(e)
        }
    }
}

fn plug(
    mut netlink: Netlink,
    tap: &Tap,
    mac: Option<[u8; 6]>,
    flags: CreateFlags,
    target: &Target<'_>,
    coalesce: Option<&Coalesce>,
) -> Result<Option<Coalesce>> {
    let name = tap.name();
    let failed = || format!("Unable to find tap device {name}");
    let link = if tap.is_new() && mac.is_some() { new_link(&netlink, name) } else { link::get(&mut netlink, By::Name(name)) };
    let link = link.context(failed)?.filter(|_| tap.is_named(name)).ok_or_else(|| {
        Error::system(Errno::EAGAIN, format!("{}, it was renamed meanwhile", failed())) // by udev, say
    })?;
    let mut mac = mac.or_else(|| link.mac.as_slice().try_into().ok());
    if let Some([first, ..]) = &mut mac
        && !flags.contains(CreateFlags::USE_MAC_FOR_BRIDGE)
    {
        *first = if *first == 0xfe { 0xfa } else { 0xfe };
    }
    let extra = Extra { mac, up: Some(flags.contains(CreateFlags::IFUP)) };

    let mut plug = Plug::start(netlink, link, target)?;
    plug.require_free()?;
    let Some(wanted) = coalesce else {
        plug.or_put_back(|plug| plug.join(extra))?;
        return Ok(None);
    };
    let before = get_coalesce(&plug.netlink, tap)?;
    set_coalesce(&plug.netlink, tap, wanted)?;
    let result = get_coalesce(&plug.netlink, tap).and_then(|now| {
        plug.or_put_back(|plug| plug.join(extra))?;
        Ok(Some(now))
    });
    if result.is_err()
        && let Err(e) = set_coalesce(&plug.netlink, tap, &before)
    {
        warning!("{e}");
    }
    result
}

/// What has to be known of a tap that was made just now; half of what it takes to ask for everything.
fn new_link(netlink: &Netlink, name: &IfName) -> std::result::Result<Option<Link>, Errno> {
    match names::index_of(netlink, name) {
        Ok(ifindex) => Ok(Some(Link { ifindex, name: Some(*name), mtu: NEW_MTU, ..Link::default() })),
        Err(Errno::ENODEV) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Names of the numbers, in their order in `struct ethtool_coalesce`.
const COALESCE_NAMES: [&str; 22] = [
    "rx_coalesce_usecs",
    "rx_max_coalesced_frames",
    "rx_coalesce_usecs_irq",
    "rx_max_coalesced_frames_irq",
    "tx_coalesce_usecs",
    "tx_max_coalesced_frames",
    "tx_coalesce_usecs_irq",
    "tx_max_coalesced_frames_irq",
    "stats_block_coalesce_usecs",
    "use_adaptive_rx_coalesce",
    "use_adaptive_tx_coalesce",
    "pkt_rate_low",
    "rx_coalesce_usecs_low",
    "rx_max_coalesced_frames_low",
    "tx_coalesce_usecs_low",
    "tx_max_coalesced_frames_low",
    "pkt_rate_high",
    "rx_coalesce_usecs_high",
    "rx_max_coalesced_frames_high",
    "tx_coalesce_usecs_high",
    "tx_max_coalesced_frames_high",
    "rate_sample_interval",
];
/// The only one that a tap has (`tun_ethtool_ops` in drivers/net/tun.c).
const OF_A_TAP: &str = "rx_max_coalesced_frames";

fn get_coalesce(netlink: &Netlink, tap: &Tap) -> Result<Coalesce> {
    let name = tap.name();
    ethtool::get_coalesce(netlink.socket().as_fd(), name).context(|| format!("Cannot get coalesce info on '{name}'"))
}

fn set_coalesce(netlink: &Netlink, tap: &Tap, values: &Coalesce) -> Result<()> {
    let name = tap.name();
    ethtool::set_coalesce(netlink.socket().as_fd(), name, *values).map_err(|errno| {
        let mut text = format!("Cannot set coalesce info on '{name}'");
        if errno == Errno::EOPNOTSUPP {
            let refused = COALESCE_NAMES.iter().zip(values).filter(|(name, value)| **value != 0 && **name != OF_A_TAP);
            let refused: Vec<_> = refused.map(|(name, _)| *name).collect();
            text = format!("{text}, a tap has no {}", refused.join(", "));
        }
        Error::system(errno, text)
    })
}
