#!/usr/bin/env bash
# Configures and builds one variant. A changed compiler or flag in the environment starts its folder afresh.
#   scripts/build.sh release|debug|asan|tsan|arm64|musl|clang|fuzz [-DOPTION=VALUE...] [TARGET...]
# Without targets everything of the variant is built. WERROR=OFF lets warnings pass.
set -euo pipefail
cd "$(dirname "$0")/.."
variant=$1
shift
case $variant in
release) dir=build ;;
debug | asan | tsan | arm64 | musl | clang) dir=build/$variant ;;
fuzz) dir=build/libfuzzer ;; # the release build has a folder fuzz
*) echo "build.sh: unknown variant $variant" >&2 && exit 2 ;;
esac

options=(-DTIDE_WERROR="${WERROR:-ON}")
targets=()
for argument; do
    case $argument in
    -D*) options+=("$argument") ;;
    *) targets+=("$argument") ;;
    esac
done

fresh=()
signature="${CC:-} ${CXX:-} ${CPPFLAGS:-} ${CFLAGS:-} ${CXXFLAGS:-} ${LDFLAGS:-}"
if [ -e "$dir/CMakeCache.txt" ]; then
    [ "$(cat "$dir/toolchain" 2>/dev/null)" = "$signature" ] || fresh=(--fresh)
elif [[ ${options[*]} != *TIDE_TESTS* ]]; then
    options+=(-DTIDE_TESTS=OFF) # a first plain `make` needs no test library; once on they stay on
fi

quietly() {
    local log
    log=$(mktemp)
    "$@" >"$log" 2>&1 || {
        cat "$log"
        rm -f "$log"
        echo "build.sh: $variant: failed: $*" >&2
        exit 1
    }
    rm -f "$log"
}
quietly cmake --preset "$variant" "${fresh[@]}" "${options[@]}"
printf '%s\n' "$signature" >"$dir/toolchain"
if [ -t 1 ]; then
    cmake --build "$dir" ${targets[@]:+--target "${targets[@]}"}
else
    quietly cmake --build "$dir" ${targets[@]:+--target "${targets[@]}"}
fi
