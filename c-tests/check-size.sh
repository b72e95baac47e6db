#!/bin/bash
# check-size.sh LIB LIMIT: LIB, stripped, is smaller than LIMIT bytes.
set -euo pipefail
lib=$1 limit=$2
stripped=$(mktemp)
trap 'rm -f "$stripped"' EXIT
strip -o "$stripped" "$lib"
size=$(stat -c %s "$stripped")
echo '1..1'
echo "# $size bytes"
if [ "$size" -lt "$limit" ]; then
    echo "ok 1 - smaller than $limit bytes"
else
    echo "not ok 1 - smaller than $limit bytes"
    exit 1
fi
