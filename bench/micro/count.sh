#!/bin/sh
# Counts the instructions of a hit of malloc and of free with valgrind's callgrind, for each library given.
#
#   bench/micro/count.sh PROGRAM [LIBRARY.so ...]
#
# PROGRAM is the compiled hotpath.c (build/bench/hotpath). "glibc" stands for no library. The columns "last" are for
# blocks that are alone in their span, so that each free empties it. Counted are all instructions from the first one of
# malloc to its return; the number does not depend on the load of the machine.
set -eu

steps=5000
if [ $# -lt 1 ] || [ ! -x "$1" ]; then
    echo "usage: count.sh PROGRAM [glibc | LIBRARY.so ...]" >&2
    exit 2
fi
command -v valgrind >/dev/null || { echo "count.sh: valgrind is missing: apt-get install valgrind" >&2; exit 2; }
program=$1
shift
[ $# -gt 0 ] || set -- glibc
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Instructions inside function $1 in a run of $2 steps of size $3 with $4 live blocks and library $5.
collected() {
    preload=$5
    [ "$preload" != glibc ] || preload=
    LD_BIND_NOW=1 LD_PRELOAD=$preload valgrind --tool=callgrind --collect-atstart=no "--toggle-collect=$1" \
        --callgrind-out-file=/dev/null "$program" "$2" "$3" "$4" 2>"$scratch/log" >/dev/null || {
        echo "count.sh: valgrind failed:" >&2
        tail -n 3 "$scratch/log" >&2
        return 1
    }
    if grep -q 'cannot be preloaded' "$scratch/log"; then
        echo "count.sh: $5 cannot be preloaded" >&2
        return 1
    fi
    sed -n 's/^.*Collected : \([0-9]*\).*$/\1/p' "$scratch/log"
}

# Instructions of one step: function, size, live blocks, library.
per_step() {
    once=$(collected "$1" $steps "$2" "$3" "$4")
    twice=$(collected "$1" $((2 * steps)) "$2" "$3" "$4")
    awk -v a="$once" -v b="$twice" -v n=$steps 'BEGIN { printf "%.2f", (b - a) / n }'
}

# The frame around the call; the empty function in it has two instructions of its own (zero the result, return).
frame=$(per_step hot_nothing 64 16 glibc)
hit() {
    cost=$(per_step "$@")
    awk -v c="$cost" -v f="$frame" 'BEGIN { printf "%.1f", c - f + 2 }'
}

printf '%-28s %6s %8s %8s %12s %10s\n' library size malloc free 'malloc last' 'free last'
for library in "$@"; do
    if [ "$library" != glibc ] && [ ! -f "$library" ]; then
        echo "count.sh: no such library: $library" >&2
        exit 2
    fi
    for size in 16 64 512; do
        malloc=$(hit hot_malloc $size 16 "$library")
        free=$(hit hot_free $size 16 "$library")
        last_malloc=$(hit hot_malloc $size 0 "$library")
        last_free=$(hit hot_free $size 0 "$library")
        printf '%-28s %6d %8s %8s %12s %10s\n' "$(basename "$library")" $size "$malloc" "$free" "$last_malloc" \
            "$last_free"
    done
done
