#!/usr/bin/env python3
"""tally.py rust|tap|junit|script FILE: counts the tests in what a run has written.

The first line of output is "PASSED FAILED SKIPPED", then come "FAILED name" and
"SKIPPED name: reason", one a line.

A Rust test that cannot run here prints "SKIP: reason" and returns. The script
form is for scripts that end like scripts/test itself.
"""

import re
import sys
import xml.etree.ElementTree as ElementTree

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


def tap(text):
    global passed
    program = ''
    for line in text.splitlines():
        if line.startswith('# program '):
            program = line[10:]
        elif m := re.match(r'1\.\.0 # SKIP ?(.*)', line, re.IGNORECASE):
            skipped[program] = [m[1]]
        elif m := re.match(r'(not )?ok \d* ?-? ?(.*?)(?: # SKIP ?(.*))?$', line, re.IGNORECASE):
            if m[3] is not None:
                skipped[f'{program} {m[2]}'.strip()] = [m[3]]
            elif m[1]:
                failed.append(f'{program} {m[2]}'.strip())
            else:
                passed += 1
        elif line.startswith('Bail out!'):
            failed.append(f'{program} {line}')


def junit(text):
    global passed
    for suite in ElementTree.fromstring(text).iter('testsuite'):
        program = suite.get('name', '').split('/')[-1].strip()
        output = suite.findtext('system-out') or ''
        cases = suite.findall('testcase')
        good = 0
        for case in cases:
            name = f"{program} {case.get('name')}"
            if case.find('skipped') is not None:
                m = re.search(r'ok ' + re.escape(case.get('name')) + r' # SKIP (.*)', output)
                skipped[name] = [m[1] if m else '']
            elif case.find('failure') is not None or case.find('error') is not None:
                failed.append(name)
            else:
                good += 1
        if m := re.search(r'^1\.\.0 # SKIP ?(.*)', output, re.MULTILINE):
            skipped[program] = [m[1]]
            good = 0
        passed += good
        bad = int(suite.get('failures', 0)) + int(suite.get('errors', 0))
        if bad and not any(name.startswith(program + ' ') for name in failed):
            failed.append(program)


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
        {'rust': rust, 'tap': tap, 'junit': junit, 'script': script}[form](f.read())
    print(passed, len(failed), len(skipped))
    for name in failed:
        print('FAILED', name)
    for name, reasons in skipped.items():
        print(f"SKIPPED {name}: {'; '.join(dict.fromkeys(reasons))}")


main()
