//! Many devices with one call.

use super::args;
use super::fence::fence;
use super::libvirt::convert;
use super::types::{virDomainInterfaceStatsPtr, virDomainInterfaceStatsStruct};
use crate::error::{Error, Result};
use crate::kernel::IfName;
use crate::stats::interface_stats_list;
use crate::tap;
use libc::{c_char, c_int, size_t};

/// Deletes many tap devices: what virNetDevTapDelete() does for each, in a fraction of the time.
///
/// @ifnames: the names, in any order
/// @n: their number
/// @tunpath: the clone device, NULL for /dev/net/tun
/// @errnos: array of @n that receives, in the order of the names, 0 for each device that is gone, and else why it is not;
///   may be NULL
///
/// A device that is not there counts as deleted. One of another kind stays (EINVAL), as does one that a process still holds
/// one second later (EBUSY); all others are deleted nevertheless. At most 16 go at once, and fewer where that takes long: other
/// users of netlink shall not wait for more than 20 ms. While they go, these are in a link group of their own. As with
/// virNetDevTapDelete(), all are gone when the call returns, and the kernel's wait for RCU is left to threads that end.
///
/// Returns 0 if all are gone, or -1: the error is that of the first device that is not.
///
/// cbindgen:postfix=VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevTapDeleteList(
    ifnames: *const *const c_char,
    n: size_t,
    tunpath: *const c_char,
    errnos: *mut c_int,
) -> c_int {
    fence("virNetDevTapDeleteList", -1, || {
        // SAFETY: the caller has n strings there
        let names = unsafe { args::strings(ifnames, n) }?;
        // SAFETY: a string of the caller's, or NULL
        let tunpath = unsafe { args::string(tunpath) };
        // SAFETY: strings of the caller's, or NULL
        let names: Vec<Result<IfName>> = names.iter().map(|name| unsafe { args::interface_name(*name) }).collect();
        let valid: Vec<IfName> = names.iter().flatten().copied().collect();
        let mut deleted = tap::delete_list(&valid, tunpath).into_iter();
        let results = names.into_iter().map(|name| name.and_then(|_| deleted.next().unwrap_or(Ok(()))));
        let mut failures: Vec<Error> = Vec::new();
        for (i, result) in results.enumerate() {
            let errno = result.as_ref().err().map_or(0, |e| e.errno() as c_int);
            failures.extend(result.err());
            // SAFETY: the caller's array, which has as many elements as there are names, or NULL
            unsafe { args::fill(errnos, i, errno) };
        }
        failures.into_iter().next().map_or(Ok(0), Err)
    })
}

/// Reads the counters of many interfaces: what virNetDevTapInterfaceStats() does for one, in a few system calls for all.
///
/// @ifnames: the names, in any order, the same ones more than once if so desired; need not be taps
/// @n: their number
/// @stats: array of @n that receives the counters, in the order of the names. All eight are -1 where there is no
///   interface of that name.
/// @swapped: exchange rx and tx: what the host's tap receives is what the guest sent
///
/// Up to 32 names are asked for one by one, in the order of 10 microseconds each; more with a dump of all interfaces, in the
/// order of 2 microseconds each. An interface that appears meanwhile may be missing.
///
/// Returns the number of interfaces found, or -1 with @stats as it was. A name that cannot be one (NULL, empty, too long)
/// is an error.
///
/// cbindgen:postfix=VIR_NETDEV_TAP_RETURN_CHECK
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virNetDevTapInterfaceStatsList(
    ifnames: *const *const c_char,
    n: size_t,
    stats: virDomainInterfaceStatsPtr,
    swapped: bool,
) -> c_int {
    fence("virNetDevTapInterfaceStatsList", -1, || {
        // SAFETY: the caller has n strings there
        let names = unsafe { args::strings(ifnames, n) }?;
        if names.is_empty() {
            return Ok(0);
        }
        let stats = args::out(stats, "stats")?;
        // SAFETY: strings of the caller's, or NULL
        let names: Result<Vec<IfName>> = names.iter().map(|name| unsafe { args::interface_name(*name) }).collect();
        let all = interface_stats_list(&names?)?;
        let found = all.iter().flatten().count();
        for (i, counters) in all.iter().enumerate() {
            // SAFETY: the caller's array, which has as many elements as there are names
            unsafe { args::fill(stats, i, counters.as_ref().map_or(NOT_FOUND, |counters| convert(counters, swapped))) };
        }
        Ok(c_int::try_from(found).unwrap_or(c_int::MAX))
    })
}

const NOT_FOUND: virDomainInterfaceStatsStruct = virDomainInterfaceStatsStruct {
    rx_bytes: -1,
    rx_packets: -1,
    rx_errs: -1,
    rx_drop: -1,
    tx_bytes: -1,
    tx_packets: -1,
    tx_errs: -1,
    tx_drop: -1,
};
