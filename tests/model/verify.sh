#!/usr/bin/env bash
# Checks the models of this folder with Spin: the right ones must hold, every broken variant must be found.
#   tests/model/verify.sh [--large]
# One line per run. Exit status: 0 as expected, 1 a surprise, 77 a tool is missing. JOBS runs at a time (2), MEMORY_MIB for each.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)

# LABEL MODEL EXPECTED MACROS...
# shellcheck disable=SC2317 # called by name
small_runs() {
    cat <<'END'
thread-weak         claim    holds OPS_0=3 ENDS_0=1 HANDLERS=1 WEAK
two-claimers-tso    claim    holds OPS_0=2 FLUSHES_1=1 ROUNDS=1
fork-flush-weak     claim    holds OPS_0=1 FORKS_1=1 FLUSHES_1=1 ROUNDS=1 WEAK
fork-end            claim    holds OPS_0=1 ENDS_0=1 FORKS_1=1 ROUNDS=1
no-circle           claim    holds OPS_0=0 FLUSHES_0=1 OPS_1=1 FORKS_1=1 ROUNDS=1 PATIENT
jump-flush          claim    holds OPS_0=1 FLUSHES_1=1 ROUNDS=1 JUMPS=1
fork-in-handler     claim    holds OPS_0=1 OPS_1=1 ROUNDS=1 FORK_HANDLERS=1
two-spans           handback holds SPANS=2 OPS=1 OTHERS=1
END
}

# shellcheck disable=SC2317
large_runs() {
    cat <<'END'
thread-tso          claim    holds OPS_0=6 ENDS_0=3 HANDLERS=2 ROUNDS=6
thread-weak         claim    holds OPS_0=6 ENDS_0=3 HANDLERS=2 ROUNDS=6 WEAK
all-tso             claim    holds OPS_0=2 ENDS_0=1 OPS_1=1 FORKS_1=1 FLUSHES_1=1 ROUNDS=1
all-weak            claim    holds OPS_0=2 ENDS_0=1 OPS_1=1 FORKS_1=1 FLUSHES_1=1 ROUNDS=1 WEAK
all-self            claim    holds OPS_0=2 ENDS_0=1 OPS_1=1 FORKS_1=1 FLUSHES_1=1 ROUNDS=1 FLUSH_MARKS_SELF
two-rounds          claim    holds OPS_0=2 OPS_1=1 FORKS_1=1 FLUSHES_1=1 ROUNDS=2
no-circle           claim    holds OPS_0=1 FLUSHES_0=1 FORKS_0=1 FLUSHES_1=1 FORKS_1=1 ROUNDS=1 PATIENT
no-circle-self      claim    holds OPS_0=1 FLUSHES_0=1 FORKS_0=1 FLUSHES_1=1 FORKS_1=1 ROUNDS=1 PATIENT FLUSH_MARKS_SELF
jump                claim    holds OPS_0=1 FORKS_1=1 FLUSHES_1=1 ROUNDS=1 JUMPS=1
fork-in-handler     claim    holds OPS_0=2 OPS_1=2 ROUNDS=2 FORK_HANDLERS=1
one-span            handback holds OPS=4 ROUNDS=3
two-spans           handback holds SPANS=2 OPS=1
END
}

broken_runs() {
    cat <<'END'
NO_BARRIER            claim    broken OPS_0=1
NO_BARRIER            claim    broken OPS_0=1 WEAK
FORK_NO_BARRIER       claim    broken OPS_0=1 FORKS_1=1 ROUNDS=1
BARRIER_FIRST         claim    broken OPS_0=1
HEAP_BEFORE_BUSY      claim    broken OPS_0=1
NO_RELEASE            claim    broken OPS_0=1 WEAK
HANDLER_CLEARS_BUSY   claim    broken OPS_0=1 HANDLERS=1
HANDLER_USES_HEAP     claim    broken OPS_0=1 HANDLERS=1
MARK_KEPT             claim    broken OPS_0=1
MARK_KEPT             claim    broken OPS_0=2 FORKS_1=1
MARK_KEPT_AT_END      claim    broken OPS_0=1 ENDS_0=1
NO_RECHECK            claim    broken OPS_0=2
NO_SECOND_LOOK        claim    broken OPS_0=1
TAKE_UNMARKED         claim    broken OPS_0=1 FORKS_1=1 ROUNDS=1
CLAIM_EARLY           claim    broken OPS_0=1
NO_CLAIM_LOCK         claim    broken OPS_0=2 FLUSHES_1=1 ROUNDS=1
END_WITHOUT_LOCK      claim    broken OPS_0=1 ENDS_0=1
WAITING_LATE          claim    broken OPS_0=1 FORKS_1=1 ROUNDS=1
FORK_SKIPS_VACANT     claim    broken OPS_0=1 FORKS_1=1 ROUNDS=1
FORK_NOT_OWN          claim    broken OPS_0=1 FORKS_1=1 ROUNDS=1
FLUSH_STAYS           claim    broken OPS_0=0 FLUSHES_0=1 FORKS_1=1 ROUNDS=1 PATIENT
FLUSH_RETURNS_BLIND   claim    broken OPS_0=0 FLUSHES_0=1 FORKS_1=1 ROUNDS=1
ABANDON_WITHOUT_LOCK  claim    broken OPS_0=1 ROUNDS=1 JUMPS=1
MARK_KEPT_LOST        claim    broken OPS_0=1 FLUSHES_1=1 ROUNDS=1 JUMPS=1
WAKE_BLIND            claim    broken OPS_0=1 FLUSHES_1=1 ROUNDS=1 JUMPS=1
FORK_TRUSTS_LATE      claim    broken OPS_0=1 OPS_1=1 ROUNDS=1 FORK_HANDLERS=1
FORK_TRUSTS_OWN       claim    broken OPS_0=1 OPS_1=1 ROUNDS=1 FORK_HANDLERS=1
QUEUED_LATE           handback broken
LINK_FIRST            handback broken
WITHDRAW_BLIND        handback broken
STAYS_LISTED          handback broken
PUT_DIRECTLY          handback broken
NEXT_LATE             handback broken SPANS=2 OPS=1 OTHERS=1
NO_FINISH             handback broken
END_UNDRAINED         handback broken
UNLINKED              handback broken
END
}

# One run; prints its line. The broken ones are named after their macro.
verify() {
    local label=$1 model=$2 expected=$3 flags=() macro dir log begun got states depth optimize=-O1
    local hash=$HASH_BITS result=good
    shift 3
    [ "$expected" = holds ] || flags+=("-D$label") optimize=-O0 hash=18 # over at once: the compiler takes the time
    for macro; do flags+=("-D$macro"); done
    dir=$(mktemp -d)
    log=$dir/log
    begun=$(date +%s%N)
    if cd "$dir" && spin -a "${flags[@]}" "$here/$model.pml" >"$log" 2>&1 &&
        gcc $optimize -w -DSAFETY -DCOLLAPSE -DMEMLIM="$MEMORY_MIB" -o pan pan.c >>"$log" 2>&1; then
        nice -n 10 ./pan -n -m1000000 -w"$hash" >"$log" 2>&1
    fi
    states=$(awk '/states, stored/ { print $1 }' "$log")
    depth=$(sed -n 's/.*depth reached \([0-9]*\), errors.*/\1/p' "$log")
    if grep -q 'assertion violated' "$log"; then
        got=assertion
    elif grep -q 'invalid end state (at' "$log"; then
        got=deadlock
    elif grep -q 'errors: 0' "$log" && ! grep -qE 'not completed|too small|out of memory' "$log"; then
        got=holds
    else
        got=unfinished
    fi
    case $expected:$got in
    holds:holds | broken:assertion | broken:deadlock) ;;
    *) result=SURPRISE ;;
    esac
    printf '%-8s %-6s %-20s %-10s %10s states, depth %4s, %5s ms  %s%s\n' "$model" "$expected" "$label" "$got" \
        "${states:-?}" "${depth:-?}" "$((($(date +%s%N) - begun) / 1000000))" "$result" "${*:+  ($*)}"
    if [ "$got" = unfinished ]; then tail -n 5 "$log"; fi
    cd "$here" && rm -rf "$dir"
    [ "$result" = good ]
}

for tool in spin gcc; do
    command -v "$tool" >/dev/null || {
        echo "verify.sh: no $tool: nothing was checked"
        exit 77
    }
done
case ${1:-} in
'') right=small_runs HASH_BITS=22 ;;
--large) right=large_runs HASH_BITS=25 ;;
*) echo "usage: verify.sh [--large]" >&2 && exit 2 ;;
esac
JOBS=${JOBS:-2}
MEMORY_MIB=${MEMORY_MIB:-2900}

status=0
while read -r label model expected macros; do
    while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n || status=1; done
    # shellcheck disable=SC2086 # a list of macros
    verify "$label" "$model" "$expected" $macros &
done < <("$right" && broken_runs)
while [ -n "$(jobs -p)" ]; do wait -n || status=1; done
if [ "$status" = 0 ]; then echo "verify.sh: all as expected"; else echo "verify.sh: surprises, see above"; fi
exit "$status"
