#!/usr/bin/env bash
# Runs the fuzz targets for FUZZ_SECONDS each (60), from the corpora kept in fuzz/corpus. Stops at a finding, and says
# how to repeat it.
#   scripts/fuzz.sh [TARGET...]            policy options runs claims api readers; all without names
#   scripts/fuzz.sh --minimise [TARGET...] make the kept corpora anew from what was found: few inputs, the same coverage
#   scripts/fuzz.sh --coverage             lines and branches of src/ that the kept corpora and what was found reach
# What is found on the way gathers in build/libfuzzer/found/TARGET, and the next run starts from there, too.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-60}
all=(policy options runs claims api readers)
# What a target is about, for --coverage.
# shellcheck disable=SC2034 # read by name, as ${!target}
{
    policy='src/keeper/policy.c'
    options='src/os/options.c src/base/format.c src/os/report.c'
    runs='src/span'
    claims='src/span src/tier src/heap'
    api='src/base src/os src/span src/tier src/heap src/keeper src/api'
}
build=build/libfuzzer

die() {
    echo "fuzz.sh: $*" >&2
    exit 1
}

# The targets hold little memory, and inputs take milliseconds: one that takes 3 GiB or 20 s is a finding.
libfuzzer() {
    local target=$1
    shift
    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 "$build/fuzz/fuzz_$target" -detect_leaks=0 \
        -rss_limit_mb=3000 -timeout=20 -max_len=2048 -print_final_stats=1 "$@"
}

# The distribution's packages belong to its own python3, which need not be the first one on PATH.
python_with() {
    local python
    for python in python3 /usr/bin/python3; do
        "$python" -c "import $1" 2>/dev/null && break
    done
    echo "$python"
}

run() {
    local target=$1
    local found=$build/found/$target log=$build/$target.log finding inputs
    mkdir -p "$found" "$build/findings"
    if [ "$target" = readers ]; then
        "$(python_with hypothesis)" fuzz/readers.py --seconds "$seconds" --findings "$build/findings"
        return
    fi
    if libfuzzer "$target" -max_total_time="$seconds" -artifact_prefix="$build/findings/$target-" "$found" \
        "fuzz/corpus/$target" >"$log" 2>&1 </dev/null; then
        inputs=$(sed -nE 's/^stat::number_of_executed_units: *//p' "$log")
        echo "fuzz: $target: $inputs inputs in $seconds s, $(find "$found" -type f | wc -l) kept in $found"
        return
    fi
    grep -aE 'ERROR|fuzz: |runtime error|SUMMARY|^tidemalloc:|failed' "$log" | head -n 5
    finding=$(sed -nE 's/^artifact_prefix=.*Test unit written to //p' "$log" | tail -n 1)
    echo "fuzz: $target: FOUND ${finding:-something} (all of it in $log)"
    echo "fuzz: repeat it with      $build/fuzz/fuzz_$target $finding"
    echo "fuzz: or, without libFuzzer and under gcc, with      build/fuzz/fuzz_$target $finding"
    return 1
}

# Small inputs first, so that of two with the same coverage the smaller one stays.
minimise() {
    local target=$1 kept=fuzz/corpus/$1 fresh
    [ "$target" != readers ] || return 0
    fresh=$(mktemp -d)
    libfuzzer "$target" -set_cover_merge=1 -use_counters=0 "$fresh" "$kept" "$build/found/$target" \
        >"$build/$target.merge.log" 2>&1
    # Those with names were written by hand, or show what was found, and stay whatever they cover.
    find "$kept" -type f ! -name '*-*' -delete
    cp -n "$fresh"/* "$kept/"
    rm -rf "$fresh"
    echo "fuzz: $target: $(find "$kept" -type f | wc -l) inputs, $(du -sb "$kept" | cut -f1) bytes"
}

# The standalone runner, without sanitizers, in one process, so that what it counts is written at the end.
coverage() {
    local target binary data flags='-fprofile-instr-generate -fcoverage-mapping'
    cmake -S . -B build/fuzz-coverage -G Ninja -DCMAKE_BUILD_TYPE=Debug \
        -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ \
        -DTIDE_TESTS=ON -DTIDE_DEBUG=OFF -DCMAKE_C_FLAGS="$flags" >build/fuzz-coverage.log
    for target in policy options runs claims api; do
        ninja -C build/fuzz-coverage "fuzz/fuzz_$target" >>build/fuzz-coverage.log
        binary=build/fuzz-coverage/fuzz/fuzz_$target
        data=build/fuzz-coverage/$target
        mkdir -p "$build/found/$target"
        LLVM_PROFILE_FILE=$data.raw "$binary" --together "fuzz/corpus/$target" "$build/found/$target" \
            >"$data.log" 2>&1 || die "$target: an input fails: see $data.log"
        llvm-profdata merge -o "$data.profdata" "$data.raw"
        # shellcheck disable=SC2086 # several paths
        llvm-cov report "$binary" -instr-profile="$data.profdata" ${!target} | tee "$data.report" |
            awk -v target="$target" '$1 == "TOTAL" {
                printf "fuzz: %-8s lines %s of %d, branches %s of %d\n", target, $10, $8, $13, $11
            }'
    done
    echo "fuzz: by file in build/fuzz-coverage/TARGET.report"
}

mode=run
case ${1:-} in
--minimise) mode=minimise && shift ;;
--coverage) mode=coverage && shift ;;
esac
targets=("$@")
[ "${#targets[@]}" -gt 0 ] || targets=("${all[@]}")
for target in "${targets[@]}"; do
    [[ " ${all[*]} " == *" $target "* ]] || die "no target $target: ${all[*]}"
done
if [ "$mode" = coverage ]; then
    coverage
    exit
fi
scripts/build.sh fuzz -DTIDE_TESTS=OFF
for target in "${targets[@]}"; do "$mode" "$target"; done
