/*
 * stories.c: what becomes of a tap that a hypervisor has had, with save, hold and restore around it and without.
 *
 *     stories PATH-OF-HYPERVISOR [PATH-OF-QEMU]
 *
 * Run it in a network namespace of its own, as scripts/demo does. It exits with 0 only if each tap was afterwards as
 * before, and would not have been without the library.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "look.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <virnetdevtap.h>

struct story {
    const char *title;
    const char *name; /* of the tap */
    bool foreign;     /* somebody has made it in advance, persistent and on a bridge */
    const char *deed; /* of hypervisor.c; NULL: it is QEMU */
};

static const char *hypervisor, *qemu;
static FILE *log_lines;
static char state_dir[] = "/tmp/stories.XXXXXX";

static void keep_log(virNetDevTapLogPriority priority, const char *message, void *unused)
{
    (void)unused;
    if (priority >= VIR_NETDEV_TAP_LOG_WARN && log_lines)
        fprintf(log_lines, "  the library has warned: %s\n", message);
}

/* The library's calls: the demonstration ends with the first one that fails. */
static void must(int rc)
{
    if (rc < 0) {
        printf("  FAILED: %s\n", virNetDevTapGetLastErrorMessage());
        exit(1);
    }
}

/* Starts the hypervisor with its own copy of the file, and waits until it has done its deed. */
static pid_t start(const struct story *story, int fd, int *control)
{
    static const char ask[] = "{\"execute\":\"qmp_capabilities\"}{\"execute\":\"query-status\"}";
    char number[12], netdev[40], line[512];
    int ends[2];
    FILE *answers;
    pid_t pid;

    snprintf(number, sizeof(number), "%d", fd);
    snprintf(netdev, sizeof(netdev), "tap,id=net0,fd=%d", fd);
    fflush(stdout);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0 || (pid = fork()) < 0)
        return -1;
    if (pid == 0) {
        fcntl(fd, F_SETFD, 0);
        dup2(ends[1], 0);
        dup2(ends[1], 1);
        if (story->deed)
            execl(hypervisor, hypervisor, story->deed, number, NULL);
        else
            execl(qemu, qemu, "-S", "-nodefaults", "-display", "none", "-machine", "pc,accel=tcg", "-m", "32", "-qmp", "stdio",
                  "-netdev", netdev, "-device", "virtio-net-pci,netdev=net0,romfile=", NULL);
        _exit(127);
    }
    close(ends[1]);
    *control = ends[0];
    if (!story->deed && write(*control, ask, sizeof(ask) - 1) < 0)
        return -1;
    answers = fdopen(dup(*control), "r"); /* QEMU answers the second question when all its devices are there */
    while (answers && fgets(line, sizeof(line), answers) && !strstr(line, "ready") && !strstr(line, "prelaunch"))
        ;
    if (!answers || feof(answers))
        return -1;
    fclose(answers);
    return pid;
}

/* One life of a hypervisor. The three looks are: before, while it runs, after. */
static void run(const struct story *story, bool with_library, struct look looks[3])
{
    char *name = strdup(story->name);
    unsigned int flags = VIR_NETDEV_TAP_CREATE_VNET_HDR | (story->foreign ? VIR_NETDEV_TAP_CREATE_ALLOW_EXISTING : 0);
    int fd, control;
    pid_t pid;

    if (story->foreign) {
        int queue = open_queue(name, IFF_TAP | IFF_NO_PI, 70);

        if (ioctl(queue, TUNSETPERSIST, 1) < 0 || system("ip link set foreign0 master br0 up") != 0)
            exit(1);
        close(queue);
    }
    looks[0] = look(name, -1);
    if (with_library)
        must(virNetDevTapStateSave(name, state_dir));
    must(virNetDevTapCreate(&name, NULL, &fd, 1, flags));
    if (with_library)
        must(virNetDevTapStateHold(name, state_dir, &fd, 1));
    if ((pid = start(story, fd, &control)) < 0) {
        puts("  FAILED: the hypervisor did not start");
        exit(1);
    }
    looks[1] = look(name, fd);
    close(fd); /* the hypervisor has it now */
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(control);
    if (with_library)
        must(virNetDevTapStateRestore(name, NULL, state_dir, 0, NULL));
    looks[2] = look(name, -1);
    must(virNetDevTapDelete(name, NULL));
    free(name);
}

static bool tell(const struct story *story)
{
    struct look without[3], with[3];
    char *text = NULL;
    size_t size;
    bool good;

    printf("\n%s\n", story->title);
    run(story, false, without);
    log_lines = open_memstream(&text, &size);
    run(story, true, with);
    fclose(log_lines);
    log_lines = NULL;
    printf("  %-12s %-14s %-15s %-22s %s\n", "", "BEFORE", "WHILE IT RUNS", "AFTER, LEFT AS IT IS", "AFTER, RESTORED");
    for (int i = 0; i < ROWS; i++)
        printf("  %-12s %-14s %-15s %-22s %s\n", rows[i], with[0].row[i], with[1].row[i], without[2].row[i], with[2].row[i]);
    fputs(text, stdout);
    free(text);
    good = same(&with[0], &with[2]) && !same(&without[0], &without[2]);
    printf("  %-7s %s\n", good ? "ok" : "FAILED", good ? "as before, thanks to save, hold and restore" : "not as it should be");
    return good;
}

int main(int argc, char **argv)
{
    const struct story stories[] = {
        {"An honest hypervisor uses somebody else's tap", "foreign0", true, "honest"},
        {"A hostile one clears the persist flag of somebody else's tap", "foreign0", true, "clear-persist"},
        {"A hostile one sets the persist flag of our own tap", "ours0", false, "set-persist"},
        {"QEMU uses somebody else's tap", "foreign0", true, NULL},
    };
    int failed = 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 2 || !mkdtemp(state_dir) || system("ip link add br0 type bridge && ip link set br0 up") != 0)
        return 2;
    hypervisor = argv[1];
    qemu = argc > 2 && *argv[2] ? argv[2] : NULL;
    virNetDevTapSetLogFunc(keep_log, NULL);
    for (size_t i = 0; i < sizeof(stories) / sizeof(*stories); i++) {
        if (stories[i].deed || qemu)
            failed += !tell(&stories[i]);
        else
            printf("\n%s\n  SKIPPED: there is no qemu-system-x86_64\n", stories[i].title);
    }
    if (rmdir(state_dir) != 0) {
        puts("  FAILED: a record is left");
        failed++;
    }
    return failed != 0;
}
