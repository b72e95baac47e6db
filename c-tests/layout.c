/*
 * Sizes, offsets and values of everything that libvirt's callers pass, as they
 * are in libvirt 7.0.0 to 12.8.0 on LP64. All of it is decided at compile time.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <assert.h>
#include <virnetdevtap.h>
#include "tap.h"

#define SIZE(type, size, align)                                       \
    static_assert(sizeof(type) == (size), "size of " #type);          \
    static_assert(_Alignof(type) == (align), "alignment of " #type)
#define FIELD(type, field, offset, ctype)                                       \
    static_assert(offsetof(type, field) == (offset), "offset of " #type "." #field); \
    static_assert(_Generic(&((type *)0)->field, ctype *: 1, default: 0),        \
                  "type of " #type "." #field)
#define VALUE(constant, value) static_assert((constant) == (value), #constant)

typedef unsigned char bytes6[6], bytes16[16];
typedef char chars40[40];

SIZE(virMacAddr, 6, 1);
FIELD(virMacAddr, addr, 0, bytes6);

SIZE(virNetDevVPortProfile, 92, 4);
FIELD(virNetDevVPortProfile, virtPortType, 0, int);
FIELD(virNetDevVPortProfile, managerID, 4, uint8_t);
FIELD(virNetDevVPortProfile, managerID_specified, 5, bool);
FIELD(virNetDevVPortProfile, typeID, 8, uint32_t);
FIELD(virNetDevVPortProfile, typeID_specified, 12, bool);
FIELD(virNetDevVPortProfile, typeIDVersion, 13, uint8_t);
FIELD(virNetDevVPortProfile, typeIDVersion_specified, 14, bool);
FIELD(virNetDevVPortProfile, instanceID, 15, bytes16);
FIELD(virNetDevVPortProfile, instanceID_specified, 31, bool);
FIELD(virNetDevVPortProfile, profileID, 32, chars40);
FIELD(virNetDevVPortProfile, interfaceID, 72, bytes16);
FIELD(virNetDevVPortProfile, interfaceID_specified, 88, bool);

SIZE(virNetDevVlan, 24, 8);
FIELD(virNetDevVlan, trunk, 0, bool);
FIELD(virNetDevVlan, nTags, 4, int);
FIELD(virNetDevVlan, tag, 8, unsigned int *);
FIELD(virNetDevVlan, nativeMode, 16, int);
FIELD(virNetDevVlan, nativeTag, 20, unsigned int);

SIZE(virNetDevCoalesce, 88, 4);
FIELD(virNetDevCoalesce, rx_coalesce_usecs, 0, uint32_t);
FIELD(virNetDevCoalesce, rx_max_coalesced_frames, 4, uint32_t);
FIELD(virNetDevCoalesce, rx_coalesce_usecs_irq, 8, uint32_t);
FIELD(virNetDevCoalesce, rx_max_coalesced_frames_irq, 12, uint32_t);
FIELD(virNetDevCoalesce, tx_coalesce_usecs, 16, uint32_t);
FIELD(virNetDevCoalesce, tx_max_coalesced_frames, 20, uint32_t);
FIELD(virNetDevCoalesce, tx_coalesce_usecs_irq, 24, uint32_t);
FIELD(virNetDevCoalesce, tx_max_coalesced_frames_irq, 28, uint32_t);
FIELD(virNetDevCoalesce, stats_block_coalesce_usecs, 32, uint32_t);
FIELD(virNetDevCoalesce, use_adaptive_rx_coalesce, 36, uint32_t);
FIELD(virNetDevCoalesce, use_adaptive_tx_coalesce, 40, uint32_t);
FIELD(virNetDevCoalesce, pkt_rate_low, 44, uint32_t);
FIELD(virNetDevCoalesce, rx_coalesce_usecs_low, 48, uint32_t);
FIELD(virNetDevCoalesce, rx_max_coalesced_frames_low, 52, uint32_t);
FIELD(virNetDevCoalesce, tx_coalesce_usecs_low, 56, uint32_t);
FIELD(virNetDevCoalesce, tx_max_coalesced_frames_low, 60, uint32_t);
FIELD(virNetDevCoalesce, pkt_rate_high, 64, uint32_t);
FIELD(virNetDevCoalesce, rx_coalesce_usecs_high, 68, uint32_t);
FIELD(virNetDevCoalesce, rx_max_coalesced_frames_high, 72, uint32_t);
FIELD(virNetDevCoalesce, tx_coalesce_usecs_high, 76, uint32_t);
FIELD(virNetDevCoalesce, tx_max_coalesced_frames_high, 80, uint32_t);
FIELD(virNetDevCoalesce, rate_sample_interval, 84, uint32_t);

SIZE(virDomainInterfaceStatsStruct, 64, 8);
FIELD(virDomainInterfaceStatsStruct, rx_bytes, 0, long long);
FIELD(virDomainInterfaceStatsStruct, rx_packets, 8, long long);
FIELD(virDomainInterfaceStatsStruct, rx_errs, 16, long long);
FIELD(virDomainInterfaceStatsStruct, rx_drop, 24, long long);
FIELD(virDomainInterfaceStatsStruct, tx_bytes, 32, long long);
FIELD(virDomainInterfaceStatsStruct, tx_packets, 40, long long);
FIELD(virDomainInterfaceStatsStruct, tx_errs, 48, long long);
FIELD(virDomainInterfaceStatsStruct, tx_drop, 56, long long);

SIZE(virTristateBool, 4, 4);
VALUE(VIR_TRISTATE_BOOL_ABSENT, 0);
VALUE(VIR_TRISTATE_BOOL_YES, 1);
VALUE(VIR_TRISTATE_BOOL_NO, 2);

SIZE(virNetDevTapCreateFlags, 4, 4);
VALUE(VIR_NETDEV_TAP_CREATE_NONE, 0);
VALUE(VIR_NETDEV_TAP_CREATE_IFUP, 1 << 0);
VALUE(VIR_NETDEV_TAP_CREATE_VNET_HDR, 1 << 1);
VALUE(VIR_NETDEV_TAP_CREATE_USE_MAC_FOR_BRIDGE, 1 << 2);
VALUE(VIR_NETDEV_TAP_CREATE_PERSIST, 1 << 3);
VALUE(VIR_NETDEV_TAP_CREATE_ALLOW_EXISTING, 1 << 4);

int main(void)
{
    tap_plan(1);
    OK(1, "sizes, offsets and values are libvirt's: it compiled");
    return tap_done();
}
