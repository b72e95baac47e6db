/*
 * A stand-in for the libvirt.so of a fork: what virnetdevtap finds there at run time, callers of its functions as the
 * hypervisor drivers are, and hidden functions named like libvirt's own.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "virnetdevtap.h"
#ifdef WITH_STATE
# include "virnetdevtapstate.h"
#endif

#include <errno.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char lastError[512];
int lastErrorCode;

int virGetVersion(unsigned long *version, const char *type, unsigned long *type_version)
{
    (void)type;
    (void)type_version;
    *version = 10008000;
    return 0;
}

void virReportErrorHelper(int domain, int code, const char *file, const char *function, size_t line, const char *format, ...)
{
    va_list args;

    (void)domain;
    (void)file;
    (void)function;
    (void)line;
    lastErrorCode = code;
    va_start(args, format);
    vsnprintf(lastError, sizeof(lastError), format, args);
    va_end(args);
}

void virReportSystemErrorFull(int domain, int error, const char *file, const char *function, size_t line, const char *format,
                              ...)
{
    char text[400];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    virReportErrorHelper(domain, 38, file, function, line, "%s: %s", text, strerror(error));
}

void virLogMessage(void *source, unsigned int priority, const char *file, int line, const char *function, void *metadata,
                   const char *format, ...)
{
    (void)source;
    (void)priority;
    (void)file;
    (void)line;
    (void)function;
    (void)metadata;
    (void)format;
}

int virNetDevGenerateName(char **name, unsigned int type)
{
    static int last = 40;

    if (*name && !strstr(*name, "%d"))
        return 1;
    (void)type;
    free(*name);
    return asprintf(name, "vnet%d", ++last) < 0 ? -1 : 0;
}

/* Functions of libvirt's, and of its neighbours, that a library linked into it must not define as well. */
int virNetDevExists(const char *name)
{
    return if_nametoindex(name) != 0;
}

int virNetDevSetOnline(const char *name, bool online)
{
    return name && online ? 0 : -1;
}

int virNetDevBridgeAddPort(const char *bridge, const char *name)
{
    return bridge && name ? 0 : -1;
}

int virFileClose(int *fd)
{
    return close(*fd);
}

#ifdef WITH_STATE
/* Where a fork saves, holds and restores. */
int standInConnect(char **name, int *fd, const char *dir)
{
    if (virNetDevTapStateSave(*name, dir) < 0 ||
        virNetDevTapCreate(name, NULL, fd, 1, VIR_NETDEV_TAP_CREATE_ALLOW_EXISTING) < 0)
        return -1;
    return virNetDevTapStateHold(*name, dir, fd, 1);
}

int standInDeleteDevice(const char *name, const char *dir)
{
    return virNetDevTapStateRestore(name, NULL, dir, 0, NULL);
}
#endif
