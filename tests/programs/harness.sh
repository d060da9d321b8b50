# What cases are written in. Sourced by one.sh.
# shellcheck shell=bash

servers=()
stop_servers() {
    local status=$? server
    # The last words of servers, when something went wrong.
    if ((status)) && ((${#servers[@]})); then tail -qn 3 ./*.log >&2 || true; fi
    for server in "${servers[@]}"; do kill -KILL "$server" 2>/dev/null || true; done
    if declare -F on_exit >/dev/null; then on_exit; fi
}
trap stop_servers EXIT
trap 'exit 143' HUP INT TERM

die() {
    echo "case: $*" >&2
    exit 1
}

# by_mode QUICK FULL: a size.
by_mode() { if [[ $TIDEPROG_MODE == quick ]]; then echo "$1"; else echo "$2"; fi; }

# under PROGRAM [ARGUMENTS]: run it, and what it starts, on the malloc of this run.
under() { env LD_PRELOAD="$TIDEPROG_PRELOAD" "$@"; }

# status_of COMMAND...: prints how it ended, for commands that are meant to fail.
status_of() {
    local status=0
    "$@" || status=$?
    echo "status $status"
}

# prove PROGRAM [ARGUMENTS]: the loader must bind every use of malloc, free, calloc and realloc in this program, and in
# what it starts, to the malloc of this run. Give arguments with which it starts and ends at once.
prove() {
    local expected=${TIDEPROG_PRELOAD:-libc.so.6} log=.bindings bindings
    rm -rf $log && mkdir $log
    (
        export LD_PRELOAD=$TIDEPROG_PRELOAD LD_DEBUG=bindings LD_BIND_NOW=1 LD_DEBUG_OUTPUT=$PWD/$log/of
        exec "$@"
    ) >/dev/null 2>&1 </dev/null || true
    # "binding file USER [0] to OWNER [0]: normal symbol `malloc' [GLIBC_2.2.5]". An OWNER that is the program itself
    # is one that is not position independent and takes malloc's address: it owns an entry that jumps to the malloc it is
    # bound to.
    bindings=$(cat $log/of.* | sed -n "s/.*binding file \([^ ]*\) .* to \([^ ]*\) .*symbol \`\(malloc\|free\|calloc\|realloc\)'.*/\3 is \2 in \1/p")
    rm -rf $log
    bindings=$(grep -vF " is $1 in " <<<"$bindings" || true)
    if ! grep -q "^malloc is .*$expected in " <<<"$bindings"; then die "$1: its malloc is not that of $expected"; fi
    if grep -v " is .*$expected in " <<<"$bindings" >&2; then die "$1 does not use only $expected (above)"; fi
    echo "$1" >>.proofs
}

# start PROGRAM [ARGUMENTS]: a server; leaves its process id in $server and its output in PROGRAM.log.
start() {
    env LD_PRELOAD="$TIDEPROG_PRELOAD" "$@" >>"$1.log" 2>&1 </dev/null &
    server=$!
    servers+=("$server")
}

# until_true COMMAND...: wait up to 20 s for it.
until_true() {
    local i
    for ((i = 0; i < 400; i++)); do
        if "$@" >/dev/null 2>&1; then return; fi
        if [[ -n ${server:-} ]] && ! kill -0 "$server" 2>/dev/null; then die "the server ended; waited for: $*"; fi
        sleep 0.05
    done
    die "waited in vain for: $*"
}

# mapped PID: the library must be in that process, if this is the run with the library.
mapped() {
    [[ -r /proc/$1/maps ]] || die "process $1 is gone"
    if [[ $TIDEPROG_VARIANT == library ]]; then
        grep -qF "$TIDEPROG_PRELOAD" "/proc/$1/maps" || die "the library is not mapped in process $1"
    fi
    echo "process $1" >>.proofs
}

# ended PID: wait for a server that was told to end, and print how it did.
ended() {
    local status=0
    wait "$1" || status=$?
    echo "the server ended with $status"
}

# checksums FILES: names and contents, for files too long to print.
checksums() { sha256sum "$@"; }
