#!/usr/bin/env bash
# Installs what a part of the project needs and this machine lacks: fast and silent when all is there.
#   scripts/setup.sh GROUP...       the groups are listed below; "check", "bench", ... include "build" where they need it
# TIDEMALLOC_SETUP=off skips it altogether.
# shellcheck disable=SC2034 # the lists are read by name, as ${!group}
set -euo pipefail

# One group a line. `package=command`: present when the command is found, wherever it came from. `one|other`: the first
# that this release of the distribution has.
build='gcc=gcc g++=g++ libc6-dev cmake=cmake ninja-build=ninja make=make python3=python3 pkgconf=pkg-config binutils=size'
real='redis-server=redis-server redis-tools=redis-cli redis-tools=redis-benchmark memcached=memcached nginx-light|nginx=nginx curl=curl sqlite3=sqlite3 postgresql nodejs=node perl=perl lua5.4=lua5.4 ruby=ruby php-cli=php git=git ghostscript=gs fonts-urw-base35 stress-ng=stress-ng xz-utils=xz zstd=zstd pigz=pigz openssl=openssl procps=ps libpython3.11-testsuite|libpython3-testsuite'
tool='python3-rich python3-urwid python3-prometheus-client libjs-chart.js'
tooltest="$tool prometheus=prometheus python3-pyte chromium=chromium chromium-driver=chromedriver python3-selenium zsh=zsh fish=fish bash-completion man-db=man"
check="$build clang=clang libclang-rt-14-dev|libclang-rt-dev libcmocka-dev gdb=gdb valgrind=valgrind spin=spin $tooltest $real"
bench="$build libjemalloc2 libmimalloc2.0|libmimalloc3 libtcmalloc-minimal4|libtcmalloc-minimal4t64 redis-server=redis-server redis-tools=redis-cli redis-tools=redis-benchmark sqlite3=sqlite3 lua5.4=lua5.4 ghostscript=gs valgrind=valgrind $tool"
demo="$build $tool redis-server=redis-server redis-tools=redis-cli redis-tools=redis-benchmark gnuplot-nox|gnuplot=gnuplot python3-matplotlib"
arm64="$build gcc-aarch64-linux-gnu=aarch64-linux-gnu-gcc g++-aarch64-linux-gnu=aarch64-linux-gnu-g++ libc6-dev-arm64-cross qemu-user-static=qemu-aarch64-static"
musl="$build musl-tools=musl-gcc linux-libc-dev"
clang="$build clang=clang libcmocka-dev"
lint='clang-format=clang-format clang-tidy=clang-tidy cppcheck=cppcheck shellcheck=shellcheck pyflakes3=pyflakes3'
verify="$build spin=spin cbmc=cbmc"
fuzz="$build clang=clang llvm=llvm-cov libclang-rt-14-dev|libclang-rt-dev python3-hypothesis"
programs="$check openjdk-17-jdk-headless|default-jdk-headless=javac lld=ld.lld"

# Where cbmc is, if it is not in this one (Debian 12 does without).
OTHER_RELEASES=bullseye

die() {
    echo "setup: $*" >&2
    exit 1
}

# apt-get refuses to wait for another apt-get's lists, and waits for its lock on dpkg only when told.
apt() {
    LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 "$@"
}

# `one|other` -> the first that apt can install, or nothing.
choose() {
    local name
    for name in ${1//|/ }; do
        if [ -n "$(apt-cache --quiet=0 policy "$name" 2>/dev/null | awk '$1 == "Candidate:" && $2 != "(none)"')" ]; then
            echo "$name"
            return
        fi
    done
}

# A package that this release of the distribution has lost: from the same servers, out of another release, if all that it needs is in
# this one. Prints the file.
borrow() {
    local folder uri suite
    folder=$(mktemp -d)
    chmod 755 "$folder"
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
    uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
    for suite in $OTHER_RELEASES; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite main" >"$folder/list"
        local options=(-o Dir::Etc::SourceList="$folder/list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$folder/lists"
            -o Dir::Cache="$folder/cache")
        (cd "$folder" && apt "${options[@]}" update && apt "${options[@]}" download "$1") >/dev/null 2>&1 || continue
        if apt -s install --no-install-recommends "$folder/$1"_*.deb >/dev/null 2>&1; then
            echo "$folder/$1"_*.deb
            return
        fi
        rm -f "$folder/$1"_*.deb
    done
}

# Runs as root. Servers must not start: while packages are installed, a policy says no (invoke-rc.d asks it).
install_as_root() {
    local policy=/usr/sbin/policy-rc.d saved='' chosen=() entry name
    exec 9>/run/lock/tidemalloc-setup.lock
    flock 9
    for entry; do
        name=$(choose "$entry")
        if [ -z "$name" ]; then
            apt update || true
            name=$(choose "$entry")
            [ -n "$name" ] || [ "$entry" != cbmc ] || name=$(borrow "$entry")
            [ -n "$name" ] || die "no package ${entry//|/ or } in this distribution: install it by hand, then set TIDEMALLOC_SETUP=off"
        fi
        chosen+=("$name")
    done

    if ! { [ -x "$policy" ] && { "$policy" redis-server start >/dev/null 2>&1; [ $? = 101 ]; }; }; then
        if [ -e "$policy" ] || [ -L "$policy" ]; then
            saved=$(mktemp -d)
            mv "$policy" "$saved/policy-rc.d"
        fi
        # shellcheck disable=SC2064 # the values of now are meant
        trap "rm -f $policy; [ -z '$saved' ] || { mv '$saved/policy-rc.d' $policy && rmdir '$saved'; }" EXIT
        trap 'exit 1' INT TERM HUP
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi

    local log
    log=$(mktemp)
    # A stale list names files that are gone: once more with a fresh one.
    if ! apt install --no-install-recommends "${chosen[@]}" >"$log" 2>&1; then
        apt update >>"$log" 2>&1 || true
        if ! apt install --no-install-recommends "${chosen[@]}" >"$log" 2>&1; then
            tail -n 15 "$log" >&2
            rm -f "$log"
            die "could not install: ${chosen[*]}"
        fi
    fi
    rm -f "$log"
}

if [ "${1:-}" = --as-root ]; then
    shift
    install_as_root "$@"
    exit
fi

[ "$#" -gt 0 ] || die "name a group: build check bench demo arm64 musl clang lint verify fuzz programs"
[ "${TIDEMALLOC_SETUP:-on}" != off ] || exit 0
wanted=()
for group; do
    case $group in
    build | check | bench | demo | arm64 | musl | clang | lint | verify | fuzz | programs) read -r -a list <<<"${!group}" && wanted+=("${list[@]}") ;;
    *) die "unknown group $group: build check bench demo arm64 musl clang lint verify fuzz programs" ;;
    esac
done

# Present by command, or asked of dpkg: all names in one query.
missing=()
ask=()
for entry in "${wanted[@]}"; do
    if [ "${entry%%=*}" = "$entry" ]; then
        ask+=("$entry")
    elif ! command -v "${entry#*=}" >/dev/null; then
        missing+=("${entry%%=*}")
    fi
done
if [ "${#ask[@]}" -gt 0 ] && command -v dpkg-query >/dev/null; then
    mapfile -t names < <(printf '%s\n' "${ask[@]}" | tr '|' '\n')
    installed=" $(dpkg-query -W -f='${db:Status-Status}:${Package} ' "${names[@]}" 2>/dev/null || true)"
    for entry in "${ask[@]}"; do
        found=''
        for name in ${entry//|/ }; do
            [[ $installed == *" installed:$name "* ]] && found=$name
        done
        [ -n "$found" ] || missing+=("$entry")
    done
fi
[ "${#missing[@]}" -gt 0 ] || exit 0
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | awk '!seen[$0]++')

command -v apt-get >/dev/null || die "no apt-get here: install what these Debian packages hold: ${missing[*]}"
echo "setup: installing for '$*': ${missing[*]}"
if [ "$(id -u)" = 0 ]; then
    as_root=()
elif ! command -v sudo >/dev/null; then
    die "needs root: apt-get install ${missing[*]}"
elif [ -t 0 ]; then
    as_root=(sudo)
else
    as_root=(sudo -n)
fi
"${as_root[@]}" bash "$0" --as-root "${missing[@]}"
