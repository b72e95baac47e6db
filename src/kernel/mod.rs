//! The Linux interfaces that the library stands on: one small safe function for each ioctl, netlink message or file.
//!
//! Nothing here decides anything: functions do one thing and return the kernel's answer. What an errno means for the
//! caller, what is tried next and what is told to the user belongs to the modules above.
#![allow(unsafe_code)] // ioctls and system calls without a safe wrapper in `nix`; each one states why it is right

pub(crate) mod attr;
pub(crate) mod batch;
pub(crate) mod bridge;
pub(crate) mod counters;
pub(crate) mod ethtool;
pub(crate) mod features;
mod ifname;
pub(crate) mod link;
pub(crate) mod link_group;
pub(crate) mod names;
pub(crate) mod netlink;
pub(crate) mod netns;
pub(crate) mod pidfd;
pub(crate) mod process;
pub(crate) mod procfs;
pub(crate) mod removal;
mod spawn;
pub(crate) mod sys;
pub(crate) mod sysfs;
pub(crate) mod tun;
pub(crate) mod tunprops;
#[cfg(feature = "preload")]
pub(crate) mod wake;
pub(crate) mod watch;

pub(crate) use ifname::MAX_LEN as MAX_NAME_LEN;
pub use ifname::{IfName, InvalidIfName};
