/*
 * virNetDevTapInterfaceStats: the numbers of /proc/net/dev, of exactly this device.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "check.h"

#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <sys/resource.h>

enum { MANY = 1000 };

typedef virDomainInterfaceStatsStruct stats;

/* The line of /proc/net/dev, in the order of the struct; 0 if there is none */
static int proc_net_dev(const char *name, stats *out)
{
    char line[512], *at;
    int found = 0;
    FILE *file = fopen("/proc/thread-self/net/dev", "re");

    while (file && !found && fgets(line, sizeof(line), file)) {
        at = line + strspn(line, " ");
        if (strncmp(at, name, strlen(name)) != 0 || at[strlen(name)] != ':')
            continue;
        found = sscanf(at + strlen(name) + 1, "%lld %lld %lld %lld %*d %*d %*d %*d %lld %lld %lld %lld",
                       &out->rx_bytes, &out->rx_packets, &out->rx_errs, &out->rx_drop,
                       &out->tx_bytes, &out->tx_packets, &out->tx_errs, &out->tx_drop) == 8;
    }
    if (file)
        fclose(file);
    return found;
}

static void show(const char *what, const stats *s)
{
    printf("# %s rx %lld %lld %lld %lld tx %lld %lld %lld %lld\n", what, s->rx_bytes, s->rx_packets, s->rx_errs, s->rx_drop,
           s->tx_bytes, s->tx_packets, s->tx_errs, s->tx_drop);
}

static int equal(const char *what, const stats *got, const stats *wanted)
{
    if (memcmp(got, wanted, sizeof(*got)) == 0)
        return 1;
    show(what, got);
    show("wanted", wanted);
    return 0;
}

static stats swap(stats s)
{
    return (stats){s.tx_bytes, s.tx_packets, s.tx_errs, s.tx_drop, s.rx_bytes, s.rx_packets, s.rx_errs, s.rx_drop};
}

static void up(const char *name)
{
    struct ifreq ifr = for_device(name);
    int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    ifr.ifr_flags = IFF_UP | IFF_NOARP;
    if (ioctl(sock, SIOCSIFFLAGS, &ifr) < 0)
        tap_bail_out("setting a device up");
    close(sock);
}

static void quiet(void)
{
    static const char *const files[] = {"all", "default"};

    for (int i = 0; i < 2; i++) {
        char path[64];
        int fd;

        snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/disable_ipv6", files[i]);
        fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd >= 0 && write(fd, "1", 1) != 1)
            puts("# IPv6 stays on");
        if (fd >= 0)
            close(fd);
    }
}

/* Guest to host: written to the fd. Host to guest: sent through a packet socket, read from the fd. */
static void traffic(const char *name, int fd, int in, int out)
{
    unsigned char frame[100] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0, 0, 1, 0x88, 0xb5}, got[200];
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(name), .sll_halen = 6};
    int sock = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

    for (int i = 0; i < in; i++) {
        if (write(fd, frame, sizeof(frame)) != sizeof(frame))
            tap_bail_out("writing a frame");
    }
    for (int i = 0; i < out; i++) {
        if (sendto(sock, frame, 60, 0, (struct sockaddr *)&to, sizeof(to)) != 60 || read(fd, got, sizeof(got)) != 60)
            tap_bail_out("sending a frame");
    }
    close(sock);
}

static void counted(void)
{
    stats got, kernel, zero = {0}, exact = {.rx_bytes = 700, .rx_packets = 7, .tx_bytes = 180, .tx_packets = 3}, swapped;
    unsigned char frame[60] = {0};
    char *name = NULL;
    int fd;

    WORKS(virNetDevTapCreate(&name, NULL, &fd, 1, 0), "a tap");
    WORKS(virNetDevTapInterfaceStats(name, &got, false), "its statistics");
    OK(equal("got", &got, &zero), "all 0 at first");
    OK(write(fd, frame, sizeof(frame)) < 0 && errno == EIO, "a frame while it is down");
    WORKS(virNetDevTapInterfaceStats(name, &got, false), "statistics");
    OK(proc_net_dev(name, &kernel) && equal("got", &got, &kernel), "what has become of it is as in /proc/net/dev");
    close(fd);
    free(name);

    name = NULL;
    WORKS(virNetDevTapCreate(&name, NULL, &fd, 1, 0), "a tap for traffic");
    up(name);
    traffic(name, fd, 7, 3);
    WORKS(virNetDevTapInterfaceStats(name, &got, false), "statistics after traffic");
    exact.rx_drop = got.rx_drop; /* frames that nobody on the host wants: the kernel's own business */
    OK(equal("got", &got, &exact), "7 frames in, 3 out, to the byte");
    OK(proc_net_dev(name, &kernel) && equal("got", &got, &kernel), "as in /proc/net/dev");
    WORKS(virNetDevTapInterfaceStats(name, &got, true), "swapped");
    swapped = swap(exact);
    OK(equal("got", &got, &swapped), "in and out have changed places");
    close(fd);

    got = (stats){.tx_drop = 42};
    FAILS(virNetDevTapInterfaceStats(name, &got, false), ENODEV, INTERNAL, "Interface not found", "when it is gone");
    IS_INT(got.tx_drop, 42, "*stats is as it was");
    WORKS(virNetDevTapInterfaceStats("lo", &got, false), "it need not be a tap");
    free(name);
}

/* Names that end alike, with a different number of frames each; one is missing */
static void exact_names(void)
{
    static const char *const names[] = {"xvnet7", "vnet77", "vnet7", "7", "avnet7"};
    int fds[5];
    stats got;

    for (int i = 0; i < 5; i++) {
        fds[i] = raw_tap(names[i], IFF_TAP | IFF_NO_PI, 0);
        up(names[i]);
        traffic(names[i], fds[i], i + 1, 0);
    }
    for (int i = 0; i < 5; i++) {
        WORKS(virNetDevTapInterfaceStats(names[i], &got, false), "statistics of %s", names[i]);
        IS_INT(got.rx_packets, i + 1, "its own");
    }
    FAILS(virNetDevTapInterfaceStats("net7", &got, false), ENODEV, INTERNAL, "net7: Interface not found", "the end of a name");
    FAILS(virNetDevTapInterfaceStats("vnet", &got, false), ENODEV, INTERNAL, "not found", "the beginning of a name");
    FAILS(virNetDevTapInterfaceStats("VNET7", &got, false), ENODEV, INTERNAL, "not found", "other letters");
    for (int i = 0; i < 5; i++)
        close(fds[i]);
}

static void among_many(void)
{
    static int fds[MANY];
    struct rlimit limit;
    int good = 0;
    stats got;

    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < MANY + 100) {
        TAP_SKIP("too few files are allowed", "among 1000 devices");
        return;
    }
    limit.rlim_cur = limit.rlim_max > MANY + 100 ? MANY + 100 : limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    for (int i = 0; i < MANY; i++) {
        char name[IFNAMSIZ];

        snprintf(name, sizeof(name), "tap%d", i);
        /* persistent: the namespace takes all of them at once, while one by one is half a minute's work */
        fds[i] = raw_tap(name, IFF_TAP | IFF_NO_PI, 1);
        if (fds[i] < 0)
            tap_bail_out("making 1000 devices");
    }
    up("tap555");
    traffic("tap555", fds[555], 5, 0);
    for (int i = 0; i < MANY; i++) {
        char name[IFNAMSIZ];

        snprintf(name, sizeof(name), "tap%d", i);
        good += virNetDevTapInterfaceStats(name, &got, false) == 0 && got.rx_packets == (i == 555 ? 5 : 0);
    }
    IS_INT(good, MANY, "each of 1000 devices has its own numbers");
}

int main(void)
{
    struct look before;

    tap_namespaces();
    quiet();
    before = look();
    counted();
    exact_names();
    OK(same_as(&before), "nothing is left");
    among_many();
    return tap_done();
}
