#!/usr/bin/env python3
"""tally.py rust|tap|meson|script FILE: counts the tests in what a run has written.

The first line of output is "PASSED FAILED SKIPPED", then come "FAILED name" and
"SKIPPED name: reason", one a line.

A Rust test that cannot run here prints "SKIP: reason" and returns. The script
form is for scripts that end like scripts/test itself.
"""

import json
import re
import sys

passed, failed, skipped = 0, [], {}


def rust(text):
    global passed
    binary, test, good = '', None, set()
    for line in text.splitlines():
        if m := re.match(r'\s+(?:Running (?:unittests )?|Doc-tests )(\S+)', line):
            passed += len(good)
            binary, test, good = m[1], None, set()
        elif m := re.match(r'test (.+?)(?: - should panic)? \.\.\. (ok|FAILED|ignored)(?:, (.*))?$', line):
            name = f'{binary} {m[1]}'
            if m[2] == 'ok':
                good.add(name)
            elif m[2] == 'FAILED':
                failed.append(name)
            else:
                skipped[name] = [m[3] or 'ignored']
        elif m := re.match(r'---- (.+) stdout ----$', line):
            test = f'{binary} {m[1]}'
        elif test in good | skipped.keys() and line.startswith('SKIP: '):
            good.discard(test)
            skipped.setdefault(test, []).append(line[6:])
    passed += len(good)


def tap_program(program, text, end=None):
    """end: how the program ended, if that was not well."""
    global passed
    plan, run, bad = None, 0, 0
    for line in text.splitlines():
        if m := re.match(r'1\.\.(\d+)(?: *# SKIP ?(.*))?', line, re.IGNORECASE):
            plan = int(m[1])
            if m[2] is not None:
                skipped[program] = [m[2]]
        elif m := re.match(r'(not )?ok\b ?\d* ?-? ?(.*?)(?: # SKIP ?(.*))?$', line, re.IGNORECASE):
            run += 1
            name = f'{program} {m[2]}'.strip()
            if m[3] is not None:
                skipped[name] = [m[3]]
            elif m[1]:
                failed.append(name)
                bad += 1
            else:
                passed += 1
        elif line.startswith('Bail out!'):
            end = line
    if end and not bad:
        failed.append(f'{program}: {end}'.lstrip(': '))
    elif run != plan:
        failed.append(f'{program}: {run} tests of {plan}'.lstrip(': '))


def tap(text):
    """One program, or several, each begun with "# program NAME" and ended with "# exit STATUS"."""
    programs = re.split(r'^# program (.*)\n', text, flags=re.MULTILINE)
    if len(programs) == 1:
        tap_program('', text)
    for program, output in zip(programs[1::2], programs[2::2]):
        m = re.search(r'^# exit (\d+)$', output, re.MULTILINE)
        status = m[1] if m else 'unknown'
        tap_program(program, output, None if status == '0' else f'exit status {status}')


def meson(text):
    """meson-logs/testlog*.json"""
    for line in text.splitlines():
        test = json.loads(line)
        program = test['name'].split('/')[-1].strip()
        end = None if test['result'] in ('OK', 'SKIP') else f"{test['result']}, exit status {test['returncode']}"
        tap_program(program, test.get('stdout') or '', end)


def script(text):
    global passed
    lines = text.rstrip().splitlines() or ['']
    m = re.match(r'(\d+) passed, (\d+) failed, (\d+) skipped$', lines[-1])
    if not m:
        failed.append('it did not come to its end')
        return
    passed = int(m[1])
    failed.extend(line[7:] for line in lines if line.startswith('FAILED '))
    failed.extend(['(not named)'] * (int(m[2]) - len(failed)))
    names = [line[8:] for line in lines if line.startswith('SKIPPED ')]
    names += ['(not named)'] * (int(m[3]) - len(names))
    for name in names:
        name, _, reason = name.partition(': ')
        while name in skipped:
            name += '+'
        skipped[name] = [reason]


def main():
    form, path = sys.argv[1:]
    with open(path, encoding='utf-8', errors='replace') as f:
        {'rust': rust, 'tap': tap, 'meson': meson, 'script': script}[form](f.read())
    print(passed, len(failed), len(skipped))
    for name in failed:
        print('FAILED', name)
    for name, reasons in skipped.items():
        print(f"SKIPPED {name}: {'; '.join(dict.fromkeys(reasons))}")


main()
