//! Persist and state: a tap is afterwards as it was.

use super::args;
use super::fence::fence;
use crate::error::{Error, Result};
use crate::kernel::IfName;
use crate::state::{self, Fields, RestoreFlags};
use libc::{c_char, c_int, c_uint, pid_t, size_t};
use nix::errno::Errno;
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// Records what a tap or macvtap is like: call it before virNetDevTapCreate(), since the first who opens a tap changes its
/// flags.
///
/// @ifname: the name; a device that does not exist is recorded as absent
/// @stateDir: directory for the records, made with mode 0700 if missing
///
/// A record that is there already is of a run that never came to virNetDevTapStateRestore(): that is made up for first. If
/// a process still holds the device: EBUSY.
///
/// Returns 0, or -1.
///
/// cbindgen:postfix=VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevTapStateSave(ifname: *const c_char, stateDir: *const c_char) -> c_int {
    fence("virNetDevTapStateSave", -1, || {
        // SAFETY: a string of the caller's, or NULL
        let name = unsafe { args::interface_name(ifname) }?;
        // SAFETY: a string of the caller's, or NULL
        let dir = unsafe { state_dir(stateDir) }?;
        state::save(&name, dir)?;
        Ok(0)
    })
}

/// Keeps the device alive, whatever the hypervisor does to it: call it after virNetDevTapCreate() and before the hypervisor
/// starts.
///
/// @ifname: the name; NULL does nothing
/// @stateDir: directory for the records
/// @tapfd: the device's file descriptors; a close-on-exec duplicate of the first is kept until virNetDevTapStateRestore()
/// @tapfdSize: their number
///
/// Without a record (a generated name), one is written that says that the device was absent before. A device that was
/// absent is not kept alive: it goes when the hypervisor exits, and virNetDevTapStateRestore() sees to it.
///
/// Returns 0, or -1.
///
/// cbindgen:postfix=VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevTapStateHold(
    ifname: *const c_char,
    stateDir: *const c_char,
    tapfd: *const c_int,
    tapfdSize: size_t,
) -> c_int {
    fence("virNetDevTapStateHold", -1, || {
        // SAFETY: a string of the caller's, or NULL
        let Some(name) = unsafe { optional_name(ifname) }? else { return Ok(0) };
        // SAFETY: a string of the caller's, or NULL
        let dir = unsafe { state_dir(stateDir) }?;
        // SAFETY: tapfdSize numbers of the caller's, or NULL
        let numbers = unsafe { args::numbers(tapfd, tapfdSize) }?;
        // SAFETY: whoever calls this keeps the files open meanwhile
        let queues: Result<Vec<BorrowedFd<'_>>> = numbers.iter().map(|fd| unsafe { args::file(*fd) }).collect();
        state::hold(&name, dir, &queues?)?;
        Ok(0)
    })
}

/// Wins back what virNetDevTapStateHold() had, after a restart of the manager: from the running hypervisor.
///
/// @ifname: the name
/// @stateDir: directory for the records
/// @pid: the hypervisor; 0: whichever process has the device
///
/// A single-queue tap takes the right to trace the hypervisor (CAP_SYS_PTRACE, or the same user) and Linux 5.6.
///
/// Returns 0, or -1: ENOENT without a record, ESRCH if no such process has the device.
///
/// cbindgen:postfix=VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevTapStateReclaim(ifname: *const c_char, stateDir: *const c_char, pid: pid_t) -> c_int {
    fence("virNetDevTapStateReclaim", -1, || {
        // SAFETY: a string of the caller's, or NULL
        let name = unsafe { args::interface_name(ifname) }?;
        // SAFETY: a string of the caller's, or NULL
        let dir = unsafe { state_dir(stateDir) }?;
        if pid < 0 {
            return Err(Error::argument(format!("{pid} is no process id")));
        }
        state::reclaim(&name, dir, pid)?;
        Ok(0)
    })
}

/// Tells what virNetDevTapStateRestore() would find changed. Changes nothing.
///
/// @ifname: the name; NULL does nothing
/// @stateDir: directory for the records
/// @changed: receives an OR of virNetDevTapStateField; may be NULL
///
/// Returns 0, or -1. Without a record nothing is changed.
///
/// cbindgen:postfix=VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevTapStateCheck(ifname: *const c_char, stateDir: *const c_char, changed: *mut c_uint) -> c_int {
    fence("virNetDevTapStateCheck", -1, || {
        // SAFETY: a string of the caller's, or NULL
        let name = unsafe { optional_name(ifname) }?;
        // SAFETY: a string of the caller's, or NULL
        let dir = unsafe { state_dir(stateDir) }?;
        let fields = name.map_or(Ok(Fields::empty()), |name| state::check(&name, dir))?;
        // SAFETY: the caller's number, or NULL
        unsafe { tell(changed, fields) };
        Ok(0)
    })
}

/// Puts everything back: call it when the hypervisor is dead or has closed the tap, after a stop, a crash, a failed start, a
/// hot-unplug.
///
/// @ifname: the name; NULL does nothing
/// @tunpath: the clone device, NULL for /dev/net/tun
/// @stateDir: directory for the records
/// @flags: OR of virNetDevTapRestoreFlags; unknown bits are refused
/// @changed: receives what was found changed, an OR of virNetDevTapStateField; may be NULL. Each change is logged as a
///   warning, with the old and the new value.
///
/// Absent before: the device goes. There before: persist flag, owner, group, flags, header size, endianness, offloads, MAC,
/// MTU, master and all the rest become what they were, filters are taken away. A device that has vanished is made anew with
/// the same name and index. The right device is found under another name; another device under the name is never touched
/// (EEXIST). If a process still holds it: EBUSY, the error names it, and the record stays for the next call. Without a record
/// there is nothing to do.
///
/// Returns 0, or -1.
///
/// cbindgen:postfix=VIR_NETDEV_TAP_NONNULL(3) VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevTapStateRestore(
    ifname: *const c_char,
    tunpath: *const c_char,
    stateDir: *const c_char,
    flags: c_uint,
    changed: *mut c_uint,
) -> c_int {
    fence("virNetDevTapStateRestore", -1, || {
        // SAFETY: a string of the caller's, or NULL
        let name = unsafe { optional_name(ifname) }?;
        // SAFETY: a string of the caller's, or NULL
        let tunpath = unsafe { args::string(tunpath) };
        // SAFETY: a string of the caller's, or NULL
        let dir = unsafe { state_dir(stateDir) }?;
        let flags = restore_flags(flags)?;
        let fields = name.map_or(Ok(Fields::empty()), |name| state::restore(&name, tunpath, dir, flags))?;
        // SAFETY: the caller's number, or NULL
        unsafe { tell(changed, fields) };
        Ok(0)
    })
}

/// Restores many taps: what virNetDevTapStateRestore() does for each. Those that were absent before are deleted together, as
/// by virNetDevTapDeleteList().
///
/// @ifnames: the names, in any order; one that is NULL does nothing
/// @n: their number
/// @tunpath: the clone device, NULL for /dev/net/tun
/// @stateDir: directory for the records
/// @flags: OR of virNetDevTapRestoreFlags, for all of them; unknown bits are refused
/// @changed: array of @n that receives, in the order of the names, what was found changed, an OR of virNetDevTapStateField,
///   and 0 for a tap that is not restored; may be NULL
/// @errnos: array of @n that receives 0 for each tap that is restored, and else why it is not; may be NULL
///
/// All are restored as far as they can be. Those that a process still holds are waited for, up to a second, all of them
/// together.
///
/// Returns 0 if all are restored, or -1: the error is that of the first tap that is not. Where the arguments are refused, the
/// arrays stay as they are.
///
/// cbindgen:postfix=VIR_NETDEV_TAP_NONNULL(4) VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevTapStateRestoreList(
    ifnames: *const *const c_char,
    n: size_t,
    tunpath: *const c_char,
    stateDir: *const c_char,
    flags: c_uint,
    changed: *mut c_uint,
    errnos: *mut c_int,
) -> c_int {
    fence("virNetDevTapStateRestoreList", -1, || {
        // SAFETY: the caller has n strings there
        let names = unsafe { args::strings(ifnames, n) }?;
        // SAFETY: a string of the caller's, or NULL
        let tunpath = unsafe { args::string(tunpath) };
        // SAFETY: a string of the caller's, or NULL
        let dir = unsafe { state_dir(stateDir) }?;
        let flags = restore_flags(flags)?;
        // SAFETY: strings of the caller's, or NULL
        let names: Vec<Result<Option<IfName>>> = names.iter().map(|name| unsafe { optional_name(*name) }).collect();
        let valid: Vec<IfName> = names.iter().flatten().flatten().copied().collect();
        let mut restored = state::restore_list(&valid, tunpath, dir, flags).into_iter();
        let mut first_failure = Ok(0);
        for (i, name) in names.into_iter().enumerate() {
            let result = name.and_then(|name| name.and_then(|_| restored.next()).unwrap_or(Ok(Fields::empty())));
            // SAFETY: the caller's array, which has as many elements as there are names, or NULL
            unsafe { args::fill(changed, i, result.as_ref().map_or(0, Fields::bits)) };
            // SAFETY: as above
            unsafe { args::fill(errnos, i, result.as_ref().err().map_or(0, |e| e.errno() as c_int)) };
            first_failure = first_failure.and(result.map(|_| 0));
        }
        first_failure
    })
}

fn restore_flags(flags: c_uint) -> Result<RestoreFlags> {
    RestoreFlags::from_bits(flags)
        .ok_or_else(|| Error::argument(format!("unknown flags 0x{:x}", flags & !RestoreFlags::all().bits())))
}

/// Forgets a tap: lets the duplicate go and removes the record, also one that cannot be read.
///
/// @ifname: the name; NULL does nothing
/// @stateDir: directory for the records
///
/// Returns 0, also if there was no record, or -1.
///
/// cbindgen:postfix=VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevTapStateDiscard(ifname: *const c_char, stateDir: *const c_char) -> c_int {
    fence("virNetDevTapStateDiscard", -1, || {
        // SAFETY: a string of the caller's, or NULL
        let Some(name) = unsafe { optional_name(ifname) }? else { return Ok(0) };
        // SAFETY: a string of the caller's, or NULL
        let dir = unsafe { state_dir(stateDir) }?;
        state::discard(&name, dir)?;
        Ok(0)
    })
}

/// Lists the taps that have a record: what a manager has to deal with after a crash.
///
/// @stateDir: directory for the records; a missing one has none
/// @ifnames: receives a NULL-terminated array of names, sorted; the caller's to free(), each name and the array
///
/// Returns the number of names, or -1 with *@ifnames as it was.
///
/// cbindgen:postfix=VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevTapStateList(stateDir: *const c_char, ifnames: *mut *mut *mut c_char) -> c_int {
    fence("virNetDevTapStateList", -1, || {
        let ifnames = args::out(ifnames, "ifnames")?;
        // SAFETY: a string of the caller's, or NULL
        let dir = unsafe { state_dir(stateDir) }?;
        let names = state::list(dir)?;
        let buffers: Result<Vec<args::NameBuffer>> = names.iter().map(|_| args::NameBuffer::new()).collect();
        let terminated = vec![ptr::null_mut::<c_char>(); names.len().saturating_add(1)];
        let array = args::malloc_array(&terminated)
            .map_err(|errno: Errno| Error::system(errno, format!("Unable to list the records in {}", dir.display())))?;
        for (i, (buffer, name)) in buffers?.into_iter().zip(&names).enumerate() {
            // SAFETY: the array has one element more than there are names
            let slot = unsafe { array.add(i) };
            // SAFETY: inside the array, as above
            unsafe { slot.write(buffer.into_raw(name)) };
        }
        // SAFETY: the caller's pointer, not NULL
        unsafe { ifnames.write(array) };
        Ok(c_int::try_from(names.len()).unwrap_or(c_int::MAX))
    })
}

/// # Safety
/// `ifname` is NULL or NUL-terminated.
unsafe fn optional_name(ifname: *const c_char) -> Result<Option<IfName>> {
    if ifname.is_null() {
        return Ok(None);
    }
    // SAFETY: passed on
    unsafe { args::interface_name(ifname) }.map(Some)
}

/// # Safety
/// `stateDir` is NULL, or NUL-terminated and stays as it is for `'a`.
unsafe fn state_dir<'a>(stateDir: *const c_char) -> Result<&'a Path> {
    // SAFETY: passed on
    let dir = unsafe { args::string(stateDir) }.ok_or_else(|| Error::argument("stateDir must not be NULL"))?;
    Ok(Path::new(OsStr::from_bytes(dir.to_bytes())))
}

/// # Safety
/// `changed` is NULL or points to a number.
unsafe fn tell(changed: *mut c_uint, fields: Fields) {
    if !changed.is_null() {
        // SAFETY: not NULL, so it points to a number
        unsafe { changed.write(fields.bits()) };
    }
}
