/*
 * virNetDevTapDeleteList and virNetDevTapInterfaceStatsList: many devices with one call.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "check.h"

enum { MANY = 100 };

static char names[MANY][IFNAMSIZ];
static const char *list[MANY];

static void make_all(void)
{
    for (int i = 0; i < MANY; i++) {
        snprintf(names[i], IFNAMSIZ, "t%d", i);
        list[i] = names[i];
        premade(list[i], 0);
    }
}

static int how_many(void)
{
    int count = 0;

    for (int i = 0; i < MANY; i++)
        count += if_nametoindex(list[i]) != 0;
    return count;
}

static void statistics(void)
{
    virDomainInterfaceStatsStruct stats[MANY], one;
    const char *some[] = {"t5", "missing0", "lo", "t5"};

    IS_INT(virNetDevTapInterfaceStatsList(list, MANY, stats, true), MANY, "statistics of %d taps", MANY);
    OK(virNetDevTapInterfaceStats("t5", &one, true) == 0 && memcmp(&one, &stats[5], sizeof(one)) == 0,
       "the same as of one");
    IS_INT(virNetDevTapInterfaceStatsList(some, 4, stats, false), 3, "a missing one is not counted");
    OK(stats[1].rx_bytes == -1 && stats[1].tx_drop == -1, "and has -1 everywhere");
    OK(stats[0].rx_bytes == 0 && stats[3].rx_bytes == 0, "the same name twice");
    IS_INT(virNetDevTapInterfaceStatsList(NULL, 0, NULL, false), 0, "none at all");
    IS_INT(virNetDevTapInterfaceStatsList(NULL, 1, stats, false), -1, "NULL for the names");
    some[2] = NULL;
    IS_INT(virNetDevTapInterfaceStatsList(some, 4, stats, false), -1, "NULL among the names");
    IS_INT(errno, EINVAL, "errno");
}

static void deletion(void)
{
    int errnos[MANY], held = raw_tap("t7", IFF_TAP | IFF_NO_PI, 0), fds = tap_open_fds(), wrong = 0;
    char us[16];
    const char *others[] = {"lo", NULL, "t7", "missing0", "this-name-is-too-long"};

    IS_INT(virNetDevTapDeleteList(list, MANY, NULL, errnos), -1, "one is held");
    IS_INT(errno, EBUSY, "errno");
    prctl(PR_GET_NAME, us); /* under valgrind it is valgrind's */
    OK(strstr(virNetDevTapGetLastErrorMessage(), us) != NULL, "the message names us, who hold it: %s",
       virNetDevTapGetLastErrorMessage());
    for (int i = 0; i < MANY; i++)
        wrong += errnos[i] != (i == 7 ? EBUSY : 0);
    IS_INT(wrong, 0, "errnos");
    IS_INT(how_many(), 1, "all others are gone");
    close(held);
    IS_INT(virNetDevTapDeleteList(others, 5, "/dev/net/tun", errnos), -1, "of all kinds");
    OK(errnos[0] == EINVAL && errnos[1] == EINVAL && errnos[2] == 0 && errnos[3] == 0 && errnos[4] == ERANGE,
       "%d %d %d %d %d", errnos[0], errnos[1], errnos[2], errnos[3], errnos[4]);
    IS_INT(how_many(), 0, "all are gone");
    IS_INT(virNetDevTapDeleteList(list, MANY, NULL, NULL), 0, "what is gone is no error; errnos may be NULL");
    IS_INT(virNetDevTapDeleteList(NULL, 0, NULL, NULL), 0, "none at all");
    IS_INT(virNetDevTapDeleteList(NULL, 1, NULL, NULL), -1, "NULL for the names");
    IS_INT(tap_open_fds(), fds - 1, "no fd is left open");
}

int main(void)
{
    tap_namespaces();
    make_all();
    statistics();
    deletion();
    return tap_done();
}
