#!/usr/bin/env bash
# Style and static analysis. Every check prints one line; what it found stands above it. Fails when any found something.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
status=0

# check NAME COMMAND...: quiet when good.
check() {
    local name=$1 log begun=$SECONDS
    shift
    log=$(mktemp)
    if "$@" >"$log" 2>&1; then
        echo "lint: $name: good ($((SECONDS - begun)) s)"
    else
        cat "$log"
        echo "lint: $name: FAILED"
        status=1
    fi
    rm -f "$log"
}

# files PATTERN...: tracked and new files, without those that git ignores.
files() {
    git ls-files -z --cached --others --exclude-standard -- "$@" | while IFS= read -r -d '' file; do
        [ ! -f "$file" ] || printf '%s\0' "$file"
    done
}

format() {
    files 'src/*.[ch]' 'include/*.h' 'tests/*.[ch]' 'tests/*.cpp' 'tests/*.cc' 'tests/*.hpp' 'bench/*.[ch]' \
        'bench/*.cpp' 'tools/*.[ch]' 'fuzz/*.[ch]' | xargs -0 --no-run-if-empty clang-format "$@"
}

format_check() {
    local found
    found=$(format --dry-run -Werror 2>&1) && return
    grep 'error:' <<<"$found" | cut -d: -f1 | uniq -c
    echo "(places a file; \`make format\` rewrites them)"
    return 1
}

# With the debug checks on, which tell the analyzer what holds. Each file on its own: the analyzer only looks into
# functions of the file it is given, not of those that it includes.
tidy() {
    files 'src/*.c' | xargs -0 -n 4 -P "$(nproc)" sh -c 'clang-tidy --quiet "$@" -- -std=gnu17 -DTIDE_DEBUG=1 -Isrc -Iinclude \
        -fexceptions -pthread -fno-builtin-malloc -fno-builtin-calloc -fno-builtin-realloc -fno-builtin-free' sh
}

# The unity file shows cppcheck every layer at once. Suppressed: it has no standard headers; it takes the public
# functions for unused; and comparing addresses of different objects is what an allocator does.
cpp_check() {
    cppcheck --quiet --std=c11 --library=posix --library=gnu -Isrc -Iinclude -D__x86_64__=1 -D__linux__=1 -D__GNUC__=12 \
        --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
        --suppress=missingIncludeSystem --suppress=unusedFunction --suppress=comparePointers \
        --suppress=subtractPointers src/tidemalloc.c
}

# The cases of tests/programs are sourced: their variables and `set -e` stand in another file.
shell() {
    {
        files '*.sh' ':!tests/programs'
        printf '%s\0' .ci/run
    } | xargs -0 shellcheck --severity=warning &&
        files 'tests/programs/*.sh' |
        xargs -0 --no-run-if-empty shellcheck --severity=warning --exclude=SC2034,SC2154,SC2164
}

# bench/real/scripts holds inputs of benchmarks with placeholders in them, not programs of ours.
python() {
    files '*.py' ':!bench/real/scripts' | xargs -0 --no-run-if-empty pyflakes3
}

words() {
    ! files ':!scripts/lint.sh' ':!docs' ':!CONTRIBUTING.md' | xargs -0 grep -nIE '\b(TODO|FIXME|XXX)\b'
}

if [ "${1:-}" = --fix-format ]; then
    format -i
    exit
fi
check "clang-format" format_check
check "clang-tidy" tidy
check "cppcheck" cpp_check
check "layer rule" scripts/check-layers.sh
check "shellcheck" shell
check "pyflakes" python
check "left-over words" words
exit "$status"
