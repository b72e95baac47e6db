/*
 * Save, hold, reclaim, check, restore, discard, list: as a manager in C calls them.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "check.h"

#define DIR_OF_RECORDS "/tmp/state"

enum { OWNER = 1000, HOSTILE = 65534 };

static char last_line[512];

static void keep_line(virNetDevTapLogPriority priority, const char *text, void *opaque)
{
    int *warnings = opaque;

    if (priority == VIR_NETDEV_TAP_LOG_WARN) {
        (*warnings)++;
        snprintf(last_line, sizeof(last_line), "%s", text);
    }
}

/* A persistent tap without an open queue. */
static void make_tap(const char *name, int owner)
{
    char *ifname = strdup(name);
    int fd = -1;

    if (virNetDevTapCreate(&ifname, NULL, &fd, 1, VIR_NETDEV_TAP_CREATE_PERSIST) < 0 || (owner && ioctl(fd, TUNSETOWNER, owner) < 0))
        tap_bail_out(name);
    close(fd);
    free(ifname);
}

/* A user namespace that an ordinary user makes knows no other user to give a tap to. */
static int other_users(void)
{
    char *ifname = NULL;
    int fd = -1, set;

    if (virNetDevTapCreate(&ifname, NULL, &fd, 1, 0) < 0)
        tap_bail_out(virNetDevTapGetLastErrorMessage());
    set = ioctl(fd, TUNSETOWNER, OWNER) == 0 && ioctl(fd, TUNSETOWNER, HOSTILE) == 0;
    close(fd);
    free(ifname);
    return set;
}

/* The tap that is there, opened as libvirt opens it. */
static int open_tap(const char *name)
{
    char *ifname = strdup(name);
    int fd = -1;

    if (virNetDevTapCreate(&ifname, NULL, &fd, 1, VIR_NETDEV_TAP_CREATE_ALLOW_EXISTING | VIR_NETDEV_TAP_CREATE_VNET_HDR) < 0)
        tap_bail_out(virNetDevTapGetLastErrorMessage());
    free(ifname);
    return fd;
}

static int records(void)
{
    char **names = NULL;
    int count = virNetDevTapStateList(DIR_OF_RECORDS, &names);

    for (int i = 0; i < count; i++)
        free(names[i]);
    if (count >= 0 && names[count])
        count = -2;
    free(names);
    return count;
}

static void a_foreign_tap(void)
{
    unsigned int changed = ~0u;
    int warnings = 0, fd, before;

    make_tap("tap0", OWNER);
    before = if_nametoindex("tap0");
    WORKS(virNetDevTapStateSave("tap0", DIR_OF_RECORDS), "save");
    fd = open_tap("tap0");
    WORKS(virNetDevTapStateHold("tap0", DIR_OF_RECORDS, &fd, 1), "hold");
    IS_INT(ioctl(fd, TUNSETPERSIST, 0), 0, "the hypervisor clears the persist flag");
    IS_INT(ioctl(fd, TUNSETOWNER, HOSTILE), 0, "and takes the tap");
    close(fd);
    WORKS(virNetDevTapStateCheck("tap0", DIR_OF_RECORDS, &changed), "check");
    IS_INT(changed, VIR_NETDEV_TAP_STATE_PERSIST | VIR_NETDEV_TAP_STATE_OWNER | VIR_NETDEV_TAP_STATE_FLAGS, "what Check finds");
    WORKS(virNetDevTapStateCheck("tap0", DIR_OF_RECORDS, NULL), "check without a mask");
    IS_INT(records(), 1, "one record");

    virNetDevTapSetLogFunc(keep_line, &warnings);
    changed = 0;
    WORKS(virNetDevTapStateRestore("tap0", NULL, DIR_OF_RECORDS, 0, &changed), "restore");
    virNetDevTapSetLogFunc(NULL, NULL);
    IS_INT(changed, VIR_NETDEV_TAP_STATE_PERSIST | VIR_NETDEV_TAP_STATE_OWNER | VIR_NETDEV_TAP_STATE_FLAGS, "what Restore found");
    IS_INT(warnings, 3, "a warning for each");
    OK(strstr(last_line, "tap0: ") && strstr(last_line, ", restored"), "\"%s\"", last_line);
    IS_INT(if_nametoindex("tap0"), before, "the same device");
    IS_INT(records(), 0, "no record");
    WORKS(virNetDevTapStateRestore("tap0", NULL, DIR_OF_RECORDS, 0, NULL), "restore again: nothing to do");
    WORKS(virNetDevTapDelete("tap0", NULL), "and it can be deleted");
}

static void our_own_tap(void)
{
    char *name = strdup("own%d");
    unsigned int changed = 0;
    int fd = -1;

    WORKS(virNetDevTapCreate(&name, NULL, &fd, 1, 0), "a generated name");
    WORKS(virNetDevTapStateHold(name, DIR_OF_RECORDS, &fd, 1), "hold without save");
    ioctl(fd, TUNSETPERSIST, 1);
    close(fd);
    OK(if_nametoindex(name), "the hypervisor has left it behind");
    WORKS(virNetDevTapStateRestore(name, "/dev/net/tun", DIR_OF_RECORDS, 0, &changed), "restore");
    OK(!if_nametoindex(name), "it is gone");
    IS_INT(changed, VIR_NETDEV_TAP_STATE_PERSIST, "and that is told");
    IS_INT(records(), 0, "no record");
    free(name);
}

static void many_taps(void)
{
    enum { MANY = 20 };
    const char *no_name = NULL;
    char names[MANY][IFNAMSIZ];
    const char *list[MANY + 2];
    unsigned int changed[MANY + 2];
    int errnos[MANY + 2], fd, wrong = 0;

    for (int i = 0; i < MANY; i++) {
        char *name = strdup("many%d");

        wrong += virNetDevTapCreate(&name, NULL, &fd, 1, 0) < 0 || virNetDevTapStateHold(name, DIR_OF_RECORDS, &fd, 1) < 0;
        ioctl(fd, TUNSETPERSIST, 1);
        close(fd);
        snprintf(names[i], IFNAMSIZ, "%s", name);
        list[i] = names[i];
        free(name);
    }
    list[MANY] = no_name;
    list[MANY + 1] = "missing0";
    OK(wrong == 0 && records() == MANY, "%d taps with a record", MANY);
    WORKS(virNetDevTapStateRestoreList(list, MANY + 2, NULL, DIR_OF_RECORDS, 0, changed, errnos), "restore many");
    for (int i = 0; i < MANY; i++)
        wrong += changed[i] != VIR_NETDEV_TAP_STATE_PERSIST || errnos[i] != 0 || if_nametoindex(list[i]) != 0;
    IS_INT(wrong, 0, "all are gone, and were persistent");
    OK(changed[MANY] == 0 && errnos[MANY] == 0, "NULL does nothing");
    OK(changed[MANY + 1] == 0 && errnos[MANY + 1] == 0, "nor does a tap without a record");
    IS_INT(records(), 0, "no record");
    WORKS(virNetDevTapStateRestoreList(list, MANY + 2, NULL, DIR_OF_RECORDS, 0, NULL, NULL), "again, without the arrays");
    FAILS(virNetDevTapStateRestoreList(NULL, 1, NULL, DIR_OF_RECORDS, 0, NULL, NULL), EINVAL, INVALID_ARG, "1", "no names");
    FAILS(virNetDevTapStateRestoreList(list, 1, NULL, DIR_OF_RECORDS, 1u << 31, NULL, NULL), EINVAL, INVALID_ARG, "0x80000000",
          "unknown flags for many");
}

static void nothing_to_do(void)
{
    unsigned int changed = 7;

    WORKS(virNetDevTapStateHold(NULL, DIR_OF_RECORDS, NULL, 0), "hold without a name");
    WORKS(virNetDevTapStateCheck(NULL, DIR_OF_RECORDS, &changed), "check without a name");
    IS_INT(changed, 0, "nothing changed");
    changed = 7;
    WORKS(virNetDevTapStateRestore(NULL, NULL, DIR_OF_RECORDS, 0, &changed), "restore without a name");
    IS_INT(changed, 0, "nothing changed");
    WORKS(virNetDevTapStateDiscard(NULL, DIR_OF_RECORDS), "discard without a name");
    WORKS(virNetDevTapStateRestore("tap7", NULL, "/tmp/missing", 0, NULL), "restore without a directory");
    WORKS(virNetDevTapStateDiscard("tap7", "/tmp/missing"), "discard without a directory");
    OK(access("/tmp/missing", F_OK) < 0, "which is not made");
}

static void bad_arguments(void)
{
    const char *no_name = NULL, *no_dir = NULL;
    char **names = (char **)&names;
    unsigned int changed = 7;
    int fd = -1;

    FAILS(virNetDevTapStateSave(no_name, DIR_OF_RECORDS), EINVAL, INVALID_ARG, "", "save without a name");
    FAILS(virNetDevTapStateSave("tap0", no_dir), EINVAL, INVALID_ARG, "stateDir", "save without a directory");
    FAILS(virNetDevTapStateSave("tap0", ""), EINVAL, INVALID_ARG, "empty", "save into no directory");
    FAILS(virNetDevTapStateSave("../tap0", DIR_OF_RECORDS), EINVAL, INVALID_ARG, "../tap0", "a name with a slash");
    FAILS(virNetDevTapStateSave("lo", DIR_OF_RECORDS), EINVAL, SYSTEM, "loopback", "save of another kind");
    FAILS(virNetDevTapStateReclaim("tap0", DIR_OF_RECORDS, -1), EINVAL, INVALID_ARG, "-1", "a negative pid");
    FAILS(virNetDevTapStateReclaim("tap0", DIR_OF_RECORDS, 0), ENOENT, OP_INVALID, "no state record", "reclaim without a record");
    FAILS(virNetDevTapStateRestore("tap0", NULL, DIR_OF_RECORDS, 1u << 31, &changed), EINVAL, INVALID_ARG, "0x80000000", "unknown flags");
    IS_INT(changed, 7, "the mask stays");
    FAILS(virNetDevTapStateList(no_dir, &names), EINVAL, INVALID_ARG, "stateDir", "list of no directory");
    OK(names == (char **)&names, "the list stays");
    FAILS(virNetDevTapStateHold("tap0", DIR_OF_RECORDS, &fd, 1), EBADF, SYSTEM, "-1", "hold of a closed file");
}

int main(void)
{
    tap_namespaces();
    if (mount("tmpfs", "/tmp", "tmpfs", 0, NULL) < 0)
        tap_skip_all("tmpfs cannot be mounted in a namespace here");
    if (other_users())
        a_foreign_tap();
    else
        TAP_SKIP("there is no second user in this namespace", "a foreign tap");
    our_own_tap();
    many_taps();
    nothing_to_do();
    bad_arguments();
    return tap_done();
}
