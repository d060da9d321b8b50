#!/usr/bin/env bash
# The library's own size is part of every small program's memory: text + data stay below a limit.
#   scripts/check-size.sh [LIBRARY] [LIMIT IN BYTES]
set -euo pipefail
library=${1:-$(dirname "$0")/../build/libtidemalloc.so}
limit=${2:-$((120 * 1024))}

read -r text data _ < <(LC_ALL=C size --format=berkeley "$library" | tail -n 1)
total=$((text + data))
printf 'size: text %d + data %d = %d bytes, limit %d\n' "$text" "$data" "$total" "$limit"
[ "$total" -le "$limit" ]
