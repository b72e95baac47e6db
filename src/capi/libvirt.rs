//! libvirt's own functions.

use super::args::{self, FdSlots, NameBuffer};
use super::fence::fence;
use super::types::{virDomainInterfaceStatsPtr, virDomainInterfaceStatsStruct};
use crate::error::{Error, Result};
use crate::stats::{Stats, interface_stats};
use crate::tap::{self, CreateFlags, NameRequest};
use libc::{c_char, c_int, c_uint, size_t};
use nix::errno::Errno;
use std::ffi::CStr;
use std::ptr;

#[cfg(feature = "preload")]
use crate::preload as service;
#[cfg(not(feature = "preload"))]
use crate::tap as service;

/// Creates a tap device, or opens an existing one.
///
/// @ifname: in: the name, a template with one "%d", or NULL for "vnet%d"; out: the name of the device. A name that
///   changes is free()d and replaced by one from malloc(), so give one from malloc(), or NULL.
/// @tunpath: the clone device, NULL for /dev/net/tun
/// @tapfd: array that receives one file descriptor per queue, close-on-exec, the caller's to close
/// @tapfdSize: number of queues, 1 to 256; more than one make the device multi-queue
/// @flags: OR of virNetDevTapCreateFlags; unknown bits are refused
///
/// With VIR_NETDEV_TAP_CREATE_PERSIST, @tapfd may be NULL or @tapfdSize 0: the device is made and nothing stays open.
/// An existing device (VIR_NETDEV_TAP_CREATE_ALLOW_EXISTING) stays multi-queue or not, whatever @tapfdSize 1 would
/// have made of it; one that another process holds is waited for, up to one second.
///
/// Returns 0, or -1: then all slots of @tapfd are -1 (if @tapfdSize is at most 256), *@ifname is as it was, and no
/// device is left behind or changed.
///
/// cbindgen:postfix=VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevTapCreate(
    ifname: *mut *mut c_char,
    tunpath: *const c_char,
    tapfd: *mut c_int,
    tapfdSize: size_t,
    flags: c_uint,
) -> c_int {
    #[cfg(feature = "preload")]
    if let Some(next) = super::preload::next_create(flags) {
        // SAFETY: the caller's arguments, as they are
        return unsafe { next(ifname, tunpath, tapfd, tapfdSize, flags) };
    }
    fence("virNetDevTapCreate", -1, || {
        // SAFETY: the caller has tapfdSize slots at tapfd
        let slots = unsafe { FdSlots::new(tapfd, tapfdSize) };
        let ifname = args::out(ifname, "ifname")?;
        let flags = create_flags(flags)?;
        if tapfd.is_null() && !flags.contains(CreateFlags::PERSIST) {
            return Err(Error::argument("tapfd must not be NULL, unless the device is to be persistent"));
        }
        // SAFETY: not NULL, so it points to a pointer of the caller's
        let old = unsafe { *ifname };
        // SAFETY: a string of the caller's or NULL, which stays as it is until we replace it
        let given = unsafe { args::string(old) };
        // SAFETY: a string of the caller's, or NULL
        let tunpath = unsafe { args::string(tunpath) };
        let request = NameRequest::parse(given.map(CStr::to_bytes))?;
        let buffer = NameBuffer::new()?;
        let tap = service::create(&request, tunpath, tapfdSize, flags)?;
        if given.map(CStr::to_bytes) != Some(tap.name().as_bytes()) {
            // SAFETY: the old name is from malloc() or NULL, as the caller was told, and nobody uses it any more
            unsafe { libc::free(old.cast()) };
            // SAFETY: ifname is the caller's and not NULL
            unsafe { *ifname = buffer.into_raw(tap.name()) };
        }
        slots.fill(tap.into_queues());
        Ok(0)
    })
}

pub(super) fn create_flags(flags: c_uint) -> Result<CreateFlags> {
    CreateFlags::from_bits(flags)
        .ok_or_else(|| Error::argument(format!("unknown flags 0x{:x}", flags & !CreateFlags::all().bits())))
}

/// Deletes a tap device: single- or multi-queue, persistent or not. Success if there is none.
///
/// @ifname: the name
/// @tunpath: the clone device, NULL for /dev/net/tun
///
/// A device of another kind is refused (EINVAL). One that a process holds is waited for, up to one second, and then
/// left as it is (EBUSY); the error names the holders. The owner of a tap needs no CAP_NET_ADMIN. Should the device be
/// renamed meanwhile, it is this one that is deleted, and not what has the name then.
///
/// Returns 0, or -1.
///
/// cbindgen:postfix=VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevTapDelete(ifname: *const c_char, tunpath: *const c_char) -> c_int {
    fence("virNetDevTapDelete", -1, || {
        // SAFETY: a string of the caller's, or NULL
        let name = unsafe { args::interface_name(ifname) }?;
        // SAFETY: a string of the caller's, or NULL
        let tunpath = unsafe { args::string(tunpath) };
        service::delete(&name, tunpath)?;
        Ok(0)
    })
}

/// Tells the name of the tap (or macvtap) that a file descriptor is attached to.
///
/// @tapfd: the file descriptor
/// @ifname: receives the name, the caller's to free(). What it held before is not looked at.
///
/// Returns 0, or -1 with *@ifname as it was.
///
/// cbindgen:postfix=VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevTapGetName(tapfd: c_int, ifname: *mut *mut c_char) -> c_int {
    fence("virNetDevTapGetName", -1, || {
        let ifname = args::out(ifname, "ifname")?;
        // SAFETY: whoever calls this keeps the file open meanwhile
        let queue = unsafe { args::file(tapfd) }?;
        let buffer = NameBuffer::new()?;
        let name = tap::name_of(queue)?;
        // SAFETY: ifname is the caller's and not NULL
        unsafe { *ifname = buffer.into_raw(&name) };
        Ok(0)
    })
}

/// The name that the driver gives to the device on FreeBSD. On Linux there is none: returns NULL, which is no error.
///
/// @ifname: the name
///
/// cbindgen:postfix=VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub extern "C" fn virNetDevTapGetRealDeviceName(ifname: *mut c_char) -> *mut c_char {
    let _ = ifname; // named for the header
    ptr::null_mut()
}

/// Reads the counters of the interface with exactly this name; their meaning is that of /proc/net/dev.
///
/// @ifname: the name; need not be a tap
/// @stats: receives the counters
/// @swapped: exchange rx and tx: what the host's tap receives is what the guest sent
///
/// Returns 0, or -1 with *@stats as it was.
///
/// cbindgen:postfix=VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevTapInterfaceStats(
    ifname: *const c_char,
    stats: virDomainInterfaceStatsPtr,
    swapped: bool,
) -> c_int {
    fence("virNetDevTapInterfaceStats", -1, || {
        if ifname.is_null() {
            return Err(Error::internal(Errno::EINVAL, "Interface name not provided"));
        }
        let stats = args::out(stats, "stats")?;
        // SAFETY: a string of the caller's
        let name = unsafe { args::interface_name(ifname) }?;
        let counters = interface_stats(&name)?;
        // SAFETY: the caller's struct, not NULL
        unsafe { stats.write(convert(&counters, swapped)) };
        Ok(0)
    })
}

pub(super) fn convert(stats: &Stats, swapped: bool) -> virDomainInterfaceStatsStruct {
    let signed = |counter: u64| i64::try_from(counter).unwrap_or(i64::MAX);
    let rx = [stats.rx_bytes, stats.rx_packets, stats.rx_errors, stats.rx_dropped].map(signed);
    let tx = [stats.tx_bytes, stats.tx_packets, stats.tx_errors, stats.tx_dropped].map(signed);
    let ([rx_bytes, rx_packets, rx_errs, rx_drop], [tx_bytes, tx_packets, tx_errs, tx_drop]) =
        if swapped { (tx, rx) } else { (rx, tx) };
    virDomainInterfaceStatsStruct { rx_bytes, rx_packets, rx_errs, rx_drop, tx_bytes, tx_packets, tx_errs, tx_drop }
}
