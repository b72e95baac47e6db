/*
 * Names: generated, given and refused; virNetDevTapGetName, virNetDevTapGetRealDeviceName.
 * The numbers of generated names go on through this file, as there is one counter.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "check.h"

/* Creates with this name; the fd, or -1. What became of the name is checked. */
static int created_as(const char *given, const char *wanted)
{
    char *name = given ? strdup(given) : NULL;
    int fd = -1, rc = virNetDevTapCreate(&name, NULL, &fd, 1, 0);

    if (rc < 0)
        printf("# %s\n", virNetDevTapGetLastErrorMessage());
    OK(rc == 0 && strcmp(name, wanted) == 0 && exists(wanted), "%s becomes %s", given ? given : "NULL", wanted);
    if (rc == 0 && strcmp(name, wanted) != 0)
        printf("# it became %s\n", name);
    free(name);
    return fd;
}

static void generated(void)
{
    int fds[4], taken;

    fds[0] = created_as(NULL, "vnet0");
    fds[1] = created_as(NULL, "vnet1");
    fds[2] = created_as("foo%d", "foo2");
    taken = raw_tap("vnet3", IFF_TAP | IFF_NO_PI, 0);
    fds[3] = created_as(NULL, "vnet4");
    for (int i = 0; i < 4; i++)
        close(fds[i]);
    close(taken);
    close(created_as(NULL, "vnet5"));
    close(created_as("a%db", "a6b"));
    close(created_as("%d", "7"));
    close(created_as("abcdefghijklm%d", "abcdefghijklm8"));
    close(created_as("abcdefghijklmn%d", "abcdefghijklmn9"));
    close(created_as("abcdefghijklmn%d", "abcdefghijklmn0")); /* 10 has no room: it starts over */
    close(created_as("vnet%d", "vnet1"));
    close(created_as("t\303\244p%d", "t\303\244p2"));
}

static void given(void)
{
    close(created_as("a23456789012345", "a23456789012345"));
    close(created_as("tap-1.5_x", "tap-1.5_x"));
    close(created_as("t\303\244p", "t\303\244p"));
    close(created_as("vnet100", "vnet100"));
}

/* None of these burns a number. */
static void refused(void)
{
    static const struct {
        const char *name, *text;
        int error, code;
    } bad[] = {
        {"", "Network interface name '' is not valid: it is empty", EINVAL, INVALID_ARG},
        {"a234567890123456", "Network interface name 'a234567890123456' is too long: ", ERANGE, SYSTEM},
        {"abcdefghijklmno%d", "'abcdefghijklmno%d' is too long", ERANGE, SYSTEM},
        {"a%db%d", "'a%db%d' is not valid: it contains '%'", EINVAL, INVALID_ARG},
        {"%s", "it contains '%'", EINVAL, INVALID_ARG},
        {"x%n%d", "it contains '%'", EINVAL, INVALID_ARG},
        {"tap%", "it contains '%'", EINVAL, INVALID_ARG},
        {"a/b", "it contains '/'", EINVAL, INVALID_ARG},
        {"../x%d", "it contains '/'", EINVAL, INVALID_ARG},
        {"eth0:1", "it contains ':'", EINVAL, INVALID_ARG},
        {"a b", "it contains ' '", EINVAL, INVALID_ARG},
        {"a\n", "it contains '\\n'", EINVAL, INVALID_ARG},
        {".", "reserved", EINVAL, INVALID_ARG},
        {"..", "reserved", EINVAL, INVALID_ARG},
        {"\377\376", "not UTF-8", EINVAL, INVALID_ARG},
        {"\377%d", "not UTF-8", EINVAL, INVALID_ARG},
        {"tap\303\240", "not valid: it contains '\303\240'", EINVAL, INVALID_ARG}, /* the kernel takes the byte 0xa0 for a space */
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char *name = strdup(bad[i].name), *kept = name;
        int fd = 77;

        FAILS(virNetDevTapCreate(&name, NULL, &fd, 1, 0), bad[i].error, bad[i].code, bad[i].text, "refused, number %zu", i);
        OK(name == kept && fd == -1, "*ifname is as it was, the slot is -1");
        free(name);
    }
    close(created_as(NULL, "vnet3"));
}

static void of_an_fd(void)
{
    struct ifreq ifr = for_device("orig0");
    int fd = raw_tap("orig0", IFF_TAP | IFF_NO_PI, 0), control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), null, tun;
    char *name = NULL;

    WORKS(virNetDevTapGetName(fd, &name), "the name of an fd");
    IS_STR(name, "orig0", "it");
    free(name);
    snprintf(ifr.ifr_newname, sizeof(ifr.ifr_newname), "renamed0");
    if (ioctl(control, SIOCSIFNAME, &ifr) < 0)
        tap_bail_out("SIOCSIFNAME");
    WORKS(virNetDevTapGetName(fd, &name), "after the device was renamed");
    IS_STR(name, "renamed0", "the new one");
    free(name);
    close(fd);

    name = "untouched";
    FAILS(virNetDevTapGetName(fd, &name), EBADF, SYSTEM, "Unable to query tap interface name", "a closed fd");
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    FAILS(virNetDevTapGetName(-1, &name), EBADF, SYSTEM, "Invalid file descriptor -1", "fd -1");
    FAILS(virNetDevTapGetName(null, &name), ENOTTY, SYSTEM, "Unable to query tap interface name", "/dev/null");
    FAILS(virNetDevTapGetName(control, &name), ENOTTY, SYSTEM, "Unable to query tap interface name", "a socket");
    FAILS(virNetDevTapGetName(tun, &name), EBADFD, SYSTEM, "Unable to query tap interface name", "a tun that has no device");
    IS_STR(name, "untouched", "*ifname is as it was");
    close(null);
    close(tun);
    close(control);
}

static void of_the_driver(void)
{
    char name[] = "vnet0";

    errno = 0;
    OK(virNetDevTapGetRealDeviceName(name) == NULL && errno == 0, "Linux has no driver's name, which is no error");
    OK(virNetDevTapGetLastErrorCode() == NO_ERROR, "so there is none");
}

int main(void)
{
    struct look before;

    tap_namespaces();
    before = look();
    of_the_driver();
    generated();
    given();
    refused();
    of_an_fd();
    OK(same_as(&before), "nothing is left");
    return tap_done();
}
