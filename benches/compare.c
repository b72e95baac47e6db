/*
 * Our functions beside libvirt's own, both loaded at run time, called in turn in one private network
 * namespace; and the system calls that cannot be done without ("floor").
 *
 * usage: compare OURS.so LIBVIRT.so [LARGEST]   writes CSV: test,n,who,median_us,samples
 * LARGEST (4000) bounds the number of interfaces.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <math.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <virnetdevtap.h>

#define TUN "/dev/net/tun"
enum { SAMPLES = 102, MAX_QUEUES = 256 };

struct library {
    const char *who;
    __typeof__(virNetDevTapCreate) *create;
    __typeof__(virNetDevTapDelete) *delete;
    __typeof__(virNetDevTapCreateInBridgePort) *create_in_bridge;
    __typeof__(virNetDevTapInterfaceStats) *stats;
};

static struct library ours = {.who = "ours"}, libvirt = {.who = "libvirt"};
static struct library *const both[] = {&ours, &libvirt};
static __typeof__(virNetDevTapDeleteList) *delete_list;
static __typeof__(virNetDevTapInterfaceStatsList) *stats_list;
static __typeof__(virNetDevTapGetPersist) *get_persist;
static __typeof__(virNetDevTapStateSave) *save;
static __typeof__(virNetDevTapStateHold) *hold;
static __typeof__(virNetDevTapStateRestore) *restore;
static __typeof__(virNetDevTapStateRestoreList) *restore_list;
static int route; /* a rtnetlink socket */

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vfprintf(stderr, format, args);
    fprintf(stderr, ": %s\n", strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1e6 + at.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void report(const char *test, int n, const char *who, double *times, int count)
{
    qsort(times, count, sizeof(*times), by_value);
    printf("%s,%d,%s,%.1f,%d\n", test, n, who, times[count / 2], count);
    fflush(stdout);
}

/* How many times as fast as libvirt ours is: where the median of that lies, with a probability of 97 % (order statistics, as
 * in the sign test). Each ratio is of four calls one after the other, in which each has been the first once: whatever is first
 * finds caches in another state. Before report(), which sorts. */
static void report_ratio(const char *test, int n, double *ours, double *libvirt)
{
    enum { RATIOS = SAMPLES / 2, LOW = 17 };
    double ratios[RATIOS];

    for (int i = 0; i < RATIOS; i++)
        ratios[i] = sqrt(libvirt[2 * i] / ours[2 * i] * libvirt[2 * i + 1] / ours[2 * i + 1]);
    qsort(ratios, RATIOS, sizeof(*ratios), by_value);
    printf("%s,%d,ratio,%.3f,%d\n", test, n, ratios[RATIOS / 2], RATIOS);
    printf("%s,%d,low,%.3f,%d\n", test, n, ratios[LOW], RATIOS);
    printf("%s,%d,high,%.3f,%d\n", test, n, ratios[RATIOS - 1 - LOW], RATIOS);
}

/* For what nobody shall ever meet: the worst of all samples */
static void report_worst(const char *test, int n, const char *who, double *times, int count)
{
    qsort(times, count, sizeof(*times), by_value);
    printf("%s,%d,%s,%.1f,%d\n", test, n, who, times[count - 1], count);
    fflush(stdout);
}

static void *symbol(void *library, const char *name)
{
    void *found = dlsym(library, name);

    if (!found)
        die("%s: %s", name, dlerror());
    return found;
}

static void load(struct library *library, const char *path)
{
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);

    if (!handle)
        die("%s", dlerror());
    library->create = symbol(handle, "virNetDevTapCreate");
    library->delete = symbol(handle, "virNetDevTapDelete");
    library->create_in_bridge = symbol(handle, "virNetDevTapCreateInBridgePort");
    library->stats = symbol(handle, "virNetDevTapInterfaceStats");
    if (library == &ours) {
        delete_list = symbol(handle, "virNetDevTapDeleteList");
        stats_list = symbol(handle, "virNetDevTapInterfaceStatsList");
        get_persist = symbol(handle, "virNetDevTapGetPersist");
        restore_list = symbol(handle, "virNetDevTapStateRestoreList");
        save = symbol(handle, "virNetDevTapStateSave");
        hold = symbol(handle, "virNetDevTapStateHold");
        restore = symbol(handle, "virNetDevTapStateRestore");
    }
}

/* One request and its acknowledgement; 0 or the error. */
static int ask(struct nlmsghdr *request)
{
    static __thread char buffer[65536];
    ssize_t len;

    request->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
    if (send(route, request, request->nlmsg_len, 0) < 0 || (len = recv(route, buffer, sizeof(buffer), 0)) < 0)
        return errno;
    return -((struct nlmsgerr *)NLMSG_DATA((struct nlmsghdr *)buffer))->error;
}

struct link_request {
    struct nlmsghdr header;
    struct ifinfomsg link;
    struct rtattr attr;
    unsigned group;
};

/* RTM_DELLINK of one, or of a group */
static void raw_delete(int ifindex, unsigned group)
{
    struct link_request request = {
        .header = {.nlmsg_len = ifindex ? offsetof(struct link_request, attr) : sizeof(request), .nlmsg_type = RTM_DELLINK},
        .link = {.ifi_index = ifindex},
        .attr = {.rta_len = 8, .rta_type = IFLA_GROUP},
        .group = group,
    };

    errno = ask(&request.header);
    if (errno && errno != ENODEV)
        die("deleting link %d, group %u", ifindex, group);
}

static void raw_group(int ifindex, unsigned group)
{
    struct link_request request = {
        .header = {.nlmsg_len = sizeof(request), .nlmsg_type = RTM_SETLINK},
        .link = {.ifi_index = ifindex},
        .attr = {.rta_len = 8, .rta_type = IFLA_GROUP},
        .group = group,
    };

    if ((errno = ask(&request.header)))
        die("putting link %d into group %u", ifindex, group);
}

static int raw_create(const char *name, int flags, bool persist)
{
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | flags};
    int fd = open(TUN, O_RDWR | O_CLOEXEC);

    snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr) < 0 || (persist && ioctl(fd, TUNSETPERSIST, 1) < 0))
        die("creating %s", name);
    return fd;
}

static void make_taps(int from, int to)
{
    char name[IFNAMSIZ];

    for (int i = from; i < to; i++) {
        snprintf(name, sizeof(name), "t%d", i);
        close(raw_create(name, 0, true));
    }
}

/* All taps tN, at once: nobody else is in this namespace. */
static void remove_taps(int from, int to)
{
    char name[IFNAMSIZ];

    for (int i = from; i < to; i++) {
        snprintf(name, sizeof(name), "t%d", i);
        if (if_nametoindex(name))
            raw_group(if_nametoindex(name), 4242);
    }
    raw_delete(0, 4242);
}

static void close_all(int *fds, int count)
{
    for (int i = 0; i < count; i++)
        close(fds[i]);
}

static void creating(const char *test, int queues, unsigned flags)
{
    double times[2][SAMPLES], floor[SAMPLES];
    int fds[MAX_QUEUES];

    for (int i = 0; i < SAMPLES; i++) {
        for (int turn = 0; turn < 2; turn++) {
            int k = (i + turn) % 2; /* neither always comes first */
            char *name = strdup("tap0");
            double start = now();

            if (both[k]->create(&name, TUN, fds, queues, flags) < 0)
                die("%s: create", both[k]->who);
            times[k][i] = now() - start;
            raw_delete(if_nametoindex(name), 0);
            close_all(fds, queues);
            free(name);
        }
        double start = now();
        for (int q = 0; q < queues; q++)
            fds[q] = raw_create("tap0", queues > 1 ? IFF_MULTI_QUEUE : 0, q == 0 && (flags & VIR_NETDEV_TAP_CREATE_PERSIST));
        floor[i] = now() - start;
        raw_delete(if_nametoindex("tap0"), 0);
        close_all(fds, queues);
    }
    report_ratio(test, queues, times[0], times[1]);
    for (int k = 0; k < 2; k++)
        report(test, queues, both[k]->who, times[k], SAMPLES);
    report(test, queues, "floor", floor, SAMPLES);
}

static void deleting_one(void)
{
    double times[3][SAMPLES];

    for (int i = 0; i < SAMPLES; i++) {
        for (int turn = 0; turn < 3; turn++) {
            double start;
            int index, k = (i + turn) % 3;

            close(raw_create("tap0", 0, true));
            index = if_nametoindex("tap0");
            start = now();
            if (k == 2)
                raw_delete(index, 0);
            else if (both[k]->delete("tap0", TUN) < 0)
                die("%s: delete", both[k]->who);
            times[k][i] = now() - start;
        }
    }
    report("delete", 1, "ours", times[0], SAMPLES);
    report("delete", 1, "libvirt", times[1], SAMPLES);
    report("delete", 1, "floor", times[2], SAMPLES); /* RTM_DELLINK, which waits for RCU */
}

static void in_bridge(int ports)
{
    const virMacAddr mac = {{0x52, 0x54, 0, 1, 2, 3}};
    const unsigned char uuid[16] = {0};
    double times[2][SAMPLES];
    char command[256];

    snprintf(command, sizeof(command),
             "{ echo link add br0 type bridge; echo link set br0 up; seq -f 'link set t%%g master br0 up' 0 %d; } | ip -batch -",
             ports - 1);
    make_taps(0, ports);
    if (system(command) != 0)
        die("ip");
    for (int i = 0; i < SAMPLES; i++) {
        for (int turn = 0; turn < 2; turn++) {
            int k = (i + turn) % 2; /* neither always comes first */
            char *name = strdup("tap0");
            double start = now();
            int fd;

            if (both[k]->create_in_bridge("br0", &name, &mac, uuid, TUN, &fd, 1, NULL, NULL, VIR_TRISTATE_BOOL_ABSENT, NULL, 0,
                                          NULL, VIR_NETDEV_TAP_CREATE_IFUP) < 0)
                die("%s: create in a bridge port", both[k]->who);
            times[k][i] = now() - start;
            raw_delete(if_nametoindex(name), 0);
            close(fd);
            free(name);
        }
    }
    report_ratio("create-in-bridge", ports, times[0], times[1]);
    report("create-in-bridge", ports, "ours", times[0], SAMPLES);
    report("create-in-bridge", ports, "libvirt", times[1], SAMPLES);
    raw_delete(if_nametoindex("br0"), 0);
    remove_taps(0, ports);
}

struct stats_request {
    struct nlmsghdr header;
    struct if_stats_msg stats;
};

static void raw_stats(int ifindex)
{
    static char buffer[65536];
    struct stats_request request = {
        .header = {.nlmsg_len = sizeof(request), .nlmsg_type = RTM_GETSTATS, .nlmsg_flags = NLM_F_REQUEST | (ifindex ? 0 : NLM_F_DUMP)},
        .stats = {.ifindex = ifindex, .filter_mask = IFLA_STATS_FILTER_BIT(IFLA_STATS_LINK_64)},
    };

    if (send(route, &request, sizeof(request), 0) < 0)
        die("RTM_GETSTATS");
    for (bool more = true; more;) {
        int len = recv(route, buffer, sizeof(buffer), 0);

        if (len < 0)
            die("RTM_GETSTATS");
        more = !ifindex;
        for (struct nlmsghdr *at = (void *)buffer; NLMSG_OK(at, (unsigned)len); at = NLMSG_NEXT(at, len))
            if (at->nlmsg_type == NLMSG_DONE)
                more = false;
    }
}

/* What has nothing to do with the other interfaces of the host, of which there are so many */
static void among(int interfaces)
{
    double create[2][SAMPLES], delete[2][SAMPLES], persist[SAMPLES], saving[SAMPLES];
    char dir[] = "/run/benchXXXXXX";

    if (!mkdtemp(dir))
        die("mkdtemp");
    for (int i = 0; i < SAMPLES; i++) {
        for (int turn = 0; turn < 2; turn++) {
            int k = (i + turn) % 2, fd; /* neither always comes first */
            char *name = strdup("among%d");
            double start;

            start = now();
            if (both[k]->create(&name, TUN, &fd, 1, VIR_NETDEV_TAP_CREATE_PERSIST) < 0)
                die("%s: create", both[k]->who);
            create[k][i] = now() - start;
            raw_delete(if_nametoindex(name), 0);
            close(fd);
            free(name);
        }
    }
    for (int i = 0; i < SAMPLES; i++) {
        for (int turn = 0; turn < 2; turn++) {
            int k = (i + turn) % 2;
            const char *name = "among";
            double start;
            bool yes;

            close(raw_create(name, 0, true));
            if (k == 0) {
                start = now();
                if (get_persist(name, &yes) < 0)
                    die("get persist");
                persist[i] = now() - start;
                start = now();
                if (save(name, dir) < 0)
                    die("save");
                saving[i] = now() - start;
                if (restore(name, TUN, dir, VIR_NETDEV_TAP_RESTORE_LEAVE, NULL) < 0)
                    die("restore");
            }
            start = now();
            if (both[k]->delete(name, TUN) < 0)
                die("%s: delete", both[k]->who);
            delete[k][i] = now() - start;
        }
    }
    report_ratio("create-among", interfaces, create[0], create[1]);
    report_ratio("delete-among", interfaces, delete[0], delete[1]);
    for (int k = 0; k < 2; k++) {
        report("create-among", interfaces, both[k]->who, create[k], SAMPLES);
        report("delete-among", interfaces, both[k]->who, delete[k], SAMPLES);
    }
    report("get-persist-among", interfaces, "ours", persist, SAMPLES);
    report("save-among", interfaces, "ours", saving, SAMPLES);
    rmdir(dir);
}

static void statistics(int interfaces)
{
    double times[3][SAMPLES];
    int all_samples = interfaces < 1000 ? 11 : 5, libvirt_samples = interfaces < 100 ? 11 : interfaces < 1000 ? 5 : 1;
    virDomainInterfaceStatsStruct *stats = calloc(interfaces, sizeof(*stats));
    char(*names)[IFNAMSIZ] = calloc(interfaces, IFNAMSIZ);
    const char **list = calloc(interfaces, sizeof(*list));

    make_taps(0, interfaces);
    for (int i = 0; i < interfaces; i++) {
        snprintf(names[i], IFNAMSIZ, "t%d", i);
        list[i] = names[i];
    }
    for (int i = 0; i < SAMPLES; i++) {
        for (int turn = 0; turn < 3; turn++) {
            int k = (i + turn) % 3;
            const char *name = list[i * 7919 % interfaces];
            int index = if_nametoindex(name);
            double start = now();

            if (k == 2)
                raw_stats(index);
            else if (both[k]->stats(name, stats, true) < 0)
                die("%s: statistics", both[k]->who);
            times[k][i] = now() - start;
        }
    }
    report("stats", interfaces, "ours", times[0], SAMPLES);
    report("stats", interfaces, "libvirt", times[1], SAMPLES);
    report("stats", interfaces, "floor", times[2], SAMPLES);
    for (int i = 0; i < all_samples; i++) {
        double start = now();

        if (stats_list(list, interfaces, stats, true) != interfaces)
            die("ours: statistics of all");
        times[0][i] = now() - start;
        start = now();
        raw_stats(0);
        times[2][i] = now() - start;
    }
    for (int i = 0; i < libvirt_samples; i++) {
        double start = now();

        for (int j = 0; j < interfaces; j++)
            if (libvirt.stats(list[j], &stats[j], true) < 0)
                die("libvirt: statistics of all");
        times[1][i] = now() - start;
    }
    among(interfaces);
    report("stats-all", interfaces, "ours", times[0], all_samples);
    report("stats-all", interfaces, "libvirt", times[1], libvirt_samples);
    report("stats-all", interfaces, "floor", times[2], all_samples);
    remove_taps(0, interfaces);
    free(stats);
    free(names);
    free(list);
}

/* Somebody else's request, again and again: how long does it take at most? */
static atomic_bool watching;

static void *watch_others(void *longest)
{
    static char buffer[65536];
    struct link_request request = {
        .header = {.nlmsg_len = offsetof(struct link_request, attr), .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST},
        .link = {.ifi_index = 1},
    };
    int own = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    while (atomic_load(&watching)) {
        double start = now(), took;

        if (send(own, &request, request.header.nlmsg_len, 0) < 0 || recv(own, buffer, sizeof(buffer), 0) < 0)
            break;
        took = now() - start;
        if (took > *(double *)longest)
            *(double *)longest = took;
        usleep(200);
    }
    close(own);
    return NULL;
}

static pthread_t start_watching(double *longest)
{
    pthread_t other;

    *longest = 0;
    atomic_store(&watching, true);
    pthread_create(&other, NULL, watch_others, longest);
    return other;
}

static void stop_watching(pthread_t other)
{
    atomic_store(&watching, false);
    pthread_join(other, NULL);
}

/* Each sample twice: to see how long it takes, and how long others have to wait. What takes libvirt long is done once. */
static void deleting_many(int taps)
{
    int samples = taps <= 10 ? 11 : taps <= 100 ? 5 : 3, libvirt_samples = taps <= 10 ? 5 : 1;
    double times[3][SAMPLES], longest[3][SAMPLES];
    char(*names)[IFNAMSIZ] = calloc(taps, IFNAMSIZ);
    const char **list = calloc(taps, sizeof(*list));
    double ignored;

    for (int i = 0; i < taps; i++) {
        snprintf(names[i], IFNAMSIZ, "t%d", i);
        list[i] = names[i];
    }
    for (int i = 0; i < samples; i++) {
        for (int watched = 0; watched < 2; watched++) {
            pthread_t other;
            double start;

            make_taps(0, taps);
            if (watched)
                other = start_watching(&longest[2][i]);
            start = now();
            remove_taps(0, taps);
            *(watched ? &ignored : &times[2][i]) = now() - start;
            if (watched)
                stop_watching(other);
            make_taps(0, taps);
            if (watched)
                other = start_watching(&longest[0][i]);
            start = now();
            if (delete_list(list, taps, TUN, NULL) < 0)
                die("ours: delete %d", taps);
            *(watched ? &ignored : &times[0][i]) = now() - start;
            if (watched)
                stop_watching(other);
        }
    }
    for (int i = 0; i < libvirt_samples; i++) {
        pthread_t other;
        double start;

        make_taps(0, taps);
        other = start_watching(&longest[1][i]);
        start = now();
        for (int j = 0; j < taps; j++)
            if (libvirt.delete(list[j], TUN) < 0)
                die("libvirt: delete %d", taps);
        times[1][i] = now() - start;
        stop_watching(other);
    }
    report("delete-many", taps, "ours", times[0], samples);
    report("delete-many", taps, "libvirt", times[1], libvirt_samples);
    report("delete-many", taps, "floor", times[2], samples);
    report_worst("delete-many-longest-stall", taps, "ours", longest[0], samples);
    report_worst("delete-many-longest-stall", taps, "libvirt", longest[1], libvirt_samples);
    report_worst("delete-many-longest-stall", taps, "floor", longest[2], samples);
    free(names);
    free(list);
}

/* Taps that were not there before the hypervisor, and are still there after it */
static void restoring_many(int taps)
{
    int samples = taps <= 10 ? 11 : taps <= 100 ? 5 : 3;
    char(*names)[IFNAMSIZ] = calloc(taps, IFNAMSIZ);
    const char **list = calloc(taps, sizeof(*list));
    char dir[] = "/run/benchXXXXXX";
    double times[SAMPLES];

    if (!mkdtemp(dir))
        die("mkdtemp");
    for (int i = 0; i < samples; i++) {
        for (int j = 0; j < taps; j++) {
            int fd;

            snprintf(names[j], IFNAMSIZ, "t%d", j);
            list[j] = names[j];
            fd = raw_create(list[j], 0, true);
            if (hold(list[j], dir, &fd, 1) < 0)
                die("hold");
            close(fd);
        }
        double start = now();
        if (restore_list(list, taps, TUN, dir, 0, NULL, NULL) < 0)
            die("restore %d", taps);
        times[i] = now() - start;
    }
    report("restore-many", taps, "ours", times, samples);
    rmdir(dir);
    free(names);
    free(list);
}

static void state(void)
{
    double times[3][SAMPLES];
    char dir[] = "/run/benchXXXXXX";

    if (!mkdtemp(dir))
        die("mkdtemp");
    close(raw_create("tap0", 0, true));
    for (int i = 0; i < SAMPLES; i++) {
        char *name = strdup("tap0");
        double start = now();
        int fd;

        if (save("tap0", dir) < 0)
            die("save");
        times[0][i] = now() - start;
        if (ours.create(&name, TUN, &fd, 1, VIR_NETDEV_TAP_CREATE_ALLOW_EXISTING) < 0)
            die("create");
        start = now();
        if (hold("tap0", dir, &fd, 1) < 0)
            die("hold");
        times[1][i] = now() - start;
        close(fd);
        start = now();
        if (restore("tap0", TUN, dir, 0, NULL) < 0)
            die("restore");
        times[2][i] = now() - start;
        free(name);
    }
    report("save", 1, "ours", times[0], SAMPLES);
    report("hold", 1, "ours", times[1], SAMPLES);
    report("restore", 1, "ours", times[2], SAMPLES);
    rmdir(dir);
    raw_delete(if_nametoindex("tap0"), 0);
}

static double resident_kib(void)
{
    double kib = 0;
    char line[128];
    FILE *file = fopen("/proc/self/status", "re");

    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "VmRSS: %lf", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib;
}

/* What a process pays for loading it, which has nothing of it yet */
static void loading(const char *who, const char *path)
{
    double times[SAMPLES], kib[SAMPLES];

    for (int i = 0; i < SAMPLES; i++) {
        double result[2];
        int ends[2];

        if (pipe(ends) < 0)
            die("pipe");
        if (fork() == 0) {
            double before = resident_kib(), start = now();

            if (!dlopen(path, RTLD_NOW | RTLD_LOCAL))
                die("%s", dlerror());
            result[0] = now() - start;
            result[1] = resident_kib() - before;
            _exit(write(ends[1], result, sizeof(result)) != sizeof(result));
        }
        close(ends[1]);
        if (read(ends[0], result, sizeof(result)) != sizeof(result))
            die("loading %s", path);
        close(ends[0]);
        wait(NULL);
        times[i] = result[0];
        kib[i] = result[1];
    }
    report("load", 1, who, times, SAMPLES);
    report("load-resident-kib", 1, who, kib, SAMPLES);
}

int main(int argc, char **argv)
{
    const int sizes[] = {1, 100, 1000, 4000};
    int largest = argc > 3 ? atoi(argv[3]) : 4000;

    if (argc < 3) {
        fprintf(stderr, "usage: %s OURS.so LIBVIRT.so [LARGEST]\n", argv[0]);
        return 2;
    }
    if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("sysfs", "/sys", "sysfs", 0, NULL) < 0 || mount("tmpfs", "/run", "tmpfs", 0, NULL) < 0)
        die("a private network namespace");
    puts("test,n,who,median_us,samples");
    loading("ours", argv[1]);
    loading("libvirt", argv[2]);
    load(&ours, argv[1]);
    load(&libvirt, argv[2]);
    route = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    creating("create", 1, 0);
    creating("create-persistent", 1, VIR_NETDEV_TAP_CREATE_PERSIST);
    creating("create-queues", 4, 0);
    creating("create-queues", 64, 0);
    creating("create-queues", 256, 0);
    deleting_one();
    state();
    for (size_t i = 0; i < 3 && sizes[i] <= largest; i++)
        in_bridge(sizes[i]);
    for (size_t i = 0; i < 4 && sizes[i] <= largest; i++)
        statistics(sizes[i]);
    for (size_t i = 0; i < 4 && sizes[i] <= largest; i++) {
        deleting_many(sizes[i] == 1 ? 10 : sizes[i]);
        if (sizes[i] <= 1000)
            restoring_many(sizes[i] == 1 ? 10 : sizes[i]);
    }
    return 0;
}
