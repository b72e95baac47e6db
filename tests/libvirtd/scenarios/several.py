"""Several domains, and one of them often."""

import concurrent.futures
import os

from domain import bridge, ethernet, unmanaged
from frame import scenario

MAC = '02:00:00:00:00:01'


@scenario('two domains, one persistent tap: the second is refused, the first unharmed')
def one_tap(t):
    t.tap('p0', mac=MAC)
    t.warns('p0', 'persist flag')
    t.define('d1', unmanaged('p0'))
    t.define('d2', unmanaged('p0'))
    t.start('d1')
    t.refused('d2', 'busy|held by')
    t.queues('d1')
    t.tamper('d1', 'p0', persist=0)
    t.destroy('d1')


@scenario('two domains, one persistent tap, in turn')
def one_tap_in_turn(t):
    t.tap('p0', mac=MAC, vnet_hdr=False)
    t.define('d1', unmanaged('p0'))
    t.define('d2', unmanaged('p0', model='e1000'))
    for _ in range(3):
        t.start('d1')
        t.destroy('d1')
        t.start('d2')
        t.destroy('d2')


@scenario('two domains, one multi-queue tap: the second is refused')
def one_multi_queue_tap(t):
    t.tap('p0', queues=True, mac=MAC)
    t.define('d1', unmanaged('p0', queues=2))
    t.define('d2', unmanaged('p0', queues=2))
    t.start('d1')
    t.refused('d2', 'busy|held by')
    t.queues('d1')
    t.destroy('d1')


@scenario('two domains, the same managed name: the second is refused, the first unharmed')
def one_name(t):
    t.define('d1', ethernet('p0'))
    t.define('d2', ethernet('p0'))
    t.start('d1')
    t.refused('d2', 'The p0 interface already exists')
    t.queues('d1')
    t.destroy('d1')


@scenario('two domains, the same name on a bridge: the second is refused, the first unharmed')
def one_name_on_bridge(t):
    t.bridge('br0')
    t.define('d1', bridge('br0', 'p0'))
    t.define('d2', bridge('br0', 'p0'))
    t.start('d1')
    t.refused('d2', 'The p0 interface already exists')
    t.queues('d1')
    t.destroy('d1')


@scenario('a hostile domain beside an honest one')
def hostile_and_honest(t):
    t.bridge('br0')
    for name in 'p1', 'p2':
        t.tap(name, vnet_hdr=False)
    for name in 'p1', 'e1', 'b1':
        t.warns(name, 'persist flag')
    t.define('d1', unmanaged('p1'), ethernet('e1'), bridge('br0', 'b1'))
    t.define('d2', unmanaged('p2'), ethernet('e2'), bridge('br0', 'b2'))
    t.start('d1')
    t.start('d2')
    t.tamper('d1', 'p1', persist=0)
    t.tamper('d1', 'e1', persist=1)
    t.tamper('d1', 'b1', persist=1)
    t.kill('d1')
    t.queues('d2')
    t.destroy('d2')


@scenario('the name is somebody else\'s when the domain ends: he is left alone')
def name_taken(t):
    t.define('d1', ethernet('p0'))
    t.start('d1')
    t.host.ip('link set p0 name renamed')
    t.host.ip('tuntap add dev p0 mode tap user 1000')
    t.destroy('d1')
    if t.exists('p0', 'although it was somebody else\'s'):
        t.host.ip('tuntap del dev p0 mode tap')


@scenario('started again right after the stop, QEMU killed: never busy')
def quick_restart(t):
    t.bridge('br0')
    t.tap('p0', mac=MAC, vnet_hdr=False)
    t.tap('q0', queues=True)
    t.define('d1', unmanaged('p0'), unmanaged('q0', queues=2), ethernet('e0'), bridge('br0', 'b0'))
    for _ in range(5):
        t.start('d1')
        t.kill('d1')


@scenario('50 times (--deep: 150) on and off')
def fifty_cycles(t):
    t.bridge('br0')
    t.tap('p0', mac=MAC, vnet_hdr=False)
    t.define('d1', unmanaged('p0'), ethernet('e0'), bridge('br0', 'b0'))
    rounds = 150 if os.environ.get('VIRNETDEVTAP_DEEP') else 50
    done = t.host.virsh('start d1 --paused; destroy d1; ' * rounds, check=False, timeout=15 * rounds)
    errors = [line for line in done.stderr.splitlines() if line.startswith('error:')]
    t.check(done.returncode == 0 and not errors, f'{len(errors)} errors, first {errors[:1]}')


@scenario('20 domains at once')
def twenty_at_once(t):
    names = [f'd{i}' for i in range(20)]
    t.bridge('br0')
    for i in range(len(names)):
        t.tap(f'p{i}', vnet_hdr=False, queues=i % 2 == 0)
    for i, name in enumerate(names):
        t.define(name, unmanaged(f'p{i}', queues=2 if i % 2 == 0 else None), ethernet(), bridge('br0'))
    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        done = list(pool.map(lambda name: t.host.virsh('start', name, '--paused', check=False), names))
        errors = [result.stderr.strip() for result in done if result.returncode != 0]
        t.check(not errors, f'{len(errors)} did not start, first {errors[:1]}')
        for name in set(names) & set(t.host.running()):
            t.queues(name)
        for i in 0, 1:
            t.tamper(f'd{i}', f'p{i}', persist=0)
            t.warns(f'p{i}', 'persist flag')
        list(pool.map(lambda name: t.host.virsh('destroy', name, check=False), names))


@scenario('managed save and restore')
def managed_save(t):
    t.bridge('br0')
    t.tap('p0', mac=MAC, vnet_hdr=False)
    t.define('d1', unmanaged('p0'), ethernet('e0'), bridge('br0', 'b0'))
    t.start('d1')
    for _ in range(2):
        t.host.virsh('managedsave', 'd1')
        t.settled_now('after the save', 'p0')
        t.start('d1')
    t.destroy('d1')


@scenario('managed save and restore, persist changed')
def managed_save_hostile(t):
    t.tap('p0', mac=MAC)
    t.define('d1', unmanaged('p0'), ethernet('e0'))
    t.warns('p0', 'persist flag')
    t.warns('e0', 'persist flag')
    t.start('d1')
    t.tamper('d1', 'p0', persist=0)
    t.tamper('d1', 'e0', persist=1)
    t.host.virsh('managedsave', 'd1')
    t.settled_now('after the save', 'p0')
    t.start('d1')
    t.destroy('d1')
