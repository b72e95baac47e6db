//! libvirt's three functions for taps in bridge ports.

use super::args::{self, FdSlots, NameBuffer};
use super::fence::fence;
use super::libvirt::create_flags;
use super::types::{
    boolArg, virMacAddr, virNetDevCoalesce, virNetDevVPortProfile, virNetDevVlan, virTristateBool, virTristateBoolArg,
};
use crate::bridge::{self, Coalesce, NativeMode, OvsConfig, PortConfig, Switch, VlanConfig};
use crate::error::{Error, Result};
use crate::tap::{CreateFlags, NameRequest};
use libc::{c_char, c_int, c_uchar, c_uint, size_t};
use std::ffi::CStr;
use std::mem::{MaybeUninit, align_of, offset_of, size_of};

#[cfg(not(feature = "preload"))]
use crate::bridge::create as create_on_bridge;
#[cfg(feature = "preload")]
use crate::preload::create_on_bridge;

/// Puts an interface on a bridge: a Linux bridge, or what @virtPortProfile says.
///
/// @tapname: the interface; a tap or any other that can be a bridge port. It must not be on a bridge.
/// @brname: the bridge
/// @macaddr: the guest's MAC address, which Open vSwitch is told; NULL to leave it out. The interface keeps its own.
/// @vmuuid: 16 bytes, which Open vSwitch is told; NULL to leave it out
/// @virtPortProfile: NULL for a Linux bridge. virtPortType 3: Open vSwitch, by ovs-vsctl. 4: midonet, by mm-ctl.
///   Others are refused (code 67).
/// @virtVlan: the VLANs of the port, or NULL, or one without tags: then the bridge's default. On a Linux bridge the
///   port is in these and no others; that separates anything only if the bridge has VLAN filtering on.
/// @isolatedPort: VIR_TRISTATE_BOOL_YES keeps the port from talking to other isolated ones (Linux bridge only)
/// @mtu: the MTU for the interface, set before it joins, since a bridge takes on the lowest of its ports; 0 for the
///   bridge's
/// @actualMTU: receives the MTU that the interface has afterwards; may be NULL
///
/// The programs are looked for in PATH; ovs-vsctl is given 8 seconds at most and mm-ctl 30.
///
/// Returns 0, or -1: then *@actualMTU, the interface and the bridge are as they were.
///
/// cbindgen:postfix=VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevTapAttachBridge(
    tapname: *const c_char,
    brname: *const c_char,
    macaddr: *const virMacAddr,
    vmuuid: *const c_uchar,
    virtPortProfile: *const virNetDevVPortProfile,
    virtVlan: *const virNetDevVlan,
    isolatedPort: virTristateBoolArg,
    mtu: c_uint,
    actualMTU: *mut c_uint,
) -> c_int {
    fence("virNetDevTapAttachBridge", -1, || {
        // SAFETY: a string of the caller's, or NULL
        let tap = unsafe { args::interface_name(tapname) }?;
        let port = Port { brname, macaddr, vmuuid, virtPortProfile, virtVlan, isolatedPort, mtu };
        // SAFETY: each of them is NULL or points to what its type says, for the time of the call
        let config = unsafe { port.read() }?;
        let mtu = bridge::attach(&tap, &config)?;
        // SAFETY: the caller's, or NULL
        unsafe { write(actualMTU, mtu) };
        Ok(0)
    })
}

/// Moves an interface to a bridge from whatever bridge it is on, if any.
///
/// @force: what to do if it is on this bridge already. false: nothing. true: give the port MTU, isolation and VLANs
///   as the other arguments say, without leaving the bridge.
///
/// The other arguments are those of virNetDevTapAttachBridge(). From one Linux bridge to another, and from one Open
/// vSwitch bridge to another, the interface moves in one step; it is never seen without a bridge.
///
/// Returns 0, or -1: then the interface is on its old bridge again with all its port settings, and *@actualMTU is as it
/// was.
///
/// cbindgen:postfix=VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevTapReattachBridge(
    tapname: *const c_char,
    brname: *const c_char,
    macaddr: *const virMacAddr,
    vmuuid: *const c_uchar,
    virtPortProfile: *const virNetDevVPortProfile,
    virtVlan: *const virNetDevVlan,
    isolatedPort: virTristateBoolArg,
    mtu: c_uint,
    actualMTU: *mut c_uint,
    force: boolArg,
) -> c_int {
    fence("virNetDevTapReattachBridge", -1, || {
        // SAFETY: a string of the caller's, or NULL
        let tap = unsafe { args::interface_name(tapname) }?;
        let port = Port { brname, macaddr, vmuuid, virtPortProfile, virtVlan, isolatedPort, mtu };
        // SAFETY: each of them is NULL or points to what its type says, for the time of the call
        let config = unsafe { port.read() }?;
        let force = force != 0;
        #[cfg(feature = "preload")]
        let force = force && super::preload::has_force();
        let mtu = bridge::reattach(&tap, &config, force)?;
        // SAFETY: the caller's, or NULL
        unsafe { write(actualMTU, mtu) };
        Ok(0)
    })
}

/// Creates a tap device, or opens an existing one, and puts it on a bridge.
///
/// @brname: the bridge
/// @ifname, @tunpath, @tapfd, @tapfdSize: as for virNetDevTapCreate()
/// @macaddr: the guest's MAC address. The tap gets it with 0xFE as its first byte (0xFA if it has 0xFE already), so that
///   it is never the lowest address of the bridge's ports, which the bridge takes for itself. NULL: derived in this
///   way from the address that the kernel gave the tap.
/// @coalesce: interrupt coalescing to set, or NULL; receives what the kernel has then. A tap knows only
///   rx_max_coalesced_frames: anything else that is not 0 is refused (EOPNOTSUPP).
/// @flags: OR of virNetDevTapCreateFlags. VIR_NETDEV_TAP_CREATE_IFUP sets the interface up, its absence sets it down;
///   VIR_NETDEV_TAP_CREATE_USE_MAC_FOR_BRIDGE sets @macaddr unchanged; unknown bits are refused.
///
/// The other arguments are those of virNetDevTapAttachBridge(). The interface goes up only when isolation and VLANs
/// are in place.
///
/// Returns 0, or -1: then all slots of @tapfd are -1 (if @tapfdSize is at most 256), *@ifname, *@coalesce and
/// *@actualMTU are as they were, no device or port is left behind, and an existing tap and the bridge are as they were.
///
/// cbindgen:postfix=VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevTapCreateInBridgePort(
    brname: *const c_char,
    ifname: *mut *mut c_char,
    macaddr: *const virMacAddr,
    vmuuid: *const c_uchar,
    tunpath: *const c_char,
    tapfd: *mut c_int,
    tapfdSize: size_t,
    virtPortProfile: *const virNetDevVPortProfile,
    virtVlan: *const virNetDevVlan,
    isolatedPort: virTristateBoolArg,
    coalesce: *mut virNetDevCoalesce,
    mtu: c_uint,
    actualMTU: *mut c_uint,
    flags: c_uint,
) -> c_int {
    #[cfg(feature = "preload")]
    if let Some(next) = super::preload::next_create_in_bridge_port(flags) {
        // SAFETY: the caller's arguments, as they are
        return unsafe {
            next(
                brname,
                ifname,
                macaddr,
                vmuuid,
                tunpath,
                tapfd,
                tapfdSize,
                virtPortProfile,
                virtVlan,
                isolatedPort,
                coalesce,
                mtu,
                actualMTU,
                flags,
            )
        };
    }
    fence("virNetDevTapCreateInBridgePort", -1, || {
        // SAFETY: the caller has tapfdSize slots at tapfd
        let slots = unsafe { FdSlots::new(tapfd, tapfdSize) };
        let ifname = args::out(ifname, "ifname")?;
        let flags = create_flags(flags)?;
        if tapfd.is_null() && !flags.contains(CreateFlags::PERSIST) {
            return Err(Error::argument("tapfd must not be NULL, unless the device is to be persistent"));
        }
        let port = Port { brname, macaddr, vmuuid, virtPortProfile, virtVlan, isolatedPort, mtu };
        // SAFETY: each of them is NULL or points to what its type says, for the time of the call
        let config = unsafe { port.read() }?;
        // SAFETY: the caller's, or NULL
        let mac = unsafe { value(macaddr) }.map(|mac| mac.addr);
        // SAFETY: the caller's, or NULL
        let wanted = unsafe { value(coalesce) }.map(coalesce_in);
        // SAFETY: not NULL, so it points to a pointer of the caller's
        let old = unsafe { *ifname };
        // SAFETY: a string of the caller's or NULL, which stays as it is until we replace it
        let given = unsafe { args::string(old) };
        // SAFETY: a string of the caller's, or NULL
        let tunpath = unsafe { args::string(tunpath) };
        let request = NameRequest::parse(given.map(CStr::to_bytes))?;
        let buffer = NameBuffer::new()?;
        let created = create_on_bridge(&request, mac, tunpath, tapfdSize, flags, &config, wanted.as_ref())?;
        if given.map(CStr::to_bytes) != Some(created.tap.name().as_bytes()) {
            // SAFETY: the old name is from malloc() or NULL, as the caller was told, and nobody uses it any more
            unsafe { libc::free(old.cast()) };
            // SAFETY: ifname is the caller's and not NULL
            unsafe { *ifname = buffer.into_raw(created.tap.name()) };
        }
        if let Some(now) = created.coalesce {
            // SAFETY: the caller's; there is a value, so it was not NULL
            unsafe { write(coalesce, coalesce_out(now)) };
        }
        // SAFETY: the caller's, or NULL
        unsafe { write(actualMTU, created.mtu) };
        slots.fill(created.tap.into_queues());
        Ok(0)
    })
}

/// The arguments that say what kind of port it shall be.
struct Port {
    brname: *const c_char,
    macaddr: *const virMacAddr,
    vmuuid: *const c_uchar,
    virtPortProfile: *const virNetDevVPortProfile,
    virtVlan: *const virNetDevVlan,
    isolatedPort: virTristateBoolArg,
    mtu: c_uint,
}

const VIR_TRISTATE_BOOL_YES: virTristateBoolArg = virTristateBool::VIR_TRISTATE_BOOL_YES as virTristateBoolArg;
const VPORT_OPENVSWITCH: c_int = 3;
const VPORT_MIDONET: c_int = 4;
/// More than any trunk has use for; a larger number is a mistake.
const MAX_TAGS: usize = 4096;

impl Port {
    /// # Safety
    /// Each pointer is NULL or points to what its type says, for the time of the call.
    unsafe fn read(&self) -> Result<PortConfig> {
        if self.brname.is_null() {
            return Err(Error::argument("Bridge name not provided"));
        }
        // SAFETY: a string, as the caller promises
        let bridge = unsafe { args::interface_name(self.brname) }?;
        let mtu = Some(self.mtu).filter(|mtu| *mtu != 0);
        // SAFETY: passed on
        let vlan = unsafe { vlan(self.virtVlan) }?;
        let isolated = self.isolatedPort == VIR_TRISTATE_BOOL_YES;
        // SAFETY: passed on
        let Some(profile) = (unsafe { value(self.virtPortProfile.cast::<ProfileFields>()) }) else {
            return Ok(PortConfig { bridge, switch: Switch::Linux { vlan, isolated }, mtu });
        };
        if isolated {
            return Err(Error::unsupported(format!("an isolated port on {bridge}, which is not a Linux bridge")));
        }
        let interface_id = profile.interface_id;
        let switch = match profile.kind {
            VPORT_OPENVSWITCH => {
                Switch::OpenVswitch(OvsConfig {
                    interface_id,
                    profile_id: profile_text(profile.profile_id)?,
                    // SAFETY: 16 bytes or NULL, as the caller promises
                    vm_id: unsafe { value(self.vmuuid.cast()) },
                    // SAFETY: a MAC or NULL, as the caller promises
                    mac: unsafe { value(self.macaddr) }.map(|mac| mac.addr),
                    vlan,
                })
            }
            VPORT_MIDONET if vlan.is_some() => {
                return Err(Error::unsupported(format!("VLANs of a midonet port on {bridge}")));
            }
            VPORT_MIDONET => Switch::Midonet(interface_id),
            other => {
                let name = match other {
                    0 => "none".to_owned(),
                    1 => "802.1Qbg".to_owned(),
                    2 => "802.1Qbh".to_owned(),
                    other => other.to_string(),
                };
                return Err(Error::unsupported(format!("virtual port type {name} on bridge {bridge}")));
            }
        };
        Ok(PortConfig { bridge, switch, mtu })
    }
}

/// A virNetDevVPortProfile of which only this is read: the rest may not be initialised.
#[repr(C)]
#[derive(Clone, Copy)]
struct ProfileFields {
    kind: c_int,
    before: MaybeUninit<[u8; 28]>,
    profile_id: [c_char; 40],
    interface_id: [u8; 16],
    after: MaybeUninit<u32>,
}

/// A virNetDevVlan whose bool may have any value.
#[repr(C)]
#[derive(Clone, Copy)]
struct VlanFields {
    trunk: u8,
    count: c_int,
    tags: *const c_uint,
    native_mode: c_int,
    native_tag: c_uint,
}

const _: () = assert!(size_of::<ProfileFields>() == size_of::<virNetDevVPortProfile>());
const _: () = assert!(offset_of!(ProfileFields, profile_id) == offset_of!(virNetDevVPortProfile, profileID));
const _: () = assert!(offset_of!(ProfileFields, interface_id) == offset_of!(virNetDevVPortProfile, interfaceID));
const _: () = assert!(size_of::<VlanFields>() == size_of::<virNetDevVlan>());
const _: () = assert!(offset_of!(VlanFields, tags) == offset_of!(virNetDevVlan, tag));
const _: () = assert!(offset_of!(VlanFields, native_tag) == offset_of!(virNetDevVlan, nativeTag));

/// What a pointer points to, if it is not NULL.
///
/// # Safety
/// It is NULL or points to a `T`.
unsafe fn value<T: Copy>(pointer: *const T) -> Option<T> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: not NULL; the caller promises the rest. Unaligned, since C's byte arrays may be anywhere.
    Some(unsafe { pointer.read_unaligned() })
}

/// # Safety
/// `pointer` is NULL or the caller's, for a `T`.
unsafe fn write<T>(pointer: *mut T, value: T) {
    if !pointer.is_null() {
        // SAFETY: not NULL; the caller promises the rest
        unsafe { pointer.write_unaligned(value) };
    }
}

fn profile_text(profile: [c_char; 40]) -> Result<Option<String>> {
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)] // c_char is i8 or u8: the same byte
    let bytes: Vec<u8> = profile.iter().map(|c| *c as u8).take_while(|byte| *byte != 0).collect();
    let text = String::from_utf8(bytes).map_err(|_| Error::argument("the port profile's name is not UTF-8"))?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// None for NULL, and for no tags at all.
///
/// # Safety
/// `pointer` is NULL or points to a virNetDevVlan whose `tag` has `nTags` elements.
unsafe fn vlan(pointer: *const virNetDevVlan) -> Result<Option<VlanConfig>> {
    // SAFETY: passed on
    let Some(vlan) = (unsafe { value(pointer.cast::<VlanFields>()) }) else { return Ok(None) };
    let native_mode = match vlan.native_mode {
        0 => NativeMode::Default,
        1 => NativeMode::Tagged,
        2 => NativeMode::Untagged,
        other => return Err(Error::argument(format!("unknown native VLAN mode {other}"))),
    };
    let count = usize::try_from(vlan.count).ok().filter(|count| *count <= MAX_TAGS);
    let count = count.ok_or_else(|| Error::argument(format!("a VLAN with a number of tags not in 0..{MAX_TAGS}")))?;
    if count == 0 {
        return Ok(None);
    }
    if vlan.tags.is_null() {
        return Err(Error::argument("a VLAN with tag NULL"));
    }
    // SAFETY: not NULL, and the caller promises that many elements
    let tags = unsafe { std::slice::from_raw_parts(vlan.tags, count) }.to_vec();
    Ok(Some(VlanConfig { trunk: vlan.trunk != 0, tags, native_mode, native_tag: vlan.native_tag }))
}

// both are 22 numbers in the same order
const _: () = assert!(size_of::<virNetDevCoalesce>() == size_of::<Coalesce>());
const _: () = assert!(align_of::<virNetDevCoalesce>() == align_of::<Coalesce>());

#[allow(clippy::needless_pass_by_value)] // for map()
fn coalesce_in(coalesce: virNetDevCoalesce) -> Coalesce {
    // SAFETY: the same number of u32, in structs without padding
    unsafe { std::mem::transmute(coalesce) }
}

fn coalesce_out(values: Coalesce) -> virNetDevCoalesce {
    // SAFETY: likewise
    unsafe { std::mem::transmute(values) }
}
