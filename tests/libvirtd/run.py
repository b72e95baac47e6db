"""Runs the scenarios, each in namespaces of its own with a libvirtd of its own. scripts/test-libvirtd is how to call it."""

import argparse
import concurrent.futures
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import scenarios  # noqa: F401 (registers them)
from frame import SCENARIOS
from host import HERE, QEMU

LIMIT = 3000 if os.environ.get('VIRNETDEVTAP_DEEP') else 300  # seconds for one scenario, on a machine with much else to do
GROUPS = {
    'failed_start': 'Starts that fail: a managed, an unmanaged, a multi-queue and a bridge interface, and',
    'hostile': 'QEMU changes its taps',
    'hotplug': 'Hot-plug and unplug',
    'interfaces': 'An honest run',
    'migration': 'Live migration',
    'restart': 'libvirtd ends and comes back: managed, unmanaged, multi-queue and bridge interfaces',
    'several': 'Several domains, or one often',
}


def namespaces(*command):
    return ['unshare', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc', '--', *map(str, command)]


class Runner:
    def __init__(self, directory):
        self.directory, self.processes, self.count = Path(directory), set(), 0
        for signum in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
            signal.signal(signum, self.stop)
        self.directory.chmod(0o755)  # QEMU runs as nobody
        self.cache = self.directory / 'cache'  # of QEMU's capabilities, which take a second to find out
        self.cache.mkdir()
        self.emulator = self.directory / 'emulator'
        subprocess.run(['gcc', '-Wall', '-O1', f'-DQEMU="{QEMU}"', '-o', self.emulator, HERE / 'emulator.c'], check=True)

    def run(self, name, preload):
        self.count += 1
        directory = self.directory / f'{self.count}-{name.replace("/", "-")}'
        directory.mkdir()
        command = namespaces(sys.executable, HERE / 'inside.py', name, directory, self.cache, self.emulator, *([preload] if preload else []))
        with open(directory / 'output', 'w', encoding='utf-8') as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
            self.processes.add(process)
            try:
                process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self.processes.discard(process)
        try:
            result = json.loads((directory / 'result.json').read_text())
        except FileNotFoundError:
            output = (directory / 'output').read_text().strip().splitlines()
            result = {'name': name, 'title': SCENARIOS[name].title, 'skipped': None, 'notes': [], 'settled': None, 'seconds': LIMIT,
                      'wrong': [f'no result after {LIMIT} s or a crash' + (f': {output[-1]}' if output else '')]}
        result['directory'] = str(directory)
        return result

    def stop(self, signum, _frame):
        """What this process has started ends with it."""
        for process in list(self.processes):
            process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        os._exit(128 + signum)

    def all(self, names, preload, jobs):
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            # the first one alone: it fills the cache
            yield self.run(names[0], preload)
            yield from pool.map(lambda name: self.run(name, preload), names[1:])


def select(wanted):
    names = [name for name in SCENARIOS if not wanted or any(name == word or name.split('/')[0] == word or name.split('/')[1] == word
                                                             for word in wanted)]
    if not names:
        sys.exit(f'no scenario is called {" ".join(wanted)}; --list tells the names')
    return names


def show(result, baseline):
    name, seconds = result['name'], f'{result["seconds"]:.1f} s'
    if result['skipped']:
        print(f'{name}: skipped: {result["skipped"]}')
    elif baseline:
        print(f'{name}: {"; ".join(result["wrong"]) or "as it should be"}')
    elif result['wrong']:
        print(f'not ok {name} ({seconds})')
        for word in result['wrong']:
            print(f'    {word}')
        for note in result['notes']:
            print(f'    ({note})')
        print(f'    (logs: {result["directory"]})')
    else:
        print(f'ok {name} ({seconds})')
    sys.stdout.flush()


def table(before, after):
    """Markdown: what unmodified libvirt does, and what comes out with the preload. What both do right is only counted."""
    def cell(result):
        if result['skipped']:
            return f'(not run: {result["skipped"]})'
        return '; '.join(result['wrong']).replace('|', '\\|') or 'as it should be'
    lines = ['| Scenario | libvirt alone | with the preload |', '|---|---|---|']
    group, alike = None, 0
    for was, now in zip(before, after):
        if not was['wrong'] and not now['wrong'] and not was['skipped']:
            alike += 1
            continue
        if was['name'].split('/')[0] != group:
            group = was['name'].split('/')[0]
            lines.append(f'| **{GROUPS[group]}** | | |')
        lines.append(f'| {was["title"]} | {cell(was)} | {cell(now)} |')
    lines += ['', f'{alike} more scenarios come out as they should both ways.']
    return '\n'.join(lines)


def main():
    parser = argparse.ArgumentParser(prog='scripts/test-libvirtd')
    parser.add_argument('names', nargs='*', metavar='NAME', help='a scenario, or a group of them')
    parser.add_argument('-l', '--library', type=Path, help='the preload library')
    parser.add_argument('--baseline', action='store_true', help='no preload: tells what libvirt does by itself, and never fails')
    parser.add_argument('--table', action='store_true', help='both, as a table in Markdown')
    parser.add_argument('--list', action='store_true')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the results there too')
    parser.add_argument('--keep', action='store_true', help='keep the logs of good scenarios too')
    parser.add_argument('-j', '--jobs', type=int, default=2)
    arguments = parser.parse_args()
    names = select(arguments.names)
    if arguments.list:
        for name in names:
            print(f'{name}: {SCENARIOS[name].title}')
        return 0
    directory = tempfile.mkdtemp(prefix='virnetdevtap-libvirtd.', dir='/tmp')
    runner = Runner(directory)
    start = time.monotonic()
    # QEMU's user may not be let into the folder that it comes from
    library = arguments.library and shutil.copy(arguments.library, directory)
    if arguments.table:
        before = list(runner.all(names, None, arguments.jobs))
        after = list(runner.all(names, library, arguments.jobs))
        print(table(before, after))
        results = after
    else:
        results = []
        for result in runner.all(names, None if arguments.baseline else library, arguments.jobs):
            show(result, arguments.baseline)
            results.append(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    skipped = [result for result in results if result['skipped']]
    failed = [result for result in results if result['wrong'] and not result['skipped']]
    if not arguments.table:
        settled = [result['settled'] for result in results if result['settled'] is not None]
        print(f'\n{time.monotonic() - start:.0f} s; all was settled {max(settled, default=0):.1f} s after a scenario at the latest')
        for result in skipped:
            print(f'SKIPPED {result["name"]}: {result["skipped"]}')
        if arguments.baseline:
            print(f'{len(results) - len(failed) - len(skipped)} as they should be, {len(failed)} not, {len(skipped)} skipped')
        else:
            for result in failed:
                print(f'FAILED {result["name"]}')
            print(f'{len(results) - len(failed) - len(skipped)} passed, {len(failed)} failed, {len(skipped)} skipped')
    if not arguments.keep:
        kept = [] if arguments.baseline or arguments.table else [Path(result['directory']) for result in failed]
        for path in runner.directory.iterdir():
            if path not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not kept:
            runner.directory.rmdir()
    return 1 if failed and not arguments.baseline else 0


if __name__ == '__main__':
    sys.exit(main())
