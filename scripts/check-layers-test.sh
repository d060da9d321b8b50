#!/usr/bin/env bash
# Shows that check-layers.sh accepts what is allowed and catches every kind of breach.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir"/{base,os,heap,keeper,api}
failed=0

# expect pass|fail FILE 'INCLUDE LINE'
expect() {
    printf '%s\n' "$3" >"$dir/$2"
    if "$here/check-layers.sh" "$dir" >"$dir/out" 2>&1; then got=pass; else got=fail; fi
    if [ "$got" != "$1" ] || { [ "$1" = fail ] && ! grep -qF "src/$2:1:" "$dir/out"; }; then
        printf 'check-layers.sh: expected %s for %s in %s:\n' "$1" "$3" "$2"
        cat "$dir/out"
        failed=1
    fi
    rm -f "${dir:?}/$2"
}

expect pass base/bits.h '#include <stdint.h>'
expect pass os/map.c '#include <sys/mman.h>'
expect pass heap/heap.h '#include "heap/birth.h"'
expect pass heap/heap.c '#include "base/bits.h"'
expect pass keeper/keeper.c '#include "heap/heap.h"'
expect pass api/malloc.c '#include "tidemalloc.h"'
expect pass keeper/figures.h '#include "tidemalloc.h"'
expect fail base/bits.h '#include "os/map.h"'
expect fail heap/heap.c '# include "keeper/policy.h"'
expect fail heap/heap.c '#include <keeper/policy.h>'
expect fail heap/heap.c '#include "tidemalloc.h"'
expect fail heap/heap.c '#include "../api/options.h"'
expect fail heap/heap.c '#include "birth.h"'
expect fail api/malloc.c '#include "heap/heap.c"'
mkdir "$dir/extra"
expect fail extra/new.c '#include "base/bits.h"'

[ "$failed" = 0 ] && echo "check-layers.sh catches every kind of breach"
exit "$failed"
