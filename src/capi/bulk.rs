//! Many devices with one call.

use super::args;
use super::fence::fence;
use super::libvirt::convert;
use super::types::{virDomainInterfaceStatsPtr, virDomainInterfaceStatsStruct};
use crate::error::Result;
use crate::kernel::IfName;
use crate::stats::interface_stats_list;
use libc::{c_char, c_int, size_t};

/// Reads the counters of many interfaces: what virNetDevTapInterfaceStats() does for one, in a few system calls for all.
///
/// @ifnames: the names, in any order, the same ones more than once if so desired; need not be taps
/// @n: their number
/// @stats: array of @n that receives the counters, in the order of the names. All eight are -1 where there is no
///   interface of that name.
/// @swapped: exchange rx and tx: what the host's tap receives is what the guest sent
///
/// Up to 64 names are asked for one by one, in the order of 10 microseconds each; more with one dump of all interfaces.
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
            // SAFETY: the caller's array has as many elements as there are names
            let slot = unsafe { stats.add(i) };
            // SAFETY: inside the array, as above
            unsafe { slot.write(counters.as_ref().map_or(NOT_FOUND, |counters| convert(counters, swapped))) };
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
