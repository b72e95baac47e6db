/*
 * Many threads at once, and another process that creates, renames and deletes meanwhile.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "check.h"

#include <pthread.h>

enum { THREADS = 8, ROUNDS = 25 };

struct work {
    pthread_t thread;
    int number, made, wrong;
    char names[ROUNDS][IFNAMSIZ];
    int fds[ROUNDS][2];
};

/* Creates with generated names and makes errors meanwhile, which are to stay its own. */
static void *create_many(void *opaque)
{
    struct work *work = opaque;
    char bad[32], text[64];

    for (int i = 0; i < ROUNDS; i++) {
        char *name = i % 2 ? strdup("t%d") : NULL;
        virDomainInterfaceStatsStruct stats;

        snprintf(bad, sizeof(bad), "%d/%d", work->number, i);
        snprintf(text, sizeof(text), "Network interface name '%s'", bad);
        if (virNetDevTapDelete(bad, NULL) != -1)
            work->wrong++;
        if (virNetDevTapCreate(&name, NULL, work->fds[i], 1 + i % 2, 0) < 0) {
            printf("# %s\n", virNetDevTapGetLastErrorMessage());
            work->wrong++;
            continue;
        }
        snprintf(work->names[work->made++], IFNAMSIZ, "%s", name);
        work->wrong += virNetDevTapInterfaceStats(name, &stats, true) < 0;
        work->wrong += !strstr(virNetDevTapGetLastErrorMessage(), text);
        free(name);
    }
    return NULL;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void generated_names(void)
{
    static struct work all[THREADS];
    static char names[THREADS * ROUNDS][IFNAMSIZ];
    struct look before = look();
    int made = 0, wrong = 0, twice = 0;

    for (int t = 0; t < THREADS; t++) {
        all[t].number = t;
        pthread_create(&all[t].thread, NULL, create_many, &all[t]);
    }
    for (int t = 0; t < THREADS; t++) {
        pthread_join(all[t].thread, NULL);
        memcpy(names[made], all[t].names, (size_t)all[t].made * IFNAMSIZ);
        made += all[t].made;
        wrong += all[t].wrong;
    }
    IS_INT(made, THREADS * ROUNDS, "8 threads create 25 devices each");
    IS_INT(wrong, 0, "each has its own errors, and counters of its devices");
    qsort(names, made, IFNAMSIZ, by_name);
    for (int i = 1; i < made; i++)
        twice += strcmp(names[i - 1], names[i]) == 0;
    IS_INT(twice, 0, "no name was given twice");
    for (int t = 0; t < THREADS; t++) {
        for (int i = 0; i < ROUNDS; i++) {
            close(all[t].fds[i][0]);
            if (i % 2)
                close(all[t].fds[i][1]);
        }
    }
    OK(same_as(&before), "nothing is left");
}

/* A process that makes a device, renames it forth and back, and deletes it, until it is told to end. */
static int rename_for_ever(void *unused)
{
    (void)unused;
    if (fork() != 0)
        return 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        int fd = raw_tap("race0", IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL, 0);
        int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        struct ifreq away = for_device("race0"), back = for_device("other0");

        snprintf(away.ifr_newname, IFNAMSIZ, "other0");
        snprintf(back.ifr_newname, IFNAMSIZ, "race0");
        if (fd >= 0 && ioctl(control, SIOCSIFNAME, &away) == 0)
            ioctl(control, SIOCSIFNAME, &back);
        close(control);
        if (fd >= 0)
            close(fd);
        if (kill(getppid(), 0) < 0)
            _exit(0);
    }
}

static int one_of(int error, const int *allowed)
{
    for (; *allowed; allowed++) {
        if (error == *allowed)
            return 1;
    }
    return 0;
}

/* With a name that comes and goes each call succeeds, or says why not; nothing third. */
static void *use_name(void *opaque)
{
    static const int taken[] = {EEXIST, 0}, changing[] = {EBUSY, EAGAIN, EINVAL, 0}, missing[] = {ENODEV, 0};
    struct work *work = opaque;

    for (int i = 0; i < ROUNDS; i++) {
        virDomainInterfaceStatsStruct stats;
        char *name = strdup("race0");
        bool persist;
        int fd = 77, rc = virNetDevTapCreate(&name, NULL, &fd, 1, 0);

        if (rc < 0 ? fd != -1 || !one_of(errno, taken) : fd < 0) {
            printf("# Create: fd %d, %s\n", fd, virNetDevTapGetLastErrorMessage());
            work->wrong++;
        }
        work->made += rc == 0;
        if (rc == 0)
            close(fd);
        if (virNetDevTapInterfaceStats("race0", &stats, false) < 0 && !one_of(errno, missing)) {
            printf("# InterfaceStats: %s\n", virNetDevTapGetLastErrorMessage());
            work->wrong++;
        }
        if (virNetDevTapGetPersist("race0", &persist) < 0 ? !one_of(errno, missing) : persist) {
            printf("# GetPersist: %s\n", virNetDevTapGetLastErrorMessage());
            work->wrong++;
        }
        if (i % 8 == work->number && virNetDevTapDelete("race0", NULL) < 0 && !one_of(errno, changing)) {
            printf("# Delete: %s\n", virNetDevTapGetLastErrorMessage());
            work->wrong++;
        }
        free(name);
    }
    return NULL;
}

static void name_that_comes_and_goes(void)
{
    static struct work all[THREADS];
    struct look before;
    struct holder other;
    int made = 0, wrong = 0, status;
    pid_t pid;

    premade("bystander0", 0);
    before = look();
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    other = hold("renamer", rename_for_ever, NULL);
    for (int t = 0; t < THREADS; t++) {
        all[t].number = t;
        pthread_create(&all[t].thread, NULL, use_name, &all[t]);
    }
    for (int t = 0; t < THREADS; t++) {
        pthread_join(all[t].thread, NULL);
        made += all[t].made;
        wrong += all[t].wrong;
    }
    release(&other);
    while ((pid = waitpid(-1, &status, 0)) > 0 || errno == EINTR)
        ;
    IS_INT(wrong, 0, "a name that another process uses: success or the right error (%d devices made)", made);
    OK(same_as(&before), "nothing is left, the device next to it is as it was");
    remove_raw("bystander0");
}

int main(void)
{
    tap_namespaces();
    generated_names();
    name_that_comes_and_goes();
    return tap_done();
}
