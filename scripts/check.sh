#!/usr/bin/env bash
# Builds every variant, runs its tests, and ends with one line: `N passed, N failed`. Fails when anything failed.
# A variant that does not build counts as one failure; so does one without tests.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
passed=0
failed=0
skipped=0
started=$SECONDS

# suite VARIANT DIR CTEST_ARGUMENTS...: build with tests, run them, add up.
suite() {
    local variant=$1 dir=$2 report tests failures others name value begun=$SECONDS
    shift 2
    echo "== $variant"
    if ! scripts/build.sh "$variant" -DTIDE_TESTS=ON; then
        echo "== $variant does not build"
        failed=$((failed + 1))
        return
    fi
    report=$PWD/$dir/ctest.xml
    rm -f "$report"
    "${wrap[@]}" ctest --test-dir "$dir" --output-on-failure --no-tests=error --timeout 120 -j "$((2 * $(nproc)))" \
        --output-junit "$report" "$@"
    # The first element of the report carries the counts: tests, failures, disabled, skipped.
    tests=0 failures=0 others=0
    while IFS='=' read -r name value; do
        case $name in
        tests) tests=$value ;;
        failures) failures=$value ;;
        disabled | skipped) others=$((others + value)) ;;
        esac
    done < <(sed -n '/<testsuite /,/>/p' "$report" 2>/dev/null | tr '\t ' '\n\n' |
        sed -nE 's/^(tests|failures|disabled|skipped)="([0-9]+)".*/\1=\2/p')
    [ "$tests" -gt 0 ] || failures=1 tests=1
    passed=$((passed + tests - failures - others))
    failed=$((failed + failures))
    skipped=$((skipped + others))
    echo "== $variant: $((tests - failures - others)) passed, $failures failed, $others skipped in $((SECONDS - begun)) s"
}

wrap=()
suite release build -LE slow
suite debug build/debug -LE 'slow|programs'
suite asan build/asan -L asan -LE slow
# ThreadSanitizer of clang 14 knows the usual address layout only, not one with more random bits.
if setarch -R true 2>/dev/null; then wrap=(setarch -R); fi
suite tsan build/tsan -L tsan -LE slow

echo
[ "$skipped" = 0 ] || echo "$skipped tests were skipped: see above why"
echo "make check took $((SECONDS - started)) s"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
