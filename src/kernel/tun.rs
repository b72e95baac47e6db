//! /dev/net/tun and its ioctls: linux/if_tun.h, drivers/net/tun.c, Documentation/networking/tuntap.rst.

use super::ifname::IfName;
use super::sys::uninterrupted;
use bitflags::bitflags;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open as nix_open};
use nix::sys::stat::Mode;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Queues that a tap can have (`MAX_TAP_QUEUES`, drivers/net/tun.c).
pub(crate) const MAX_QUEUES: usize = 256;

bitflags! {
    /// The flags of TUNSETIFF, TUNGETIFF and of the file `tun_flags` in sysfs.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct TunFlags: u16 {
        const TUN = 0x0001;
        const TAP = 0x0002;
        const NAPI = 0x0010;
        const NAPI_FRAGS = 0x0020;
        /// Only for TUNSETIFF (Linux 5.19): attach without setting the carrier on.
        const NO_CARRIER = 0x0040;
        const MULTI_QUEUE = 0x0100;
        /// Only from TUNGETIFF: this queue is detached.
        const DETACH_QUEUE = 0x0400;
        /// Only from TUNGETIFF and sysfs.
        const PERSIST = 0x0800;
        /// TUNGETIFF shows this bit too where no socket filter is attached (`IFF_NOFILTER`).
        const NO_PI = 0x1000;
        const ONE_QUEUE = 0x2000;
        const VNET_HDR = 0x4000;
        /// Only for TUNSETIFF: fail with EBUSY if the name is taken.
        const TUN_EXCL = 0x8000;
        /// What nobody who opens a tap asks for, so that it stays as the tap's maker set it.
        const KEPT = Self::NAPI.bits() | Self::NAPI_FRAGS.bits() | Self::ONE_QUEUE.bits();
    }
}

/// The `nix` macros make unsafe functions; kept apart so that nothing else can call them. Requests that take their
/// value in place of a pointer (PERSIST, OWNER, GROUP) are `write_int`.
mod raw {
    nix::ioctl_readwrite_bad!(tunsetiff, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_read_bad!(tungetiff, libc::TUNGETIFF, libc::ifreq);
    nix::ioctl_write_int!(tunsetpersist, b'T', 203);
    // its number is that of an int, though it takes an ifreq
    nix::ioctl_write_ptr_bad!(tunsetqueue, nix::request_code_write!(b'T', 217, size_of::<libc::c_int>()), libc::ifreq);
    nix::ioctl_write_ptr!(tunsetifindex, b'T', 218, libc::c_uint);
}

/// Opens the clone device, close-on-exec.
pub(crate) fn open(path: &CStr) -> Result<OwnedFd, Errno> {
    uninterrupted(|| nix_open(path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()))
}

pub(super) fn ifreq(name: &[u8], flags: TunFlags) -> libc::ifreq {
    // SAFETY: ifreq is plain C data, for which all zero bytes are a value: an empty name and no flags
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (target, byte) in request.ifr_name.iter_mut().zip(name) {
        *target = c_char_of(*byte);
    }
    request.ifr_ifru.ifru_flags = flags.bits().cast_signed();
    request
}

#[allow(clippy::cast_possible_wrap, clippy::unnecessary_cast)] // c_char is i8 or u8: the same byte
pub(super) fn c_char_of(byte: u8) -> libc::c_char {
    byte as libc::c_char
}

pub(super) fn name_of(request: &libc::ifreq) -> Result<IfName, Errno> {
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)] // c_char is i8 or u8: the same byte
    let bytes = request.ifr_name.map(|c| c as u8);
    IfName::from_kernel(&bytes).ok_or(Errno::EILSEQ)
}

/// TUNSETIFF: makes the device or attaches to it. Returns the name that the kernel gave.
pub(crate) fn set_iff(fd: BorrowedFd<'_>, name: &IfName, flags: TunFlags) -> Result<IfName, Errno> {
    let mut request = ifreq(name.as_bytes(), flags);
    // SAFETY: TUNSETIFF reads one ifreq and writes it back; `request` is one, and lives until the call is over
    unsafe { raw::tunsetiff(fd.as_raw_fd(), &raw mut request) }?;
    name_of(&request)
}

/// TUNGETIFF: the name and flags of the device that this fd is attached to, else EBADFD. Works for macvtap, too.
pub(crate) fn get_iff(fd: BorrowedFd<'_>) -> Result<(IfName, TunFlags), Errno> {
    let mut request = ifreq(b"", TunFlags::empty());
    // SAFETY: TUNGETIFF writes one ifreq; `request` is one, and lives until the call is over
    unsafe { raw::tungetiff(fd.as_raw_fd(), &raw mut request) }?;
    // SAFETY: the union is plain data; the kernel has written its `flags` member
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok((name_of(&request)?, TunFlags::from_bits_retain(flags.cast_unsigned())))
}

/// TUNSETPERSIST: does the device outlive its last queue?
pub(crate) fn set_persist(fd: BorrowedFd<'_>, persist: bool) -> Result<(), Errno> {
    // SAFETY: TUNSETPERSIST takes its argument by value and touches no memory of ours
    unsafe { raw::tunsetpersist(fd.as_raw_fd(), persist.into()) }.map(drop)
}

/// TUNSETQUEUE with IFF_DETACH_QUEUE: the queue stays, but no frame is sent to it. Multi-queue devices only.
pub(crate) fn detach_queue(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let request = ifreq(b"", TunFlags::DETACH_QUEUE);
    // SAFETY: TUNSETQUEUE reads one ifreq; `request` is one, and lives until the call is over
    unsafe { raw::tunsetqueue(fd.as_raw_fd(), &raw const request) }.map(drop)
}

/// TUNSETIFINDEX: the index that a device to be made by TUNSETIFF on this fd shall have. Attaching to a device that
/// exists ignores it.
pub(crate) fn set_ifindex(fd: BorrowedFd<'_>, ifindex: u32) -> Result<(), Errno> {
    // SAFETY: TUNSETIFINDEX reads one unsigned int through the pointer, which is valid for the call
    unsafe { raw::tunsetifindex(fd.as_raw_fd(), &raw const ifindex) }.map(drop)
}
