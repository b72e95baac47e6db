/*
 * The stand-in libvirt's own header, with its own types and declarations, under the name that libvirt gives it.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { VIR_TRISTATE_BOOL_ABSENT, VIR_TRISTATE_BOOL_YES, VIR_TRISTATE_BOOL_NO } virTristateBool;
enum { VIR_NETDEV_TAP_CREATE_IFUP = 1, VIR_NETDEV_TAP_CREATE_PERSIST = 8, VIR_NETDEV_TAP_CREATE_ALLOW_EXISTING = 16 };

typedef struct _virMacAddr virMacAddr;
struct _virMacAddr {
    unsigned char addr[6];
};
typedef struct _virNetDevVPortProfile virNetDevVPortProfile;
typedef struct _virNetDevVlan virNetDevVlan;
typedef struct _virNetDevCoalesce virNetDevCoalesce;
typedef struct _virDomainInterfaceStats virDomainInterfaceStatsStruct;
typedef virDomainInterfaceStatsStruct *virDomainInterfaceStatsPtr;
struct _virDomainInterfaceStats {
    long long rx_bytes, rx_packets, rx_errs, rx_drop, tx_bytes, tx_packets, tx_errs, tx_drop;
};

#include "../reference/libvirt-10.8.h"

extern char lastError[512];
extern int lastErrorCode;

int standInConnect(char **name, int *fd, const char *dir);
int standInDeleteDevice(const char *name, const char *dir);
