//! ethtool: interrupt coalescing (linux/ethtool.h, net/ethtool/ioctl.c).

use super::ifname::IfName;
use super::tun::{TunFlags, ifreq};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

const ETHTOOL_GCOALESCE: u32 = 0x0e;
const ETHTOOL_SCOALESCE: u32 = 0x0f;
const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// The 22 numbers of `struct ethtool_coalesce`, in its order, without the command.
pub type Coalesce = [u32; 22];

#[repr(C)]
struct EthtoolCoalesce {
    cmd: u32,
    values: Coalesce,
}

mod raw {
    nix::ioctl_readwrite_bad!(siocethtool, super::SIOCETHTOOL as libc::Ioctl, libc::ifreq);
}

fn call(socket: BorrowedFd<'_>, name: &IfName, cmd: u32, values: Coalesce) -> Result<Coalesce, Errno> {
    let mut data = EthtoolCoalesce { cmd, values };
    let mut request = ifreq(name.as_bytes(), TunFlags::empty());
    request.ifr_ifru.ifru_data = (&raw mut data).cast();
    // SAFETY: SIOCETHTOOL reads an ifreq, and through it a struct of the size that the command says; both live here
    unsafe { raw::siocethtool(socket.as_raw_fd(), &raw mut request) }?;
    Ok(data.values)
}

/// Reads the coalescing of an interface. `socket` is any socket in its network namespace.
pub(crate) fn get_coalesce(socket: BorrowedFd<'_>, name: &IfName) -> Result<Coalesce, Errno> {
    call(socket, name, ETHTOOL_GCOALESCE, Coalesce::default())
}

/// Sets it. EOPNOTSUPP if a number that the driver knows nothing of is not zero.
pub(crate) fn set_coalesce(socket: BorrowedFd<'_>, name: &IfName, values: Coalesce) -> Result<(), Errno> {
    call(socket, name, ETHTOOL_SCOALESCE, values).map(drop)
}
