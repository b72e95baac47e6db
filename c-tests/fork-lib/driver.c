/*
 * A stand-in for a hypervisor driver of a fork: calls all eight functions through its libvirt.so, and, with WITH_STATE,
 * saves and restores a tap there.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "virnetdevtap.h"
#ifdef WITH_STATE
# include "virnetdevtapstate.h"
#endif
#include "../tap.h"

#include <net/if.h>
#include <sys/ioctl.h>
#include <linux/if_tun.h>

static bool is_port(const char *bridge, const char *name)
{
    char path[80];

    snprintf(path, sizeof(path), "/sys/class/net/%s/brif/%s", bridge, name);
    return access(path, F_OK) == 0;
}

static void all_eight(void)
{
    const virMacAddr mac = {{0x52, 0x54, 0, 1, 2, 3}};
    const unsigned char uuid[16] = {0};
    virDomainInterfaceStatsStruct stats;
    char *name = NULL, *again = NULL, *port = NULL;
    unsigned int mtu = 0;
    int fd, port_fd;

    OK(virNetDevTapCreate(&name, NULL, &fd, 1, 0) == 0, "virNetDevTapCreate");
    IS_STR(name, "vnet41", "the name is from libvirt's counter");
    OK(virNetDevTapGetName(fd, &again) == 0 && strcmp(name, again) == 0, "virNetDevTapGetName");
    OK(virNetDevTapGetRealDeviceName(name) == NULL, "virNetDevTapGetRealDeviceName");
    OK(virNetDevTapInterfaceStats(name, &stats, true) == 0 && stats.tx_packets == 0, "virNetDevTapInterfaceStats");
    OK(virNetDevTapAttachBridge(name, "br0", &mac, uuid, NULL, NULL, VIR_TRISTATE_BOOL_YES, 1400, &mtu) == 0 &&
           is_port("br0", name) && mtu == 1400, "virNetDevTapAttachBridge");
    OK(virNetDevTapReattachBridge(name, "br1", &mac, uuid, NULL, NULL, VIR_TRISTATE_BOOL_NO, 0, NULL, false) == 0 &&
           is_port("br1", name), "virNetDevTapReattachBridge");
    OK(virNetDevTapCreateInBridgePort("br0", &port, &mac, uuid, NULL, &port_fd, 1, NULL, NULL, VIR_TRISTATE_BOOL_NO, NULL, 0,
                                      NULL, VIR_NETDEV_TAP_CREATE_IFUP) == 0 && is_port("br0", port),
       "virNetDevTapCreateInBridgePort");
    close(port_fd);
    close(fd);
    free(again);
    again = strdup("standin0");
    OK(virNetDevTapCreate(&again, NULL, NULL, 0, VIR_NETDEV_TAP_CREATE_PERSIST) == 0 && if_nametoindex(again),
       "virNetDevTapCreate, persistent");
    OK(virNetDevTapDelete(again, NULL) == 0 && !if_nametoindex(again), "virNetDevTapDelete");
    OK(virNetDevTapDelete("lo", NULL) == -1 && strstr(lastError, "lo") && strstr(lastError, "not a tap"),
       "an error goes through libvirt: %s", lastError);
    free(name);
    free(port);
    free(again);
}

#ifdef WITH_STATE
static void state(const char *dir)
{
    char *name = strdup("standin1");
    int fd;

    OK(virNetDevTapCreate(&name, NULL, NULL, 0, VIR_NETDEV_TAP_CREATE_PERSIST) == 0, "a tap of somebody else's");
    OK(standInConnect(&name, &fd, dir) == 0, "saved, opened and held");
    OK(ioctl(fd, TUNSETPERSIST, 0) == 0 && close(fd) == 0, "a hypervisor clears its persist flag and ends");
    OK(standInDeleteDevice(name, dir) == 0 && if_nametoindex(name), "it is there afterwards");
    OK(virNetDevTapDelete(name, NULL) == 0, "and is deleted in the end");
    free(name);
}
#endif

int main(int argc, char **argv)
{
    if (argc != 2)
        return 0; /* what prints now is not this program */
    tap_namespaces();
    if (system("ip link add br0 type bridge && ip link add br1 type bridge && ip link set br0 up") != 0)
        return 2;
    all_eight();
#ifdef WITH_STATE
    state(argv[1]);
#else
    (void)argv;
#endif
    return tap_done();
}
