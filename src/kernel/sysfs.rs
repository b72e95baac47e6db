//! /sys/class/net: what netlink does not tell about a tap.

use super::link::Link;
use super::sys::read_small;
use super::tun::TunFlags;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// What sysfs knows of a tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SysfsTap {
    /// The inode of /sys/class/net/NAME/, which no other device has in this boot; it stays when the device is renamed.
    pub inode: u64,
    /// All flags, NAPI ones included, which only this file shows before one attaches.
    pub flags: TunFlags,
}

/// Reads the directory of a tap. /sys shows the network namespace of whoever mounted it: None if it does not show
/// this very device.
pub(crate) fn tap(link: &Link) -> Option<SysfsTap> {
    let flags = flags(link)?;
    Some(SysfsTap { inode: fs::metadata(path(link)?).ok()?.ino(), flags })
}

/// The flags of a tap, by the same rule.
pub(crate) fn flags(link: &Link) -> Option<TunFlags> {
    dir(link)?;
    likely_flags(link)
}

/// The flags of a tap, or of one of the same name in another namespace that differs at most in its NAPI flags.
pub(crate) fn likely_flags(link: &Link) -> Option<TunFlags> {
    let tun = link.tap()?;
    let mut buffer = [0; 32];
    let flags = read_small(&path(link)?.join("tun_flags"), &mut buffer).ok()?;
    let flags = TunFlags::from_bits_retain(u16::from_str_radix(flags.strip_prefix("0x")?, 16).ok()?);
    let same = flags.contains(TunFlags::PERSIST) == tun.persist
        && flags.contains(TunFlags::MULTI_QUEUE) == tun.multi_queue
        && flags.contains(TunFlags::VNET_HDR) == tun.vnet_hdr
        && flags.contains(TunFlags::NO_PI) != tun.pi;
    same.then_some(flags)
}

/// The inode of the directory of any kind of interface.
pub(crate) fn inode(link: &Link) -> Option<u64> {
    Some(fs::metadata(dir(link)?).ok()?.ino())
}

/// The directory, if it shows a device with the right MAC.
fn dir(link: &Link) -> Option<PathBuf> {
    let dir = path(link)?;
    let mut buffer = [0; 128];
    let address = read_small(&dir.join("address"), &mut buffer).ok()?;
    let mac: Option<Vec<u8>> = address.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    (mac? == link.mac).then_some(dir)
}

fn path(link: &Link) -> Option<PathBuf> {
    Some(PathBuf::from("/sys/class/net").join(link.name?.as_str()))
}
