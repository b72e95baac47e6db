"""libvirtd ends, by TERM or by KILL, and comes back, while its domains run on."""

import signal

from domain import bridge, ethernet, unmanaged
from frame import scenario

KILL, TERM = signal.SIGKILL, signal.SIGTERM
MAC = '02:00:00:00:00:01'
INTERFACES = [ethernet('e0'), unmanaged('p0'), unmanaged('q0', queues=2), bridge('br0', 'b0')]


def running(t):
    t.bridge('br0')
    t.tap('p0', mac=MAC)
    t.tap('q0', mac='02:00:00:00:00:03', queues=True)
    t.define('d1', *INTERFACES)
    t.start('d1')


def honest(t, how, end):
    running(t)
    t.restart_daemon(how)
    t.queues('d1')
    getattr(t, end)('d1')


@scenario('TERM, then destroy')
def term_destroy(t):
    honest(t, TERM, 'destroy')


@scenario('KILL, then destroy')
def kill_destroy(t):
    honest(t, KILL, 'destroy')


@scenario('KILL, then QEMU killed')
def kill_kill(t):
    honest(t, KILL, 'kill')


@scenario('KILL, then QEMU ends by itself')
def kill_quit(t):
    honest(t, KILL, 'quit')


@scenario('five times KILL, then destroy and start')
def kill_often(t):
    running(t)
    for _ in range(5):
        t.restart_daemon(KILL)
    t.queues('d1')
    t.destroy('d1')
    t.start('d1')
    t.destroy('d1')


def tampered(t, *names):
    """Each tap's persist flag becomes what it should not be."""
    for name in names:
        t.tamper('d1', name, persist=0 if name in ('p0', 'q0') else 1)
        t.warns(name, 'persist flag')


@scenario('KILL, flags changed after the restart, destroy')
def changed_after(t):
    running(t)
    t.restart_daemon(KILL)
    tampered(t, 'e0', 'p0', 'q0', 'b0')
    t.destroy('d1')


@scenario('KILL, flags changed meanwhile, destroy')
def changed_meanwhile(t):
    running(t)
    t.restart_daemon(KILL, lambda: tampered(t, 'e0', 'p0', 'q0', 'b0'))
    t.destroy('d1')


@scenario('TERM, flags changed before, QEMU killed after')
def changed_before(t):
    running(t)
    tampered(t, 'e0', 'p0', 'q0', 'b0')
    t.restart_daemon(TERM)
    t.kill('d1')


@scenario('KILL, QEMU killed meanwhile')
def qemu_dies_meanwhile(t):
    running(t)
    t.restart_daemon(KILL, lambda: t.kill('d1'))
    t.off('d1')


@scenario('TERM, QEMU killed meanwhile, flags changed: nobody could keep the tap alive, it is made again')
def qemu_changes_and_dies_meanwhile(t):
    running(t)
    for name in 'p0', 'q0':
        t.may_be_remade(name)
        t.warns(name, 'vanished')

    def meanwhile():
        for name in 'p0', 'q0':
            t.tamper('d1', name, persist=0)
        for name in 'e0', 'b0':
            t.tamper('d1', name, persist=1)
            t.warns(name, 'persist flag')
        t.kill('d1')
    t.restart_daemon(TERM, meanwhile)
    t.off('d1')


@scenario('KILL, only a tap of managed=no, QEMU killed meanwhile, flags changed')
def unmanaged_alone(t):
    t.tap('p0', mac=MAC, vnet_hdr=False)
    t.may_be_remade('p0')
    t.warns('p0', 'vanished')
    t.define('d1', unmanaged('p0'))
    t.start('d1')

    def meanwhile():
        t.tamper('d1', 'p0', persist=0)
        t.kill('d1')
    t.restart_daemon(KILL, meanwhile)
    t.off('d1')


@scenario('KILL, only a bridge interface, QEMU killed meanwhile, persist set')
def bridge_alone(t):
    t.bridge('br0')
    t.warns('p0', 'persist flag')
    t.define('d1', bridge('br0', 'p0'))
    t.start('d1')

    def meanwhile():
        t.tamper('d1', 'p0', persist=1)
        t.kill('d1')
    t.restart_daemon(KILL, meanwhile)
    t.off('d1')


@scenario('KILL right after the destroy')
def killed_after_destroy(t):
    running(t)
    t.destroy('d1')
    t.restart_daemon(KILL)


@scenario('TERM with nothing running')
def idle(t):
    t.tap('p0')
    t.define('d1', unmanaged('p0'))
    t.start('d1')
    t.destroy('d1')
    t.restart_daemon(TERM)
