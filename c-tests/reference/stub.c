/*
 * A shared library with libvirt's signatures and no content, for check-abi.sh:
 * its debug information is what ours is compared with. The types are spelled
 * out here a second time, so that a mistake in our header does not hide itself.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    unsigned char addr[6];
} virMacAddr;

typedef struct {
    int virtPortType;
    uint8_t managerID;
    bool managerID_specified;
    uint32_t typeID;
    bool typeID_specified;
    uint8_t typeIDVersion;
    bool typeIDVersion_specified;
    unsigned char instanceID[16];
    bool instanceID_specified;
    char profileID[40];
    unsigned char interfaceID[16];
    bool interfaceID_specified;
} virNetDevVPortProfile;

typedef struct {
    bool trunk;
    int nTags;
    unsigned int *tag;
    int nativeMode;
    unsigned int nativeTag;
} virNetDevVlan;

typedef enum {
    VIR_TRISTATE_BOOL_ABSENT = 0,
    VIR_TRISTATE_BOOL_YES,
    VIR_TRISTATE_BOOL_NO,
} virTristateBool;

typedef struct {
    uint32_t rx_coalesce_usecs, rx_max_coalesced_frames;
    uint32_t rx_coalesce_usecs_irq, rx_max_coalesced_frames_irq;
    uint32_t tx_coalesce_usecs, tx_max_coalesced_frames;
    uint32_t tx_coalesce_usecs_irq, tx_max_coalesced_frames_irq;
    uint32_t stats_block_coalesce_usecs;
    uint32_t use_adaptive_rx_coalesce, use_adaptive_tx_coalesce;
    uint32_t pkt_rate_low, rx_coalesce_usecs_low, rx_max_coalesced_frames_low;
    uint32_t tx_coalesce_usecs_low, tx_max_coalesced_frames_low;
    uint32_t pkt_rate_high, rx_coalesce_usecs_high, rx_max_coalesced_frames_high;
    uint32_t tx_coalesce_usecs_high, tx_max_coalesced_frames_high;
    uint32_t rate_sample_interval;
} virNetDevCoalesce;

typedef struct {
    long long rx_bytes, rx_packets, rx_errs, rx_drop;
    long long tx_bytes, tx_packets, tx_errs, tx_drop;
} virDomainInterfaceStatsStruct;
typedef virDomainInterfaceStatsStruct *virDomainInterfaceStatsPtr;

#include "libvirt-10.8.h"

#define UNUSED __attribute__((unused))

int virNetDevTapCreate(char **ifname UNUSED, const char *tunpath UNUSED, int *tapfd UNUSED,
                       size_t tapfdSize UNUSED, unsigned int flags UNUSED)
{
    return -1;
}

int virNetDevTapDelete(const char *ifname UNUSED, const char *tunpath UNUSED)
{
    return -1;
}

int virNetDevTapGetName(int tapfd UNUSED, char **ifname UNUSED)
{
    return -1;
}

char *virNetDevTapGetRealDeviceName(char *ifname UNUSED)
{
    return NULL;
}

int virNetDevTapInterfaceStats(const char *ifname UNUSED, virDomainInterfaceStatsPtr stats UNUSED,
                               bool swapped UNUSED)
{
    return -1;
}

int virNetDevTapAttachBridge(const char *tapname UNUSED, const char *brname UNUSED,
                             const virMacAddr *macaddr UNUSED, const unsigned char *vmuuid UNUSED,
                             const virNetDevVPortProfile *virtPortProfile UNUSED,
                             const virNetDevVlan *virtVlan UNUSED,
                             virTristateBool isolatedPort UNUSED, unsigned int mtu UNUSED,
                             unsigned int *actualMTU UNUSED)
{
    return -1;
}

int virNetDevTapReattachBridge(const char *tapname UNUSED, const char *brname UNUSED,
                               const virMacAddr *macaddr UNUSED,
                               const unsigned char *vmuuid UNUSED,
                               const virNetDevVPortProfile *virtPortProfile UNUSED,
                               const virNetDevVlan *virtVlan UNUSED,
                               virTristateBool isolatedPort UNUSED, unsigned int mtu UNUSED,
                               unsigned int *actualMTU UNUSED, bool force UNUSED)
{
    return -1;
}

int virNetDevTapCreateInBridgePort(const char *brname UNUSED, char **ifname UNUSED,
                                   const virMacAddr *macaddr UNUSED,
                                   const unsigned char *vmuuid UNUSED,
                                   const char *tunpath UNUSED, int *tapfd UNUSED,
                                   size_t tapfdSize UNUSED,
                                   const virNetDevVPortProfile *virtPortProfile UNUSED,
                                   const virNetDevVlan *virtVlan UNUSED,
                                   virTristateBool isolatedPort UNUSED,
                                   virNetDevCoalesce *coalesce UNUSED, unsigned int mtu UNUSED,
                                   unsigned int *actualMTU UNUSED, unsigned int flags UNUSED)
{
    return -1;
}
