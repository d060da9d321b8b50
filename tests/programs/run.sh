#!/usr/bin/env bash
# Runs real programs twice, on the system's malloc and with the library preloaded, and compares what they print.
#
#   run.sh [--quick|--full] [--library PATH] [--only REGEX] [--keep] [--list] [--self-test]
#
# A case passes when, with the library,
#   - its output and exit status are those of the control run (and the control run itself ends with 0),
#   - no line of its output, stderr or server logs starts with `tidemalloc:`, and the loader ignored no preload,
#   - it has shown that the library was in use: the loader bound malloc to it (`prove`, in harness.sh),
#   - it leaves no process behind and ends before its time limit.
# A case is a shell function of cases/*.sh; it runs in an empty directory of its own, by one.sh. Both runs use the same
# directory name, so that paths in their output agree. A missing program is a SKIP, with --full a FAIL.
# --self-test turns the question round: every broken library of broken.c must be caught.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mode=quick
library=$here/../../build/libtidemalloc.so
only=.
keep=no
action=run

usage() { sed -n '4s/^# *//p' "$here/run.sh"; }
while (($#)); do
    case $1 in
    --quick) mode=quick ;;
    --full) mode=full ;;
    --library) library=${2:?--library needs a path} && shift ;;
    --only) only=${2:?--only needs a regular expression} && shift ;;
    --keep) keep=yes ;;
    --list) action=list ;;
    --self-test) action=self-test ;;
    -h | --help) usage && exit 0 ;;
    *) echo "run.sh: unknown argument $1" >&2 && usage >&2 && exit 2 ;;
    esac
    shift
done

export PATH=/usr/sbin:/usr/bin:/sbin:/bin
for directory in /usr/lib/postgresql/*/bin; do PATH+=:$directory; done
case_names=()
declare -A case_mode case_commands case_packages
# define NAME quick|full "COMMANDS" "PACKAGES": a case, its smallest mode, what it runs and where Debian has that.
define() {
    case_names+=("$1")
    case_mode[$1]=$2 case_commands[$1]=$3 case_packages[$1]=$4
}
for file in "$here"/cases/*.sh; do
    # shellcheck source=/dev/null
    source "$file"
done

if [[ $action == list ]]; then
    for name in "${case_names[@]}"; do
        printf '%-18s %-6s %s\n' "$name" "${case_mode[$name]}" "${case_packages[$name]}"
    done
    exit 0
fi

work=$(mktemp -d --suffix=.tideprog)

# Processes of this run, whoever started them: those that stand in our directory or carry its name in their environment
# (servers overwrite the latter with their title).
leftover_processes() {
    local process
    for process in /proc/[0-9]*; do
        [[ ${process#/proc/} == "$$" || ${process#/proc/} == "$BASHPID" ]] && continue
        if [[ $(readlink "$process/cwd" 2>/dev/null) == "$work"/run* ]] ||
            grep -qsazF "TIDEPROG_WORK=$work" "$process/environ" 2>/dev/null; then
            echo "${process#/proc/}"
        fi
    done
}
# Again until there are none: one may fork while it is looked for.
kill_leftovers() {
    local process round
    for round in {1..20}; do
        ((round == 1)) || sleep 0.05
        for process in $(leftover_processes); do kill -KILL "$process" 2>/dev/null || true; done
        [[ -n $(leftover_processes) ]] || return 0
    done
}
clean_up() {
    trap - EXIT HUP INT TERM
    [[ -z ${runner:-} ]] || kill -TERM "$runner" 2>/dev/null || true
    kill_leftovers
    if [[ $keep == yes ]]; then echo "kept: $work"; else rm -rf "$work"; fi
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# The scripts and the library are copied: the user of the postgres case may not be able to read the repository, and a
# rebuild during the run must not swap the library under a running program.
chmod 755 "$work"
mkdir "$work/lib"
cp -r "$here" "$work/kit"
chmod -R a+rX "$work/kit"

now_ms() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }

# run_variant NAME VARIANT PRELOAD: run a case once; leaves VARIANT.{out,err,status} and VARIANT/ in the case's directory.
run_variant() {
    local name=$1 variant=$2 preload=$3 status=0 as_user=() results=$work/$1
    rm -rf "$work/run" && mkdir -p "$work/run" "$results"
    # PostgreSQL refuses to run as root.
    if [[ $name == postgres && $EUID == 0 ]]; then
        local user=postgres
        id -u $user &>/dev/null || user=nobody
        chown "$user" "$work/run"
        as_user=(setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups)
    fi
    local limit_s=120
    [[ $mode == quick ]] || limit_s=600
    (
        cd "$work/run"
        unset LD_PRELOAD LD_DEBUG LD_BIND_NOW MAKEFLAGS MAKELEVEL CFLAGS CXXFLAGS LDFLAGS PYTHONMALLOC
        export LC_ALL=C TZ=UTC HOME=$work/run TMPDIR=$work/run
        export TIDEPROG_WORK=$work TIDEPROG_VARIANT=$variant TIDEPROG_PRELOAD=$preload TIDEPROG_MODE=$mode
        exec timeout --kill-after=10 "$limit_s" "${as_user[@]}" bash "$work/kit/one.sh" "$name"
    ) >"$results/$variant.out" 2>"$results/$variant.err" </dev/null &
    runner=$!
    wait "$runner" || status=$?
    runner=
    if [[ -n $(leftover_processes) ]]; then
        sleep 1 # children of a stopped server may need a moment to follow it
        if [[ -n $(leftover_processes) ]]; then
            echo "left processes behind" >"$results/$variant.left"
            kill_leftovers
        fi
    fi
    echo $status >"$results/$variant.status"
    mv "$work/run" "$results/$variant"
}

# complaint RESULTS: prints the reason why the two runs of a case do not agree; nothing when all is well.
complaint() {
    local results=$1 variant status
    for variant in system library; do
        status=$(<"$results/$variant.status")
        if [[ $status == 124 || $status == 137 ]]; then echo "timed out or killed ($variant malloc)" && return; fi
        if [[ $status != 0 ]]; then echo "exit status $status ($variant malloc)" && return; fi
        if [[ -e $results/$variant.left ]]; then echo "left processes behind ($variant malloc)" && return; fi
        if [[ ! -s $results/$variant.out ]]; then echo "printed nothing ($variant malloc)" && return; fi
        if [[ ! -s $results/$variant/.proofs ]]; then echo "no proof which malloc was in use ($variant)" && return; fi
    done
    if grep -qs '^tidemalloc:' "$results/library.out" "$results/library.err" ||
        grep -rqs --include='*.log' '^tidemalloc:' "$results/library"; then
        echo "the library complained" && return
    fi
    if grep -qs 'ERROR: ld.so: object' "$results/library.err"; then echo "the loader ignored the library" && return; fi
    if ! cmp -s "$results/system.out" "$results/library.out"; then echo "output differs"; fi
}

# What there is to see about a failure, indented.
explain() {
    local results=$1
    {
        { diff -U0 "$results/system.out" "$results/library.out" | tail -n +3 | head -6; } || true
        [[ $(<"$results/system.status") == 0 ]] || tail -n 4 "$results/system.err"
        tail -n 6 "$results/library.err" 2>/dev/null
        grep -rhs --include='*.log' '^tidemalloc:' "$results/library" | head -3
    } 2>/dev/null | cut -c1-200 | sed 's/^/    /' || true
}

# run_case NAME LIBRARY: sets `verdict` and `reason`.
run_case() {
    local name=$1 preload=$2 control_preload='' command missing=''
    for command in ${case_commands[$name]}; do
        type -P "$command" >/dev/null || missing+=" $command"
    done
    if [[ -z $missing ]] && declare -F "needs_$name" >/dev/null && ! "needs_$name" 2>/dev/null; then missing=" its files"; fi
    if [[ -n $missing ]]; then
        verdict=SKIP reason="no$missing: install ${case_packages[$name]}"
        [[ $mode == quick ]] || verdict=FAIL
        return
    fi
    # Debian links redis to jemalloc; the control run is to be glibc's malloc all the same.
    [[ $name != redis_* ]] || control_preload=libc.so.6
    verdict=FAIL
    run_variant "$name" system "$control_preload"
    if [[ $(<"$work/$name/system.status") != 0 ]]; then
        # Nothing to compare with.
        reason="exit status $(<"$work/$name/system.status") on the system's malloc"
        return
    fi
    run_variant "$name" library "$preload"
    reason=$(complaint "$work/$name")
    [[ -n $reason ]] || verdict=ok
}

take_library() {
    if [[ ! -r $1 ]]; then echo "run.sh: cannot read the library $1" >&2 && exit 2; fi
    preload=$work/lib/$(basename "$1")
    cp -L "$1" "$preload"
    chmod 755 "$preload"
}

run_all() {
    local name started passed=0 failed=0 skipped=0
    take_library "$library"
    for name in "${case_names[@]}"; do
        [[ $name =~ $only ]] || continue
        [[ $mode == full || ${case_mode[$name]} == quick ]] || continue
        started=$(now_ms)
        run_case "$name" "$preload"
        local took=$(($(now_ms) - started))
        printf '%-4s %-18s (%d.%d s)%s\n' "$verdict" "$name" $((took / 1000)) $((took % 1000 / 100)) "${reason:+ $reason}"
        case $verdict in
        ok) passed=$((passed + 1)) ;;
        SKIP) skipped=$((skipped + 1)) ;;
        FAIL)
            failed=$((failed + 1))
            explain "$work/$name"
            ;;
        esac
        [[ $keep == yes ]] || rm -rf "${work:?}/$name"
    done
    echo "$passed passed, $failed failed, $skipped skipped"
    if ((passed + failed + skipped == 0)); then echo "run.sh: no case matches $only" >&2 && return 1; fi
    ((failed == 0))
}

# Each way to be broken, the case that has to notice it, and the words it has to notice it with.
self_test() {
    local flaw name words passed=0 failed=0
    while read -r flaw name words; do
        gcc -O1 -fPIC -shared -fno-builtin -w -D"FLAW_$flaw" -o "$work/lib/libbroken_$flaw.so" "$here/broken.c"
        run_case "$name" "$work/lib/libbroken_$flaw.so"
        if [[ $flaw == NONE && $verdict == ok ]] || [[ $flaw != NONE && $verdict == FAIL && $reason =~ $words ]]; then
            printf 'ok   %-18s %s: %s\n' "$flaw" "$name" "$verdict${reason:+, $reason}"
            passed=$((passed + 1))
        else
            printf 'FAIL %-18s %s: %s\n' "$flaw" "$name" "$verdict${reason:+, $reason}"
            failed=$((failed + 1))
        fi
        rm -rf "${work:?}/$name"
    done <<'FLAWS'
NONE perl ok
NONE python ok
ABORT perl exit status
ABORT redis_session exit status|output differs|left processes
ABORT stress exit status|output differs
ABORT gcc exit status|output differs
TWICE perl exit status|output differs
TWICE sqlite exit status|output differs|timed out
TORN_REALLOC lua exit status|output differs
UNCLEAN_CALLOC shell exit status|output differs
UNCLEAN_CALLOC php exit status|output differs
CHATTY perl the library complained
CHATTY memcached_session the library complained
MUTE perl exit status
MUTE nginx exit status
FLAWS
    echo "$passed passed, $failed failed, 0 skipped"
    ((failed == 0))
}

if [[ $action == self-test ]]; then self_test; else run_all; fi
