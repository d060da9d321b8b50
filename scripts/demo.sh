#!/usr/bin/env bash
# The demo: a real redis-server fills up, deletes everything and then waits, once on glibc's malloc and once on tidemalloc.
# Leaves a picture, the samples and the figures in the build directory. Takes less than a minute.
#
#   scripts/demo.sh [BUILD_DIR]        the directory that holds tide and libtidemalloc.so; default: build
set -euo pipefail

fail() { echo "demo: $*" >&2; exit 1; }

root=$(cd "$(dirname "$0")/.." && pwd)
build=$(realpath -m -- "${1:-$root/build}")
python=/usr/bin/python3  # the one that Debian's matplotlib belongs to

for program in redis-server redis-cli redis-benchmark gnuplot "$python"; do
    command -v "$program" >/dev/null || fail "$program is missing; run 'scripts/setup.sh demo'"
done
"$python" -c 'import matplotlib' 2>/dev/null || fail "python3-matplotlib is missing; run 'scripts/setup.sh demo'"
for file in tide libtidemalloc.so; do
    [ -e "$build/$file" ] || fail "$build/$file is missing; run 'make' first"
done

scratch=$(mktemp -d "${TMPDIR:-/tmp}/tide-demo.XXXXXX")
driver=
clean_up() {
    # The driver stops its server on every way out; if it was killed, the pid file of the server is left.
    if [ -n "$driver" ] && kill "$driver" 2>/dev/null; then
        wait "$driver" || true
    fi
    for pid_file in "$scratch"/*.pid; do
        if [ -e "$pid_file" ]; then
            kill -KILL "$(cat "$pid_file")" 2>/dev/null || true
        fi
    done
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mkdir -p "$build/demo"
"$python" -B "$root/tools/demo/redis_demo.py" --build "$build" --scratch "$scratch" --out "$build/demo" &
driver=$!
wait "$driver"
