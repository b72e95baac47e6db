//! ETHTOOL_GFEATURES: the only way to read what TUNSETOFFLOAD has set; ETHTOOL_SFEATURES. See linux/ethtool.h.

use super::ifname::IfName;
use super::netlink::Netlink;
use super::tunprops::Offloads;
use nix::errno::Errno;
use once_cell::race::OnceBox;
use std::os::fd::AsRawFd;

const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;
const ETH_GSTRING_LEN: usize = 32;

mod raw {
    nix::ioctl_readwrite_bad!(siocethtool, libc::SIOCETHTOOL, libc::ifreq);
}

/// The names that the kernel has for the offloads of a tap (`netdev_features_strings`, net/ethtool/common.c).
const NAMES: [(&[u8], Offloads); 7] = [
    (b"tx-checksum-ip-generic", Offloads::CSUM),
    (b"tx-tcp-segmentation", Offloads::TSO4),
    (b"tx-tcp6-segmentation", Offloads::TSO6),
    (b"tx-tcp-ecn-segmentation", Offloads::TSO_ECN),
    (b"tx-udp-segmentation", Offloads::USO),
    (b"tx-udp_tnl-segmentation", Offloads::UDP_TUNNEL),
    (b"tx-udp_tnl-csum-segmentation", Offloads::UDP_TUNNEL_CSUM),
];

/// Where the features are in this kernel's bit set.
#[derive(Debug)]
pub(crate) struct Layout {
    words: usize,
    bits: Vec<(usize, Offloads)>,
}

/// The offloads of a tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Features {
    pub on: Offloads,
    /// Those that the administrator does not mind: all of a new tap's. TUNSETOFFLOAD overwrites it, too.
    pub requested: Offloads,
}

fn cached_layout(netlink: &Netlink, name: &IfName) -> Result<&'static Layout, Errno> {
    static LAYOUT: OnceBox<Layout> = OnceBox::new(); // does not change while the kernel runs
    LAYOUT.get_or_try_init(|| layout(netlink, name).map(Box::new))
}

/// None: it is not for us to see, or the name is another's by now.
pub(crate) fn read(netlink: &Netlink, name: &IfName) -> Result<Option<Features>, Errno> {
    match try_read(netlink, name) {
        Err(Errno::EOPNOTSUPP | Errno::EPERM | Errno::EACCES | Errno::ENODEV) => Ok(None),
        result => result.map(Some),
    }
}

fn try_read(netlink: &Netlink, name: &IfName) -> Result<Features, Errno> {
    let layout = cached_layout(netlink, name)?;
    // struct ethtool_gfeatures: cmd, size, then per 32 features: available, requested, active, never_changed
    let mut request = vec![0_u32; layout.words.saturating_mul(4).saturating_add(2)];
    put(&mut request, &[ETHTOOL_GFEATURES, u32::try_from(layout.words).unwrap_or_default()]);
    ethtool(netlink, name, &mut request)?;
    Ok(layout.read(&request))
}

impl Layout {
    /// Out of the strings of the string set ETH_SS_FEATURES.
    pub(crate) fn decode(strings: &[u8]) -> Self {
        let strings = strings.chunks_exact(ETH_GSTRING_LEN);
        let words = strings.len().div_ceil(32);
        let bits = strings.enumerate().filter_map(|(bit, text)| {
            let text = text.split(|b| *b == 0).next()?;
            NAMES.iter().find(|(name, _)| *name == text).map(|(_, offload)| (bit, *offload))
        });
        Self { words, bits: bits.collect() }
    }

    /// Out of `struct ethtool_gfeatures`.
    pub(crate) fn read(&self, answer: &[u32]) -> Features {
        let those_in = |word: usize| {
            let set =
                |bit: usize| answer.get((bit / 32).saturating_mul(4).saturating_add(word)).is_some_and(|w| w & mask(bit) != 0);
            self.bits.iter().filter(|(bit, _)| set(*bit)).fold(Offloads::empty(), |all, (_, offload)| all | *offload)
        };
        Features { requested: those_in(3), on: those_in(4) }
    }
}

/// Sets which offloads the administrator does not mind. Takes CAP_NET_ADMIN.
pub(crate) fn request(netlink: &Netlink, name: &IfName, requested: Offloads) -> Result<(), Errno> {
    let layout = cached_layout(netlink, name)?;
    // struct ethtool_sfeatures: cmd, size, then per 32 features: valid, requested
    let mut request = vec![0_u32; layout.words.saturating_mul(2).saturating_add(2)];
    put(&mut request, &[ETHTOOL_SFEATURES, u32::try_from(layout.words).unwrap_or_default()]);
    for (bit, offload) in &layout.bits {
        let block = request.iter_mut().skip((bit / 32).saturating_mul(2).saturating_add(2));
        for (word, wanted) in block.zip([true, requested.contains(*offload)]) {
            *word |= if wanted { mask(*bit) } else { 0 };
        }
    }
    ethtool(netlink, name, &mut request)
}

/// The bit in its word.
fn mask(bit: usize) -> u32 {
    1_u32.checked_shl(u32::try_from(bit % 32).unwrap_or_default()).unwrap_or_default()
}

fn layout(netlink: &Netlink, name: &IfName) -> Result<Layout, Errno> {
    // struct ethtool_sset_info: cmd, reserved, u64 mask, u32 data[]
    let mut info = vec![0_u32; 5];
    put(&mut info, &[ETHTOOL_GSSET_INFO]);
    let mask = 1_u64 << ETH_SS_FEATURES;
    for (target, half) in info.iter_mut().skip(2).zip(mask.to_ne_bytes().as_chunks::<4>().0) {
        *target = u32::from_ne_bytes(*half);
    }
    ethtool(netlink, name, &mut info)?;
    let count =
        info.get(4).and_then(|count| usize::try_from(*count).ok()).filter(|count| *count <= 4096).ok_or(Errno::EBADMSG)?;

    // struct ethtool_gstrings: cmd, string_set, len, then len strings of 32 bytes
    let mut strings = vec![0_u32; count.saturating_mul(ETH_GSTRING_LEN / 4).saturating_add(3)];
    put(&mut strings, &[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, u32::try_from(count).unwrap_or_default()]);
    ethtool(netlink, name, &mut strings)?;
    let bytes: Vec<u8> = strings.iter().skip(3).flat_map(|word| word.to_ne_bytes()).collect();
    Ok(Layout::decode(&bytes))
}

fn put(buffer: &mut [u32], head: &[u32]) {
    for (target, value) in buffer.iter_mut().zip(head) {
        *target = *value;
    }
}

/// SIOCETHTOOL, which every kind of socket takes (`sock_do_ioctl()`, net/socket.c).
fn ethtool(netlink: &Netlink, name: &IfName, command: &mut [u32]) -> Result<(), Errno> {
    let mut request = super::tun::ifreq(name.as_bytes(), super::tun::TunFlags::empty());
    request.ifr_ifru.ifru_data = command.as_mut_ptr().cast();
    // SAFETY: the kernel writes as much behind ifru_data as the command's own counts say, for which its maker left room
    unsafe { raw::siocethtool(netlink.socket().as_raw_fd(), &raw mut request) }.map(drop)
}
