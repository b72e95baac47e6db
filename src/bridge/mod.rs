//! Bridge ports: plugging a tap into a Linux bridge, Open vSwitch or midonet, moving it, and making it there.
//!
//! Each call does all that it is asked for, or nothing: on failure the tap is where it was and as it was, and so is
//! the bridge. `port` remembers everything about a port, for the way back. Making the tap itself belongs to `tap`.

mod attach;
mod command;
mod create;
mod device;
mod midonet;
mod openvswitch;
mod plug;
pub(crate) mod port;
mod vlan;

pub use attach::{attach, reattach};
pub use create::{Created, create};
pub use openvswitch::OvsConfig;
pub use vlan::{NativeMode, VlanConfig};

pub use crate::kernel::ethtool::Coalesce;

use crate::kernel::IfName;

/// What a tap is to be plugged into, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortConfig {
    pub bridge: IfName,
    pub switch: Switch,
    /// None: the bridge's.
    pub mtu: Option<u32>,
}

/// The kind of a bridge, and what only that kind knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Switch {
    Linux {
        vlan: Option<VlanConfig>,
        isolated: bool,
    },
    OpenVswitch(OvsConfig),
    /// The id of the virtual port.
    Midonet([u8; 16]),
}

fn hex(bytes: &[u8]) -> Vec<String> {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn mac_text(mac: &[u8]) -> String {
    hex(mac).join(":")
}

fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = hex(bytes).concat();
    for at in [8, 13, 18, 23] {
        text.insert(at, '-');
    }
    text
}
