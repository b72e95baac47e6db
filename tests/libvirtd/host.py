"""A host: a network and mount namespace with a libvirtd of its own, which touches nothing of the machine's."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import taps

HERE = Path(__file__).resolve().parent
QEMU = '/usr/bin/qemu-system-x86_64'

# The directories that libvirtd writes to are the host's own; /run is empty, without dbus and systemd; /sys shows this
# network namespace and no cgroups.
MAKE = r'''
set -e
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /var/cache/libvirt /var/log/libvirt /var/lib/libvirt /etc/libvirt
mkdir -m 1777 /run/emulator
mount --bind "$1/etc" /etc/libvirt
mount --bind "$1/lib" /var/lib/libvirt
mount --bind "$1/log" /var/log/libvirt
mount --bind "$2" /var/cache/libvirt
for file in /proc/sys/net/ipv6/conf/all/disable_ipv6 /proc/sys/net/ipv6/conf/default/disable_ipv6; do
    [ ! -e $file ] || echo 1 >$file
done
# libvirt finds QEMU's capabilities out again and again if QEMU's user may not open a KVM that is there
if [ -e /dev/kvm ]; then
    mknod -m 666 /run/kvm c 10 232
    mount --bind /run/kvm /dev/kvm
fi
ip link set lo up
echo made
exec sleep infinity
'''

LIBVIRTD_CONF = '''\
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_group = "root"
host_uuid_source = "machine-id"
host_uuid = "{uuid}"
audit_level = 0
'''

# nobody's QEMU, whose output goes to a file instead of to virtlogd
QEMU_CONF = '''\
security_driver = "none"
security_default_confined = 0
user = "+65534"
group = "+65534"
dynamic_ownership = 0
remember_owner = 0
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
'''

# Refuses the operation that /run/hook-refuses names.
HOOK = '''\
#!/bin/sh
echo "$1 $2 $3" >>/run/hook-calls
read -r refused 2>/dev/null </run/hook-refuses || exit 0
[ "$2" != "$refused" ]
'''


class Failed(Exception):
    """A command that should have worked has not."""


class Hangs(Failed):
    """There is nothing more to be learnt."""


def wait_for(condition, seconds=10, step=0.02):
    """Waits until the condition holds; tells whether it does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return bool(condition())
        time.sleep(step)
    return True


def alive(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] not in 'ZX'
    except OSError:
        return False


class Host:
    def __init__(self, directory, cache, preload=None, number=1):
        self.directory, self.preload, self.daemon = Path(directory), preload, None
        for name in 'etc/hooks', 'lib', 'log':
            (self.directory / name).mkdir(parents=True)
        self.directory.chmod(0o755)
        (self.directory / 'etc/libvirtd.conf').write_text(LIBVIRTD_CONF.format(uuid=str(number) * 8 + '-2222-3333-4444-555555555555'))
        (self.directory / 'etc/qemu.conf').write_text(QEMU_CONF)
        hook = self.directory / 'etc/hooks/qemu'
        hook.write_text(HOOK)
        hook.chmod(0o755)
        self.log = self.directory / 'libvirtd.log'
        self.keeper = subprocess.Popen(['unshare', '--net', '--mount', 'sh', '-c', MAKE, 'sh', self.directory, cache],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        if self.keeper.stdout.readline() != 'made\n':
            raise Failed('no namespaces for a libvirtd')
        self.start_daemon()

    # --- commands in there

    def inside(self, *command):
        return ['nsenter', '-t', str(self.keeper.pid), '--net', '--mount', '--', *map(str, command)]

    def run(self, *command, check=True, timeout=30):
        shown = ' '.join(map(str, command))
        try:
            done = subprocess.run(self.inside(*command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise Hangs(f'no answer in {timeout} s to: {shown[:80]}') from None
        if check and done.returncode != 0:
            raise Failed(f'{shown}: {last_lines(done.stderr) or done.returncode}')
        return done

    def ip(self, words):
        self.run('ip', *words.split())

    def virsh(self, *command, check=True, **options):
        return self.run('virsh', '-q', '-c', 'qemu:///system', *command, check=check, **options)

    def path(self, path):
        """A file of the host, as seen from outside."""
        return Path(f'/proc/{self.keeper.pid}/root{path}')

    def python(self, *command):
        return self.run(sys.executable, '-S', *command).stdout

    def snapshot(self, open_free=False):
        return json.loads(self.python(HERE / 'taps.py', *(['--open'] if open_free else [])))

    def has(self, name):
        return self.run('ip', 'link', 'show', 'dev', name, check=False).returncode == 0

    # --- libvirtd

    def start_daemon(self):
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(('VIRNETDEVTAP', 'LIBVIRT'))},
            # warnings of the taps' code, and errors of all others
            'LIBVIRT_LOG_FILTERS': '3:util.netdevtap 4:*',
            'LIBVIRT_LOG_OUTPUTS': f'1:file:{self.log}',
        }
        wrapper = ['env', f'LD_PRELOAD={self.preload}'] if self.preload else []
        with open(self.directory / 'libvirtd.err', 'a', encoding='utf-8') as err:
            self.daemon = subprocess.Popen(self.inside(*wrapper, '/usr/sbin/libvirtd'), env=environment, stdin=subprocess.DEVNULL,
                                           stdout=err, stderr=err, start_new_session=True)

        def answers():
            # a connect to a socket that is bound already waits for the daemon
            return self.daemon.poll() is not None or (
                self.path('/run/libvirt/libvirt-sock').exists() and self.virsh('uri', check=False).returncode == 0)
        if not wait_for(answers, 60) or self.daemon.poll() is not None:
            raise Failed(f'libvirtd did not come up: {last_lines((self.directory / "libvirtd.err").read_text())}')
        # the dynamic linker goes on without an object that it cannot preload
        if self.preload and str(self.preload) not in Path(f'/proc/{self.daemon.pid}/maps').read_text():
            raise Failed(f'{self.preload} is not mapped in libvirtd')

    def stop_daemon(self, how=signal.SIGTERM):
        self.daemon.send_signal(how)
        try:
            self.daemon.wait(20)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()
            raise Failed(f'libvirtd did not end on {how.name}') from None

    def daemon_runs(self):
        return self.daemon is not None and self.daemon.poll() is None

    def cpu_time(self):
        """Nanoseconds that libvirtd's threads have run."""
        return sum(int(text.split()[0]) for _, text in taps.texts(self.daemon.pid, 'task/*/schedstat'))

    # --- domains

    def running(self):
        return self.virsh('list', '--name').stdout.split()

    def qemu_pid(self, domain):
        try:
            return int(self.path(f'/run/libvirt/qemu/{domain}.pid').read_text())
        except FileNotFoundError:
            raise Failed(f'{domain} is not on') from None

    def qemu_log(self, domain):
        path = self.directory / 'log/qemu' / f'{domain}.log'
        return path.read_text(errors='replace') if path.exists() else ''

    def logged(self, level):
        """libvirtd's log lines of a level, without time, thread and position."""
        pattern = re.compile(rf'^\S+ \S+ \d+: {level} : (\S+?):\d+ : (.*)$')
        found = []
        for line in self.log.read_text(errors='replace').splitlines() if self.log.exists() else []:
            if match := pattern.match(line):
                found.append((match[1], match[2]))
        return found


def last_lines(text, count=3):
    lines = [line.removeprefix('error: ') for line in text.strip().splitlines() if line.strip()]
    return ' / '.join(lines[-count:])
