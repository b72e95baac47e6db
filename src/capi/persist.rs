//! The persist flag and the holders of a tap.

use super::args;
use super::fence::fence;
use crate::error::Error;
use crate::tap;
use libc::{c_char, c_int, pid_t};

/// Is the tap persistent? Needs no permission.
///
/// @ifname: the name
/// @persist: receives the answer
///
/// Returns 0, or -1: ENODEV if there is no such device, EINVAL if it is not a tap.
///
/// cbindgen:postfix=VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevTapGetPersist(ifname: *const c_char, persist: *mut bool) -> c_int {
    fence("virNetDevTapGetPersist", -1, || {
        let persist = args::out(persist, "persist")?;
        // SAFETY: a string of the caller's, or NULL
        let name = unsafe { args::interface_name(ifname) }?;
        let answer = tap::get_persist(&name)?;
        // SAFETY: the caller's bool, not NULL
        unsafe { persist.write(answer) };
        Ok(0)
    })
}

/// Makes a tap persistent or not, and changes nothing else.
///
/// @ifname: the name
/// @tunpath: the clone device, NULL for /dev/net/tun
/// @persist: the new value
///
/// Needs a queue of the tap: a single-queue tap that a process holds is waited for, up to one second, then EBUSY. A tap
/// that nobody holds is gone at once when it stops being persistent.
///
/// Returns 0, or -1.
///
/// cbindgen:postfix=VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevTapSetPersist(ifname: *const c_char, tunpath: *const c_char, persist: bool) -> c_int {
    fence("virNetDevTapSetPersist", -1, || {
        // SAFETY: a string of the caller's, or NULL
        let name = unsafe { args::interface_name(ifname) }?;
        // SAFETY: a string of the caller's, or NULL
        let tunpath = unsafe { args::string(tunpath) };
        tap::set_persist(&name, tunpath, persist)?;
        Ok(0)
    })
}

/// Finds the processes that hold a tap open, in this network namespace and as far as the caller may see them.
///
/// @ifname: the name
/// @pids: receives an array of process ids in rising order, the caller's to free(); NULL if there are none
///
/// A file descriptor that is in flight in a socket, or held only by the kernel, belongs to no process and is not found.
///
/// Returns the number of processes, or -1 with *@pids as it was.
///
/// cbindgen:postfix=VIR_NETDEV_TAP_NONNULL(1) VIR_NETDEV_TAP_NONNULL(2) VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevTapGetHolders(ifname: *const c_char, pids: *mut *mut pid_t) -> c_int {
    fence("virNetDevTapGetHolders", -1, || {
        let pids = args::out(pids, "pids")?;
        // SAFETY: a string of the caller's, or NULL
        let name = unsafe { args::interface_name(ifname) }?;
        let holders = tap::holders(&name)?;
        let found: Vec<pid_t> = holders.iter().map(|holder| holder.pid).collect();
        let array =
            args::malloc_array(&found).map_err(|errno| Error::system(errno, format!("Unable to list the holders of {name}")))?;
        // SAFETY: the caller's pointer, not NULL
        unsafe { pids.write(array) };
        Ok(c_int::try_from(found.len()).unwrap_or(c_int::MAX))
    })
}
