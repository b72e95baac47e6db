#!/bin/bash
# check-abi.sh LIB SYMS CC: the debug information of LIB has the types of libvirt's
# prototypes (reference/stub.c) for each of libvirt's functions that SYMS lists.
set -euo pipefail
lib=$1 syms=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)

if ! command -v abidiff >/dev/null; then
    echo '1..0 # SKIP abidiff is not installed (Debian package abigail-tools)'
    exit 0
fi
if ! readelf -SW "$lib" | grep -q '\.debug_info'; then
    echo '1..0 # SKIP the library was built without debug information'
    exit 0
fi

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
{
    echo '{ global:'
    sed '/^#/d; s/$/;/' "$syms"
    echo 'local: *; };'
} >"$dir/map"
"$@" -g -O1 -fPIC -shared -Wl,-soname,libvirnetdevtap.so.0 -Wl,--version-script="$dir/map" \
    -o "$dir/libvirt.so" "$here/reference/stub.c"

echo '1..1'
# our own functions are additions, which are free
if abidiff --no-added-syms --no-show-locs "$dir/libvirt.so" "$lib" >"$dir/report" 2>&1; then
    echo 'ok 1 - the types are those of libvirt'
else
    echo 'not ok 1 - the types are those of libvirt'
    sed 's/^/# /' "$dir/report"
    exit 1
fi
