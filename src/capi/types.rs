//! libvirt's types, with its names and layout, and ours.

use libc::{c_char, c_int, c_longlong, c_uchar, c_uint, c_void};

/// What virNetDevTapCreate() and virNetDevTapCreateInBridgePort() shall do.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(clippy::enum_variant_names)] // libvirt's
pub enum virNetDevTapCreateFlags {
    VIR_NETDEV_TAP_CREATE_NONE = 0,
    /// Bring the interface up (only in a bridge port; else ignored)
    VIR_NETDEV_TAP_CREATE_IFUP = 1 << 0,
    /// Enable IFF_VNET_HDR: a virtio_net_hdr before each frame
    VIR_NETDEV_TAP_CREATE_VNET_HDR = 1 << 1,
    /// Use the MAC address as given, not the one derived from it (only in a bridge port; else ignored)
    VIR_NETDEV_TAP_CREATE_USE_MAC_FOR_BRIDGE = 1 << 2,
    /// The device outlives the process: IFF_PERSIST
    VIR_NETDEV_TAP_CREATE_PERSIST = 1 << 3,
    /// The device may exist already: then it is opened
    VIR_NETDEV_TAP_CREATE_ALLOW_EXISTING = 1 << 4,
}

/// A MAC address.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct virMacAddr {
    pub addr: [c_uchar; 6],
}

/// libvirt's three-valued bool.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum virTristateBool {
    VIR_TRISTATE_BOOL_ABSENT = 0,
    VIR_TRISTATE_BOOL_YES = 1,
    VIR_TRISTATE_BOOL_NO = 2,
}

/// A virTristateBool from C, which may have any value.
pub type virTristateBoolArg = c_uint;

/// `bool` as an argument that callers made for libvirt before 10.8.0 do not pass: any byte may be in its place.
pub type boolArg = u8;

/// The `<virtualport>` of a libvirt interface. virtPortType: 0 none, 1 802.1Qbg, 2 802.1Qbh, 3 Open vSwitch, 4 midonet.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct virNetDevVPortProfile {
    pub virtPortType: c_int,
    pub managerID: u8,
    pub managerID_specified: bool,
    pub typeID: u32,
    pub typeID_specified: bool,
    pub typeIDVersion: u8,
    pub typeIDVersion_specified: bool,
    pub instanceID: [c_uchar; 16],
    pub instanceID_specified: bool,
    /// NUL-terminated
    pub profileID: [c_char; 40],
    pub interfaceID: [c_uchar; 16],
    pub interfaceID_specified: bool,
}

/// The `<vlan>` of a libvirt interface. nativeMode: 0 default, 1 tagged, 2 untagged.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct virNetDevVlan {
    pub trunk: bool,
    /// Number of elements of tag
    pub nTags: c_int,
    pub tag: *mut c_uint,
    pub nativeMode: c_int,
    pub nativeTag: c_uint,
}

/// Interrupt coalescing: struct ethtool_coalesce of the kernel without its first member.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct virNetDevCoalesce {
    pub rx_coalesce_usecs: u32,
    pub rx_max_coalesced_frames: u32,
    pub rx_coalesce_usecs_irq: u32,
    pub rx_max_coalesced_frames_irq: u32,
    pub tx_coalesce_usecs: u32,
    pub tx_max_coalesced_frames: u32,
    pub tx_coalesce_usecs_irq: u32,
    pub tx_max_coalesced_frames_irq: u32,
    pub stats_block_coalesce_usecs: u32,
    pub use_adaptive_rx_coalesce: u32,
    pub use_adaptive_tx_coalesce: u32,
    pub pkt_rate_low: u32,
    pub rx_coalesce_usecs_low: u32,
    pub rx_max_coalesced_frames_low: u32,
    pub tx_coalesce_usecs_low: u32,
    pub tx_max_coalesced_frames_low: u32,
    pub pkt_rate_high: u32,
    pub rx_coalesce_usecs_high: u32,
    pub rx_max_coalesced_frames_high: u32,
    pub tx_coalesce_usecs_high: u32,
    pub tx_max_coalesced_frames_high: u32,
    pub rate_sample_interval: u32,
}

/// Counters of an interface, as in libvirt's public API. -1: not known.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct virDomainInterfaceStatsStruct {
    pub rx_bytes: c_longlong,
    pub rx_packets: c_longlong,
    pub rx_errs: c_longlong,
    pub rx_drop: c_longlong,
    pub tx_bytes: c_longlong,
    pub tx_packets: c_longlong,
    pub tx_errs: c_longlong,
    pub tx_drop: c_longlong,
}

pub type virDomainInterfaceStatsPtr = *mut virDomainInterfaceStatsStruct;

/// How important a log line is; libvirt's virLogPriority.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::enum_variant_names)]
pub enum virNetDevTapLogPriority {
    VIR_NETDEV_TAP_LOG_DEBUG = 1,
    VIR_NETDEV_TAP_LOG_INFO = 2,
    VIR_NETDEV_TAP_LOG_WARN = 3,
    VIR_NETDEV_TAP_LOG_ERROR = 4,
}

/// Takes a log line. May be called from any thread; must not jump out with longjmp() or an exception.
pub type virNetDevTapLogFunc =
    Option<unsafe extern "C" fn(priority: virNetDevTapLogPriority, message: *const c_char, opaque: *mut c_void)>;

/// What virNetDevTapStateCheck() and virNetDevTapStateRestore() found changed.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::enum_variant_names)]
pub enum virNetDevTapStateField {
    VIR_NETDEV_TAP_STATE_PERSIST = 1 << 0,
    VIR_NETDEV_TAP_STATE_OWNER = 1 << 1,
    VIR_NETDEV_TAP_STATE_GROUP = 1 << 2,
    /// VNET_HDR, NO_PI, NAPI
    VIR_NETDEV_TAP_STATE_FLAGS = 1 << 3,
    VIR_NETDEV_TAP_STATE_VNET_HDR_SIZE = 1 << 4,
    VIR_NETDEV_TAP_STATE_VNET_ENDIAN = 1 << 5,
    VIR_NETDEV_TAP_STATE_OFFLOADS = 1 << 6,
    /// A socket filter; MAC filters and eBPF programs cannot be seen, and are taken away unseen
    VIR_NETDEV_TAP_STATE_FILTERS = 1 << 7,
    VIR_NETDEV_TAP_STATE_CARRIER = 1 << 8,
    VIR_NETDEV_TAP_STATE_LINK_TYPE = 1 << 9,
    VIR_NETDEV_TAP_STATE_MAC = 1 << 10,
    VIR_NETDEV_TAP_STATE_MTU = 1 << 11,
    VIR_NETDEV_TAP_STATE_TXQLEN = 1 << 12,
    VIR_NETDEV_TAP_STATE_UP = 1 << 13,
    /// The bridge, and how the tap is a port of it
    VIR_NETDEV_TAP_STATE_MASTER = 1 << 14,
    VIR_NETDEV_TAP_STATE_ALIAS = 1 << 15,
    VIR_NETDEV_TAP_STATE_NAME = 1 << 16,
    /// The device was gone, and had to be made anew
    VIR_NETDEV_TAP_STATE_VANISHED = 1 << 17,
    /// Something could not be put back; the log says what
    VIR_NETDEV_TAP_STATE_UNRESTORED = 1 << 18,
    /// The group of interfaces that it belongs to
    VIR_NETDEV_TAP_STATE_LINK_GROUP = 1 << 19,
    VIR_NETDEV_TAP_STATE_ALTNAMES = 1 << 20,
}

/// How virNetDevTapStateRestore() shall deal with a device.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::enum_variant_names)]
pub enum virNetDevTapRestoreFlags {
    VIR_NETDEV_TAP_RESTORE_NONE = 0,
    /// Delete a device that a process still holds under that process, and make it anew
    VIR_NETDEV_TAP_RESTORE_EVICT = 1 << 0,
    /// Only let the guard and the record go
    VIR_NETDEV_TAP_RESTORE_LEAVE = 1 << 1,
    /// Delete the device although it was there before
    VIR_NETDEV_TAP_RESTORE_REMOVE = 1 << 2,
    /// Make the device anew if that is the only way to have it as it was: the kernel lets nobody set "no owner"
    VIR_NETDEV_TAP_RESTORE_RECREATE = 1 << 3,
}

/// libvirt's layout on LP64: a change here is a change of the ABI.
#[cfg(target_pointer_width = "64")]
mod layout {
    use super::{
        virDomainInterfaceStatsStruct, virMacAddr, virNetDevCoalesce, virNetDevTapCreateFlags, virNetDevVPortProfile,
        virNetDevVlan, virTristateBool,
    };
    use std::mem::{align_of, offset_of, size_of};

    macro_rules! is {
        ($($left:expr => $right:expr),+ $(,)?) => { $(const _: () = assert!($left == $right);)+ };
    }
    is! {
        size_of::<virMacAddr>() => 6, align_of::<virMacAddr>() => 1,
        size_of::<virTristateBool>() => 4,
        size_of::<virNetDevTapCreateFlags>() => 4,
        size_of::<virNetDevVPortProfile>() => 92, align_of::<virNetDevVPortProfile>() => 4,
        offset_of!(virNetDevVPortProfile, managerID) => 4,
        offset_of!(virNetDevVPortProfile, managerID_specified) => 5,
        offset_of!(virNetDevVPortProfile, typeID) => 8,
        offset_of!(virNetDevVPortProfile, typeID_specified) => 12,
        offset_of!(virNetDevVPortProfile, typeIDVersion) => 13,
        offset_of!(virNetDevVPortProfile, typeIDVersion_specified) => 14,
        offset_of!(virNetDevVPortProfile, instanceID) => 15,
        offset_of!(virNetDevVPortProfile, instanceID_specified) => 31,
        offset_of!(virNetDevVPortProfile, profileID) => 32,
        offset_of!(virNetDevVPortProfile, interfaceID) => 72,
        offset_of!(virNetDevVPortProfile, interfaceID_specified) => 88,
        size_of::<virNetDevVlan>() => 24, align_of::<virNetDevVlan>() => 8,
        offset_of!(virNetDevVlan, nTags) => 4,
        offset_of!(virNetDevVlan, tag) => 8,
        offset_of!(virNetDevVlan, nativeMode) => 16,
        offset_of!(virNetDevVlan, nativeTag) => 20,
        size_of::<virNetDevCoalesce>() => 88, align_of::<virNetDevCoalesce>() => 4,
        offset_of!(virNetDevCoalesce, rate_sample_interval) => 84,
        size_of::<virDomainInterfaceStatsStruct>() => 64, align_of::<virDomainInterfaceStatsStruct>() => 8,
        offset_of!(virDomainInterfaceStatsStruct, tx_bytes) => 32,
        offset_of!(virDomainInterfaceStatsStruct, tx_drop) => 56,
    }
}
