/*
 * virNetDevTapCreate: new devices and existing ones, flags, queues, failures half-way.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "check.h"

#include <sys/resource.h>

enum {
    VNET_HDR = VIR_NETDEV_TAP_CREATE_VNET_HDR,
    PERSIST = VIR_NETDEV_TAP_CREATE_PERSIST,
    ALLOW = VIR_NETDEV_TAP_CREATE_ALLOW_EXISTING,
    ALL_FLAGS = 31,
    MOST = 256
};

static int fds[MOST + 1];

static void close_all(size_t count)
{
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
}

static int all_are(size_t count, int value)
{
    for (size_t i = 0; i < count; i++) {
        if (fds[i] != value)
            return 0;
    }
    return 1;
}

/* Each fd is a queue of the device, with these flags, and close-on-exec. */
static int queues_are(const char *name, size_t count, int flags)
{
    for (size_t i = 0; i < count; i++) {
        struct ifreq ifr = {0};

        if (ioctl(fds[i], TUNGETIFF, &ifr) < 0 || strcmp(ifr.ifr_name, name) != 0 || (ifr.ifr_flags & 0xffff) != flags ||
            fcntl(fds[i], F_GETFD) != FD_CLOEXEC) {
            printf("# fd %d: name %s, flags 0x%x (wanted 0x%x), fd flags %d\n", fds[i], ifr.ifr_name,
                   ifr.ifr_flags & 0xffff, flags, fcntl(fds[i], F_GETFD));
            return 0;
        }
    }
    return 1;
}

static int kernel_flags(size_t queues, unsigned int flags)
{
    return IFF_TAP | IFF_NO_PI | (queues > 1 ? IFF_MULTI_QUEUE : 0) | (flags & VNET_HDR ? IFF_VNET_HDR : 0) |
           (flags & PERSIST ? IFF_PERSIST : 0);
}

static void every_flag(void)
{
    for (size_t queues = 1; queues <= 2; queues++) {
        for (unsigned int flags = 0; flags <= ALL_FLAGS; flags++) {
            char *name = strdup("new0");
            struct look before = look();
            int rc = virNetDevTapCreate(&name, NULL, fds, queues, flags);
            int good = rc == 0 && strcmp(name, "new0") == 0 && queues_are(name, queues, kernel_flags(queues, flags));

            close_all(queues);
            good = good && (flags & PERSIST ? exists("new0") : gone("new0"));
            remove_raw("new0");
            if (!OK(good && same_as(&before), "new, %zu queues, flags 0x%x", queues, flags))
                printf("# returned %d, last error: %s\n", rc, virNetDevTapGetLastErrorMessage());
            free(name);
        }
    }
}

static void how_many_queues(void)
{
    struct look before = look();
    char *name = NULL;
    char *kept = name;

    WORKS(virNetDevTapCreate(&name, NULL, fds, MOST, 0), "256 queues");
    OK(name && queues_are(name, MOST, kernel_flags(2, 0)), "all 256 are queues of it");
    close_all(MOST);
    OK(same_as(&before), "and it goes with them");
    free(name);

    name = kept = strdup("many0");
    memset(fds, 0x55, sizeof(fds));
    FAILS(virNetDevTapCreate(&name, NULL, fds, MOST + 1, 0), EINVAL, INVALID_ARG, "at most 256 queues, not 257", "257 queues");
    OK(name == kept, "*ifname is as it was");

    fds[0] = 77;
    FAILS(virNetDevTapCreate(&name, NULL, fds, 0, 0), EINVAL, INVALID_ARG, "has to be persistent", "no queue");
    IS_INT(fds[0], 77, "no slot, none written");
    FAILS(virNetDevTapCreate(&name, NULL, NULL, 1, 0), EINVAL, INVALID_ARG, "tapfd must not be NULL", "tapfd NULL");
    FAILS(virNetDevTapCreate(&name, NULL, NULL, 0, 0), EINVAL, INVALID_ARG, "tapfd must not be NULL", "tapfd NULL, no queue");

    for (size_t count = 0; count <= 2; count++) {
        before = look();
        WORKS(virNetDevTapCreate(&name, NULL, NULL, count, PERSIST), "persistent, tapfd NULL, %zu queues", count);
        IS_INT(tun_flags("many0"), kernel_flags(count, PERSIST), "its flags");
        remove_raw("many0");
        OK(same_as(&before), "no fd stays open");
    }
    WORKS(virNetDevTapCreate(&name, NULL, fds, 0, PERSIST), "persistent, no queue");
    OK(exists("many0") && fds[0] == 77, "the device is there, no slot was written");
    remove_raw("many0");
    free(name);
}

static void name_taken(void)
{
    char *name = strdup("taken0"), *kept = name;

    premade("taken0", 0);
    fds[0] = fds[1] = 77;
    FAILS(virNetDevTapCreate(&name, NULL, fds, 2, 0), EEXIST, OP_INVALID,
          "Requested operation is not valid: The taken0 interface already exists", "the name is taken");
    OK(all_are(2, -1) && name == kept, "slots are -1, *ifname as it was");
    FAILS(virNetDevTapCreate(&name, NULL, NULL, 0, PERSIST), EEXIST, OP_INVALID, "already exists", "taken, persistent");
    remove_raw("taken0");
    free(name);

    name = strdup("lo");
    FAILS(virNetDevTapCreate(&name, NULL, fds, 1, 0), EEXIST, OP_INVALID, "The lo interface already exists", "taken by lo");
    FAILS(virNetDevTapCreate(&name, NULL, fds, 1, ALLOW), EINVAL, SYSTEM, "lo is a loopback device, not a tap",
          "lo is not opened as a tap");
    free(name);
}

/* What is there, with which flags, against what is asked for */
static void existing(void)
{
    for (int mq = 0; mq <= 1; mq++) {
        for (int has_vnet = 0; has_vnet <= 1; has_vnet++) {
            for (unsigned int wants_vnet = 0; wants_vnet <= 1; wants_vnet++) {
                for (size_t queues = 1; queues <= 3; queues += 2) {
                    unsigned int flags = ALLOW | (wants_vnet ? VNET_HDR : 0);
                    struct look before;
                    char *name = strdup("old0"), *kept = name;
                    unsigned int index;
                    int rc, good;

                    premade("old0", (mq ? IFF_MULTI_QUEUE : 0) | (has_vnet ? IFF_VNET_HDR : 0));
                    index = if_nametoindex("old0");
                    before = look();
                    if (queues > 1 && !mq) {
                        FAILS(virNetDevTapCreate(&name, NULL, fds, queues, flags), EINVAL, SYSTEM,
                              "Unable to create multiple fds for tap device old0",
                              "existing: 3 fds of a single-queue tap, vnet_hdr %d", has_vnet);
                        OK(all_are(queues, -1), "slots are -1");
                    } else {
                        rc = virNetDevTapCreate(&name, NULL, fds, queues, flags);
                        good = rc == 0 && name == kept && if_nametoindex("old0") == index &&
                               queues_are("old0", queues, kernel_flags(mq ? 2 : 1, flags) | IFF_PERSIST);
                        if (!OK(good, "existing: multi-queue %d, vnet_hdr %d; opened with %zu queues, vnet_hdr %u", mq, has_vnet,
                                queues, wants_vnet))
                            printf("# %s\n", virNetDevTapGetLastErrorMessage());
                        close_all(queues);
                        OK(exists("old0") && tap_open_fds() == before.fds, "it stays when they are closed");
                    }
                    remove_raw("old0");
                    free(name);
                }
            }
        }
    }
}

static void existing_but(void)
{
    struct queue_of queue = {"held0", 0};
    struct holder holder;
    char *name = strdup("held0"), text[64];
    int tun;

    premade("held0", 0);
    holder = hold("qemu", open_queue, &queue);
    snprintf(text, sizeof(text), "held by qemu (pid %d)", holder.pid);
    FAILS(virNetDevTapCreate(&name, NULL, fds, 1, ALLOW | VNET_HDR), EBUSY, SYSTEM, text, "existing, but held");
    release(&holder);
    WORKS(virNetDevTapCreate(&name, NULL, fds, 1, ALLOW), "and when the holder has gone");
    close(fds[0]);
    remove_raw("held0");

    tun = raw_tap("held0", IFF_TUN | IFF_NO_PI, 0);
    FAILS(virNetDevTapCreate(&name, NULL, fds, 1, ALLOW), EINVAL, SYSTEM, "not a tap", "existing, but a TUN device");
    close(tun);
    free(name);
}

/* The third file cannot be opened: what the call has made by then goes again. */
static void half_way(void)
{
    struct rlimit limit, few;
    struct look before = look();
    char *name = strdup("half0"), *kept = name;
    int rc, error;

    getrlimit(RLIMIT_NOFILE, &limit);
    few = limit;
    few.rlim_cur = fcntl(0, F_DUPFD, 0);
    close(few.rlim_cur);
    few.rlim_cur += 2;
    memset(fds, 0x55, sizeof(fds));
    setrlimit(RLIMIT_NOFILE, &few);
    rc = virNetDevTapCreate(&name, NULL, fds, 4, PERSIST);
    error = errno;
    setrlimit(RLIMIT_NOFILE, &limit);
    OK(failed_as(rc, error, &before, EMFILE, SYSTEM, "Unable to open /dev/net/tun"), "no more files for the third queue");
    OK(all_are(4, -1) && name == kept, "slots are -1, *ifname as it was");

    premade("half0", IFF_MULTI_QUEUE);
    before = look();
    setrlimit(RLIMIT_NOFILE, &few);
    rc = virNetDevTapCreate(&name, NULL, fds, 4, ALLOW | VNET_HDR);
    error = errno;
    setrlimit(RLIMIT_NOFILE, &limit);
    OK(failed_as(rc, error, &before, EMFILE, SYSTEM, "Unable to open"), "the same with an existing tap: its flags are put back");
    OK(all_are(4, -1), "slots are -1");
    remove_raw("half0");
    free(name);
}

int main(void)
{
    struct look before;
    char *name = NULL;

    tap_namespaces();
    before = look();

    WORKS(virNetDevTapCreate(&name, NULL, fds, 1, 0), "a tap without a name");
    IS_STR(name, "vnet0", "its name");
    OK(name && queues_are(name, 1, kernel_flags(1, 0)), "its fd");
    close(fds[0]);
    OK(same_as(&before), "it goes when it is closed");
    free(name);

    name = strdup("mine0");
    WORKS(virNetDevTapCreate(&name, "/dev/net/tun", fds, 1, ALLOW), "a name of one's own, and none there");
    close(fds[0]);
    free(name);

    every_flag();
    how_many_queues();
    name_taken();
    existing();
    existing_but();
    half_way();
    OK(same_as(&before), "nothing is left");
    return tap_done();
}
