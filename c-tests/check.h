/*
 * What the tests of the functions share: devices made without the library, a
 * look at the machine, and FAILS(), which holds a failing call to its promise.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef CHECK_H
#define CHECK_H

#include "tap.h"

#include <linux/capability.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <virnetdevtap.h>

/* libvirt's error numbers */
enum { NO_ERROR = 0, INTERNAL = 1, INVALID_ARG = 8, SYSTEM = 38, OP_INVALID = 55 };

/* What a call must leave alone: the devices with their flags, and the open fds. */
struct look {
    char links[8192];
    int fds;
};

static inline struct look look(void)
{
    struct look now = {.fds = tap_open_fds()};
    struct if_nameindex *all = if_nameindex();
    size_t at = 0;

    if (!all)
        tap_bail_out("if_nameindex");
    for (int i = 0; all[i].if_name && at < sizeof(now.links) - 64; i++) {
        char path[64], flags[16] = "-";
        FILE *file;

        snprintf(path, sizeof(path), "/sys/class/net/%s/tun_flags", all[i].if_name);
        file = fopen(path, "re");
        if (file && !fgets(flags, sizeof(flags), file))
            flags[0] = '\0';
        if (file)
            fclose(file);
        flags[strcspn(flags, "\n")] = '\0';
        at += snprintf(now.links + at, sizeof(now.links) - at, "%u:%s:%s ", all[i].if_index, all[i].if_name, flags);
    }
    if_freenameindex(all);
    return now;
}

static inline void moment(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/*
 * Are the devices and fds as before? Whoever looks into our /proc/PID/fdinfo, such as a search for holders, has the
 * file meanwhile, so that a closed tap may go a little later.
 */
static inline int same_as(const struct look *before)
{
    struct look now = look();

    for (int tries = 0; tries < 5000 && strcmp(now.links, before->links) != 0; tries++) {
        moment();
        now = look();
    }
    if (strcmp(now.links, before->links) != 0)
        printf("# the devices were %s\n# the devices are  %s\n", before->links, now.links);
    if (now.fds != before->fds)
        printf("# %d fds were open, now %d are\n", before->fds, now.fds);
    return strcmp(now.links, before->links) == 0 && now.fds == before->fds;
}

static inline int failed_as(int rc, int rc_errno, const struct look *before, int wanted_errno, int code, const char *text)
{
    const char *message = virNetDevTapGetLastErrorMessage();
    int good = rc == -1 && rc_errno == wanted_errno && virNetDevTapGetLastErrorErrno() == wanted_errno &&
               virNetDevTapGetLastErrorCode() == code && strstr(message, text);

    if (!good)
        printf("# returned %d, errno %d (wanted %d), last error: errno %d, code %d (wanted %d), \"%s\" (wanted \"%s\")\n",
               rc, rc_errno, wanted_errno, virNetDevTapGetLastErrorErrno(), virNetDevTapGetLastErrorCode(), code, message, text);
    return same_as(before) && good;
}

/* The call returns -1 with this errno, code and text, and leaves devices and fds as they were. The rest describes it. */
#define FAILS(call, wanted_errno, code, text, ...) \
    do { \
        struct look look_before = look(); \
        int fails_rc, fails_errno; \
        errno = 0; \
        fails_rc = (call); \
        fails_errno = errno; \
        OK(failed_as(fails_rc, fails_errno, &look_before, (wanted_errno), (code), (text)), __VA_ARGS__); \
    } while (0)

/* The call returns 0; says the error if it does not. */
#define WORKS(call, ...) \
    do { \
        int works_rc = (call); \
        if (!OK(works_rc == 0, __VA_ARGS__)) \
            printf("# returned %d: %s\n", works_rc, virNetDevTapGetLastErrorMessage()); \
    } while (0)

static inline struct ifreq for_device(const char *name)
{
    struct ifreq ifr = {0};

    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
    return ifr;
}

/* A device made, or a queue opened, without the library. Negative: -errno. */
static inline int raw_tap(const char *name, int flags, int persist)
{
    struct ifreq ifr = for_device(name);
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

    ifr.ifr_flags = flags;
    if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr) < 0 || (persist && ioctl(fd, TUNSETPERSIST, 1) < 0)) {
        int failed = -errno;

        if (fd >= 0)
            close(fd);
        return failed;
    }
    return fd;
}

/* A persistent tap that nobody holds. */
static inline void premade(const char *name, int more_flags)
{
    int fd = raw_tap(name, IFF_TAP | IFF_NO_PI | more_flags, 1);

    if (fd < 0) {
        errno = -fd;
        tap_bail_out(name);
    }
    close(fd);
}

/* The flags of a tap as sysfs tells them, -1 if there is no such tap. */
static inline int tun_flags(const char *name)
{
    char path[64];
    unsigned int flags;
    int found;
    FILE *file;

    snprintf(path, sizeof(path), "/sys/class/net/%s/tun_flags", name);
    file = fopen(path, "re");
    if (!file)
        return -1;
    found = fscanf(file, "%x", &flags);
    fclose(file);
    return found == 1 ? (int)flags : -1;
}

static inline int exists(const char *name)
{
    return if_nametoindex(name) != 0;
}

/* As for same_as(), after a close */
static inline int gone(const char *name)
{
    for (int tries = 0; tries < 5000 && exists(name); tries++)
        moment();
    return !exists(name);
}

static inline void remove_raw(const char *name)
{
    struct {
        struct nlmsghdr header;
        struct ifinfomsg info;
    } message = {
        .header = {.nlmsg_len = sizeof(message), .nlmsg_type = RTM_DELLINK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
        .info = {.ifi_index = if_nametoindex(name)},
    };
    char answer[4096];
    int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    if (message.info.ifi_index > 0 && (send(sock, &message, sizeof(message), 0) < 0 || recv(sock, answer, sizeof(answer), 0) < 0))
        tap_bail_out("RTM_DELLINK");
    close(sock);
}

/* A device of another kind, over netlink: 0 or -errno, as where the kernel lacks it. */
static inline int other_device(const char *kind, const char *name, unsigned int lower)
{
    char buffer[512] = {0}, answer[4096];
    struct nlmsghdr *header = (struct nlmsghdr *)buffer, *reply = (struct nlmsghdr *)answer;
    struct rtattr *attr, *info;
    int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), error;

    header->nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg));
    header->nlmsg_type = RTM_NEWLINK;
    header->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
#define ATTRIBUTE(number, data, len) \
    (attr = (struct rtattr *)(buffer + NLMSG_ALIGN(header->nlmsg_len)), attr->rta_type = (number), \
     attr->rta_len = RTA_LENGTH(len), memcpy(RTA_DATA(attr), (data), (len)), \
     header->nlmsg_len = NLMSG_ALIGN(header->nlmsg_len) + RTA_ALIGN(attr->rta_len))
    ATTRIBUTE(IFLA_IFNAME, name, strlen(name) + 1);
    if (lower)
        ATTRIBUTE(IFLA_LINK, &lower, sizeof(lower));
    ATTRIBUTE(IFLA_LINKINFO, "", 0);
    info = attr;
    ATTRIBUTE(IFLA_INFO_KIND, kind, strlen(kind));
    info->rta_len = (char *)attr + RTA_ALIGN(attr->rta_len) - (char *)info;
#undef ATTRIBUTE
    if (send(sock, buffer, header->nlmsg_len, 0) < 0 || recv(sock, answer, sizeof(answer), 0) < 0)
        tap_bail_out("RTM_NEWLINK");
    error = ((struct nlmsgerr *)NLMSG_DATA(reply))->error;
    close(sock);
    return error;
}

/* A process of its own that holds what body opens; body tells by returning 0 that all is ready. */
struct holder {
    pid_t pid;
    int let_go; /* closing it ends the process */
};

static inline struct holder hold(const char *comm, int (*open_them)(void *), void *opaque)
{
    struct holder holder;
    int ready[2], end[2];
    char byte = 0;

    fflush(stdout);
    if (pipe2(ready, O_CLOEXEC) < 0 || pipe2(end, O_CLOEXEC) < 0 || (holder.pid = fork()) < 0)
        tap_bail_out("starting a process");
    if (holder.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        prctl(PR_SET_NAME, comm);
        close(end[1]);
        if (open_them(opaque) == 0 && write(ready[1], "r", 1) == 1)
            while (read(end[0], &byte, 1) < 0 && errno == EINTR)
                ;
        _exit(0);
    }
    close(ready[1]);
    close(end[0]);
    if (read(ready[0], &byte, 1) != 1)
        tap_bail_out("a process that is to hold a tap");
    close(ready[0]);
    holder.let_go = end[1];
    return holder;
}

static inline void release(struct holder *holder)
{
    close(holder->let_go);
    waitpid(holder->pid, NULL, 0);
}

/* open_them for hold(): one queue of the tap of this name */
struct queue_of {
    const char *name;
    int flags;
};

static inline int open_queue(void *opaque)
{
    struct queue_of *queue = opaque;

    return raw_tap(queue->name, IFF_TAP | IFF_NO_PI | queue->flags, 0) < 0;
}

/* Runs body in a process without any capability, as an ordinary user has them; whether it returned 0. */
static inline int without_capabilities(int (*body)(void *), void *opaque)
{
    int status, rc;
    pid_t pid;

    fflush(stdout);
    tap_wait_for_threads(); /* what a thread has is lost in the child, says valgrind */
    pid = fork();
    if (pid == 0) {
        struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
        struct __user_cap_data_struct none[2] = {{0}, {0}};

        if (syscall(SYS_capset, &header, none) < 0)
            _exit(99);
        rc = body(opaque);
        tap_wait_for_threads();
        _exit(rc);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

#endif /* CHECK_H */
