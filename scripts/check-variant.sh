#!/usr/bin/env bash
# Builds one variant with its tests and runs those that make sense for it.
#   scripts/check-variant.sh arm64|musl|clang [CTEST_ARGUMENTS...]
set -euo pipefail
cd "$(dirname "$0")/.."
variant=$1
shift
scripts/build.sh "$variant" -DTIDE_TESTS=ON
# Servers and tools of this machine are the same whoever compiled the library; make check runs them.
ctest --test-dir "build/$variant" --output-on-failure --no-tests=error -j "$(nproc)" -LE slow -E '^(check|model|tool|gdb)\.' "$@"
