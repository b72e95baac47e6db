/*
 * hypervisor.c: stands for the hypervisor in stories.c, with nothing but a tap's file: no capability, and no way to
 * one. It does its deed, says "ready" and waits to be stopped.
 *
 *     hypervisor honest|clear-persist|set-persist FD
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <linux/capability.h>
#include <linux/if_tun.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int drop_privileges(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {0};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) | syscall(SYS_capset, &header, none);
}

/* What every hypervisor with a virtio card does once its guest's driver runs. */
static int honest(int fd)
{
    int size = 12; /* struct virtio_net_hdr_mrg_rxbuf */

    return ioctl(fd, TUNSETVNETHDRSZ, &size) | ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6);
}

int main(int argc, char **argv)
{
    const char *deed = argc == 3 ? argv[1] : "";
    int fd = argc == 3 ? atoi(argv[2]) : -1;
    int rc = -1;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (drop_privileges() == 0) {
        if (strcmp(deed, "honest") == 0)
            rc = honest(fd);
        else if (strcmp(deed, "clear-persist") == 0)
            rc = ioctl(fd, TUNSETPERSIST, 0);
        else if (strcmp(deed, "set-persist") == 0)
            rc = ioctl(fd, TUNSETPERSIST, 1);
    }
    if (rc != 0) {
        perror(deed);
        return 1;
    }
    puts("ready");
    fflush(stdout);
    pause();
    return 0;
}
