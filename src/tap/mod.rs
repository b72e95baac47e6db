//! Tap devices: create, open, delete, their names and holders.
//!
//! Everything acts on the device: a name is looked up once, and from then on an open queue or the interface index says
//! which device is meant. What a tap is put back to after a guest had it, and bridges, are no business of this module.

mod create;
mod delete;
mod delete_list;
mod names;
pub(crate) mod open;
mod persist;
pub(crate) mod wait;

pub use create::{CreateFlags, Tap, create};
pub use delete::delete;
pub(crate) use delete::delete_device;
pub use delete_list::delete_list;
pub(crate) use delete_list::{Doomed, delete_each};
pub use names::{NameRequest, Template, interface_name, reserve};
pub use persist::{get_persist, set_persist};

pub use crate::kernel::procfs::Holder;

use crate::error::{Context, Error, Result};
use crate::kernel::IfName;
use crate::kernel::link::{self, By, Link};
use crate::kernel::netlink::Netlink;
use crate::kernel::{procfs, tun};
use nix::errno::Errno;
use std::ffi::CStr;
use std::os::fd::BorrowedFd;

/// The clone device that taps are made with unless the caller names another.
pub const DEFAULT_TUNPATH: &CStr = c"/dev/net/tun";

/// The name of the tap, or macvtap, that a file is attached to.
pub fn name_of(queue: BorrowedFd<'_>) -> Result<IfName> {
    tun::get_iff(queue).map(|(name, _)| name).context(|| "Unable to query tap interface name".into())
}

/// The processes in this network namespace that hold a tap open, ordered by pid, as far as the caller may see them.
/// A file that is in flight in a socket, or that only the kernel holds, has no process to be shown.
pub fn holders(name: &IfName) -> Result<Vec<Holder>> {
    let failed = || format!("Unable to find the holders of {name}");
    let mut netlink = Netlink::open().context(failed)?;
    let link = existing_tap(&mut netlink, By::Name(name), name, failed)?;
    procfs::holders(&link.name.unwrap_or(*name)).context(failed)
}

/// Looks up a device that has to be there and has to be a tap; `name` is for the texts.
fn existing_tap(netlink: &mut Netlink, by: By<'_>, name: &IfName, failed: impl Fn() -> String) -> Result<Link> {
    let link = link::get(netlink, by).context(&failed)?;
    let link = link.ok_or_else(|| Error::system(Errno::ENODEV, failed()))?;
    require_tap(&link, name, &failed)?;
    Ok(link)
}

/// Refuses devices of another kind, saying what they are.
fn require_tap(link: &Link, name: &IfName, failed: impl Fn() -> String) -> Result<()> {
    if link.tap().is_some() {
        return Ok(());
    }
    let text = format!("{}, {name} is a {} device, not a tap", failed(), link.describe());
    Err(Error::system(Errno::EINVAL, text))
}
