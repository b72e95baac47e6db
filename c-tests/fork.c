/*
 * Children of the caller: one that execs has no file of ours, one that only forks can go on with the library.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>

enum { CHILDREN = 100 };

static atomic_int stop, calls;
static const char *program; /* not /proc/self/exe, which is another one under valgrind */

/* What the child of list_fds() does: 0 if it has standard input, output and error only. */
static int only_standard_fds(void)
{
    char path[64], target[128];
    struct dirent *entry;
    int wrong = 0;
    DIR *dir = opendir("/proc/self/fd");

    while (dir && (entry = readdir(dir))) {
        int fd = atoi(entry->d_name);
        ssize_t len;

        if (fd <= 2 || fd == dirfd(dir))
            continue;
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        len = readlink(path, target, sizeof(target) - 1);
        printf("# a child has fd %d: %.*s\n", fd, (int)(len > 0 ? len : 0), target);
        wrong++;
    }
    if (dir)
        closedir(dir);
    return wrong;
}

/* Starts this program again; what it inherits it says by its exit status. */
static int exec_child(void)
{
    int status;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        execl(program, "fork", "list-fds", NULL);
        _exit(127);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Every function, so that each file that one opens is open at some moment that the other thread forks. */
static void *call_all(void *unused)
{
    (void)unused;
    while (!atomic_load(&stop)) {
        virDomainInterfaceStatsStruct stats;
        char *name = strdup("calls0"), *again = NULL;
        int fds[2], rc = 0;
        bool persist;
        pid_t *pids = NULL;

        rc |= virNetDevTapCreate(&name, NULL, fds, 2, VIR_NETDEV_TAP_CREATE_PERSIST);
        rc |= virNetDevTapGetName(fds[0], &again);
        rc |= virNetDevTapInterfaceStats("calls0", &stats, false);
        rc |= virNetDevTapGetPersist("calls0", &persist);
        rc |= virNetDevTapSetPersist("calls0", NULL, false);
        rc |= virNetDevTapSetPersist("calls0", NULL, true);
        rc |= virNetDevTapGetHolders("calls0", &pids) < 0;
        close(fds[0]);
        close(fds[1]);
        rc |= virNetDevTapCreate(&name, NULL, fds, 1, VIR_NETDEV_TAP_CREATE_ALLOW_EXISTING);
        close(fds[0]);
        rc |= virNetDevTapDelete("calls0", NULL);
        free(name);
        free(again);
        free(pids);
        if (rc != 0) {
            printf("# %s\n", virNetDevTapGetLastErrorMessage());
            return "failed";
        }
        atomic_fetch_add(&calls, 1);
    }
    return NULL;
}

static void exec_with_taps(void)
{
    char *name = NULL;
    int fds[4];

    WORKS(virNetDevTapCreate(&name, NULL, fds, 4, 0), "a tap of 4 queues");
    IS_INT(exec_child(), 0, "a child that execs has none of them");
    fcntl(fds[1], F_SETFD, 0);
    IS_INT(exec_child(), 1, "but the one that it is to have");
    for (int i = 0; i < 4; i++)
        close(fds[i]);
    free(name);
}

static void exec_amid_calls(void)
{
    pthread_t thread;
    void *failed;
    int wrong = 0;

    pthread_create(&thread, NULL, call_all, NULL);
    while (atomic_load(&calls) == 0 && pthread_tryjoin_np(thread, &failed) != 0)
        sched_yield();
    for (int i = 0; i < CHILDREN; i++)
        wrong += exec_child() != 0;
    atomic_store(&stop, 1);
    pthread_join(thread, &failed);
    IS_INT(wrong, 0, "100 children that exec amid calls of another thread have no file of the library's");
    OK(!failed && atomic_load(&calls) > 0, "the calls succeed");
}

static int use_library(void)
{
    char *name = strdup("child0");
    int fd;

    if (virNetDevTapCreate(&name, NULL, &fd, 1, VIR_NETDEV_TAP_CREATE_PERSIST) < 0 || !exists("child0"))
        return 1;
    close(fd);
    free(name);
    return virNetDevTapDelete("child0", NULL) < 0 || exists("child0") || virNetDevTapDelete("lo", NULL) != -1;
}

static void fork_only(void)
{
    char *name = NULL, *again = NULL;
    int fd, status = -1;
    pid_t pid;

    WORKS(virNetDevTapCreate(&name, NULL, &fd, 1, 0), "a tap of the parent's");
    fflush(stdout);
    tap_wait_for_threads(); /* what belongs to a thread that the child does not have is a leak to it */
    pid = fork();
    if (pid == 0) {
        int rc = use_library();

        free(name);
        tap_wait_for_threads();
        exit(rc);
    }
    waitpid(pid, &status, 0);
    OK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child that forks only can use the library");
    WORKS(virNetDevTapGetName(fd, &again), "and the parent's tap is as before");
    IS_STR(again, name, "its name");
    close(fd);
    free(name);
    free(again);
}

int main(int argc, char **argv)
{
    struct look before;

    program = argv[0];
    if (argc == 2 && strcmp(argv[1], "list-fds") == 0)
        return only_standard_fds();
    tap_namespaces();
    before = look();
    if (before.fds != 3) { /* what the test was started with is not for its children */
        close_range(3, ~0u, 0);
        before = look();
    }
    exec_with_taps();
    exec_amid_calls();
    fork_only();
    OK(same_as(&before), "nothing is left");
    return tap_done();
}
