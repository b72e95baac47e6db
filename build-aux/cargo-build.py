#!/usr/bin/env python3
"""Run cargo for meson: the library in the forms asked for, their depfile, meson's build type."""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys

STEM = 'libvirnetdevtap'

p = argparse.ArgumentParser()
p.add_argument('--cargo', required=True)
p.add_argument('--manifest', required=True, type=pathlib.Path)
p.add_argument('--version', required=True, help="meson's idea of the version")
p.add_argument('--target-dir', required=True, type=pathlib.Path)
p.add_argument('--target', default='')
p.add_argument('--features', default='')
p.add_argument('--debug', required=True, choices=['true', 'false'])
p.add_argument('--optimization', required=True)
p.add_argument('--lto', required=True, choices=['true', 'false'])
p.add_argument('--offline', action='store_true')
p.add_argument('--staticlib', type=pathlib.Path, help='where to put the archive')
p.add_argument('--cdylib', type=pathlib.Path, help='where to put the shared library')
p.add_argument('--link', action='append', default=[], help='further name of the shared library')
p.add_argument('--depfile', required=True, type=pathlib.Path)
a = p.parse_args()

ours = re.search(r'^version = "(.*)"', a.manifest.read_text(), re.MULTILINE).group(1)
if ours != a.version:
    sys.exit(f'meson.build has version {a.version}, Cargo.toml {ours}: make them one')

env = os.environ.copy()
profile = 'dev' if a.optimization == '0' else 'release'
var = f'CARGO_PROFILE_{profile.upper()}_'
env.setdefault(var + 'DEBUG', 'full' if a.debug == 'true' else 'none')
if a.optimization not in ('plain', '0'):
    env.setdefault(var + 'OPT_LEVEL', {'g': '1', 's': 'z'}.get(a.optimization, a.optimization))
if a.lto == 'true':
    env.setdefault(var + 'LTO', 'fat')

forms = [('staticlib', a.staticlib, '.a'), ('cdylib', a.cdylib, '.so')]
forms = [form for form in forms if form[1]]
cmd = [a.cargo, 'rustc', '--lib', '--locked', '--profile', profile,
       '--crate-type', ','.join(kind for kind, _, _ in forms),
       '--manifest-path', str(a.manifest), '--target-dir', str(a.target_dir.resolve())]
if a.features:
    cmd += ['--features', a.features]
if a.offline:
    cmd += ['--offline']
built = a.target_dir
if a.target:
    cmd += ['--target', a.target]
    built /= a.target
built /= 'debug' if profile == 'dev' else 'release'
cmd += ['--', '-C', 'force-frame-pointers=yes']  # shorter unwind tables: 40 KB of the shared library
if a.optimization == 's':
    # Inlines as much as opt-level s does: no larger for it, and less code is read anew after a pause. 60 is 50 KB more.
    cmd += ['-C', 'llvm-args=-inline-threshold=50']

# cargo looks for .cargo/config.toml (vendored sources) from its working directory upwards
rc = subprocess.run(cmd, env=env, cwd=a.manifest.parent, stdin=subprocess.DEVNULL).returncode
if rc:
    sys.exit(rc)

for _, output, suffix in forms:
    # A new inode: a process may have the old library mapped. A new mtime: cargo leaves an
    # unchanged artifact's alone, and ninja would run us again for ever.
    output.unlink(missing_ok=True)
    shutil.copyfile(built / (STEM + suffix), output)
    if suffix == '.so':
        output.chmod(0o755)
        for name in a.link:
            link = output.with_name(name)
            link.unlink(missing_ok=True)
            link.symlink_to(output.name)
sources = (built / (STEM + '.d')).read_text().split('\n', 1)[0].split(': ', 1)[1]
a.depfile.write_text(''.join(f'{output.name}: {sources}\n' for _, output, _ in forms))
