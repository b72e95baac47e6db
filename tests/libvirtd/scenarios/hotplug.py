"""Interfaces that come and go while the domain runs. libvirt calls nothing when one goes."""

import signal

from domain import bridge, ethernet, unmanaged
from frame import scenario

MAC = '02:00:00:00:00:01'
OTHER_MAC = '02:00:00:00:00:02'


def running(t, *interfaces, **options):
    t.define('d1', *interfaces, hot=True, **options)
    t.start('d1')


def in_and_out(t, interface, device, **changes):
    """Restored is the tap as soon as QEMU has let go of it, the domain still running."""
    t.attach('d1', interface)
    if changes:
        t.tamper('d1', device, **changes)
    t.detach('d1', device)


@scenario('ethernet, in and out')
def ethernet_(t):
    running(t)
    in_and_out(t, ethernet('h0'), 'h0')
    t.absent('h0', 'after the unplug')
    t.destroy('d1')


@scenario('ethernet, no name, in and out')
def ethernet_unnamed(t):
    running(t)
    in_and_out(t, ethernet(), 'vnet0')
    t.absent('vnet0', 'after the unplug')
    t.destroy('d1')


@scenario('bridge, in and out')
def bridge_(t):
    t.bridge('br0')
    running(t)
    in_and_out(t, bridge('br0', 'h0'), 'h0')
    t.absent('h0', 'after the unplug')
    t.destroy('d1')


@scenario('managed=no, in and out: as it was, with the domain still running')
def unmanaged_(t):
    t.tap('p0', mac=MAC, vnet_hdr=False)
    running(t)
    in_and_out(t, unmanaged('p0'), 'p0')
    t.settled_now('after the unplug', 'p0')
    t.destroy('d1')


@scenario('managed=no, two queues, in and out')
def unmanaged_queues(t):
    t.tap('p0', mac=MAC, queues=True)
    running(t)
    in_and_out(t, unmanaged('p0', queues=2), 'p0')
    t.settled_now('after the unplug', 'p0')
    t.destroy('d1')


@scenario('managed=no, persist cleared, unplugged: as it was, with the domain still running')
def unmanaged_clears_persist(t):
    t.tap('p0', mac=MAC)
    t.warns('p0', 'persist flag', 'MAC')
    running(t)
    in_and_out(t, unmanaged('p0'), 'p0', persist=0, mac=OTHER_MAC)
    t.settled_now('after the unplug', 'p0')
    t.destroy('d1')


@scenario('managed=no, two queues, persist cleared, unplugged')
def unmanaged_queues_clears_persist(t):
    t.tap('p0', mac=MAC, queues=True)
    t.warns('p0', 'persist flag')
    running(t)
    in_and_out(t, unmanaged('p0', queues=2), 'p0', persist=0)
    t.settled_now('after the unplug', 'p0')
    t.destroy('d1')


@scenario('ethernet, persist set, unplugged: gone, and plugged again')
def ethernet_sets_persist(t):
    t.warns('h0', 'persist flag')
    running(t)
    for _ in range(2):
        in_and_out(t, ethernet('h0'), 'h0', persist=1)
    t.absent('h0', 'after the unplug')
    t.destroy('d1')


@scenario('bridge, persist set, unplugged: gone, and plugged again')
def bridge_sets_persist(t):
    t.bridge('br0')
    t.warns('h0', 'persist flag')
    running(t)
    for _ in range(2):
        in_and_out(t, bridge('br0', 'h0'), 'h0', persist=1)
    t.absent('h0', 'after the unplug')
    t.destroy('d1')


@scenario('one of two interfaces unplugged: the other one stays guarded')
def one_of_two(t):
    t.tap('p0', mac=MAC)
    t.tap('p1', mac=OTHER_MAC)
    t.warns('p0', 'persist flag')
    t.warns('p1', 'persist flag')
    running(t, unmanaged('p0'))
    t.attach('d1', unmanaged('p1'))
    t.tamper('d1', 'p0', persist=0)
    t.tamper('d1', 'p1', persist=0)
    t.detach('d1', 'p1')
    t.settled_now('after the unplug', 'p1')
    t.exists('p0', 'after the unplug of p1')
    t.destroy('d1')


@scenario('a persistent tap plugged as a managed one: refused, and still there')
def persistent_refused(t):
    t.tap('p0')
    running(t)
    t.refused_attach('d1', ethernet('p0'), 'The p0 interface already exists')
    t.destroy('d1')


@scenario('in and out ten times')
def ten_times(t):
    t.tap('p0', vnet_hdr=False)
    running(t)
    for _ in range(10):
        in_and_out(t, unmanaged('p0'), 'p0')
    t.destroy('d1')


@scenario('plugged, libvirtd killed and back, persist cleared, unplugged')
def over_a_restart(t):
    t.tap('p0', mac=MAC)
    t.warns('p0', 'persist flag')
    running(t)
    t.attach('d1', unmanaged('p0'))
    t.restart_daemon(signal.SIGKILL)
    t.tamper('d1', 'p0', persist=0)
    t.detach('d1', 'p0')
    t.settled_now('after the unplug', 'p0')
    t.destroy('d1')


@scenario('plugged, QEMU killed')
def killed(t):
    t.tap('p0', mac=MAC)
    t.warns('p0', 'persist flag')
    running(t)
    t.attach('d1', unmanaged('p0'))
    t.attach('d1', ethernet('h0'))
    t.tamper('d1', 'p0', persist=0)
    t.tamper('d1', 'h0', persist=1)
    t.warns('h0', 'persist flag')
    t.kill('d1')
