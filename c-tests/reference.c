/*
 * Our header and libvirt's prototypes in one translation unit: they agree, or
 * this does not compile.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <virnetdevtap.h>
#include "reference/libvirt-10.8.h"
#include "tap.h"

int main(void)
{
    tap_plan(1);
    OK(1, "the prototypes are libvirt's: it compiled");
    return tap_done();
}
