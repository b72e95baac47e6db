#!/bin/bash
# bridge-helper.sh HELPER: QEMU with HELPER as its -netdev bridge helper, and HELPER's failures. Writes TAP.
set -u
helper=$(readlink -f "$1")
if [ "${2-}" != inside ]; then
    root=()
    [ "$(id -u)" = 0 ] || root=(--map-root-user)
    if ! unshare "${root[@]}" --net --mount true 2>/dev/null; then
        echo '1..0 # SKIP no namespaces'
        exit 0
    fi
    exec unshare "${root[@]}" --net --mount --pid --fork --kill-child "$0" "$helper" inside
fi
mount -t proc proc /proc && mount -t sysfs sysfs /sys || exit 99
n=0 failed=0
ok() { # WHAT CONDITION...
    local what=$1
    shift
    n=$((n + 1))
    if "$@"; then echo "ok $n - $what"; else echo "not ok $n - $what"; failed=1; fi
}
skip() { n=$((n + 1)); echo "ok $n - $1 # SKIP $2"; }
no_tap() { ! ls /sys/class/net | grep -q '^vnet'; }
says() { grep -q -- "$1" "$out"; }
fails() { "$helper" "$@" 9>/dev/null >"$out" 2>&1 && return 1 || return 0; }

out=$(mktemp) && trap 'rm -f "$out"' EXIT
ip link add br0 type bridge
ip link set br0 mtu 1400 up

ok 'without arguments: usage' fails
ok 'and says so' says usage:
ok 'a number that is none' fails --br=br0 --fd=x
ok 'a bridge that is missing' fails --br=nobr0 --fd=9
ok 'and says so' says nobr0
ok 'a file that is no socket' fails --br=br0 --fd=9
ok 'and says so' says 'unable to send vnet'
ok 'nothing is left' no_tap

if ! command -v qemu-system-x86_64 >/dev/null; then
    skip 'QEMU' 'qemu-system-x86_64 is not installed'
    echo "1..$n"
    exit $failed
fi
# the network boot of the guest's firmware sends the frame
cat >"$out.py" <<'PYTHON'
import socket, subprocess, sys, os, time
MAC = "52:54:00:aa:bb:cc"
listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
listener.bind(("br0", 0))
qemu = subprocess.Popen(["qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "accel=tcg", "-m", "64",
                         "-netdev", "bridge,id=net0,br=br0,helper=" + sys.argv[1],
                         "-device", "virtio-net-pci,netdev=net0,bootindex=0,mac=" + MAC])
deadline = time.monotonic() + 90
seen = False
listener.settimeout(0.5)
while not seen and qemu.poll() is None and time.monotonic() < deadline:
    try:
        seen = listener.recv(2048)[6:12] == bytes.fromhex(MAC.replace(":", ""))
    except TimeoutError:
        pass
if seen:
    taps = [name for name in os.listdir("/sys/class/net") if name.startswith("vnet")]
    read = lambda file: open("/sys/class/net/%s/%s" % (taps[0], file)).read().strip()
    vnet_hdr = int(read("tun_flags"), 16) & 0x4000 != 0
    master = os.path.basename(os.readlink("/sys/class/net/%s/master" % taps[0]))
    print(len(taps), master, read("mtu"), read("address")[:2], "vnet_hdr" if vnet_hdr else "plain")
elif qemu.poll() is None:
    print("no frame")
else:
    print("QEMU ended")
qemu.kill()
qemu.wait()
PYTHON
trap 'rm -f "$out" "$out.py"' EXIT
timeout 120 python3 "$out.py" "$helper" >"$out" 2>"$out.err"
sed 's/^/# /' "$out" "$out.err"
rm -f "$out.err"
if says '^no frame$' && ! find -L /usr/share/qemu /usr/share/ipxe /usr/lib/ipxe -name '*virtio.rom' 2>/dev/null | grep -q .; then
    skip 'a frame from the guest' 'the boot ROM (package ipxe-qemu) is not installed'
else
    ok 'a frame from the guest; the tap is a port of br0, with its MTU and vnet_hdr' says '^1 br0 1400 fe vnet_hdr$'
fi
ok 'nothing is left after QEMU' no_tap
ok 'the bridge is there' test -e /sys/class/net/br0
echo "1..$n"
exit $failed
