#!/usr/bin/env python3
"""What the network interfaces of this network namespace are like, as JSON: taps.py [--open]

--open also attaches to each free tap for a moment, to read what only an attached queue tells. Everything else only looks.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

TUNSETIFF, TUNSETIFINDEX = 0x400454CA, 0x400454DA
TUNSETPERSIST, TUNSETOWNER, TUNSETGROUP, TUNSETOFFLOAD = 0x400454CB, 0x400454CC, 0x400454CE, 0x400454D0
TUNGETVNETHDRSZ, TUNSETVNETHDRSZ, TUNGETVNETLE, TUNSETVNETLE = 0x800454D7, 0x400454D8, 0x800454DD, 0x400454DC
TUNSETTXFILTER, TUNSETCARRIER = 0x400454D1, 0x400454E2
SIOCSIFHWADDR, SIOCETHTOOL = 0x8924, 0x8946
ETHTOOL_GETTERS = {'tx checksum': 0x16, 'scatter-gather': 0x18, 'tso': 0x1E}
ARPHRD_ETHER = 1
PERSIST = 0x0800

# what changes by itself: carrier, counters, timers
VOLATILE = {
    'operstate', 'flags', 'stats', 'stats64', 'qdisc', 'ifi_flags', 'hold_timer', 'message_age_timer', 'forward_delay_timer',
    'state', 'gc_timer', 'hello_timer', 'tcn_timer', 'topology_change_timer', 'root_port', 'num_disabled_queues', 'num_queues',
    'tso_max_size', 'tso_max_segs', 'config_pending', 'bridge_id', 'root_id', 'topology_change_ack', 'topology_change', 'topology_change_detected',
}
CALLED = {'address': 'MAC', 'info_slave_data': 'port', 'group': 'link group', 'txqlen': 'txqueuelen'}


def stable(value):
    if isinstance(value, dict):
        return {key: stable(item) for key, item in value.items() if key not in VOLATILE}
    return value


def flatten(value, prefix=''):
    if not isinstance(value, dict):
        return {CALLED.get(prefix, prefix): value}
    flat = {}
    for name, inner in value.items():
        flat |= flatten(inner, prefix if name in ('linkinfo', 'info_data') else f'{prefix} {CALLED.get(name, name)}'.strip())
    return flat


def offloads(name):
    """The device's offloads, which TUNSETOFFLOAD sets and no tun ioctl reads."""
    import socket
    result = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for what, command in ETHTOOL_GETTERS.items():
            value = (ctypes.c_uint32 * 2)(command, 0)
            fcntl.ioctl(sock, SIOCETHTOOL, struct.pack('16sP16x', name.encode(), ctypes.addressof(value)))
            result[what] = value[1]
    return result


@contextlib.contextmanager
def attached(name, flags):
    """A queue of an existing tap. An interface index that is taken (1 is lo's) keeps the kernel from making a new one."""
    fd = os.open('/dev/net/tun', os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, TUNSETIFINDEX, struct.pack('I', 1))
        fcntl.ioctl(fd, TUNSETIFF, struct.pack('16sH22x', name.encode(), flags))
        yield fd
    finally:
        os.close(fd)


def number(fd, request):
    return struct.unpack('i', fcntl.ioctl(fd, request, b'\0' * 4))[0]


def interface(link, open_free):
    """One interface as a flat dictionary; link is what ip says of it."""
    name, now, tun = link['ifname'], stable(link), {}
    now['up'] = 'UP' in link['flags']
    now['other flags'] = sorted(set(link['flags']) - {'UP', 'LOWER_UP', 'NO-CARRIER'})
    sysfs = Path('/sys/class/net', name)
    now['inode'] = os.stat(f'{sysfs}/').st_ino
    if (sysfs / 'tun_flags').exists():
        flags = int((sysfs / 'tun_flags').read_text(), 16)
        now['linkinfo']['info_data'] = {}
        tun['persist flag'] = bool(flags & PERSIST)
        tun['flags'] = hex(flags & ~PERSIST)
        for who in 'owner', 'group':
            tun[who] = int((sysfs / who).read_text())
        tun |= offloads(name)
        if open_free:
            with attached(name, flags & ~PERSIST) as queue:
                tun['vnet_hdr size'] = number(queue, TUNGETVNETHDRSZ)
                tun['vnet little-endian'] = number(queue, TUNGETVNETLE)
    return flatten(now) | tun


def snapshot(open_free=False):
    """The interfaces by their names. One that goes away meanwhile is gone."""
    links = json.loads(subprocess.run(['ip', '-d', '-j', 'link'], check=True, stdout=subprocess.PIPE).stdout)
    result = {}
    for link in links:
        try:
            result[link['ifname']] = interface(link, open_free)
        except OSError:
            if Path('/sys/class/net', link['ifname']).exists():
                raise
    return result


def texts(pid, pattern):
    """The paths and contents of a process's files in /proc. What goes away meanwhile is gone."""
    for path in Path(f'/proc/{pid}').glob(pattern):
        with contextlib.suppress(OSError):
            yield path, path.read_text()


def holders():
    """Who holds which tap: [pid, command, interface], once for each file; a macvtap is called by its device node."""
    found = []
    for process in Path('/proc').glob('[0-9]*'):
        with contextlib.suppress(OSError):
            command = (process / 'comm').read_text().strip()
            for info in (process / 'fdinfo').iterdir():
                with contextlib.suppress(OSError):
                    for line in info.read_text().splitlines():
                        if line.startswith('iff:'):
                            found.append([int(process.name), command, line.split(None, 1)[1] if line[4:].strip() else '-'])
                    target = os.readlink(process / 'fd' / info.name)
                    if target.startswith('/dev/tap'):
                        found.append([int(process.name), command, target])
    return found


def tamper(pid, name, changes):
    """Does to the tap what process PID could do itself: through a duplicate of its file, the same open file description."""
    for info, text in texts(pid, 'fdinfo/*'):
        if f'iff:\t{name}\n' in text:
            break
    else:
        raise RuntimeError(f'process {pid} does not hold {name}')
    pidfd = os.pidfd_open(pid)
    fd = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, int(info.name), 0)  # pidfd_getfd
    os.close(pidfd)
    if fd < 0:
        raise OSError(ctypes.get_errno(), f'pidfd_getfd of {info.name} of {pid}')
    for change, value in changes.items():
        if change == 'mac':
            request = struct.pack('16sH6s16x', name.encode(), ARPHRD_ETHER, bytes.fromhex(value.replace(':', '')))
            fcntl.ioctl(fd, SIOCSIFHWADDR, request)
        elif change in ('persist', 'owner', 'group', 'offload', 'carrier'):
            request = {'persist': TUNSETPERSIST, 'owner': TUNSETOWNER, 'group': TUNSETGROUP, 'offload': TUNSETOFFLOAD}.get(change)
            if request:
                fcntl.ioctl(fd, request, int(value))
            else:
                fcntl.ioctl(fd, TUNSETCARRIER, struct.pack('i', value))
        else:
            request = {'vnet_hdr': TUNSETVNETHDRSZ, 'vnet_le': TUNSETVNETLE}[change]
            fcntl.ioctl(fd, request, struct.pack('i', value))
    os.close(fd)


if __name__ == '__main__':
    json.dump(snapshot('--open' in sys.argv), sys.stdout)
