#!/bin/bash
# check-exports.sh LIB SYMS SONAME [NODE]: LIB exports what SYMS lists and nothing else,
# unversioned or under NODE, and has the SONAME and flags that it should.
set -euo pipefail
export LC_ALL=C
lib=$1 syms=$2 wanted_soname=$3 node=${4:-}

count=0 failed=0
check() { # NAME, then what is wrong, if anything
    count=$((count + 1))
    if [ -z "$2" ]; then
        echo "ok $count - $1"
    else
        echo "not ok $count - $1"
        while IFS= read -r line; do echo "# $line"; done <<<"$2"
        failed=1
    fi
}

listed=$(grep -v '^#' "$syms")
check "$(basename "$syms") is sorted" "$(sort -cu "$syms" 2>&1 || true)"

# GNU ld lists the node itself as an absolute symbol
exported=$(nm -D --defined-only --with-symbol-versions "$lib" | awk '$(NF - 1) != "A" { print $NF }' | sort)
expected=$(sed "s/\$/${node:+@@$node}/" <<<"$listed")
check 'everything listed is exported' "$(comm -23 <(echo "$expected") <(echo "$exported"))"
check 'nothing else is exported' "$(comm -13 <(echo "$expected") <(echo "$exported"))"

dynamic=$(readelf -dW "$lib")
soname=$(sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p' <<<"$dynamic")
check 'SONAME' "$([ "$soname" = "$wanted_soname" ] || echo "it is \"$soname\"")"
check 'NODELETE' "$(grep -q 'FLAGS_1.*NODELETE' <<<"$dynamic" || echo 'dlclose would unmap it')"
check 'BIND_NOW' "$(grep -q 'FLAGS_1.*NOW' <<<"$dynamic" || echo 'it binds lazily')"
undefined=$(nm -D --undefined-only "$lib" | awk '{ print $NF }' | grep '^_*vir' || true)
check 'no vir* symbol is needed' "$undefined"

echo "1..$count"
exit $failed
