"""One scenario: inside.py NAME DIRECTORY CACHE EMULATOR [PRELOAD], as pid 1 of a pid namespace. Writes DIRECTORY/result.json.

When pid 1 ends, everything that it has started ends with it: libvirtd, QEMU and the network namespaces.
"""

import json
import os
import sys
import time
import traceback

import scenarios  # noqa: F401 (registers them)
from frame import SCENARIOS, Skip, Test
from host import Failed, Hangs


def run(name, directory, cache, emulator, preload=None):
    start = time.monotonic()
    result = {'name': name, 'title': SCENARIOS[name].title, 'skipped': None, 'wrong': [], 'notes': [], 'settled': None}
    test = None
    try:
        test = Test(directory, cache, emulator, preload)
        try:
            SCENARIOS[name](test)
        except Hangs:
            raise
        except Failed as failed:
            test.check(False, str(failed))
        test.finish()
    except Failed as failed:
        result['wrong'].append(str(failed))
    except Skip as skip:
        result['skipped'] = str(skip)
    except Exception as error:  # pylint: disable=broad-except
        traceback.print_exc()
        result['wrong'].append(f'{type(error).__name__}: {error}')
    if test:
        result['wrong'] = test.wrong + result['wrong']
        result['notes'] = test.notes
        result['settled'] = getattr(test, 'settled', None)
    result['seconds'] = time.monotonic() - start
    with open(os.path.join(directory, 'result.json'), 'w', encoding='utf-8') as file:
        json.dump(result, file, indent=1)


if __name__ == '__main__':
    child = os.fork()
    if child == 0:
        run(*sys.argv[1:])
        sys.stdout.flush()
        os._exit(0)
    # QEMU's parent is pid 1: libvirtd waits until somebody has reaped it
    while os.wait()[0] != child:
        pass
