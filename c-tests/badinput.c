/*
 * Whatever a C program may pass by mistake: an error, no crash, nothing made, nothing lost.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "check.h"

/* Read at run time, so that the compiler neither warns of NULL nor makes use of it */
static void *volatile null;

static const struct {
    const char *what, *name, *text;
    int error, code;
} names[] = {
    {"\"\"", "", "it is empty", EINVAL, INVALID_ARG},
    {"16 characters", "a234567890123456", "is too long", ERANGE, SYSTEM},
    {"a slash", "a/b", "it contains '/'", EINVAL, INVALID_ARG},
    {"..", "..", "reserved", EINVAL, INVALID_ARG},
    {"a space", "a b", "it contains ' '", EINVAL, INVALID_ARG},
    {"a tab", "a\tb", "it contains '\\t'", EINVAL, INVALID_ARG},
    {"no UTF-8", "\377\300", "it is not UTF-8", EINVAL, INVALID_ARG},
    {"%s", "%s%s%s%n", "it contains '%'", EINVAL, INVALID_ARG},
    {"two templates", "a%db%d", "it contains '%'", EINVAL, INVALID_ARG},
};

static void nulls(void)
{
    char *name = NULL;
    bool persist;
    pid_t *pids;
    int fd = 77;
    virDomainInterfaceStatsStruct stats;

    FAILS(virNetDevTapCreate(null, NULL, &fd, 1, 0), EINVAL, INVALID_ARG, "ifname must not be NULL", "Create, ifname");
    IS_INT(fd, -1, "the slot is -1");
    FAILS(virNetDevTapCreate(&name, NULL, null, 1, 0), EINVAL, INVALID_ARG, "tapfd must not be NULL", "Create, tapfd");
    FAILS(virNetDevTapCreate(null, null, null, 0, 0), EINVAL, INVALID_ARG, "must not be NULL", "Create, everything");
    FAILS(virNetDevTapDelete(null, NULL), EINVAL, INVALID_ARG, "Interface name not provided", "Delete");
    FAILS(virNetDevTapGetName(0, null), EINVAL, INVALID_ARG, "ifname must not be NULL", "GetName");
    FAILS(virNetDevTapInterfaceStats(null, &stats, false), EINVAL, INTERNAL, "Interface name not provided", "InterfaceStats, ifname");
    FAILS(virNetDevTapInterfaceStats("lo", null, false), EINVAL, INVALID_ARG, "stats must not be NULL", "InterfaceStats, stats");
    FAILS(virNetDevTapGetPersist(null, &persist), EINVAL, INVALID_ARG, "Interface name not provided", "GetPersist, ifname");
    FAILS(virNetDevTapGetPersist("lo", null), EINVAL, INVALID_ARG, "persist must not be NULL", "GetPersist, persist");
    FAILS(virNetDevTapSetPersist(null, NULL, true), EINVAL, INVALID_ARG, "Interface name not provided", "SetPersist");
    FAILS(virNetDevTapGetHolders(null, &pids), EINVAL, INVALID_ARG, "Interface name not provided", "GetHolders, ifname");
    FAILS(virNetDevTapGetHolders("lo", null), EINVAL, INVALID_ARG, "pids must not be NULL", "GetHolders, pids");
    errno = 0;
    OK(virNetDevTapGetRealDeviceName(null) == NULL && errno == 0, "GetRealDeviceName: NULL, as for any name");
    virNetDevTapSetLogFunc(NULL, &fd);
    OK(1, "SetLogFunc");
}

static void bad_names(void)
{
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *what = names[i].what, *text = names[i].text;
        int error = names[i].error, code = names[i].code, fds[2] = {77, 77};
        char *name = strdup(names[i].name), *kept = name;
        virDomainInterfaceStatsStruct stats;
        bool persist;
        pid_t *pids;

        FAILS(virNetDevTapCreate(&name, NULL, fds, 2, 0), error, code, text, "Create: %s", what);
        FAILS(virNetDevTapCreate(&name, NULL, fds, 1, VIR_NETDEV_TAP_CREATE_ALLOW_EXISTING | VIR_NETDEV_TAP_CREATE_PERSIST),
              error, code, text, "Create, existing: %s", what);
        OK(name == kept && fds[0] == -1 && fds[1] == -1, "the name is as it was, slots are -1");
        FAILS(virNetDevTapDelete(name, NULL), error, code, text, "Delete: %s", what);
        FAILS(virNetDevTapInterfaceStats(name, &stats, true), error, code, text, "InterfaceStats: %s", what);
        FAILS(virNetDevTapGetPersist(name, &persist), error, code, text, "GetPersist: %s", what);
        FAILS(virNetDevTapSetPersist(name, NULL, false), error, code, text, "SetPersist: %s", what);
        FAILS(virNetDevTapGetHolders(name, &pids), error, code, text, "GetHolders: %s", what);
        free(name);
    }
}

/* A megabyte of a name: the message must not have it all. */
static void long_name(void)
{
    size_t size = 1 << 20;
    char *name = malloc(size + 1), *kept = name;
    int fd;

    memset(name, 'x', size);
    name[size] = '\0';
    FAILS(virNetDevTapCreate(&name, NULL, &fd, 1, 0), ERANGE, SYSTEM, "xxx...' is too long", "Create: a megabyte");
    memcpy(name + size - 2, "%d", 2);
    FAILS(virNetDevTapCreate(&name, NULL, &fd, 1, 0), ERANGE, SYSTEM, "xxx...' is too long", "Create: a megabyte of template");
    FAILS(virNetDevTapDelete(name, NULL), ERANGE, SYSTEM, "is too long", "Delete: a megabyte");
    OK(name == kept && strlen(virNetDevTapGetLastErrorMessage()) < 200, "the message is short");
    FAILS(virNetDevTapDelete("bystander", name), ENAMETOOLONG, SYSTEM, "Unable to open xxx", "tunpath of a megabyte");
    free(name);
}

static void numbers(void)
{
    static const size_t sizes[] = {257, 1u << 20, (size_t)1 << 62, SIZE_MAX / 4, SIZE_MAX / 2 + 1, SIZE_MAX};
    static const unsigned int flags[] = {1 << 5, 1 << 16, 1u << 31, ~0u, ~31u};
    char *name = strdup("never0");
    int fds[2] = {77, 77};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        FAILS(virNetDevTapCreate(&name, NULL, fds, sizes[i], 0), EINVAL, INVALID_ARG, "at most 256 queues",
              "tapfdSize %zu", sizes[i]);
        FAILS(virNetDevTapCreate(&name, NULL, NULL, sizes[i], VIR_NETDEV_TAP_CREATE_PERSIST), EINVAL, INVALID_ARG,
              "at most 256 queues", "tapfdSize %zu, persistent", sizes[i]);
    }
    OK(fds[0] == 77 && fds[1] == 77, "an array of that size is not believed in, nor written to");
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        char text[64];

        snprintf(text, sizeof(text), "unknown flags 0x%x", flags[i] & ~31u);
        FAILS(virNetDevTapCreate(&name, NULL, fds, 2, flags[i]), EINVAL, INVALID_ARG, text, "flags 0x%x", flags[i]);
        OK(fds[0] == -1 && fds[1] == -1, "slots are -1");
    }
    free(name);
}

static void files(void)
{
    static const struct {
        int fd, error;
    } closed[] = {{-1, EBADF}, {-2, EBADF}, {999, EBADF}, {INT32_MAX, EBADF}, {INT32_MIN, EBADF}};
    int pair[2], file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), folder = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
        path = open("/dev/net/tun", O_PATH | O_CLOEXEC), pipes[2];
    char *name = "as it was";

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 || pipe2(pipes, O_CLOEXEC) < 0)
        tap_bail_out("socketpair");
    for (size_t i = 0; i < sizeof(closed) / sizeof(closed[0]); i++)
        FAILS(virNetDevTapGetName(closed[i].fd, &name), closed[i].error, SYSTEM, "", "GetName: fd %d", closed[i].fd);
    FAILS(virNetDevTapGetName(file, &name), ENOTTY, SYSTEM, "Unable to query tap interface name", "GetName: a regular file");
    FAILS(virNetDevTapGetName(folder, &name), ENOTTY, SYSTEM, "Unable to query tap interface name", "GetName: a folder");
    FAILS(virNetDevTapGetName(pair[0], &name), ENOTTY, SYSTEM, "Unable to query tap interface name", "GetName: a socket");
    FAILS(virNetDevTapGetName(pipes[0], &name), ENOTTY, SYSTEM, "Unable to query tap interface name", "GetName: a pipe");
    FAILS(virNetDevTapGetName(path, &name), EBADF, SYSTEM, "Unable to query tap interface name", "GetName: O_PATH");
    IS_STR(name, "as it was", "the name");
    close(pair[0]);
    close(pair[1]);
    close(pipes[0]);
    close(pipes[1]);
    close(file);
    close(folder);
    close(path);
}

int main(void)
{
    struct look before;

    tap_namespaces();
    premade("bystander", 0);
    before = look();
    nulls();
    bad_names();
    long_name();
    numbers();
    files();
    OK(same_as(&before), "nothing is left, nothing is lost");
    return tap_done();
}
