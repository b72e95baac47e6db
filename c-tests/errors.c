/*
 * Errors and log lines: whose they are, what they say, how long they last.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "check.h"

#include <pthread.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

static const char *program; /* not /proc/self/exe, which is another one under valgrind */

struct lines {
    int count;
    virNetDevTapLogPriority priority;
    char last[512];
    int calls_back;
};

static void take_line(virNetDevTapLogPriority priority, const char *message, void *opaque)
{
    struct lines *lines = opaque;

    lines->count++;
    lines->priority = priority;
    snprintf(lines->last, sizeof(lines->last), "%s", message);
    if (lines->calls_back && lines->count < 10) {
        char *name;

        lines->calls_back = 0;
        if (virNetDevTapDelete("lo", NULL) == 0 || virNetDevTapGetName(-1, &name) == 0)
            lines->count = 1000;
    }
}

static void *in_another_thread(void *unused)
{
    static int fresh;

    (void)unused;
    fresh = virNetDevTapGetLastErrorCode() == NO_ERROR && virNetDevTapGetLastErrorErrno() == 0 &&
            strcmp(virNetDevTapGetLastErrorMessage(), "no error") == 0;
    if (virNetDevTapDelete("", NULL) != -1 || virNetDevTapGetLastErrorCode() != INVALID_ARG)
        fresh = 0;
    return &fresh;
}

static void last_error(void)
{
    const char *first, *second;
    pthread_t thread;
    void *fresh = NULL;
    char *name = NULL;
    int fd;

    IS_STR(virNetDevTapGetLastErrorMessage(), "no error", "no error at first");
    IS_INT(virNetDevTapGetLastErrorCode(), NO_ERROR, "its code");
    IS_INT(virNetDevTapGetLastErrorErrno(), 0, "its errno");

    FAILS(virNetDevTapDelete("lo", NULL), EINVAL, SYSTEM, "lo is a loopback device", "an error");
    first = virNetDevTapGetLastErrorMessage();
    second = virNetDevTapGetLastErrorMessage();
    OK(first == second && strstr(first, "loopback"), "its text stays where it is");
    WORKS(virNetDevTapCreate(&name, NULL, &fd, 1, 0), "a success");
    OK(first == virNetDevTapGetLastErrorMessage() && strstr(first, "loopback"), "does not reset it");
    close(fd);
    free(name);

    pthread_create(&thread, NULL, in_another_thread, NULL);
    pthread_join(thread, &fresh);
    OK(*(int *)fresh, "another thread has errors of its own");
    OK(strstr(virNetDevTapGetLastErrorMessage(), "loopback") != NULL, "and this one keeps its");
}

static int created(const char *tunpath)
{
    char *name = strdup("never0");
    int fd = 77, rc = virNetDevTapCreate(&name, tunpath, &fd, 1, 0), saved = errno;

    if (rc == 0)
        close(fd);
    else if (fd != -1 || strcmp(name, "never0") != 0)
        rc = 5;
    free(name);
    errno = saved;
    return rc;
}

/* A result that FAILS would like, from a process that has no capability */
static int created_without(void *tunpath)
{
    struct look before = look();
    int rc, wanted = tunpath ? EACCES : EPERM;

    errno = 0;
    rc = created(tunpath);
    return !failed_as(rc, errno, &before, wanted, SYSTEM, tunpath ? "Unable to open /tmp/tun-secret" : "Unable to create tap device never0");
}

static void tunpath(void)
{
    char *name = strdup("never0");
    int fd;

    FAILS(created("/no/such/file"), ENOENT, SYSTEM, "Unable to open /no/such/file, is tun module loaded?: No such file",
          "tunpath: missing");
    FAILS(created(""), ENOENT, SYSTEM, "Unable to open , is tun module loaded?", "tunpath: empty");
    FAILS(created("/dev/null"), ENOTTY, SYSTEM, "/dev/null is not the tun clone device", "tunpath: another device");
    FAILS(created("/proc/self/comm"), ENOTTY, SYSTEM, "/proc/self/comm is not the tun clone device", "tunpath: a file");
    FAILS(created("/tmp"), EISDIR, SYSTEM, "Unable to open /tmp", "tunpath: a folder");
    FAILS(virNetDevTapCreate(&name, "/dev/null", NULL, 0, VIR_NETDEV_TAP_CREATE_PERSIST), ENOTTY, SYSTEM, "not the tun clone device",
          "tunpath: another device, and a persistent tap");
    free(name);

    premade("there0", 0);
    FAILS(virNetDevTapDelete("there0", "/no/such/file"), ENOENT, SYSTEM, "Unable to open /no/such/file", "delete, tunpath missing");
    FAILS(virNetDevTapDelete("there0", "/dev/null"), ENOTTY, SYSTEM, "Unable to delete tap device there0, /dev/null is not",
          "delete, tunpath is another device");
    FAILS(virNetDevTapSetPersist("there0", "/dev/null", false), ENOTTY, SYSTEM, "/dev/null is not", "set persist, another device");
    remove_raw("there0");

    if (mount("tmpfs", "/tmp", "tmpfs", 0, NULL) < 0)
        tap_bail_out("a tmpfs of our own");
    if (mknod("/tmp/tun-copy", S_IFCHR | 0666, makedev(10, 200)) == 0) {
        fd = created("/tmp/tun-copy");
        OK(fd == 0, "tunpath: a node of one's own");
    } else {
        TAP_SKIP("no device nodes can be made here", "tunpath: a node of one's own");
    }
    fd = open("/tmp/tun-secret", O_CREAT | O_WRONLY | O_CLOEXEC, 0);
    close(fd);
    OK(without_capabilities(created_without, "/tmp/tun-secret"), "tunpath: no permission");
    OK(without_capabilities(created_without, NULL), "no CAP_NET_ADMIN: no new device");
    umount("/tmp");
}

static void log_lines(void)
{
    struct lines lines = {0};
    char *name = NULL;
    int fd;

    virNetDevTapSetLogFunc(take_line, &lines);
    WORKS(virNetDevTapCreate(&name, NULL, &fd, 1, 0), "a tap with a log");
    OK(lines.count == 1 && lines.priority == VIR_NETDEV_TAP_LOG_INFO && strstr(lines.last, "created device: '"), "one line: %s",
       lines.last);
    close(fd);
    free(name);

    FAILS(virNetDevTapDelete("lo", NULL), EINVAL, SYSTEM, "not a tap", "an error with a log");
    OK(lines.count == 2 && lines.priority == VIR_NETDEV_TAP_LOG_ERROR &&
       strcmp(lines.last, "virNetDevTapDelete: Unable to delete tap device lo, lo is a loopback device, not a tap: "
                          "Invalid argument") == 0,
       "one line: %s", lines.last);

    lines.calls_back = 1;
    OK(virNetDevTapDelete("", NULL) == -1 && lines.count == 5, "a log function may call the library");
    virNetDevTapSetLogFunc(NULL, NULL);
    OK(virNetDevTapDelete("lo", NULL) == -1 && lines.count == 5, "no more lines after NULL");
}

/* What VIRNETDEVTAP_DEBUG=value sends to standard error when this program starts again to make one error */
static void debug(const char *value, const char *wanted)
{
    char got[512] = "";
    int output[2], status;
    ssize_t len;
    pid_t pid;

    if (pipe2(output, O_CLOEXEC) < 0)
        tap_bail_out("pipe");
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        dup2(output[1], 2);
        setenv("VIRNETDEVTAP_DEBUG", value, 1);
        execl(program, "errors", "one-error", NULL);
        _exit(127);
    }
    close(output[1]);
    len = read(output[0], got, sizeof(got) - 1);
    close(output[0]);
    waitpid(pid, &status, 0);
    OK(len >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0 && strcmp(got, wanted) == 0, "VIRNETDEVTAP_DEBUG=%s", value);
    if (strcmp(got, wanted) != 0)
        printf("# wrote: %s\n", got);
}

int main(int argc, char **argv)
{
    struct look before;

    program = argv[0];
    if (argc == 2 && strcmp(argv[1], "one-error") == 0)
        return virNetDevTapDelete("", NULL) != -1;
    tap_namespaces();
    before = look();
    last_error();
    tunpath();
    log_lines();
    debug("1", "virnetdevtap: error: virNetDevTapDelete: invalid argument: Network interface name '' is not valid: it is empty\n");
    debug("0", "");
    OK(same_as(&before), "nothing is left");
    return tap_done();
}
