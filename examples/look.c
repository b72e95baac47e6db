/*
 * look.c: what a tap is like at one moment, as the kernel tells it.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "look.h"

#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IFF_NO_CARRIER /* Linux 6.2 */
# define IFF_NO_CARRIER 0x0040
#endif

const char *const rows[ROWS] = {"device", "index", "persistent", "bridge", "vnet_hdr", "header size", "offloads"};

int open_queue(const char *name, int flags, int index)
{
    struct ifreq request = {.ifr_flags = flags};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (fd < 0 || (index && ioctl(fd, TUNSETIFINDEX, &index) < 0) || ioctl(fd, TUNSETIFF, &request) < 0) {
        perror(name);
        exit(1);
    }
    return fd;
}

static unsigned int ethtool(const char *name, unsigned int command)
{
    struct ethtool_value value = {.cmd = command};
    struct ifreq request = {.ifr_data = (char *)&value};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (ioctl(fd, SIOCETHTOOL, &request) < 0)
        perror("SIOCETHTOOL");
    close(fd);
    return value.data;
}

static unsigned int sysfs_number(const char *name, const char *attribute)
{
    char path[80];
    unsigned int number = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/sys/class/net/%s/%s", name, attribute);
    if ((file = fopen(path, "r"))) {
        if (fscanf(file, "%x", &number) != 1)
            number = 0;
        fclose(file);
    }
    return number;
}

struct look look(const char *name, int fd)
{
    struct look look = {0};
    unsigned int flags = sysfs_number(name, "tun_flags"), index = if_nametoindex(name);
    bool csum, tso;
    int header = 0, queue;

    for (int i = 0; i < ROWS; i++)
        strcpy(look.row[i], i == DEVICE && index ? "there" : i == DEVICE ? "none" : "-");
    if (!index)
        return look;
    /* opened with the flags that the tap has, nothing of it changes */
    queue = fd >= 0 ? fd : open_queue(name, (flags & ~IFF_PERSIST) | IFF_NO_CARRIER, 0);
    if (ioctl(queue, TUNGETVNETHDRSZ, &header) < 0)
        perror("TUNGETVNETHDRSZ");
    csum = ethtool(name, ETHTOOL_GTXCSUM), tso = ethtool(name, ETHTOOL_GTSO);
    sprintf(look.row[INDEX], "%u", index);
    strcpy(look.row[PERSISTENT], flags & IFF_PERSIST ? "yes" : "no");
    if (sysfs_number(name, "brport/port_no"))
        sprintf(look.row[BRIDGE], "br0, port %u", sysfs_number(name, "brport/port_no") & 0xff);
    strcpy(look.row[VNET_HDR], flags & IFF_VNET_HDR ? "yes" : "no");
    sprintf(look.row[HEADER], "%d", header);
    sprintf(look.row[OFFLOADS], "%s%s", csum ? "csum" : "none", tso ? ", tso" : "");
    if (fd < 0)
        close(queue);
    return look;
}

bool same(const struct look *one, const struct look *other)
{
    return memcmp(one, other, sizeof(*one)) == 0;
}
