//! The counters of an interface.

use super::attr::{self, u64_at};
use super::ifname::IfName;
use super::names;
use super::netlink::{Netlink, Refusal};
use nix::errno::Errno;

/// The counters of `struct rtnl_link_stats64` that /proc/net/dev shows in the columns of the same names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    /// Dropped and missed packets together, as in /proc/net/dev.
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

impl Stats {
    /// `struct rtnl_link_stats64`: u64 rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped,
    /// tx_dropped, ..., rx_missed_errors as the sixteenth.
    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        const RX_MISSED: usize = 15;
        let field = |index: usize| u64_at(value, index.checked_mul(8)?);
        Some(Self {
            rx_packets: field(0)?,
            tx_packets: field(1)?,
            rx_bytes: field(2)?,
            tx_bytes: field(3)?,
            rx_errors: field(4)?,
            tx_errors: field(5)?,
            rx_dropped: field(6)?.saturating_add(field(RX_MISSED)?),
            tx_dropped: field(7)?,
        })
    }
}

const IF_STATS_MSG: usize = 12;
const IFLA_STATS_LINK_64: u16 = 1;

/// `struct if_stats_msg`: u8 family, three of padding, u32 ifindex, u32 filter_mask. Index 0: all.
fn if_stats_msg(ifindex: i32) -> Vec<u8> {
    let filter = 1_u32 << (IFLA_STATS_LINK_64 - 1);
    [[0; 4], ifindex.to_ne_bytes(), filter.to_ne_bytes()].concat()
}

pub(crate) fn decode(message: &[u8]) -> Option<Stats> {
    Stats::decode(attr::find(message.get(IF_STATS_MSG..)?, IFLA_STATS_LINK_64)?)
}

/// The counters of the interface with exactly this name: SIOCGIFINDEX and RTM_GETSTATS, which together take half as long as
/// RTM_GETLINK with its hundred other attributes. None: there is none.
pub(crate) fn get(netlink: &mut Netlink, name: &IfName) -> Result<Option<Stats>, Errno> {
    let index = match names::index_of(netlink, name) {
        Err(Errno::ENODEV) => return Ok(None),
        result => result?,
    };
    let answer = match netlink.get(libc::RTM_GETSTATS, &if_stats_msg(index), |_| {}) {
        Err(Refusal { errno: Errno::ENODEV, .. }) => return Ok(None),
        result => result?,
    };
    // SIOCGIFINDEX takes alternative names, too, and an interface may be renamed at any time
    let same = match names::name_of(netlink, index) {
        Err(Errno::ENODEV | Errno::EILSEQ) => false, // gone, or has a name that nobody can ask for
        now => now? == *name,
    };
    if same { decode(&answer).map(Some).ok_or(Errno::EBADMSG) } else { Ok(None) }
}

/// RTM_GETSTATS of all interfaces, by index. `each` is told by None that it starts over.
pub(crate) fn dump(netlink: &mut Netlink, mut each: impl FnMut(Option<(i32, Stats)>)) -> Result<(), Errno> {
    let mut odd = false;
    netlink.dump(
        libc::RTM_GETSTATS,
        &if_stats_msg(0),
        |_| {},
        |message| match message.map(|message| attr::i32_at(message, 4).zip(decode(message))) {
            None => each(None),
            Some(Some(interface)) => each(Some(interface)),
            Some(None) => odd = true,
        },
    )?;
    if odd { Err(Errno::EBADMSG) } else { Ok(()) }
}
