"""QEMU changes what it was handed: at once, before it does anything else (does=...), or while it runs (tamper)."""

import os
import signal

from domain import bridge, ethernet, unmanaged
from frame import scenario
from host import alive, wait_for

MAC = '02:00:00:00:00:01'
OTHER_MAC = '02:00:00:00:00:02'


def run(t, *interfaces, does, end='destroy'):
    t.define('d1', *interfaces, does=does)
    t.start('d1')
    getattr(t, end)('d1')


@scenario('managed=no, persist cleared, destroy: tap still there')
def clears_persist_destroy(t):
    t.tap('p0', mac=MAC)
    t.warns('p0', 'persist flag')
    run(t, unmanaged('p0'), does='persist=0')


@scenario('managed=no, persist cleared, QEMU ends by itself: tap still there')
def clears_persist_quit(t):
    t.tap('p0', mac=MAC, up=True)
    t.warns('p0', 'persist flag')
    run(t, unmanaged('p0'), does='persist=0', end='quit')


@scenario('managed=no, persist cleared, QEMU killed: tap still there')
def clears_persist_kill(t):
    t.tap('p0', mac=MAC)
    t.warns('p0', 'persist flag')
    run(t, unmanaged('p0'), does='persist=0', end='kill')


@scenario('managed=no, persist of a bridge port cleared: still a port, with its settings')
def clears_persist_port(t):
    t.bridge('br0')
    t.tap('p0', mac=MAC, master='br0', up=True)
    t.host.ip('link set p0 type bridge_slave isolated on learning off cost 77')
    t.warns('p0', 'persist flag')
    run(t, unmanaged('p0'), does='persist=0')


@scenario('managed=no, persist of a multi-queue tap cleared: tap still there')
def clears_persist_queues(t):
    t.tap('p0', mac=MAC, queues=True)
    t.warns('p0', 'persist flag')
    run(t, unmanaged('p0', queues=2), does='persist=0')


@scenario('managed=no, persist cleared while running')
def clears_persist_later(t):
    t.tap('p0', mac=MAC)
    t.warns('p0', 'persist flag')
    t.define('d1', unmanaged('p0'))
    t.start('d1')
    t.tamper('d1', 'p0', persist=0)
    t.destroy('d1')


@scenario('managed=no, owner and group changed')
def changes_owner(t):
    t.tap('p0', owner=1000, group=1000)
    t.warns('p0', 'owner', 'group')
    run(t, unmanaged('p0'), does='owner=4242 group=4242')


@scenario('managed=no, MAC changed')
def changes_mac(t):
    t.tap('p0', mac=MAC, up=True)
    t.warns('p0', 'MAC')
    run(t, unmanaged('p0'), does=f'mac={OTHER_MAC}')


@scenario('managed=no, MAC of a bridge port changed: the bridge has its old one too')
def changes_mac_of_port(t):
    t.host.ip('link add br0 type bridge forward_delay 0')
    t.tap('p0', mac=MAC, master='br0', up=True)
    t.host.ip('link set br0 up')
    t.warns('p0', 'MAC')
    run(t, unmanaged('p0'), does='mac=02:00:00:00:00:00')


@scenario('managed=no, vnet_hdr size and endianness changed')
def changes_vnet_hdr(t):
    t.tap('p0')
    t.warns('p0', 'vnet_hdr size', 'little-endian')  # 64 is no size that a virtio device has
    t.define('d1', unmanaged('p0', model='e1000e'))
    t.start('d1')
    t.tamper('d1', 'p0', vnet_hdr=64, vnet_le=1)
    t.destroy('d1')


@scenario('managed=no, carrier off')
def carrier_off(t):
    t.tap('p0', up=True)
    t.warns('p0', 'carrier')
    t.define('d1', unmanaged('p0'))
    t.start('d1')
    t.tamper('d1', 'p0', carrier=0)
    t.destroy('d1')


@scenario('managed=no, everything at once')
def everything(t):
    t.tap('p0', mac=MAC, owner=1000, group=1000, up=True)
    t.warns('p0', 'persist flag', 'owner', 'group', 'MAC')
    run(t, unmanaged('p0'), does=f'persist=0 owner=4242 group=4242 mac={OTHER_MAC}')


@scenario('managed=no, changed in five runs in a row')
def again_and_again(t):
    t.tap('p0', mac=MAC)
    t.warns('p0', 'persist flag', 'MAC')
    t.define('d1', unmanaged('p0'), does=f'persist=0 mac={OTHER_MAC}')
    for _ in range(5):
        t.start('d1')
        t.destroy('d1')


@scenario('ethernet, persist set: gone after the end')
def sets_persist(t):
    t.warns('p0', 'persist flag')
    run(t, ethernet('p0'), does='persist=1')


@scenario('ethernet, persist set, QEMU killed: gone')
def sets_persist_kill(t):
    t.warns('p0', 'persist flag')
    run(t, ethernet('p0'), does='persist=1', end='kill')


@scenario('ethernet, two queues, persist set: gone, and the next start works')
def sets_persist_queues(t):
    t.warns('p0', 'persist flag')
    t.define('d1', ethernet('p0', queues=2), does='persist=1')
    for _ in range(2):
        t.start('d1')
        t.destroy('d1')


@scenario('bridge, named, persist set: gone, and the next start works')
def sets_persist_bridge(t):
    t.bridge('br0')
    t.warns('p0', 'persist flag')
    t.define('d1', bridge('br0', 'p0'), does='persist=1')
    for _ in range(2):
        t.start('d1')
        t.destroy('d1')


@scenario('bridge, no name, persist set, three runs: nothing leaks')
def sets_persist_bridge_unnamed(t):
    t.bridge('br0')
    for name in 'vnet0', 'vnet1', 'vnet2':
        t.warns(name, 'persist flag')
    t.define('d1', bridge('br0'), does='persist=1')
    for _ in range(3):
        t.start('d1')
        t.destroy('d1')


@scenario('bridge, two queues, persist set, QEMU killed: gone')
def sets_persist_bridge_queues(t):
    t.bridge('br0')
    t.warns('p0', 'persist flag')
    run(t, bridge('br0', 'p0', queues=2), does='persist=1', end='kill')


@scenario('macvtap, MAC changed')
def macvtap_mac(t):
    t.macvtap('mvt0')
    t.warns('mvt0', 'MAC')
    run(t, unmanaged('mvt0'), does=f'mac={OTHER_MAC}')


@scenario('managed=no, an accomplice holds the tap after QEMU has died: restored when he lets go')
def accomplice(t):
    t.tap('p0', mac=MAC)
    t.warns('p0', 'persist flag')
    t.define('d1', unmanaged('p0'), does='accomplice')
    done = t.host.virsh('start', 'd1', '--paused', check=False)
    t.check(done.returncode == 0, 'does not start')
    pid = int(t.host.path('/run/emulator/accomplice').read_text())
    t.tamper('d1', 'p0', persist=0)
    t.destroy('d1')
    t.check(alive(pid), 'the accomplice is dead')
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid))
