/*
 * virNetDevTapDelete: what goes, what stays, and who is named.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "check.h"

/* Netlink events about devices since the socket was opened */
static int events(int sock)
{
    char buffer[8192];
    int count = 0;

    while (recv(sock, buffer, sizeof(buffer), MSG_DONTWAIT) > 0)
        count++;
    return count;
}

static int monitor(void)
{
    struct sockaddr_nl links = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
    int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    if (bind(sock, (struct sockaddr *)&links, sizeof(links)) < 0)
        tap_bail_out("listening for device events");
    return sock;
}

static void what_goes(void)
{
    static const struct {
        const char *what;
        int flags;
    } kinds[] = {
        {"persistent", 0},
        {"persistent, multi-queue", IFF_MULTI_QUEUE},
        {"persistent, vnet_hdr", IFF_VNET_HDR},
        {"persistent, multi-queue, vnet_hdr, napi", IFF_MULTI_QUEUE | IFF_VNET_HDR | IFF_NAPI},
    };
    int sock;

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct look before = look();

        premade("gone0", kinds[i].flags);
        WORKS(virNetDevTapDelete("gone0", i % 2 ? "/dev/net/tun" : NULL), "delete: %s", kinds[i].what);
        OK(same_as(&before), "it is gone, no fd is left");
    }

    sock = monitor();
    WORKS(virNetDevTapDelete("never0", NULL), "delete what does not exist");
    WORKS(virNetDevTapDelete("never0", "/no/such/file"), "even where there is no tun");
    IS_INT(events(sock), 0, "no device came or went for it");
    premade("seen0", 0);
    OK(events(sock) > 0, "the monitor does see devices");
    remove_raw("seen0");
    close(sock);
}

static void what_stays(void)
{
    static const char *const kinds[] = {"veth", "bridge", "dummy", "macvtap"};
    unsigned int lower = 0;
    char text[96];
    int tun;

    FAILS(virNetDevTapDelete("lo", NULL), EINVAL, SYSTEM, "lo is a loopback device, not a tap", "delete lo");
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        int macvtap = strcmp(kinds[i], "macvtap") == 0;
        int error = macvtap && !lower ? -ENODEV : other_device(kinds[i], "other0", macvtap ? lower : 0);

        if (error != 0) {
            char why[96];

            snprintf(why, sizeof(why), "cannot be made here (%s)", strerror(-error));
            TAP_SKIP(why, "delete a %s", kinds[i]);
            continue;
        }
        snprintf(text, sizeof(text), "Unable to delete tap device other0, other0 is a %s device, not a tap", kinds[i]);
        FAILS(virNetDevTapDelete("other0", NULL), EINVAL, SYSTEM, text, "delete a %s", kinds[i]);
        remove_raw("other0");
        if (!lower && other_device("veth", "lower0", 0) == 0)
            lower = if_nametoindex("lower0");
    }
    remove_raw("lower0");

    tun = raw_tap("other0", IFF_TUN | IFF_NO_PI, 1);
    close(tun);
    FAILS(virNetDevTapDelete("other0", NULL), EINVAL, SYSTEM, "not a tap", "delete a persistent TUN device");
    remove_raw("other0");
}

static void held(int flags, const char *what)
{
    struct queue_of queue = {"held0", flags};
    struct holder holders[2];
    char text[128];

    premade("held0", flags);
    holders[0] = hold("qemu-system-x86", open_queue, &queue);
    snprintf(text, sizeof(text),
             "Unable to delete tap device held0, it is held by qemu-system-x86 (pid %d): Device or resource busy",
             holders[0].pid);
    FAILS(virNetDevTapDelete("held0", NULL), EBUSY, SYSTEM, text, "held, %s", what);
    IS_STR(virNetDevTapGetLastErrorMessage(), text, "that is the whole text");
    if (flags & IFF_MULTI_QUEUE) {
        holders[1] = hold("ch (vmm) 2", open_queue, &queue);
        snprintf(text, sizeof(text), "held by qemu-system-x86 (pid %d), ch (vmm) 2 (pid %d)", holders[0].pid, holders[1].pid);
        FAILS(virNetDevTapDelete("held0", NULL), EBUSY, SYSTEM, text, "two holders");
        release(&holders[1]);
    }
    release(&holders[0]);
    WORKS(virNetDevTapDelete("held0", NULL), "and when nobody holds it any more");
    OK(!exists("held0"), "it is gone");
}

static void held_by_us(void)
{
    char text[64];
    int fd;

    premade("held0", 0);
    fd = raw_tap("held0", IFF_TAP | IFF_NO_PI, 0);
    snprintf(text, sizeof(text), "(pid %d)", getpid());
    FAILS(virNetDevTapDelete("held0", NULL), EBUSY, SYSTEM, text, "held by the caller itself");
    close(fd);
    WORKS(virNetDevTapDelete("held0", NULL), "and closed");
}

/* Holds a tap until the parent watches for its release, which shows as an inotify instance of the parent's. */
static int let_go_when_waited_for(void *opaque)
{
    int fd = raw_tap(opaque, IFF_TAP | IFF_NO_PI, 0);
    pid_t parent = getppid();

    if (fd < 0 || fork() != 0)
        return fd < 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int tries = 0; tries < 10000; tries++) {
        char path[64], target[64];
        struct dirent *entry;
        DIR *dir;

        snprintf(path, sizeof(path), "/proc/%d/fd", parent);
        dir = opendir(path);
        while (dir && (entry = readdir(dir))) {
            ssize_t len = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

            if (len > 0 && (target[len] = '\0', strstr(target, "inotify"))) {
                close(fd);
                _exit(0); /* under valgrind, much later */
            }
        }
        if (dir)
            closedir(dir);
        moment();
    }
    _exit(1);
}

static void let_go(void)
{
    struct holder holder;

    premade("soon0", 0);
    holder = hold("leaving", let_go_when_waited_for, (char[]){"soon0"});
    release(&holder); /* its child has the tap now */
    WORKS(virNetDevTapDelete("soon0", NULL), "a holder that lets go while the call waits");
    OK(!exists("soon0"), "it is gone");
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
}

static int delete_it(void *name)
{
    if (virNetDevTapDelete(name, NULL) == 0)
        return 0;
    return virNetDevTapGetLastErrorErrno() == EPERM && strstr(virNetDevTapGetLastErrorMessage(), "it belongs to uid 12345") ? 7 : 1;
}

static int refused(void *name)
{
    return delete_it(name) != 7;
}

static void owner(void)
{
    int fd = raw_tap("own0", IFF_TAP | IFF_NO_PI, 1), set;

    set = ioctl(fd, TUNSETOWNER, geteuid());
    close(fd);
    OK(set == 0 && without_capabilities(delete_it, "own0"), "the owner deletes it without any capability");
    OK(gone("own0"), "it is gone");

    fd = raw_tap("own0", IFF_TAP | IFF_NO_PI, 1);
    set = ioctl(fd, TUNSETOWNER, 12345);
    close(fd);
    if (set == 0) {
        OK(without_capabilities(refused, "own0"), "another user's is refused, and the error says whose it is");
        OK(exists("own0"), "it stays");
    } else {
        TAP_SKIP("there is no second user in this namespace", "another user's is refused");
    }
    remove_raw("own0");
}

int main(void)
{
    struct look before;

    tap_namespaces();
    before = look();
    what_goes();
    what_stays();
    held(0, "single-queue");
    held(IFF_MULTI_QUEUE, "multi-queue");
    held_by_us();
    let_go();
    owner();
    OK(same_as(&before), "nothing is left");
    return tap_done();
}
