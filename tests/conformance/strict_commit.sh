#!/bin/sh
# Runs a program with vm.overcommit_memory=2 (the kernel promises no more memory than it has) and restores the old value.
# The setting holds for the whole machine, so this is done only where TEST_MAY_SYSCTL=1 says that the machine is ours,
# as in CI; otherwise, or without the right to change it, the test counts as skipped (status 77).
# usage: strict_commit.sh program [library to preload]
setting=${TEST_SYSCTL_FILE:-/proc/sys/vm/overcommit_memory}

if [ "${TEST_MAY_SYSCTL:-}" != 1 ]; then
    echo "skipped: set TEST_MAY_SYSCTL=1 to let this test change $setting"
    exit 77
fi
old=$(cat "$setting") || exit 77
restore() { echo "$old" >"$setting"; }
trap restore EXIT
trap 'exit 1' INT TERM HUP
if ! { echo 2 >"$setting"; } 2>/dev/null; then
    echo "skipped: $setting cannot be written"
    exit 77
fi
LD_PRELOAD=${2:-} "$1"
