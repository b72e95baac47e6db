/*
 * bridge-helper: makes a tap in a bridge port and hands it over, as qemu-bridge-helper does
 *
 *   qemu-system-x86_64 -netdev bridge,id=net0,br=br0,helper=/path/to/bridge-helper ...
 *
 * QEMU runs  bridge-helper [--use-vnet] --fd=FD --br=BRIDGE  with one end of a socket as FD, and gets the tap back
 * through it. The tap has the bridge's MTU and an address that the bridge does not take for its own; it is gone when
 * QEMU closes it. Takes CAP_NET_ADMIN. Since it has no list of who may use which bridge it refuses to run setuid.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <virnetdevtap.h>

static int usage(const char *me)
{
    fprintf(stderr, "usage: %s [--use-vnet] --fd=FD --br=BRIDGE\n", me);
    return EXIT_FAILURE;
}

/* Sends the file with one byte of data, for a message without any cannot carry it. */
static int send_file(int to, int file)
{
    char byte = 0;
    struct iovec data = { .iov_base = &byte, .iov_len = 1 };
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = { .room = { 0 } };
    struct msghdr message = {
        .msg_iov = &data,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control),
    };
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    ssize_t sent;

    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(rights), &file, sizeof(file));
    do
        sent = sendmsg(to, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent == 1 ? 0 : -1;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "br", required_argument, NULL, 'b' },
        { "fd", required_argument, NULL, 'f' },
        { "use-vnet", no_argument, NULL, 'v' },
        { NULL, 0, NULL, 0 },
    };
    unsigned int flags = VIR_NETDEV_TAP_CREATE_IFUP;
    const char *bridge = NULL;
    char *end = NULL;
    char *ifname = NULL; /* the library finds a free vnetN */
    long to = -1;
    int tap = -1;
    int option;

    if (getuid() != geteuid()) {
        fprintf(stderr, "%s: not to be run setuid\n", argv[0]);
        return EXIT_FAILURE;
    }
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'b':
            bridge = optarg;
            break;
        case 'f':
            errno = 0;
            to = strtol(optarg, &end, 10);
            if (errno || end == optarg || *end || to < 0 || to > 1 << 20)
                return usage(argv[0]);
            break;
        case 'v':
            flags |= VIR_NETDEV_TAP_CREATE_VNET_HDR;
            break;
        default:
            return usage(argv[0]);
        }
    }
    if (!bridge || to < 0 || optind != argc)
        return usage(argv[0]);

    if (virNetDevTapCreateInBridgePort(bridge, &ifname, NULL, NULL, NULL, &tap, 1, NULL, NULL,
                                       VIR_TRISTATE_BOOL_ABSENT, NULL, 0, NULL, flags) < 0) {
        fprintf(stderr, "%s: %s\n", argv[0], virNetDevTapGetLastErrorMessage());
        return EXIT_FAILURE;
    }
    /* If this fails the tap goes with our only queue of it. */
    if (send_file((int)to, tap) < 0) {
        fprintf(stderr, "%s: unable to send %s: %s\n", argv[0], ifname, strerror(errno));
        return EXIT_FAILURE;
    }
    free(ifname);
    return EXIT_SUCCESS;
}
