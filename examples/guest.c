/*
 * guest.c: stands for the hypervisor in the demonstration: answers ARP and ping
 * for one address, frame by frame, on the tap queues that it has inherited.
 *
 *     guest ADDRESS FD...
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { MAX_QUEUES = 8 };

/* Where things are in an Ethernet frame with ARP or IPv4 in it */
enum { DST = 0, SRC = 6, TYPE = 12, ARP_OP = 21, ARP_SENDER = 22, ARP_TARGET = 32,
       IP_PROTO = 23, IP_SRC = 26, IP_DST = 30, ICMP_TYPE = 34, ICMP_SUM = 36, SHORTEST = 42 };

static const unsigned char mac[6] = {0x52, 0x54, 0, 0, 0, 1};

/* Turns a request into its answer, in place. */
static bool answer(unsigned char *frame, ssize_t len, const unsigned char *ip)
{
    if (len < SHORTEST)
        return false;
    if (memcmp(frame + TYPE, "\x08\x06", 2) == 0 && frame[ARP_OP] == 1 && memcmp(frame + ARP_TARGET + 6, ip, 4) == 0) {
        frame[ARP_OP] = 2;
        memcpy(frame + ARP_TARGET, frame + ARP_SENDER, 10); /* MAC and IP */
        memcpy(frame + ARP_SENDER, mac, 6);
        memcpy(frame + ARP_SENDER + 6, ip, 4);
    } else if (memcmp(frame + TYPE, "\x08\x00\x45", 3) == 0 && frame[IP_PROTO] == 1 && frame[ICMP_TYPE] == 8 &&
               memcmp(frame + IP_DST, ip, 4) == 0) {
        unsigned int sum = (frame[ICMP_SUM] << 8 | frame[ICMP_SUM + 1]) + 0x0800; /* by what the type gets lower */

        memcpy(frame + IP_DST, frame + IP_SRC, 4);
        memcpy(frame + IP_SRC, ip, 4);
        frame[ICMP_TYPE] = 0;
        sum += sum >> 16;
        frame[ICMP_SUM] = sum >> 8 & 0xff;
        frame[ICMP_SUM + 1] = sum & 0xff;
    } else {
        return false;
    }
    memcpy(frame + DST, frame + SRC, 6);
    memcpy(frame + SRC, mac, 6);
    return true;
}

int main(int argc, char **argv)
{
    struct pollfd queues[MAX_QUEUES];
    unsigned char frame[65536], ip[4];
    int count = argc - 2;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (count < 1 || count > MAX_QUEUES || inet_pton(AF_INET, argv[1], ip) != 1)
        return 2;
    for (int i = 0; i < count; i++)
        queues[i] = (struct pollfd){.fd = atoi(argv[2 + i]), .events = POLLIN};
    while (poll(queues, count, -1) > 0) {
        for (int i = 0; i < count; i++) {
            ssize_t len = queues[i].revents ? read(queues[i].fd, frame, sizeof(frame)) : 0;

            if (len < 0 || (answer(frame, len, ip) && write(queues[i].fd, frame, len) != len))
                return 1;
        }
    }
    return 1;
}
