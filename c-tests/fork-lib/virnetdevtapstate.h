/*
 * What a fork adds to libvirt's headers: ours, by its path, since libvirt has one of the same name.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#pragma once

#include "virnetdevtap.h"
#define VIR_NETDEV_TAP_LIBVIRT_TYPES
#include "../../include/virnetdevtap.h"
