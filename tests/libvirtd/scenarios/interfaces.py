"""An honest run of each kind of interface."""

from domain import bridge, ethernet, network, unmanaged
from frame import scenario

NETWORK = '<network><name>onbridge</name><forward mode="bridge"/><bridge name="br0"/></network>'


def run(t, *interfaces, **options):
    t.define('d1', *interfaces, **options)
    t.start('d1')
    t.destroy('d1')


@scenario('ethernet, named: gone after the end')
def ethernet_named(t):
    t.define('d1', ethernet('p0'))
    t.start('d1')
    t.exists('p0', 'while the domain runs')
    t.check(t.held_by_daemon('p0') == 0, 'libvirtd holds a tap that it need not keep alive')
    t.destroy('d1')
    t.absent('p0', 'after the end')


@scenario('ethernet, no name: vnet0, gone after the end')
def ethernet_unnamed(t):
    t.define('d1', ethernet())
    t.start('d1')
    t.exists('vnet0', 'while the domain runs')
    t.destroy('d1')


@scenario('ethernet, name from a template')
def ethernet_template(t):
    run(t, ethernet('tpl%d'))


@scenario('ethernet, two queues')
def ethernet_queues(t):
    run(t, ethernet('p0', queues=2))


@scenario('ethernet, e1000')
def ethernet_e1000(t):
    run(t, ethernet('p0', model='e1000'))


@scenario('ethernet, tun device given with backend')
def ethernet_backend(t):
    t.host.run('mknod', '-m', '600', '/run/mytun', 'c', '10', '200')
    run(t, ethernet('p0', backend='/run/mytun'))


@scenario('managed=no, persistent tap: as it was')
def unmanaged_tap(t):
    t.tap('p0', mac='02:00:00:00:00:01', mtu=1400)
    t.define('d1', unmanaged('p0'))
    t.start('d1')
    if t.preload:
        t.check(t.held_by_daemon('p0') == 1, 'libvirtd does not keep p0 alive')
    t.destroy('d1')


@scenario('managed=no, persistent tap without vnet_hdr, virtio: still without')
def unmanaged_without_vnet_hdr(t):
    t.tap('p0', vnet_hdr=False, owner=1000, group=1000)
    run(t, unmanaged('p0'))


@scenario('managed=no, persistent tap with vnet_hdr, e1000: still with')
def unmanaged_e1000(t):
    t.tap('p0', up=True)
    run(t, unmanaged('p0', model='e1000'))


@scenario('managed=no, persistent tap that is a bridge port and up')
def unmanaged_port(t):
    t.bridge('br0')
    t.tap('p0', master='br0', up=True)
    t.host.ip('link set p0 type bridge_slave isolated on learning off cost 77')
    run(t, unmanaged('p0'))


@scenario('managed=no, multi-queue tap, two queues')
def unmanaged_queues(t):
    t.tap('p0', queues=True)
    run(t, unmanaged('p0', queues=2))


@scenario('managed=no, multi-queue tap, one queue: starts')
def unmanaged_one_queue(t):
    t.tap('p0', queues=True)
    run(t, unmanaged('p0'))


@scenario('managed=no, single-queue tap, two queues: refused')
def unmanaged_too_many_queues(t):
    t.tap('p0')
    t.define('d1', unmanaged('p0', queues=2))
    t.refused('d1', r'queue|Invalid argument')


@scenario('managed=no, no such device: refused')
def unmanaged_missing(t):
    t.define('d1', unmanaged('p0'))
    t.refused('d1', "managed='no' but specified dev doesn't exist")


@scenario('managed=no, tun device given with backend')
def unmanaged_backend(t):
    t.tap('p0')
    t.host.run('mknod', '-m', '600', '/run/mytun', 'c', '10', '200')
    run(t, unmanaged('p0', backend='/run/mytun'))


@scenario('managed=no, macvtap')
def unmanaged_macvtap(t):
    t.macvtap('mvt0')
    run(t, unmanaged('mvt0'))


@scenario('managed=no, macvtap, two queues')
def unmanaged_macvtap_queues(t):
    t.macvtap('mvt0')
    run(t, unmanaged('mvt0', queues=2))


@scenario('macvtap, managed: refused, and still there')
def managed_macvtap(t):
    t.macvtap('mvt0')
    t.define('d1', ethernet('mvt0'))
    t.refused('d1', 'already exists')


@scenario('persistent tap, managed: refused, and still there')
def managed_persistent(t):
    t.tap('p0')
    t.define('d1', ethernet('p0'))
    t.refused('d1', 'The p0 interface already exists')


@scenario('multi-queue persistent tap, managed: refused, and still there')
def managed_persistent_queues(t):
    t.tap('p0', queues=True)
    t.define('d1', ethernet('p0', queues=2))
    t.refused('d1', 'The p0 interface already exists')


@scenario('bridge, named')
def bridge_named(t):
    t.bridge('br0')
    t.define('d1', bridge('br0', 'p0'))
    t.start('d1')
    t.check(t.host.snapshot()['p0'].get('master') == 'br0', 'p0 is no port of br0')
    t.destroy('d1')


@scenario('bridge, no name')
def bridge_unnamed(t):
    t.bridge('br0')
    run(t, bridge('br0'))


@scenario('bridge, two queues, isolated port')
def bridge_queues(t):
    t.bridge('br0')
    run(t, bridge('br0', queues=2, extra='<port isolated="yes"/>'))


@scenario('bridge, persistent tap of that name: refused, and still there')
def bridge_persistent(t):
    t.bridge('br0')
    t.tap('p0')
    t.define('d1', bridge('br0', 'p0'))
    t.refused('d1', 'The p0 interface already exists')


@scenario('network on a bridge')
def network_on_bridge(t):
    t.bridge('br0')
    t.host.path('/run/network.xml').write_text(NETWORK)
    t.host.virsh('net-create', '/run/network.xml')
    run(t, network('onbridge'))


@scenario('statistics of a running interface')
def statistics(t):
    t.tap('p0', up=True)
    t.define('d1', unmanaged('p0'), ethernet('p1'))
    t.start('d1')
    for name in 'p0', 'p1':
        words = t.host.virsh('domifstat', 'd1', name).stdout.split()
        t.check(words[:2] == [name, 'rx_bytes'], f'no statistics of {name}')
    t.destroy('d1')


@scenario('log filters that change while libvirtd runs')
def log_filters(t):
    t.define('d1', ethernet('p0'))
    for level, lines in (3, 0), (2, 1), (3, 1), (1, 2):
        t.host.run('virt-admin', 'daemon-log-filters', f'{level}:util.netdevtap 4:*')
        t.start('d1')
        t.destroy('d1')
        created = [text for _, text in t.host.logged('info')].count("created device: 'p0'")
        t.check(created == lines, f'{created} lines about creating p0 at level {level}, not {lines}')
