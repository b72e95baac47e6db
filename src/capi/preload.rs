//! What only the preload library does at the C boundary: calls that it passes on to libvirt's own functions.

use super::args;
use super::fence::fence;
use super::types::{virMacAddr, virNetDevCoalesce, virNetDevVPortProfile, virNetDevVlan, virTristateBoolArg};
use crate::host::{self, warning};
use crate::tap::CreateFlags;
use crate::{preload, tap};
use libc::{c_char, c_int, c_uchar, c_uint, c_void, size_t};
use std::ffi::CStr;

/// `bool force` came with this release; earlier callers leave garbage in its place.
const FORCE_SINCE: u64 = 10_008_000;

type Create = unsafe extern "C" fn(*mut *mut c_char, *const c_char, *mut c_int, size_t, c_uint) -> c_int;
type CreateInBridgePort = unsafe extern "C" fn(
    *const c_char,
    *mut *mut c_char,
    *const virMacAddr,
    *const c_uchar,
    *const c_char,
    *mut c_int,
    size_t,
    *const virNetDevVPortProfile,
    *const virNetDevVlan,
    virTristateBoolArg,
    *mut virNetDevCoalesce,
    c_uint,
    *mut c_uint,
    c_uint,
) -> c_int;
type ReserveName = unsafe extern "C" fn(*const c_char);

/// The definition that this library stands in front of.
fn next(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name is NUL-terminated
    let symbol = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    (!symbol.is_null()).then_some(symbol)
}

/// libvirt's own function, for flags that mean something which this library does not know.
fn next_for_flags(name: &CStr, flags: c_uint) -> Option<*mut c_void> {
    let unknown = flags & !CreateFlags::all().bits();
    let next = if unknown == 0 { None } else { next(name) }?;
    warning!("{}: passed on to libvirt, since flags 0x{unknown:x} are unknown", name.to_string_lossy());
    Some(next)
}

pub(super) fn next_create(flags: c_uint) -> Option<Create> {
    let symbol = next_for_flags(c"virNetDevTapCreate", flags)?;
    // SAFETY: the symbol of this name has this signature since libvirt 1.2.9
    Some(unsafe { std::mem::transmute::<*mut c_void, Create>(symbol) })
}

pub(super) fn next_create_in_bridge_port(flags: c_uint) -> Option<CreateInBridgePort> {
    let symbol = next_for_flags(c"virNetDevTapCreateInBridgePort", flags)?;
    // SAFETY: the symbol of this name has this signature since libvirt 6.1.0
    Some(unsafe { std::mem::transmute::<*mut c_void, CreateInBridgePort>(symbol) })
}

/// Does this process's libvirt pass `force` to virNetDevTapReattachBridge()?
pub(super) fn has_force() -> bool {
    host::libvirt().is_none_or(|host| host.version() >= FORCE_SINCE)
}

/// libvirt's own function of this name, and the sign that a guest with this tap runs: libvirt calls it for each of them
/// when it starts.
///
/// cbindgen:ignore
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevReserveName(name: *const c_char) {
    if let Some(symbol) = next(c"virNetDevReserveName") {
        // SAFETY: the symbol of this name has this signature since libvirt 7.0
        let next: ReserveName = unsafe { std::mem::transmute(symbol) };
        // SAFETY: the caller's string, passed on
        unsafe { next(name) };
    }
    fence("virNetDevReserveName", (), || {
        // SAFETY: a string of the caller's, or NULL
        let name = unsafe { args::interface_name(name) }?;
        tap::reserve(name.as_str());
        preload::reserve(&name);
        Ok(())
    });
}

/// libvirt's own function of this name. The daemon calls it once, when it comes up: the moment to take over taps of
/// hypervisors that have ended meanwhile, for which libvirt makes no call.
///
/// cbindgen:ignore
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevOpenvswitchSetTimeout(timeout: c_uint) {
    if let Some(symbol) = next(c"virNetDevOpenvswitchSetTimeout") {
        // SAFETY: the symbol of this name has this signature since libvirt 3.9
        let next: unsafe extern "C" fn(c_uint) = unsafe { std::mem::transmute(symbol) };
        // SAFETY: takes a number
        unsafe { next(timeout) };
    }
    fence("virNetDevOpenvswitchSetTimeout", (), || {
        preload::come_up();
        Ok(())
    });
}

/// libvirt's own function of this name, which opens a macvtap that was made beforehand.
///
/// cbindgen:ignore
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevMacVLanTapOpen(ifname: *const c_char, tapfd: *mut c_int, tapfdSize: size_t) -> c_int {
    let Some(symbol) = next(c"virNetDevMacVLanTapOpen") else { return -1 };
    // SAFETY: the symbol of this name has this signature since libvirt 5.7
    let next: unsafe extern "C" fn(*const c_char, *mut c_int, size_t) -> c_int = unsafe { std::mem::transmute(symbol) };
    let mut rc = None;
    // SAFETY: the caller's arguments, as they are
    let mut open = || *rc.insert(unsafe { next(ifname, tapfd, tapfdSize) }) >= 0;
    fence("virNetDevMacVLanTapOpen", (), || {
        // SAFETY: a string of the caller's, or NULL
        let name = unsafe { args::interface_name(ifname) }?;
        preload::open_macvtap(&name, &mut open);
        Ok(())
    });
    rc.unwrap_or_else(|| {
        // SAFETY: as above; only a name that is none comes here
        unsafe { next(ifname, tapfd, tapfdSize) }
    })
}
