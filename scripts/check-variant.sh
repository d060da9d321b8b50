#!/usr/bin/env bash
# Builds one variant with its tests and runs those that make sense for it.
#   scripts/check-variant.sh arm64|musl|clang [CTEST_ARGUMENTS...]
set -euo pipefail
cd "$(dirname "$0")/.."
variant=$1
shift
scripts/build.sh "$variant" -DTIDE_TESTS=ON
# Servers and tools of this machine are the same whoever compiled the library; make check runs them.
leave='^(check|model|tool|gdb|beside)[.]'
# qemu-user is in the same process: what the kernel says of its threads, files, signal masks and memory is the emulator's, too. These compare with it. It
# also keeps memory of its own for each thread that has ended, tells nobody that one ended without a word, and refuses large reserves.
[ "$variant" != arm64 ] ||
    leave="$leave|^keeper[.](construct|tls|baseline|flush|signals|files|fork|namespaces|end|log)|^unit[.](region|faults|guard)|^fuzz[.](claims|api)|^stress[.](short-threads|odd-ends)"
ctest --test-dir "build/$variant" --output-on-failure --no-tests=error -j "$(nproc)" -LE slow -E "$leave" "$@"
