#!/bin/bash
# preload-bindings.sh LIB SYMS CC...: with LIB in LD_PRELOAD the dynamic linker binds each function that SYMS lists to it,
# for whoever calls it: a program, the installed libvirt.so.0 itself, libvirt's drivers. Writes TAP.
set -uo pipefail
export LC_ALL=C
lib=$(readlink -f "$1") syms=$2
shift 2
libvirt=$("$@" -print-file-name=libvirt.so.0)
if [ ! -e "$libvirt" ]; then
    echo '1..0 # SKIP libvirt.so.0 is not installed (Debian package libvirt0)'
    exit 0
fi
libvirt=$(readlink -f "$libvirt")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

count=0 failed=0
check() { # NAME, then what is wrong, if anything
    count=$((count + 1))
    if [ -z "$2" ]; then
        echo "ok $count - $1"
    else
        echo "not ok $count - $1"
        sed 's/^/# /' <<<"$2"
        failed=1
    fi
}

# A program that refers to them all, under whatever node this libvirt has them, and loads the drivers given.
{
    sed 's/.*/extern void &(void);/' "$syms"
    echo '#include <dlfcn.h>'
    echo '#include <stdio.h>'
    echo 'void (*volatile functions[])(void) = {'
    sed 's/$/,/' "$syms"
    echo '};'
    cat <<'C'
int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (!dlopen(argv[i], RTLD_NOW))
            printf("%s\n", dlerror());
    return 0;
}
C
} >"$dir/program.c"
if ! "$@" -std=gnu11 -o "$dir/program" "$dir/program.c" "$libvirt" -Wl,--allow-shlib-undefined -ldl 2>"$dir/errors"; then
    check "a program that uses them links with $libvirt" "$(<"$dir/errors")"
    echo "1..$count"
    exit 1
fi

drivers=()
for driver in "$(dirname "$libvirt")"/libvirt/connection-driver/*.so; do
    [ -e "$driver" ] && [ -n "$(nm -D --undefined-only "$driver" | grep -wFf "$syms")" ] && drivers+=("$driver")
done

# bindings [LD_PRELOAD]: "CALLER FUNCTION DEFINITION", of the functions that are listed
bindings() {
    rm -f "$dir"/debug*
    LD_BIND_NOW=1 LD_DEBUG=bindings LD_DEBUG_OUTPUT="$dir/debug" LD_PRELOAD=${1-} "$dir/program" "${drivers[@]}" >"$dir/errors" 2>&1
    sed -nE "s/.*binding file ([^ ]+) \[[0-9]+\] to ([^ ]+) \[[0-9]+\]: normal symbol \`([^']+)'.*/\1 \3 \2/p" "$dir"/debug* |
        awk 'NR == FNR { listed[$1]; next } $2 in listed' "$syms" - | sort -u
}

without=$(bindings)
with=$(bindings "$lib")
check 'it is preloaded without a word' "$(<"$dir/errors")"
check 'without it, all are libvirt'\''s' "$(comm -3 "$syms" <(awk -v program="$dir/program" '$1 == program { print $2 }' <<<"$without"))"
for caller in program libvirt "${drivers[@]}"; do
    name=$(basename "$caller" .so)
    # the dynamic linker may have another path for the same file
    of_caller() { awk -v name="$name" '{ n = split($1, parts, "/"); sub(/\.so.*/, "", parts[n]) } parts[n] == name { print $2, $3 }'; }
    calls=$(of_caller <<<"$without") now=$(of_caller <<<"$with")
    wrong=$(awk -v lib="$lib" '$2 != lib' <<<"$now")
    lost=$(comm -3 <(cut -d ' ' -f 1 <<<"$calls") <(cut -d ' ' -f 1 <<<"$now"))
    check "$name: $(grep -c . <<<"$calls") functions bind to it" "$wrong$lost"
done
for package in qemu network; do
    [[ " ${drivers[*]} " == *"libvirt_driver_$package.so "* ]] && continue
    count=$((count + 1))
    echo "ok $count - libvirt_driver_$package.so # SKIP it is not installed"
done

echo "1..$count"
exit $failed
