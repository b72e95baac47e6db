//! Properties of a tap that an attached queue reads and sets. None of these ioctls asks for a capability, which is why
//! a hypervisor that was handed a queue can change every one of them (`__tun_chr_ioctl()` in drivers/net/tun.c).

use bitflags::bitflags;
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

bitflags! {
    /// TUNSETOFFLOAD: what the process behind the tap can be sent.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Offloads: u32 {
        const CSUM = 0x01;
        const TSO4 = 0x02;
        const TSO6 = 0x04;
        const TSO_ECN = 0x08;
        /// The kernel knows the two only together.
        const USO = 0x20 | 0x40;
        /// Linux 6.17
        const UDP_TUNNEL = 0x80;
        const UDP_TUNNEL_CSUM = 0x100;
    }
}

/// Requests whose value stands in place of the pointer are `write_int`.
mod raw {
    nix::ioctl_write_int!(tunsetowner, b'T', 204);
    nix::ioctl_write_int!(tunsetlink, b'T', 205);
    nix::ioctl_write_int!(tunsetgroup, b'T', 206);
    nix::ioctl_write_int!(tunsetoffload, b'T', 208);
    nix::ioctl_write_ptr_bad!(tunsettxfilter, nix::request_code_write!(b'T', 209, size_of::<u32>()), [u16; 2]);
    nix::ioctl_read!(tungetvnethdrsz, b'T', 215, libc::c_int);
    nix::ioctl_write_ptr!(tunsetvnethdrsz, b'T', 216, libc::c_int);
    nix::ioctl_write_ptr!(tunattachfilter, b'T', 213, libc::sock_fprog);
    nix::ioctl_write_ptr!(tundetachfilter, b'T', 214, libc::sock_fprog);
    nix::ioctl_read!(tungetfilter, b'T', 219, libc::sock_fprog);
    nix::ioctl_write_ptr!(tunsetvnetle, b'T', 220, libc::c_int);
    nix::ioctl_read!(tungetvnetle, b'T', 221, libc::c_int);
    nix::ioctl_write_ptr!(tunsetvnetbe, b'T', 222, libc::c_int);
    nix::ioctl_read!(tungetvnetbe, b'T', 223, libc::c_int);
    // linux/if_tun.h declares these two as reading, but they take a pointer to a program's fd
    nix::ioctl_write_ptr_bad!(tunsetsteeringebpf, nix::request_code_read!(b'T', 224, size_of::<libc::c_int>()), libc::c_int);
    nix::ioctl_write_ptr_bad!(tunsetfilterebpf, nix::request_code_read!(b'T', 225, size_of::<libc::c_int>()), libc::c_int);
    nix::ioctl_none!(tungetdevnetns, b'T', 227);
    nix::ioctl_write_ptr_bad!(siocsifhwaddr, libc::SIOCSIFHWADDR, libc::ifreq);
}

macro_rules! get_int {
    ($(#[$doc:meta])* $name:ident, $raw:ident) => {
        $(#[$doc])*
        pub(crate) fn $name(queue: BorrowedFd<'_>) -> Result<i32, Errno> {
            let mut value = 0;
            // SAFETY: the request writes one int through the pointer, which is valid for the call
            unsafe { raw::$raw(queue.as_raw_fd(), &raw mut value) }?;
            Ok(value)
        }
    };
}
macro_rules! set_int {
    ($(#[$doc:meta])* $name:ident, $raw:ident) => {
        $(#[$doc])*
        pub(crate) fn $name(queue: BorrowedFd<'_>, value: i32) -> Result<(), Errno> {
            // SAFETY: the request reads one int through the pointer, which is valid for the call
            unsafe { raw::$raw(queue.as_raw_fd(), &raw const value) }.map(drop)
        }
    };
}
macro_rules! set_value {
    ($(#[$doc:meta])* $name:ident, $raw:ident) => {
        $(#[$doc])*
        pub(crate) fn $name(queue: BorrowedFd<'_>, value: u32) -> Result<(), Errno> {
            // SAFETY: the request takes its argument by value and touches no memory of ours
            unsafe { raw::$raw(queue.as_raw_fd(), value.into()) }.map(drop)
        }
    };
}

get_int!(
    /// Size of the virtio_net_hdr before each frame, in bytes.
    vnet_hdr_size, tungetvnethdrsz
);
set_int!(set_vnet_hdr_size, tunsetvnethdrsz);
get_int!(
    /// 1: the virtio_net_hdr is little-endian whatever the host is.
    vnet_le, tungetvnetle
);
set_int!(set_vnet_le, tunsetvnetle);
get_int!(
    /// EINVAL where the kernel has no CONFIG_TUN_VNET_CROSS_LE.
    vnet_be, tungetvnetbe
);
set_int!(set_vnet_be, tunsetvnetbe);
set_value!(
    /// TUNSETOWNER. "Nobody in particular" cannot be set: EINVAL.
    set_owner, tunsetowner
);
set_value!(set_group, tunsetgroup);
set_value!(
    /// TUNSETLINK: the link type ARPHRD_*; EBUSY while the device is up.
    set_link_type, tunsetlink
);

pub(crate) fn set_offloads(queue: BorrowedFd<'_>, offloads: Offloads) -> Result<(), Errno> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value and touches no memory of ours
    unsafe { raw::tunsetoffload(queue.as_raw_fd(), offloads.bits().into()) }.map(drop)
}

/// Number of instructions of the socket filter that was attached last, even if it was detached since (TUNGETFILTER).
pub(crate) fn filter_len(queue: BorrowedFd<'_>) -> Result<u16, Errno> {
    let mut program = libc::sock_fprog { len: 0, filter: std::ptr::null_mut() };
    // SAFETY: TUNGETFILTER writes one sock_fprog; the pointer in it is the other process's, and never followed
    unsafe { raw::tungetfilter(queue.as_raw_fd(), &raw mut program) }?;
    Ok(program.len)
}

/// Takes away everything that filters or steers frames and cannot be read: the MAC filter, the socket filter, and both
/// eBPF programs. What this kernel does not have is not there to be taken away.
///
/// Detaching the socket filter leaves its length and its address behind; attaching an empty one overwrites both, and fails.
pub(crate) fn clear_filters(queue: BorrowedFd<'_>) -> Result<(), Errno> {
    let fd = queue.as_raw_fd();
    let no_filter = NO_FILTER.as_ptr().cast::<libc::sock_fprog>();
    // SAFETY: struct tun_filter is two u16, flags and count, and then `count` addresses: none
    let tx = unsafe { raw::tunsettxfilter(fd, &raw const EMPTY_TX_FILTER) };
    // SAFETY: TUNATTACHFILTER reads one sock_fprog, and no instruction behind it, since there is none
    let _ = unsafe { raw::tunattachfilter(fd, no_filter) };
    // SAFETY: TUNDETACHFILTER does not look at its argument, which is valid for the call all the same
    let socket = unsafe { raw::tundetachfilter(fd, no_filter) };
    // SAFETY: reads one int through the pointer, which is valid for the call
    let filter = unsafe { raw::tunsetfilterebpf(fd, &raw const NO_PROGRAM) };
    // SAFETY: as above
    let steering = unsafe { raw::tunsetsteeringebpf(fd, &raw const NO_PROGRAM) };
    for result in [tx, socket, filter, steering] {
        match result {
            Ok(_) | Err(Errno::EINVAL | Errno::ENOTTY) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

static EMPTY_TX_FILTER: [u16; 2] = [0, 0];
static NO_PROGRAM: libc::c_int = -1;
/// A sock_fprog without instructions, of which the bytes between its members are zero, too.
static NO_FILTER: [usize; 2] = [0; 2];
const _: () = assert!(size_of::<libc::sock_fprog>() == size_of_val(&NO_FILTER));

/// SIOCSIFHWADDR on the queue itself, which takes no capability.
pub(crate) fn set_mac(queue: BorrowedFd<'_>, link_type: u16, mac: [u8; 6]) -> Result<(), Errno> {
    let mut request = super::tun::ifreq(b"", super::tun::TunFlags::empty());
    let mut address = libc::sockaddr { sa_family: link_type, sa_data: [0; 14] };
    for (target, byte) in address.sa_data.iter_mut().zip(mac) {
        *target = super::tun::c_char_of(byte);
    }
    request.ifr_ifru.ifru_hwaddr = address;
    // SAFETY: SIOCSIFHWADDR reads one ifreq; `request` is one, and lives until the call is over
    unsafe { raw::siocsifhwaddr(queue.as_raw_fd(), &raw const request) }.map(drop)
}

/// The network namespace that the device is in now (TUNGETDEVNETNS, Linux 5.2). Takes CAP_NET_ADMIN there.
pub(crate) fn device_netns(queue: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // SAFETY: TUNGETDEVNETNS takes no argument
    let fd = unsafe { raw::tungetdevnetns(queue.as_raw_fd()) }?;
    // SAFETY: the kernel has just made this close-on-exec file for us (open_related_ns())
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
