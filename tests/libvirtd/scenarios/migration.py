"""Live migration between two libvirtds, each in a network namespace of its own, with taps of the same names."""

from domain import bridge, ethernet, unmanaged
from frame import scenario
from host import last_lines

MAC = '02:00:00:00:00:01'


def two_hosts(t):
    there = t.add_host()
    for number, host in enumerate(t.hosts):
        host.ip('link add br0 address 02:00:00:00:00:fe type bridge forward_delay 0')
        host.ip('link set br0 up')
        host.ip(f'tuntap add dev p0 mode tap user {1000 + number}')
    # sockets in a directory that both see
    shared = t.directory / 'shared'
    shared.mkdir(mode=0o777)
    shared.chmod(0o777)
    t.define('d1', unmanaged('p0'), ethernet('e0'), bridge('br0', 'b0'))
    return there, shared


def migrate(t, source, destination, shared):
    socket = destination.path('/run/libvirt/libvirt-sock')
    done = source.virsh('migrate', 'd1', f'qemu+unix:///system?socket={socket}', '--live', '--p2p', '--unsafe',
                        '--migrateuri', f'unix://{shared}/migration', '--undefinesource', '--persistent', check=False)
    return t.check(done.returncode == 0, f'migration: {last_lines(done.stderr, 1)}')


@scenario('there, and destroyed there')
def there(t):
    destination, shared = two_hosts(t)
    t.start('d1')
    if migrate(t, t.host, destination, shared):
        t.queues('d1', destination)
        t.destroy('d1', destination)


@scenario('there with persist changed, and back')
def there_and_back(t):
    destination, shared = two_hosts(t)
    t.start('d1')
    t.tamper('d1', 'p0', persist=0)
    t.tamper('d1', 'b0', persist=1)
    t.warns('p0', 'persist flag')
    t.warns('b0', 'persist flag')
    if migrate(t, t.host, destination, shared):
        t.queues('d1', destination)
        if migrate(t, destination, t.host, shared):
            t.queues('d1')
            t.destroy('d1')
