#!/usr/bin/env bash
# Installs the build into an empty directory and uses it as a stranger would: by pkg-config and by CMake, in C and C++,
# shared, static and fully static. Every program says whether its malloc is really ours.
#   tests/install/run.sh SOURCE_DIR BUILD_DIR
set -euo pipefail
source_dir=$(cd "$1" && pwd)
build_dir=$(cd "$2" && pwd)
here=$source_dir/tests/install
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cc=${CC:-cc}
cxx=${CXX:-c++}

fail() {
    echo "install test: $*" >&2
    exit 1
}

# --- a staged installation has the paths of the final prefix, and can be taken away again without rest
DESTDIR=$work/stage cmake --install "$build_dir" --prefix /opt/tide >/dev/null
for file in lib/libtidemalloc.so lib/libtidemalloc.so.0 lib/libtidemalloc-secure.so lib/libtidemalloc.a lib/pkgconfig/tidemalloc.pc \
    lib/cmake/tidemalloc/tidemallocConfig.cmake include/tidemalloc.h share/doc/tidemalloc/LICENSE \
    share/tidemalloc/contrib/grafana/tidemalloc.json; do
    [ -e "$work/stage/opt/tide/$file" ] || fail "$file is not installed"
done
grep -qx 'prefix=/opt/tide' "$work/stage/opt/tide/lib/pkgconfig/tidemalloc.pc" || fail "wrong prefix in tidemalloc.pc"
touch "$work/stage/opt/tide/lib/not-ours"
"$source_dir/scripts/uninstall.sh" "$build_dir" /opt/tide "$work/stage" >/dev/null
[ "$(cd "$work/stage" && find . ! -type d)" = ./opt/tide/lib/not-ours ] || fail "uninstall left or took too much"

# --- the shared library needs nothing but libc
prefix=$work/prefix
cmake --install "$build_dir" --prefix "$prefix" >/dev/null
library=$prefix/lib/libtidemalloc.so
needed=$(readelf -dW "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
extra=$(grep -vE '^(libc\.so\.6|ld-linux.*)$' <<<"$needed" || true)
[ -z "$extra" ] || fail "libtidemalloc.so needs $extra"
readelf -dW "$library" | grep -q 'SONAME.*\[libtidemalloc\.so\.0\]' || fail "wrong soname"
readelf -dW "$library" | grep -q 'FLAGS_1.*NODELETE' || fail "not linked with -z nodelete"
# The static library holds every allocation function, so that libc's own is never pulled in beside it.
nm "$prefix/lib/libtidemalloc.a" >"$work/symbols" 2>/dev/null || fail "nm cannot read libtidemalloc.a"
for name in malloc free calloc realloc memalign aligned_alloc posix_memalign valloc pvalloc malloc_usable_size; do
    grep -q " T $name\$" "$work/symbols" || fail "libtidemalloc.a does not define $name"
done

# --- pkg-config
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
[ "$(pkg-config --modversion tidemalloc)" = \
    "$(sed -n 's/^#define TIDEMALLOC_VERSION "\(.*\)"/\1/p' "$prefix/include/tidemalloc.h")" ] || fail "wrong version"
# shellcheck disable=SC2046 # the words of pkg-config are meant to be split
{
    "$cc" "$here/program.c" -o "$work/c-shared" $(pkg-config --cflags --libs tidemalloc)
    "$cxx" "$here/program.cpp" -o "$work/cxx-shared" $(pkg-config --cflags --libs tidemalloc)
    "$cc" -static "$here/program.c" -o "$work/c-static" $(pkg-config --static --cflags --libs tidemalloc)
    "$cxx" -static "$here/program.cpp" -o "$work/cxx-static" $(pkg-config --static --cflags --libs tidemalloc)
}
for program in c-shared cxx-shared; do
    LD_LIBRARY_PATH=$prefix/lib "$work/$program" || fail "pkg-config: $program"
done
for program in c-static cxx-static; do
    "$work/$program" || fail "pkg-config: $program"
done

# --- CMake
CC=$cc CXX=$cxx cmake -S "$here/consumer" -B "$work/cmake" -DCMAKE_PREFIX_PATH="$prefix" >"$work/log" 2>&1 &&
    cmake --build "$work/cmake" >>"$work/log" 2>&1 || {
    cat "$work/log"
    fail "CMake package does not build"
}
for program in c-shared cxx-shared c-archive cxx-archive c-static; do
    "$work/cmake/$program" || fail "CMake: $program"
done

# --- preloading needs no header and no rebuild
"$cc" -O0 "$here/plain.c" -o "$work/plain"
LD_PRELOAD=$library "$work/plain" || fail "preloaded program"

# --- gdb finds its commands by itself, where it looks below this prefix
if command -v gdb >/dev/null; then
    LD_LIBRARY_PATH=$prefix/lib gdb -batch -nx -iex "set auto-load scripts-directory $prefix/share/gdb/auto-load" \
        -iex "set auto-load safe-path $work" -ex 'break tide_stats_get' -ex run -ex run -ex 'tide block 0' \
        "$work/c-shared" >"$work/log" 2>&1 </dev/null || true
    grep -Eq "nothing was allocated yet|0x0 is not tidemalloc's" "$work/log" || {
        cat "$work/log"
        fail "gdb does not know tide"
    }
fi

if [ -e "$prefix/bin/tide" ]; then
    "$prefix/bin/tide" --help >/dev/null || fail "tide --help"
fi
echo "install test: all ways of linking work"
