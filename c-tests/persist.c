/*
 * virNetDevTapGetPersist, virNetDevTapSetPersist, virNetDevTapGetHolders.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "check.h"

static int is_persistent(const char *name)
{
    bool persist = false;

    return virNetDevTapGetPersist(name, &persist) < 0 ? -1 : persist;
}

/* All that sysfs tells of a device which SetPersist has no business with */
static void attributes(const char *name, char *text, size_t size)
{
    static const char *const files[] = {"ifindex", "owner", "group", "address", "mtu", "tx_queue_len", "flags", "carrier", "type"};

    *text = '\0';
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char path[64], value[64] = "?\n";
        FILE *file;

        snprintf(path, sizeof(path), "/sys/class/net/%s/%s", name, files[i]);
        file = fopen(path, "re");
        if (file && !fgets(value, sizeof(value), file))
            snprintf(value, sizeof(value), "unreadable\n");
        if (file)
            fclose(file);
        snprintf(text + strlen(text), size - strlen(text), "%s %s", files[i], value);
    }
}

static void there_and_back(int flags, const char *what)
{
    struct look before;
    char was[512], is[512];
    int fd, kept, bystander;

    fd = raw_tap("keep0", IFF_TAP | IFF_NO_PI | flags, 0);
    ioctl(fd, TUNSETOWNER, geteuid());
    IS_INT(is_persistent("keep0"), 0, "%s: not persistent", what);
    if (flags & IFF_MULTI_QUEUE) {
        attributes("keep0", was, sizeof(was));
        WORKS(virNetDevTapSetPersist("keep0", NULL, true), "%s: made persistent while it is held", what);
        WORKS(virNetDevTapSetPersist("keep0", "/dev/net/tun", true), "and once more");
        attributes("keep0", is, sizeof(is));
        IS_STR(is, was, "nothing else changed");
    } else {
        FAILS(virNetDevTapSetPersist("keep0", NULL, true), EBUSY, SYSTEM, "it is held by", "%s: held", what);
        WORKS(virNetDevTapSetPersist("keep0", NULL, false), "which it need not be for nothing");
        ioctl(fd, TUNSETPERSIST, 1);
    }
    bystander = tun_flags("keep0");
    close(fd);
    kept = tun_flags("keep0");
    OK(kept == bystander && is_persistent("keep0") == 1, "it outlives its last queue, flags 0x%x", kept);

    before = look();
    attributes("keep0", was, sizeof(was));
    WORKS(virNetDevTapSetPersist("keep0", NULL, true), "set what is set");
    attributes("keep0", is, sizeof(is));
    OK(same_as(&before) && strcmp(is, was) == 0, "changes nothing");
    WORKS(virNetDevTapSetPersist("keep0", NULL, false), "no longer persistent, and nobody has it");
    OK(gone("keep0"), "so it is gone");
}

static void refused(void)
{
    bool persist = true;
    pid_t *pids = (pid_t *)&persist;
    int tun;

    FAILS(virNetDevTapGetPersist("none0", &persist), ENODEV, SYSTEM, "Unable to get the persist flag of none0", "no such device");
    FAILS(virNetDevTapSetPersist("none0", NULL, true), ENODEV, SYSTEM, "Unable to set tap device none0 to persistent", "none to set");
    FAILS(virNetDevTapSetPersist("none0", NULL, false), ENODEV, SYSTEM, "to non-persistent", "none to unset");
    FAILS(virNetDevTapGetHolders("none0", &pids), ENODEV, SYSTEM, "Unable to find the holders of none0", "nobody holds nothing");
    FAILS(virNetDevTapGetPersist("lo", &persist), EINVAL, SYSTEM, "lo is a loopback device, not a tap", "lo");
    FAILS(virNetDevTapSetPersist("lo", NULL, true), EINVAL, SYSTEM, "not a tap", "lo is not to be set");
    FAILS(virNetDevTapGetHolders("lo", &pids), EINVAL, SYSTEM, "not a tap", "nor held");
    tun = raw_tap("tun0", IFF_TUN | IFF_NO_PI, 0);
    FAILS(virNetDevTapGetPersist("tun0", &persist), EINVAL, SYSTEM, "not a tap", "a TUN device");
    FAILS(virNetDevTapSetPersist("tun0", NULL, true), EINVAL, SYSTEM, "not a tap", "it is not to be set either");
    close(tun);
    OK(persist && pids == (pid_t *)&persist, "what was to receive an answer is as it was");
}

static int get_and_set(void *name)
{
    return is_persistent(name) != 1 || virNetDevTapSetPersist(name, NULL, false) < 0;
}

static void holders(void)
{
    struct queue_of queue = {"shared0", IFF_MULTI_QUEUE};
    struct holder one, two;
    pid_t *pids = (pid_t *)&queue;
    struct look before;
    int fd;

    premade("shared0", IFF_MULTI_QUEUE);
    before = look();
    IS_INT(virNetDevTapGetHolders("shared0", &pids), 0, "nobody holds it");
    OK(pids == NULL, "so there is no array");
    one = hold("one", open_queue, &queue);
    two = hold("two", open_queue, &queue);
    fd = raw_tap("shared0", IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE, 0);
    IS_INT(virNetDevTapGetHolders("shared0", &pids), 3, "three processes");
    OK(pids && pids[0] < pids[1] && pids[1] < pids[2], "in rising order");
    for (int i = 0; pids && i < 3; i++)
        OK(pids[i] == getpid() || pids[i] == one.pid || pids[i] == two.pid, "pid %d is one of them", pids[i]);
    free(pids);
    close(fd);
    release(&two);
    IS_INT(virNetDevTapGetHolders("shared0", &pids), 1, "two have closed it");
    OK(pids && pids[0] == one.pid, "the first has not");
    free(pids);
    release(&one);
    OK(same_as(&before), "no fd is left");
    remove_raw("shared0");
}

int main(void)
{
    struct look before;
    int fd;

    tap_namespaces();
    before = look();
    there_and_back(0, "single-queue");
    there_and_back(IFF_MULTI_QUEUE, "multi-queue");
    there_and_back(IFF_VNET_HDR, "vnet_hdr");
    there_and_back(IFF_VNET_HDR | IFF_MULTI_QUEUE | IFF_NAPI, "multi-queue, vnet_hdr, napi");
    refused();
    holders();
    fd = raw_tap("own0", IFF_TAP | IFF_NO_PI, 1);
    ioctl(fd, TUNSETOWNER, geteuid());
    close(fd);
    OK(without_capabilities(get_and_set, "own0") && gone("own0"), "the owner needs no capability");
    OK(same_as(&before), "nothing is left");
    return tap_done();
}
