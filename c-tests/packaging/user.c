/*
 * A user's program, for scripts/test-packaging: it knows nothing of the source tree.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include <virnetdevtap.h>

int main(void)
{
    char *name = NULL;

    if (virNetDevTapGetName(-1, &name) == 0) {
        fprintf(stderr, "fd -1 is the tap %s?\n", name);
        free(name);
        return 1;
    }
    puts(virNetDevTapGetLastErrorMessage());
    return 0;
}
