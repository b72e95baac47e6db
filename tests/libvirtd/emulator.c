/* The emulator of the tests: does to the taps that it inherits what the environment asks for, then becomes the real QEMU.
 *
 * EMULATOR_DOES: words of the form WHAT=VALUE (see act below), or "exit" (fails at once), "accomplice" (leaves a process
 * that holds the taps for as long as it lives; its pid goes to EMULATOR_PIDFILE).
 *
 * QEMU, the path of the real one, is defined by who compiles it.
 */
#include <dirent.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <linux/if_tun.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>


static void fail(const char *what)
{
    fprintf(stderr, "emulator: ");
    perror(what);
    exit(1);
}

static int set_mac(int fd, const char *value)
{
    unsigned m[6];
    struct ifreq ifr = { 0 };

    if (sscanf(value, "%x:%x:%x:%x:%x:%x", m, m + 1, m + 2, m + 3, m + 4, m + 5) != 6 || ioctl(fd, TUNGETIFF, &ifr) < 0)
        return -1;
    ifr.ifr_hwaddr.sa_family = ARPHRD_ETHER;
    for (int i = 0; i < 6; i++)
        ifr.ifr_hwaddr.sa_data[i] = (char)m[i];
    return ioctl(fd, SIOCSIFHWADDR, &ifr);
}

static void act(int fd, const char *what, const char *value)
{
    int number = atoi(value);
    int rc;

    if (!strcmp(what, "persist"))
        rc = ioctl(fd, TUNSETPERSIST, (unsigned long)number);
    else if (!strcmp(what, "owner"))
        rc = ioctl(fd, TUNSETOWNER, (unsigned long)number);
    else if (!strcmp(what, "group"))
        rc = ioctl(fd, TUNSETGROUP, (unsigned long)number);
    else if (!strcmp(what, "offload"))
        rc = ioctl(fd, TUNSETOFFLOAD, (unsigned long)number);
    else if (!strcmp(what, "vnet_hdr"))
        rc = ioctl(fd, TUNSETVNETHDRSZ, &number);
    else if (!strcmp(what, "vnet_le"))
        rc = ioctl(fd, TUNSETVNETLE, &number);
    else if (!strcmp(what, "carrier"))
        rc = ioctl(fd, TUNSETCARRIER, &number);
    else if (!strcmp(what, "mac"))
        rc = set_mac(fd, value);
    else
        exit(2);
    if (rc < 0)
        fail(what);
}

static void to_all_taps(const char *what, const char *value)
{
    DIR *fds = opendir("/proc/self/fd");
    const struct dirent *entry;

    if (!fds)
        fail("/proc/self/fd");
    while ((entry = readdir(fds))) {
        struct ifreq ifr = { 0 };
        int fd = atoi(entry->d_name);

        if (entry->d_name[0] != '.' && fd != dirfd(fds) && ioctl(fd, TUNGETIFF, &ifr) == 0)
            act(fd, what, value);
    }
    closedir(fds);
}

static void leave_accomplice(const char *pidfile)
{
    FILE *file;
    pid_t pid = fork();

    if (pid < 0)
        fail("fork");
    if (pid == 0) {
        setsid();
        for (int fd = 0; fd < 1024; fd++) {
            struct ifreq ifr = { 0 };

            if (ioctl(fd, TUNGETIFF, &ifr) < 0)
                close(fd);
        }
        for (;;)
            pause();
    }
    if (!(file = fopen(pidfile, "w")) || fprintf(file, "%d\n", (int)pid) < 0 || fclose(file) != 0)
        fail(pidfile);
}

int main(int argc, char **argv)
{
    const char *does = getenv("EMULATOR_DOES");
    const char *pidfile = getenv("EMULATOR_PIDFILE");
    char *words = does ? strdup(does) : NULL;

    (void)argc;
    for (char *word = words ? strtok(words, " ") : NULL; word; word = strtok(NULL, " ")) {
        char *value = strchr(word, '=');

        if (!strcmp(word, "exit"))
            return 1;
        if (!strcmp(word, "accomplice") && pidfile) {
            leave_accomplice(pidfile);
            continue;
        }
        if (!value)
            return 2;
        *value++ = '\0';
        to_all_taps(word, value);
    }
    free(words);
    unsetenv("EMULATOR_DOES");
    execv(QEMU, argv);
    fail(QEMU);
}
