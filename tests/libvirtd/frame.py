"""What a scenario is made of: t, with what it can do and what it can demand, and the demands that hold after every scenario.

A demand that is not met is put down in words and the scenario goes on; one that cannot go on raises. What the
words say is what a table of unmodified libvirt against the preload consists of.
"""

import json
import os
import re
import signal
import time
from pathlib import Path

import taps
from domain import domain
from host import Failed, Host, alive, last_lines, wait_for

STATE_DIR = '/run/libvirt/virnetdevtap'
SETTLE = 10  # seconds; the preload may need one after the last holder has gone
NEEDS_QUEUE = ('vnet_hdr size', 'vnet little-endian')
IDLE_NS, IDLE_WINDOW = 5_000_000, 0.3

SCENARIOS = {}


class Skip(Exception):
    """The machine cannot do this."""


def scenario(title):
    """Registers a function t -> None under its group (the file) and its name."""
    def register(function):
        name = f'{function.__module__.rpartition(".")[2]}/{function.__name__.strip("_").replace("_", "-")}'
        function.title = title
        SCENARIOS[name] = function
        return function
    return register


class Test:
    def __init__(self, directory, cache, emulator, preload=None):
        self.directory, self.cache, self.emulator, self.preload = Path(directory), cache, emulator, preload
        self.wrong, self.notes = [], []
        self.hosts, self.before, self.expected, self.domains = [], {}, [], {}
        self.possible, self.remade = [], set()
        self.host = self.add_host()

    def add_host(self):
        number = len(self.hosts) + 1
        host = Host(self.directory / f'host{number}', self.cache, self.preload, number)
        self.hosts.append(host)
        return host

    # --- demands

    def check(self, good, otherwise):
        """otherwise: what is wrong if it is not good"""
        if not good and otherwise not in self.wrong:
            self.wrong.append(otherwise)
        return good

    def warns(self, name, *fields):
        """The daemon has to report, for this tap, each of these as changed. It may report nothing that nobody has announced."""
        self.expected += [(name, field) for field in fields]

    def warns_maybe(self, name, field):
        self.possible.append((name, field))

    def may_be_remade(self, name):
        """Nobody could keep the device alive: another one, the same in all that shows, will do."""
        self.remade.add((name, 'inode'))

    def exists(self, name, when):
        return self.check(self.host.has(name), f'{name} is gone {when}')

    def absent(self, name, when):
        return self.check(wait_for(lambda: not self.host.has(name), 3 if self.preload else 0.5), f'{name} is left over {when}')

    # --- devices

    def tap(self, name, queues=False, vnet_hdr=True, up=False, master=None, owner=65534, group=None, mac=None, mtu=None):
        """A persistent tap that somebody made before."""
        words = f'tuntap add dev {name} mode tap user {owner}' + (f' group {group}' if group else '')
        self.host.ip(words + (' multi_queue' if queues else '') + (' vnet_hdr' if vnet_hdr else ''))
        for setting in [mac and f'address {mac}', mtu and f'mtu {mtu}', master and f'master {master}', up and 'up']:
            if setting:
                self.host.ip(f'link set {name} {setting}')

    def bridge(self, name):
        self.host.ip(f'link add {name} address 02:00:00:00:00:fe type bridge forward_delay 0')
        self.host.ip(f'link set {name} up')

    def macvtap(self, name):
        # its node /dev/tapN is the machine's, with N the interface's index: it has to be no other namespace's
        index = 900_000_000 + int(time.monotonic_ns() // 1000 % 90_000_000)
        self.host.ip('link add vlower type veth peer name vpeer')
        self.host.ip(f'link add link vlower name {name} index {index} address 02:00:00:00:00:0a type macvtap')
        node = Path(f'/dev/tap{index}')
        if not wait_for(node.exists, 2):
            raise Skip(f'{node} is not made by the kernel here')
        return node

    # --- domains

    def define(self, name, *interfaces, host=None, **options):
        """Defines a domain. Everything there is now has to be there, as it is, when all is over."""
        host = host or self.host
        if options.get('does'):
            options['emulator'] = self.emulator
        xml = domain(name, interfaces, **options)
        for other in self.hosts:
            if other not in self.before:
                self.before[other] = other.snapshot(open_free=True)
        path = host.path(f'/run/{name}.xml')
        path.write_text(xml)
        host.virsh('define', f'/run/{name}.xml')
        self.domains[name] = interfaces

    def settled_now(self, when, *names):
        """These devices are as they were, and free, although the scenario is not over."""
        def wrong():
            now = self.host.snapshot()
            before = self.before[self.host]
            words = self.differences({name: before[name] for name in names}, {name: now[name] for name in names if name in now})
            return words + [f'{device} is held by {command}' for _, command, device in taps.holders() if device in names]
        wait_for(lambda: not wrong(), SETTLE if self.preload else 1, 0.05)
        for word in wrong():
            self.check(False, f'{word} {when}')

    def start(self, name, host=None):
        host = host or self.host
        if not host.path(f'/run/{name}.xml').exists():
            raise Failed(f'{name} is not defined')
        done = host.virsh('start', name, '--paused', check=False)
        if done.returncode != 0:
            raise Failed(f'start: {last_lines(done.stderr, 1)}')
        self.queues(name, host)

    def queues(self, name, host=None):
        """QEMU holds exactly the queues of its interfaces; besides it only libvirtd may hold any."""
        host = host or self.host
        pid = host.qemu_pid(name)
        wanted = {}
        xml = host.virsh('dumpxml', name).stdout
        for interface in re.findall(r'<interface .*?</interface>', xml, re.DOTALL):
            device = re.search(r"<target dev='([^']+)'", interface)[1]
            queues = re.search(r"<driver [^>]*queues='(\d+)'", interface)
            wanted[device] = int(queues[1]) if queues else 1
        held = {}
        for holder, _, device in taps.holders():
            if holder == pid and not device.startswith('/dev/tap'):
                held[device] = held.get(device, 0) + 1
        wanted = {device: number for device, number in wanted.items() if self.is_tap(device, host)}
        threads = [name.strip() for _, name in taps.texts(pid, 'task/*/comm')]
        self.check('virnetdevtap' not in threads, 'the preload library does not rest in QEMU')
        self.check(held == wanted, f'QEMU holds {said(held)} instead of {said(wanted)}')
        known = {pid, *(other.daemon.pid for other in self.hosts)}
        strangers = []

        def nobody_else():
            strangers[:] = [(command, device) for holder, command, device in taps.holders()
                            if device in wanted and holder not in known and command != 'qemu-system-x86']
            return not strangers
        wait_for(nobody_else, 2)  # what libvirtd has forked has its files until it becomes another program
        for command, device in strangers:
            self.check(False, f'{device} is held by {command} too')

    def is_tap(self, device, host):
        return host.path(f'/sys/class/net/{device}/tun_flags').exists()

    def held_by_daemon(self, name):
        return sum(1 for pid, _, device in taps.holders() if pid == self.host.daemon.pid and device == name)

    def refused(self, name, pattern, host=None):
        """The start has to fail, with an error that matches."""
        done = (host or self.host).virsh('start', name, '--paused', check=False)
        if self.check(done.returncode != 0, f'{name} was started although it should not'):
            error = last_lines(done.stderr, 1)
            self.notes.append(error[:200])
            self.check(re.search(pattern, error), f'the error is "{error}"')

    def destroy(self, name, host=None):
        host = host or self.host
        done = host.virsh('destroy', name, check=False)
        # libvirt says so if it has noticed QEMU's end before the command that has brought it about
        if done.returncode != 0 and 'domain is not running' not in done.stderr:
            raise Failed(f'destroy: {last_lines(done.stderr, 1)}')
        if not wait_for(lambda: name not in host.running()):
            raise Failed(f'{name} still on')

    def off(self, *names):
        """Waits until the domains are off."""
        if not wait_for(lambda: not set(names or self.domains) & set(self.host.running())):
            raise Failed(f'{" ".join(names)} still on')

    def kill(self, name, wait=True):
        pid = self.host.qemu_pid(name)
        os.kill(pid, signal.SIGKILL)
        if not wait_for(lambda: not alive(pid)):
            raise Failed(f'QEMU {pid} is not dead')
        if wait and self.host.daemon_runs():
            self.off(name)

    def quit(self, name):
        """QEMU ends by itself."""
        self.host.virsh('qemu-monitor-command', name, '--hmp', 'quit', check=False)
        self.off(name)

    def tamper(self, domain_name, device, **changes):
        """The running QEMU changes its tap."""
        taps.tamper(self.host.qemu_pid(domain_name), device, changes)

    def attach(self, name, interface):
        path = self.host.path('/run/interface.xml')
        path.write_text(interface)
        done = self.host.virsh('attach-device', name, '/run/interface.xml', check=False)
        if done.returncode != 0:
            raise Failed(f'attach: {last_lines(done.stderr, 1)}')
        self.queues(name)

    def refused_attach(self, name, interface, pattern):
        self.host.path('/run/interface.xml').write_text(interface)
        done = self.host.virsh('attach-device', name, '/run/interface.xml', check=False)
        if self.check(done.returncode != 0, f'{name} got an interface that it should not'):
            error = last_lines(done.stderr, 1)
            self.check(re.search(pattern, error), f'the error is "{error}"')

    def detach(self, name, device):
        """Unplugs the interface with this device; waits until QEMU has let go of it."""
        xml = self.host.virsh('dumpxml', name).stdout
        for interface in re.findall(r'<interface .*?</interface>', xml, re.DOTALL):
            if f"<target dev='{device}'" in interface:
                break
        else:
            raise Failed(f'{name} has no interface {device}')
        self.host.path('/run/interface.xml').write_text(interface)
        self.host.virsh('detach-device', name, '/run/interface.xml')
        if not wait_for(lambda: f"<target dev='{device}'" not in self.host.virsh('dumpxml', name).stdout):
            raise Failed(f'{name} does not let go of {device}')

    def hook_refuses(self, operation):
        self.host.path('/run/hook-refuses').write_text(f'{operation}\n')

    def hook_allows(self):
        self.host.path('/run/hook-refuses').unlink()

    def restart_daemon(self, how=signal.SIGTERM, meanwhile=None):
        self.host.stop_daemon(how)
        if meanwhile:
            meanwhile()
        self.host.start_daemon()

    # --- the end

    def finish(self):
        """What has to be true after every scenario."""
        for host in self.hosts:
            if not host.daemon_runs():
                self.check(False, f'libvirtd ended with status {host.daemon.returncode}')
                continue
            for name in host.running():
                self.check(False, f'{name} is still on')
                host.virsh('destroy', name, check=False)
        start = time.monotonic()
        if wait_for(lambda: not self.leftovers(), SETTLE if self.preload else 1, 0.05):
            self.settled = time.monotonic() - start
        leftovers = self.leftovers()
        if not leftovers:  # nobody is in the way of a look through an own queue
            leftovers = [word for host, before in self.before.items() for word in self.differences(before, host.snapshot(open_free=True))]
        for word in leftovers:
            self.check(False, word)
        if self.preload:
            self.check_logs()
            self.check_idle()
        return self.wrong

    def leftovers(self):
        """What is not as it was, without touching anything."""
        words = []
        for host, before in self.before.items():
            words += self.differences(before, host.snapshot())
            state = host.path(STATE_DIR)
            if state.exists():
                words += [f'{path.name} is left in the state directory' for path in sorted(state.iterdir())]
        names = {host.daemon.pid: 'libvirtd' for host in self.hosts}
        return words + [f'{device} is held by {names.get(pid, command)}' for pid, command, device in taps.holders()]

    def differences(self, before, now):
        words = [f'{name} is gone' for name in before if name not in now]
        words += [f'{name} is left over' for name in now if name not in before]
        for name in before.keys() & now.keys():
            was, is_ = before[name], now[name]
            if was['ifindex'] != is_['ifindex']:
                words.append(f'{name} is another device')
                continue
            for what in sorted(was.keys() | is_.keys()):
                unread = what in NEEDS_QUEUE and not (what in was and what in is_)
                if was.get(what) != is_.get(what) and not unread and (name, what) not in self.remade:
                    words.append(f'{name}: {what} was {shown(was.get(what))}, is {shown(is_.get(what))}')
        return words

    def check_logs(self):
        open_ends = set(self.expected)
        for host in self.hosts:
            for function, text in host.logged('warning'):
                met = {(name, field) for name, field in self.expected + self.possible if text.startswith(f'{name}: ') and re.search(field, text)}
                open_ends -= met
                self.check(met, f'warning: {text}')
            for function, text in host.logged('error'):
                if 'NetDevTap' in function:
                    self.notes.append(f'error logged: {function}: {text[:200]}')
        for name in self.domains:
            for host in self.hosts:
                # what the dynamic linker or a preloaded object has to say, not the environment that libvirt writes down
                for line in host.qemu_log(name).splitlines():
                    surprise = re.search(r'ld\.so:|symbol lookup error|cannot be preloaded|^virnetdevtap', line)
                    self.check(not surprise, f"QEMU's log: {line}")
        for name, field in sorted(open_ends):
            self.check(False, f'{name}: no warning of the {field}')

    def check_idle(self):
        """Nothing runs in libvirtd when nothing happens. What the end of the scenario still had to do may take a moment."""
        def rests():
            before = [host.cpu_time() for host in running]
            time.sleep(IDLE_WINDOW)
            return all(host.cpu_time() - was < IDLE_NS for host, was in zip(running, before))
        running = [host for host in self.hosts if host.daemon_runs()]
        self.check(any(rests() for _ in range(10)), 'libvirtd is busy although nothing happens')


def said(held):
    return ', '.join(f'{number} of {device}' for device, number in sorted(held.items())) or 'none'


def shown(value):
    return value if isinstance(value, str) else json.dumps(value)
