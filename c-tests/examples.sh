#!/bin/bash
# examples.sh MANAGER GUEST STORIES HYPERVISOR: the demonstration goes as it tells. Writes TAP.
set -u
if [ "${1-}" != inside ]; then
    if [ ! -w /dev/net/tun ]; then
        echo '1..0 # SKIP /dev/net/tun cannot be opened'
        exit 0
    fi
    root=()
    [ "$(id -u)" = 0 ] || root=(--user --map-root-user)
    if ! unshare "${root[@]}" --net --mount mount -t sysfs sysfs /sys 2>/dev/null; then
        echo '1..0 # SKIP no namespaces'
        exit 0
    fi
    exec unshare "${root[@]}" --net --mount "$0" inside "$@"
fi
shift
mount -t sysfs sysfs /sys && ip link set lo up || exit 99
n=0 failed=0
goes() { # WHAT COMMAND...
    local what=$1 output
    shift
    n=$((n + 1))
    if output=$(timeout 120 "$@" 2>&1); then
        echo "ok $n - $what$(grep -m 1 -o 'SKIPPED: .*' <<<"$output" | sed 's/SKIPPED:/ (without QEMU:/; s/$/)/')"
    else
        echo "not ok $n - $what"
        sed 's/^/# /' <<<"$output"
        failed=1
    fi
}
if command -v ping >/dev/null; then
    goes 'a manager with three guests' "$1" "$2"
else
    n=1
    echo 'ok 1 - a manager with three guests # SKIP ping is not installed'
fi
goes 'taps are afterwards as before' "$3" "$4" "$(command -v qemu-system-x86_64 || true)"
echo "1..$n"
exit $failed
