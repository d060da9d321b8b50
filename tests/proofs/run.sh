#!/usr/bin/env bash
# Proves with CBMC what the files of this folder say of the library's code, and shows that each proof finds broken code.
#   tests/proofs/run.sh [--quick | --mutants] [FILE | FILE.FUNCTION]...
# --quick: the proofs marked so, for `make check`; --mutants: the broken copies of `mutants`, each of which must be found.
# One line per run. Exit status: 0 as expected, 1 a surprise, 77 cbmc is missing. JOBS runs at a time (2), at most SECONDS_MAX of
# processor time each (900).
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source_folder=$here/../../src
JOBS=${JOBS:-2}
SECONDS_MAX=${SECONDS_MAX:-900}

mode=all
case ${1:-} in
--quick | --mutants) mode=${1#--} && shift ;;
-*) echo "usage: run.sh [--quick | --mutants] [FILE | FILE.FUNCTION]..." >&2 && exit 2 ;;
esac
chosen=" $* "

command -v cbmc >/dev/null || {
    echo "run.sh: no cbmc: nothing was proved"
    exit 77
}

# is_chosen FILE FUNCTION
is_chosen() { [ "$chosen" = '  ' ] || [[ $chosen == *" $1 "* || $chosen == *" $1.$2 "* ]]; }

# prove EXPECTED LABEL SOURCES FILE FUNCTION UNWIND OPTIONS...: one run; prints its line.
prove() {
    local expected=$1 label=$2 sources=$3 file=$4 function=$5 unwind=$6 log got status used result=good
    shift 6
    log=$(mktemp)
    (
        ulimit -t "$SECONDS_MAX"
        exec cbmc "$here/$file.c" --function "prove_$function" -I "$here/shim" -I "$here" -I "$sources" -D__SANITIZE_THREAD__=1 -DTIDE_DEBUG=1 \
        --unwind "$unwind" --unwinding-assertions --bounds-check --pointer-check --div-by-zero-check --signed-overflow-check \
        --undefined-shift-check --slice-formula "$@" >"$log" 2>&1 </dev/null
    )
    status=$?
    case $status in
    0) got=proved ;;
    10) got=refuted ;;
    137 | 152) got=unfinished ;;
    *) got=error ;;
    esac
    [ "$got" = "$expected" ] || result=SURPRISE
    times >"$log.times" # of this subshell's children: cbmc
    used=$(sed -n '2s/ .*//p' "$log.times")
    printf '%-8s %-18s %-10s %10s  %s%s\n' "$file" "$function" "$got" "$used" "$result" "${label:+  ($label)}"
    if [ "$result" != good ]; then grep -E 'FAILURE|error|rror:' "$log" | head -n 12; fi
    rm -f "$log" "$log.times"
    [ "$result" = good ]
}

# mutant FILE FUNCTION UNWIND OPTIONS SOURCE EXPRESSION: the proof on a broken copy of the code.
mutant() {
    local copy
    copy=$(mktemp -d)
    cp -R "$source_folder/." "$copy"
    sed -i -e "$6" "$copy/$5"
    if cmp -s "$copy/$5" "$source_folder/$5"; then
        echo "mutants: src/$5 is not changed by $6"
        rm -rf "$copy"
        return 1
    fi
    # shellcheck disable=SC2086 # a list of options
    prove refuted "$5: $6" "$copy" "$1" "$2" "$3" $4
    local status=$?
    rm -rf "$copy"
    return "$status"
}

status=0
runs=0
started() {
    runs=$((runs + 1))
    while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n || status=1; done
}
declare -A unwinds options
while read -r file function quick unwind more; do
    [[ $file == \#* || -z $file ]] && continue
    unwinds[$file.$function]=$unwind options[$file.$function]=$more
    if [ "$mode" = mutants ] || { [ "$mode" = quick ] && [ "$quick" != yes ]; } || ! is_chosen "$file" "$function"; then continue; fi
    started
    # shellcheck disable=SC2086
    prove proved '' "$source_folder" "$file" "$function" "$unwind" $more &
done <"$here/proofs"
if [ "$mode" = mutants ]; then
    while read -r file function source expression; do
        [[ $file == \#* || -z $file ]] && continue
        is_chosen "$file" "$function" || continue
        started
        mutant "$file" "$function" "${unwinds[$file.$function]}" "${options[$file.$function]}" "$source" "$expression" &
    done <"$here/mutants"
fi
while [ -n "$(jobs -p)" ]; do wait -n || status=1; done
[ "$runs" -gt 0 ] || status=1
if [ "$status" = 0 ]; then echo "run.sh: $runs runs, all as expected"; else echo "run.sh: surprises among $runs runs, see above"; fi
exit "$status"
