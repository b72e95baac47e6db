/*
 * look.h: what a tap is like at one moment, as the kernel tells it.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdbool.h>

enum { DEVICE, INDEX, PERSISTENT, BRIDGE, VNET_HDR, HEADER, OFFLOADS, ROWS };
extern const char *const rows[ROWS];

struct look {
    char row[ROWS][24];
};

/* fd: a queue of the tap, or -1: nobody has it */
struct look look(const char *name, int fd);
bool same(const struct look *one, const struct look *other);

/* Opens a queue; index: for a new tap, 0 for any. Ends the program if that fails. */
int open_queue(const char *name, int flags, int index);
