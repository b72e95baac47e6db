"""Starts that fail on the way: nothing new stays, and nothing that was there is harmed."""

from pathlib import Path

from domain import bridge, ethernet, unmanaged
from frame import Skip, scenario

INTERFACES = [ethernet('e0'), ethernet(), unmanaged('p0'), unmanaged('q0', queues=2), bridge('br0', 'b0')]


def devices(t):
    t.bridge('br0')
    t.tap('p0', mac='02:00:00:00:00:01', vnet_hdr=False, up=True)
    t.tap('q0', queues=True)


def fails(t, pattern, *more, **options):
    devices(t)
    t.define('d1', *INTERFACES, *more, **options)
    t.refused('d1', pattern)


def then_starts(t):
    t.start('d1')
    t.destroy('d1')


@scenario('QEMU ends at once')
def emulator_exits(t):
    fails(t, 'process exited|monitor', does='exit')


@scenario('QEMU ends at once, having cleared persist')
def emulator_clears_persist_and_exits(t):
    t.warns('p0', 'persist flag')
    t.warns('q0', 'persist flag')
    for name in 'e0', 'b0', 'vnet0':  # cleared was what it was
        t.warns_maybe(name, 'persist flag')
    fails(t, 'process exited|monitor', does='persist=0 exit')


@scenario('QEMU ends at once, having set persist')
def emulator_sets_persist_and_exits(t):
    for name in 'e0', 'b0', 'vnet0':
        t.warns(name, 'persist flag')
    fails(t, 'process exited|monitor', does='persist=1 exit')


@scenario('QEMU does not know an option')
def emulator_rejects(t):
    fails(t, 'invalid option', arguments=['-nonsense'])


@scenario('the last interface has no device')
def last_interface_missing(t):
    fails(t, "specified dev doesn't exist", unmanaged('missing'))


@scenario('the last interface has no bridge')
def last_bridge_missing(t):
    fails(t, 'brnone', bridge('brnone', 'n0'))


@scenario('the last interface is a persistent tap, managed: it stays')
def last_interface_persistent(t):
    t.tap('x0')
    fails(t, 'The x0 interface already exists', ethernet('x0'))


@scenario('the first interface fails, and the second, a persistent tap, managed, is never reached: it stays')
def persistent_never_reached(t):
    t.tap('x0')
    t.define('d1', unmanaged('missing'), ethernet('x0'))
    t.refused('d1', "specified dev doesn't exist")


@scenario('a hook refuses to prepare')
def hook_prepare(t):
    t.hook_refuses('prepare')
    fails(t, 'Hook script')
    t.hook_allows()
    then_starts(t)


@scenario('a hook refuses to prepare, with a persistent tap, managed: it stays')
def hook_prepare_persistent(t):
    t.tap('x0')
    t.hook_refuses('prepare')
    fails(t, 'Hook script', ethernet('x0'))


@scenario('a hook refuses the start')
def hook_start(t):
    t.hook_refuses('start')
    fails(t, 'Hook script')
    t.hook_allows()
    then_starts(t)


@scenario('a hook refuses what has started')
def hook_started(t):
    t.hook_refuses('started')
    fails(t, 'Hook script')
    t.hook_allows()
    then_starts(t)


def needs_no_vhost():
    if Path('/dev/vhost-net').exists():
        raise Skip('this machine has vhost-net')
    if not Path('/dev/kvm').exists():
        raise Skip('libvirt looks for vhost only with KVM, which this machine has not')


@scenario('vhost is demanded, and there is none')
def vhost_missing(t):
    needs_no_vhost()
    devices(t)
    driver = '<driver name="vhost"/>'
    t.define('d1', *INTERFACES, ethernet('v0', extra=driver), kvm=True)
    t.refused('d1', 'vhost')


@scenario('vhost is demanded for a tap of managed=no, and there is none')
def vhost_missing_unmanaged(t):
    needs_no_vhost()
    t.tap('p0', vnet_hdr=False)
    t.define('d1', unmanaged('p0', extra='<driver name="vhost"/>'), kvm=True)
    t.refused('d1', 'vhost')


@scenario('starts after a failed start at once')
def start_after_failure(t):
    devices(t)
    t.define('d1', *INTERFACES)
    t.hook_refuses('started')
    t.refused('d1', 'Hook script')
    t.hook_allows()
    for _ in range(3):
        then_starts(t)
