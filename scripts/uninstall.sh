#!/usr/bin/env bash
# Removes exactly the files that an installation of this build would write, then our own empty folders.
#   scripts/uninstall.sh BUILD_DIR PREFIX [DESTDIR]
set -euo pipefail
build_dir=$1
prefix=$2
destdir=${3:-}
list=$(mktemp -d)
trap 'rm -rf "$list"' EXIT

DESTDIR=$list cmake --install "$build_dir" --prefix "$prefix" >/dev/null
removed=0
while IFS= read -r -d '' file; do
    target=$destdir/${file#./}
    if [ -e "$target" ] || [ -L "$target" ]; then
        rm -f -- "$target"
        removed=$((removed + 1))
    fi
done < <(cd "$list" && find . ! -type d -print0)
while IFS= read -r -d '' dir; do
    target=$destdir/${dir#./}
    [ ! -d "$target" ] || rmdir --ignore-fail-on-non-empty -- "$target"
done < <(cd "$list" && find . -depth -type d -name tidemalloc -print0)
echo "uninstall: $removed files removed from $destdir$prefix"
