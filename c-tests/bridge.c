/*
 * Bridge ports from C: what a C caller may leave out, and what it may get wrong.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <limits.h>
#include <net/if.h>
#include <virnetdevtap.h>
#include "tap.h"

/* The header warns of NULL where that is an error; here it has to get through. */
static const char *volatile no_name;
static char **volatile no_pointer;

static const virMacAddr mac = { { 0x52, 0x54, 0x00, 0x12, 0x34, 0x56 } };
static const unsigned char uuid[16] = { 1, 2, 3 };

static void run(const char *command)
{
    if (system(command) != 0)
        tap_bail_out(command);
}

/* One queue; returns what the function returns. */
static int create(const char *br, const virNetDevVPortProfile *profile, const virNetDevVlan *vlan, unsigned int isolated,
                  virNetDevCoalesce *coalesce, unsigned int flags, int *fd, char **name)
{
    unsigned int mtu = 4711;
    int rc;

    *fd = -7;
    *name = NULL;
    rc = virNetDevTapCreateInBridgePort(br, name, &mac, uuid, NULL, fd, 1, profile, vlan, (virTristateBool)isolated,
                                        coalesce, 0, &mtu, flags);
    if (rc == 0)
        OK(mtu == 1500 && *fd >= 0 && *name, "what it hands out");
    else
        OK(rc == -1 && mtu == 4711 && *fd == -1 && !*name, "a failing call hands out nothing");
    return rc;
}

static int fails(const virNetDevVPortProfile *profile, const virNetDevVlan *vlan, unsigned int isolated, int code)
{
    char *name;
    int fd;

    return create("br0", profile, vlan, isolated, NULL, VIR_NETDEV_TAP_CREATE_PERSIST, &fd, &name) == -1 &&
           virNetDevTapGetLastErrorCode() == code && errno == virNetDevTapGetLastErrorErrno() &&
           if_nametoindex("vnet0") == 0;
}

int main(void)
{
    static const int other_types[] = { 0, 1, 2, 5, -1, INT_MAX, INT_MIN };
    unsigned int tags[] = { 5, 6 };
    virNetDevVPortProfile profile;
    virNetDevVlan vlan = { 0 };
    virNetDevCoalesce coalesce = { .rx_max_coalesced_frames = 5 };
    char *name = NULL;
    char *same;
    int before, fds[2];
    int fd = -1;

    tap_namespaces();
    run("ip link add br0 type bridge");
    before = tap_open_fds();

    IS_INT(virNetDevTapAttachBridge(no_name, "br0", &mac, uuid, NULL, NULL, 0, 0, NULL), -1, "attach, no name");
    IS_INT(virNetDevTapGetLastErrorCode(), 8, "invalid argument");
    IS_INT(virNetDevTapAttachBridge("lo", no_name, &mac, uuid, NULL, NULL, 0, 0, NULL), -1, "attach, no bridge");
    IS_STR(virNetDevTapGetLastErrorMessage(), "invalid argument: Bridge name not provided", "and says so");
    IS_INT(virNetDevTapReattachBridge(no_name, no_name, NULL, NULL, NULL, NULL, 0, 0, NULL, true), -1, "reattach, nothing");
    IS_INT(virNetDevTapCreateInBridgePort("br0", no_pointer, &mac, uuid, NULL, &fd, 1, NULL, NULL, 0, NULL, 0, NULL, 0), -1,
           "create, no pointer to a name");
    IS_INT(virNetDevTapCreateInBridgePort("br0", &name, &mac, uuid, NULL, NULL, 1, NULL, NULL, 0, NULL, 0, NULL, 0), -1,
           "create, no room for the file");
    IS_INT(virNetDevTapCreateInBridgePort("br0", &name, &mac, uuid, NULL, &fd, 257, NULL, NULL, 0, NULL, 0, NULL, 0), -1,
           "create, more queues than there can be");
    IS_INT(virNetDevTapCreateInBridgePort("br0", &name, &mac, uuid, NULL, &fd, 1, NULL, NULL, 0, NULL, 0, NULL, 0x40), -1,
           "create, unknown flags");
    OK(strstr(virNetDevTapGetLastErrorMessage(), "0x40"), "and says which");
    OK(!name && fd == -1, "nothing is handed out");

    for (size_t i = 0; i < sizeof(other_types) / sizeof(*other_types); i++) {
        memset(&profile, 0xff, sizeof(profile)); /* bools that are none, a name without an end */
        profile.virtPortType = other_types[i];
        OK(fails(&profile, NULL, 0, 67), "port type %d", other_types[i]);
    }
    profile.virtPortType = 3;
    OK(fails(&profile, NULL, 0, 8), "a profile's name that is no text");
    profile.virtPortType = 4;
    OK(fails(&profile, NULL, VIR_TRISTATE_BOOL_YES, 67), "isolated, on midonet");

    vlan.tag = tags;
    vlan.nTags = -1;
    OK(fails(NULL, &vlan, 0, 8), "VLANs: less than no tags");
    vlan.nTags = INT_MAX;
    OK(fails(NULL, &vlan, 0, 8), "VLANs: tags beyond number");
    vlan.nTags = 2;
    vlan.nativeMode = 3;
    OK(fails(NULL, &vlan, 0, 8), "VLANs: a mode that is none");
    vlan.nativeMode = 0;
    vlan.tag = NULL;
    OK(fails(NULL, &vlan, 0, 8), "VLANs: no tags where there should be");
    vlan.tag = tags;
    profile.virtPortType = 4;
    OK(fails(&profile, &vlan, 0, 67), "VLANs on midonet");
    tags[0] = 5000;
    OK(fails(NULL, &vlan, 0, 8), "VLANs: out of range");
    IS_INT(tap_open_fds(), before, "no file was left open");

    vlan.nTags = 0;
    OK(create("br0", NULL, &vlan, 77, NULL, VIR_NETDEV_TAP_CREATE_IFUP, &fd, &name) == 0, "no tags, odd tristate: as without");
    run("grep -q 0 /sys/class/net/br0/brif/*/isolated");
    IS_INT(virNetDevTapAttachBridge(name, "br0", NULL, NULL, NULL, NULL, 0, 0, NULL), -1, "it is there already");
    IS_INT(errno, EBUSY, "EBUSY");
    IS_INT(virNetDevTapReattachBridge(name, "br0", NULL, NULL, NULL, NULL, 0, 0, NULL, false), 0, "reattach");
    IS_INT(virNetDevTapReattachBridge(name, "br0", NULL, NULL, NULL, NULL, VIR_TRISTATE_BOOL_YES, 0, NULL, true), 0, "force");
    run("grep -q 1 /sys/class/net/br0/brif/*/isolated");
    close(fd);
    free(name);

    name = same = strdup("tap7");
    IS_INT(virNetDevTapCreateInBridgePort("br0", &name, NULL, NULL, NULL, fds, 2, NULL, NULL, 0, &coalesce, 0, NULL, 0), 0,
           "without MAC, UUID, MTU, flags; with two queues");
    OK(name == same, "a name that stays is left alone");
    IS_INT(coalesce.rx_max_coalesced_frames, 5, "coalescing is read back");
    close(fds[0]);
    close(fds[1]);
    free(name);
    OK(if_nametoindex("tap7") == 0, "it goes with its queues");
    coalesce.tx_coalesce_usecs = 9;
    IS_INT(create("br0", NULL, NULL, 0, &coalesce, 0, &fd, &name), -1, "what a tap cannot coalesce");
    IS_INT(coalesce.tx_coalesce_usecs, 9, "the struct is as it was");
    OK(strstr(virNetDevTapGetLastErrorMessage(), "tx_coalesce_usecs"), "the error says which it is");

    name = NULL;
    IS_INT(virNetDevTapCreateInBridgePort("br0", &name, &mac, uuid, NULL, NULL, 0, NULL, NULL, 0, NULL, 0, NULL,
                                          VIR_NETDEV_TAP_CREATE_PERSIST), 0, "as bhyve's driver calls it");
    OK(name && if_nametoindex(name) != 0, "the device is there");
    IS_INT(virNetDevTapDelete(name, NULL), 0, "and deleted");
    free(name);
    IS_INT(tap_open_fds(), before, "no file was left open");
    return tap_done();
}
