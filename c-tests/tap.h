/*
 * The test protocol (TAP) and the private namespaces of the C tests.
 *
 * A test is one program: tap_namespaces() first if it makes devices, OK() and
 * its kin for each thing that must hold, return tap_done() last. Without a
 * tap_plan() the plan is what was run. TAP_SKIP() tells what could not be run.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#ifndef TAP_H
#define TAP_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

static int tap_run, tap_failed, tap_planned;

/* Says what is true: cond. The rest describes it like printf. */
#define OK(cond, ...) tap_ok(!!(cond), #cond, __FILE__, __LINE__, __VA_ARGS__)
#define IS_INT(got, wanted, ...) \
    tap_is_int((long long)(got), (long long)(wanted), #got, __FILE__, __LINE__, __VA_ARGS__)
#define IS_STR(got, wanted, ...) \
    tap_is_str((got), (wanted), #got, __FILE__, __LINE__, __VA_ARGS__)
#define TAP_SKIP(why, ...) tap_skip((why), __VA_ARGS__)

static inline void tap_line(int good, const char *format, va_list args)
{
    printf("%s %d - ", good ? "ok" : "not ok", ++tap_run);
    vprintf(format, args);
    if (!good)
        tap_failed++;
}

__attribute__((format(printf, 5, 6))) static inline int
tap_ok(int good, const char *cond, const char *file, int line, const char *format, ...)
{
    int saved = errno;
    va_list args;

    va_start(args, format);
    tap_line(good, format, args);
    va_end(args);
    putchar('\n');
    if (!good)
        printf("# %s:%d: %s (errno %d, %s)\n", file, line, cond, saved, strerror(saved));
    fflush(stdout);
    errno = saved;
    return good;
}

__attribute__((format(printf, 6, 7))) static inline int
tap_is_int(long long got, long long wanted, const char *what, const char *file, int line,
           const char *format, ...)
{
    int saved = errno;
    va_list args;

    va_start(args, format);
    tap_line(got == wanted, format, args);
    va_end(args);
    putchar('\n');
    if (got != wanted)
        printf("# %s:%d: %s is %lld, not %lld (errno %d, %s)\n",
               file, line, what, got, wanted, saved, strerror(saved));
    fflush(stdout);
    errno = saved;
    return got == wanted;
}

__attribute__((format(printf, 6, 7))) static inline int
tap_is_str(const char *got, const char *wanted, const char *what, const char *file, int line,
           const char *format, ...)
{
    int saved = errno;
    int same = got && wanted ? strcmp(got, wanted) == 0 : got == wanted;
    va_list args;

    va_start(args, format);
    tap_line(same, format, args);
    va_end(args);
    putchar('\n');
    if (!same)
        printf("# %s:%d: %s is \"%s\", not \"%s\"\n",
               file, line, what, got ? got : "(null)", wanted ? wanted : "(null)");
    fflush(stdout);
    errno = saved;
    return same;
}

__attribute__((format(printf, 2, 3))) static inline void
tap_skip(const char *why, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    tap_line(1, format, args);
    va_end(args);
    printf(" # SKIP %s\n", why);
    fflush(stdout);
}

/* Tells beforehand how many there will be: a program that ends early then fails. */
static inline void tap_plan(int count)
{
    tap_planned = count;
    printf("1..%d\n", count);
    fflush(stdout);
}

/* Ends the program: this machine cannot run any of it. */
__attribute__((noreturn)) static inline void tap_skip_all(const char *why)
{
    printf("1..0 # SKIP %s\n", why);
    exit(0);
}

/* Ends the program: what the test needs before it can begin went wrong. */
__attribute__((noreturn)) static inline void tap_bail_out(const char *what)
{
    printf("Bail out! %s: %s\n", what, strerror(errno));
    exit(1);
}

/*
 * Waits for the library's thread that sees a deleted device off. Nothing else has to; but a leak check at exit cannot stop
 * a thread that is in the kernel, and takes what only that one knows of for lost.
 */
static inline void tap_wait_for_threads(void)
{
    int count;

    do {
        struct dirent *entry;
        DIR *dir = opendir("/proc/self/task");

        for (count = 0; dir && (entry = readdir(dir));)
            count += entry->d_name[0] != '.';
        if (dir)
            closedir(dir);
    } while (count > 1 && usleep(1000) == 0);
}

/* What main returns. */
static inline int tap_done(void)
{
    tap_wait_for_threads();
    if (!tap_planned)
        printf("1..%d\n", tap_run);
    return tap_failed || (tap_planned && tap_run != tap_planned);
}

static inline void tap_write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0 || close(fd) < 0)
        tap_bail_out(path);
}

/*
 * Network, mount and, for an ordinary user, user namespace of this process's
 * own, where it is root; /sys shows the new network namespace. Call it before
 * any thread is started.
 */
static inline void tap_namespaces(void)
{
    int tun;

    if (geteuid() != 0 || unshare(CLONE_NEWNET | CLONE_NEWNS) < 0) {
        char uids[32], gids[32];

        snprintf(uids, sizeof(uids), "0 %u 1", (unsigned)geteuid());
        snprintf(gids, sizeof(gids), "0 %u 1", (unsigned)getegid());
        if (unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS) < 0)
            tap_skip_all("user namespaces are not allowed here");
        tap_write_file("/proc/self/setgroups", "deny");
        tap_write_file("/proc/self/uid_map", uids);
        tap_write_file("/proc/self/gid_map", gids);
    }
    if (mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) < 0)
        tap_bail_out("making / private");
    /* a sysfs shows the network namespace of who mounted it */
    if (mount("sysfs", "/sys", "sysfs", 0, NULL) < 0)
        tap_skip_all("sysfs cannot be mounted in a namespace here");

    tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (tun < 0) {
        char why[96];

        snprintf(why, sizeof(why), "/dev/net/tun cannot be opened (%s)", strerror(errno));
        tap_skip_all(why);
    }
    close(tun);
}

/* How many fds this process has open: the same before and after, or something leaks. */
static inline int tap_open_fds(void)
{
    int count = 0;
    struct dirent *entry;
    DIR *dir = opendir("/proc/self/fd");

    if (!dir)
        tap_bail_out("/proc/self/fd");
    while ((entry = readdir(dir)))
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count - 1; /* the directory's own */
}

#endif /* TAP_H */
