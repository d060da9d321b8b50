#!/usr/bin/env bash
# Whether anything grows, and whether anything breaks when things fail for a long time:
#   1. 6 hours of the keeper on a virtual clock (SOAK_MINUTES, 360)
#   2. a real program of bursts, rests, threads and forks (SOAK_SECONDS, 1200); its lines go to build/soak.csv
#   3. the same for a minute with a leak, which must be found
#   4. every test that make check leaves out as too long (SOAK_TESTS=off: none)
# Ends with `soak: N of M parts failed`.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
scripts/build.sh release -DTIDE_TESTS=ON || exit 1
failed=0
parts=0

part() {
    local begun=$SECONDS
    echo "== $1"
    shift
    parts=$((parts + 1))
    "$@" || failed=$((failed + 1))
    echo "== $((SECONDS - begun)) s"
}

judged() { tests/soak/run.py --program build/tests/soak/soak --library "$PWD/build/libtidemalloc.so" "$@"; }

part "virtual clock" env TIDE_SOAK_MINUTES="${SOAK_MINUTES:-360}" build/tests/unit/unit_soak
part "a real program" judged --seconds "${SOAK_SECONDS:-1200}" --csv build/soak.csv
part "a leak, which must be found" judged --seconds 60 --burst 8 --lose 200000 --must-fail
[ "${SOAK_TESTS:-on}" = off ] || part "the long tests" \
    ctest --test-dir build -L slow -j 2 --output-on-failure --timeout 3600
echo "soak: $failed of $parts parts failed"
[ "$failed" = 0 ]
