#!/bin/bash
# fork-lib.sh ARCHIVE CC...: links the static library into a stand-in for a fork's libvirt.so, in both ways
# that docs/libvirt-fork.md tells, and calls it from a stand-in for a driver. Writes TAP.
set -uo pipefail
export LC_ALL=C
archive=$1
shift
cc=("$@" -std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Werror)
here=$(cd "$(dirname "$0")" && pwd)/fork-lib
node=LIBVIRT_PRIVATE_10.8.0
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

readarray -t eight < <(grep -o 'virNetDevTap[A-Za-z]*(' "$here/../reference/libvirt-10.8.h" | tr -d '(' | sort -u)
own=(lastError lastErrorCode virLogMessage virNetDevGenerateName virReportErrorHelper virReportSystemErrorFull)

# Names for the linker that are neither C++'s nor Rust's kind, nor a compiler's own (which begin with __): what could be
# another's as well.
plain=$(nm -g --defined-only "$archive" 2>/dev/null | awk 'NF == 3 { print $3 }' |
    grep -vE '^(_R|_ZN|__|_rust_extern|anon\.|\.L)|^(DW\.ref\.)?rust_eh_personality$' | sort -u)
check 'the library defines nothing for C but its own functions' "$(grep -v '^virNetDevTap' <<<"$plain")"
check 'and all eight of libvirt' "$(comm -13 <(echo "$plain") <(printf '%s\n' "${eight[@]}"))"

build() { # WAY, further symbols to export, then --, then what compiles, then --, then what links
    local way=$1 symbols=("${eight[@]}" "${own[@]}") compile=()
    shift
    while [ "$1" != -- ]; do symbols+=("$1"); shift; done
    shift
    while [ "$1" != -- ]; do compile+=("$1"); shift; done
    shift
    mkdir "$dir/$way"
    {
        echo 'LIBVIRT_10.8.0 { global: virGetVersion; local: *; };'
        echo "$node { global:"
        printf '%s;\n' "${symbols[@]}"
        echo '} LIBVIRT_10.8.0;'
    } >"$dir/$way/map"
    check "$way: links, and needs nothing besides" "$({
        "${cc[@]}" -fPIC "${compile[@]}" -c -o "$dir/$way/libvirt.o" "$here/libvirt.c" &&
            "${cc[@]}" -shared -Wl,-soname,libvirt.so.0 -Wl,--version-script="$dir/$way/map" -Wl,--no-undefined \
                -Wl,--fatal-warnings -o "$dir/$way/libvirt.so.0" "$dir/$way/libvirt.o" "$@" &&
            "${cc[@]}" "${compile[@]}" -Wl,--no-undefined -Wl,-rpath,"$dir/$way" -o "$dir/$way/driver" "$here/driver.c" \
                "$dir/$way/libvirt.so.0"
    } 2>&1)"
    [ -x "$dir/$way/driver" ] || return
    check "$way: exports what its version script names and nothing else" "$(
        comm -3 <({ printf "%s@@$node\n" "${symbols[@]}"; echo virGetVersion@@LIBVIRT_10.8.0; } | sort) \
            <(nm -D --defined-only --with-symbol-versions "$dir/$way/libvirt.so.0" | awk '$2 != "A" { print $NF }' | sort))"
    check "$way: no symbol of libvirt is undefined" "$(nm -D --undefined-only "$dir/$way/libvirt.so.0" | grep ' _*vir')"
    check "$way: the driver asks for them under libvirt's node" "$(
        comm -23 <(printf "%s@$node\n" "${eight[@]}") \
            <(nm -D --undefined-only --with-symbol-versions "$dir/$way/driver" | awk '{ print $NF }' | sort))"
    check "$way: nothing is printed when it is loaded" "$("$dir/$way/driver" 2>&1)"
    local output status
    output=$(timeout 60 "$dir/$way/driver" "$dir/$way/state" 2>&1)
    status=$?
    if [[ $output == '1..0 # SKIP '* ]]; then
        count=$((count + 1))
        echo "ok $count - $way: the calls # SKIP ${output#*SKIP }"
    elif [ $status != 0 ]; then
        check "$way: the calls" "$output"
    else
        check "$way: the calls ($(grep -c '^ok' <<<"$output") checks)" ''
    fi
}

build whole -- -- -Wl,--whole-archive "$archive" -Wl,--no-whole-archive
build by-name -- -- $(printf -- '-Wl,-u,%s ' "${eight[@]}") "$archive"
build with-state standInConnect standInDeleteDevice -- -DWITH_STATE -- $(printf -- '-Wl,-u,%s ' "${eight[@]}") "$archive"

echo "1..$count"
exit $failed
