//! /sys/class/net: what netlink does not tell about a tap.

use super::link::Link;
use super::sys::{io_errno, read_small};
use super::tun::TunFlags;
use nix::errno::Errno;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What sysfs knows of a tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SysfsTap {
    /// The inode of /sys/class/net/NAME/, which no other device has in this boot; it stays when the device is renamed.
    pub inode: u64,
    /// All flags, NAPI ones included, which only this file shows before one attaches.
    pub flags: TunFlags,
}

/// Reads the directory of a tap. /sys shows the network namespace of whoever mounted it: None if it does not show
/// this very device, or shows nothing to the caller.
pub(crate) fn tap(link: &Link) -> Result<Option<SysfsTap>, Errno> {
    let (Some(flags), Some(dir)) = (flags(link)?, path(link)) else { return Ok(None) };
    Ok(inode_of(&dir)?.map(|inode| SysfsTap { inode, flags }))
}

/// The flags of a tap, by the same rule.
pub(crate) fn flags(link: &Link) -> Result<Option<TunFlags>, Errno> {
    if dir(link)?.is_some() { likely_flags(link) } else { Ok(None) }
}

/// The flags of a tap, or of one of the same name in another namespace that differs at most in its NAPI flags.
pub(crate) fn likely_flags(link: &Link) -> Result<Option<TunFlags>, Errno> {
    let (Some(tun), Some(path)) = (link.tap(), path(link)) else { return Ok(None) };
    let mut buffer = [0; 32];
    let text = if_shown(read_small(&path.join("tun_flags"), &mut buffer))?;
    let flags = text.and_then(|text| u16::from_str_radix(text.strip_prefix("0x")?, 16).ok()).map(TunFlags::from_bits_retain);
    let Some(flags) = flags else { return Ok(None) };
    let same = flags.contains(TunFlags::PERSIST) == tun.persist
        && flags.contains(TunFlags::MULTI_QUEUE) == tun.multi_queue
        && flags.contains(TunFlags::VNET_HDR) == tun.vnet_hdr
        && flags.contains(TunFlags::NO_PI) != tun.pi;
    Ok(same.then_some(flags))
}

/// The inode of the directory of any kind of interface.
pub(crate) fn inode(link: &Link) -> Result<Option<u64>, Errno> {
    dir(link)?.map_or(Ok(None), |dir| inode_of(&dir))
}

fn inode_of(dir: &Path) -> Result<Option<u64>, Errno> {
    if_shown(fs::metadata(dir).map(|metadata| metadata.ino()).map_err(io_errno))
}

/// None: sysfs has no such thing, at least not for us, or not any more. Anything else that goes wrong is no reason to
/// think so.
fn if_shown<T>(result: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match result {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES | Errno::EPERM | Errno::EINVAL | Errno::ENODEV) => Ok(None),
        result => result.map(Some),
    }
}

/// The directory, if it shows a device with the right MAC.
fn dir(link: &Link) -> Result<Option<PathBuf>, Errno> {
    let Some(dir) = path(link) else { return Ok(None) };
    let mut buffer = [0; 128];
    let Some(address) = if_shown(read_small(&dir.join("address"), &mut buffer))? else { return Ok(None) };
    let mac: Option<Vec<u8>> = address.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    Ok((mac.as_ref() == Some(&link.mac)).then_some(dir))
}

fn path(link: &Link) -> Option<PathBuf> {
    Some(PathBuf::from("/sys/class/net").join(link.name?.as_str()))
}
