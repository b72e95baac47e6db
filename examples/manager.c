/*
 * manager.c: how a program that starts virtual machines uses virnetdevtap.
 *
 * It makes three taps, starts a guest on each (guest.c, in place of QEMU) that
 * inherits them, pings the guests, reads counters, meets two errors and takes
 * everything away again.
 *
 *     manager PATH-OF-GUEST
 *
 * Run it in a network namespace of its own, as scripts/demo does. It exits
 * with 0 only if everything went as it says.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <virnetdevtap.h>

enum { TAPS = 3, MAX_QUEUES = 4, PINGS = 5 };

struct tap {
    char *name; /* from malloc(): virNetDevTapCreate() replaces it by the one it has found */
    int queues;
    unsigned int flags;
    const char *what;
    int fds[MAX_QUEUES];
    char host[16], guest[16]; /* the addresses of the two ends */
    pid_t pid;
};

static int failures;

/* Prints whether something is as it should be, and keeps count. */
__attribute__((format(printf, 3, 4))) static int say(int good, const char *name, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    printf("  %-7s %-8s ", good ? "ok" : "FAILED", name);
    vprintf(format, args);
    putchar('\n');
    va_end(args);
    failures += !good;
    return good;
}

/* The same for a call of the library, with its error. */
static int did(int rc, const char *name, const char *what)
{
    return say(rc == 0, name ? name : "-", "%s", rc == 0 ? what : virNetDevTapGetLastErrorMessage());
}

/* The devices that there are, and what the library knows of them. Returns how many. */
static int table(const char *title)
{
    struct if_nameindex *all = if_nameindex();
    int count = 0;

    printf("\n%s\n  %-7s %-9s %-11s %s\n", title, "DEVICE", "IS A TAP", "PERSISTENT", "HELD BY");
    for (; all && all[count].if_name; count++) {
        const char *name = all[count].if_name;
        bool persistent = false;
        pid_t *pids = NULL;
        bool tap = virNetDevTapGetPersist(name, &persistent) == 0;
        int holders = tap ? virNetDevTapGetHolders(name, &pids) : 0;

        printf("  %-7s %-9s %-11s ", name, tap ? "yes" : "no", persistent ? "yes" : tap ? "no" : "-");
        for (int i = 0; i < holders; i++)
            printf("%sprocess %d", i ? ", " : "", pids[i]);
        puts(holders > 0 ? "" : "-");
        free(pids);
    }
    if_freenameindex(all);
    return count;
}

__attribute__((format(printf, 1, 2))) static bool run(const char *format, ...)
{
    char command[256];
    va_list args;

    va_start(args, format);
    vsnprintf(command, sizeof(command), format, args);
    va_end(args);
    return system(command) == 0;
}

/*
 * The files of a tap are close-on-exec, so that no other child gets hold of them; this one is to have its own.
 * The manager keeps none: a tap that is not persistent then goes when its guest does.
 */
static void start(struct tap *tap, char *program)
{
    char numbers[MAX_QUEUES][12];
    char *args[2 + MAX_QUEUES + 1] = {program, tap->guest};

    if ((tap->pid = fork()) == 0) {
        for (int i = 0; i < tap->queues; i++) {
            fcntl(tap->fds[i], F_SETFD, 0);
            snprintf(numbers[i], sizeof(numbers[i]), "%d", tap->fds[i]);
            args[2 + i] = numbers[i];
        }
        execv(program, args);
        _exit(127);
    }
    for (int i = 0; i < tap->queues; i++)
        close(tap->fds[i]);
    say(tap->pid > 0 && run("ip addr add %s/24 dev %s && ip link set %s up", tap->host, tap->name, tap->name), tap->name,
        "process %d has %d file%s; the host is %s, the guest %s", tap->pid, tap->queues, tap->queues > 1 ? "s" : "",
        tap->host, tap->guest);
}

/* With true for "swapped" the library counts as the guest does: received is what the host has sent. */
static void counters(const struct tap *tap)
{
    virDomainInterfaceStatsStruct s;
    if (virNetDevTapInterfaceStats(tap->name, &s, true) < 0)
        did(-1, tap->name, NULL);
    else
        say(s.rx_packets > PINGS && s.tx_packets > PINGS, tap->name,
            "the guest has received %lld packets, %lld bytes, and sent %lld packets, %lld bytes",
            s.rx_packets, s.rx_bytes, s.tx_packets, s.tx_bytes);
}

/* A call that must be refused, and the error must say this. */
static void refused(int rc, const char *name, const char *expected)
{
    const char *message = virNetDevTapGetLastErrorMessage();
    say(rc < 0 && strstr(message, expected), name, "refused: %s", message);
}

int main(int argc, char **argv)
{
    struct tap taps[TAPS] = {
        {.queues = 1, .what = "new: 1 queue, name generated"},
        {.queues = 4, .what = "new: 4 queues, name generated"},
        {.name = strdup("mine0"), .queues = 1, .what = "was there already: opened",
         .flags = VIR_NETDEV_TAP_CREATE_ALLOW_EXISTING},
    };
    int before;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc != 2)
        return 2;
    before = table("Before");

    puts("\nA tap that somebody has made in advance");
    did(virNetDevTapCreate(&taps[2].name, NULL, NULL, 0, VIR_NETDEV_TAP_CREATE_PERSIST), "mine0",
        "persistent, nobody has it open");

    puts("\nOne tap for each of three guests");
    for (struct tap *tap = taps; tap < taps + TAPS; tap++) {
        int rc = virNetDevTapCreate(&tap->name, NULL, tap->fds, tap->queues, tap->flags);

        did(rc, tap->name, tap->what);
    }
    if (failures)
        return 1;

    puts("\nThe guests start and inherit the open taps");
    for (int i = 0; i < TAPS; i++) {
        snprintf(taps[i].host, sizeof(taps[i].host), "10.0.%d.1", i + 1);
        snprintf(taps[i].guest, sizeof(taps[i].guest), "10.0.%d.2", i + 1);
        start(&taps[i], argv[1]);
    }

    puts("\nThe host pings them: they answer ARP and ping themselves, as Ethernet frames");
    for (int i = 0; i < TAPS; i++)
        say(run("ping -q -c %d -i 0.2 -w 5 %s >/dev/null", PINGS, taps[i].guest), taps[i].name,
            "%d of %d pings answered by %s", PINGS, PINGS, taps[i].guest);

    puts("\nCounters");
    for (int i = 0; i < TAPS; i++)
        counters(&taps[i]);
    table("While the guests run");

    puts("\nWhat cannot be done is refused, and the error says why");
    refused(virNetDevTapDelete(taps[1].name, NULL), taps[1].name, "held by guest (pid ");
    refused(virNetDevTapDelete("lo", NULL), "lo", "not a tap");

    puts("\nThe guests stop, and their taps are deleted");
    for (int i = 0; i < TAPS; i++) {
        kill(taps[i].pid, SIGTERM);
        waitpid(taps[i].pid, NULL, 0);
        if (did(virNetDevTapDelete(taps[i].name, NULL), taps[i].name, "deleted") && if_nametoindex(taps[i].name))
            say(0, taps[i].name, "is still there");
        free(taps[i].name);
    }
    if (table("After") != before)
        say(0, "", "not the devices that were there before");
    return failures != 0;
}
