# Compilers, version control, databases, compression, the shell.
# shellcheck shell=bash disable=SC2154,SC2164,SC2016 # $inputs comes from one.sh, which runs with set -e

# same_code COMPILER FILE [FLAGS]: compile to assembly and that to an object file; the bytes of both are compared.
same_code() {
    local compiler=$1 file=$2
    shift 2
    under "$compiler" "$@" -S "$file" -o "$compiler.s"
    under "$compiler" -c "$compiler.s" -o "$compiler.o"
    checksums "$compiler.s" "$compiler.o"
}

define gcc quick "gcc python3" "gcc libc6-dev python3"
case_gcc() {
    prove gcc --version
    prove "$(gcc -print-prog-name=cc1)" --version
    prove ld --version
    python3 "$inputs/make_source.py" c "$(by_mode 120 4000)" >big.c
    same_code gcc big.c -O2 -g -frandom-seed=1
    under gcc gcc.o -o program
    ./program
    status_of under gcc -c big.c -D'FAULT=}' -o fault.o 2>&1
}

define gcc_lto full "gcc python3" "gcc libc6-dev python3"
case_gcc_lto() {
    prove "$(gcc -print-prog-name=lto1)" --version
    python3 "$inputs/make_source.py" c 3000 >big.c
    under gcc big.c -O2 -flto=2 -frandom-seed=1 -o program
    checksums program
    ./program
}

define gxx full "g++ python3" "g++ python3"
case_gxx() {
    prove "$(g++ -print-prog-name=cc1plus)" --version
    python3 "$inputs/make_source.py" c++ "$(by_mode 2 30)" >big.cc
    same_code g++ big.cc -O1 -g -std=c++17 -frandom-seed=1
    under g++ g++.o -o program
    under ./program
}

define clang quick "clang python3" "clang libc6-dev python3"
case_clang() {
    prove clang --version
    python3 "$inputs/make_source.py" c "$(by_mode 80 1500)" >big.c
    same_code clang big.c -O2 -g
    under clang clang.o -o program
    ./program
}

define lld full "clang ld.lld python3" "clang lld python3"
case_lld() {
    prove ld.lld --version
    python3 "$inputs/make_source.py" c 800 >big.c
    clang -c -g -ffunction-sections big.c
    # lld is a C++ program with as many threads as it is told to have.
    for _ in {1..10}; do
        under clang -fuse-ld=lld -Wl,--threads=6,--gc-sections,--icf=all,-O2 big.o -o program
        checksums program
    done
    under ./program
}

define git quick "git python3" "git python3"
case_git() {
    prove git --version
    export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_PAGER=cat
    under git init -q -b main repository
    cd repository
    git config gc.auto 0
    git config maintenance.auto false
    python3 "$inputs/make_history.py" "$(by_mode 400 6000)" | under git fast-import --quiet
    under git rev-parse main
    under git reset -q --hard
    under git log --stat --format='%H %s' | sha256sum
    under git log -p -M -S'line 5' --format='%h %s' | sha256sum
    under git diff main~100 main | sha256sum
    under git -c grep.threads=4 grep -c 'word3' | sha256sum
    under git blame file1.txt | sha256sum
    under git -c pack.threads=4 repack -a -d -f -q --depth=50 --window=20
    under git -c pack.threads=4 gc -q --prune=now
    under git fsck --full --strict
    under git count-objects -v | grep -E '^(count|packs|garbage)'
    under git clone -q --no-local . ../clone
    under git -C ../clone rev-parse HEAD
    under git -C ../clone -c user.name=t -c user.email=t@example.org -c advice.detachedHead=false checkout -q main~50
    # A three-way merge with a conflict, and a rebase.
    cd ../clone
    export GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@example.org GIT_AUTHOR_DATE='1700000000 +0000'
    export GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@example.org GIT_COMMITTER_DATE='1700000000 +0000'
    under git checkout -q -b side
    echo 'from the side' >>file2.txt
    under git commit -q -a -m side
    status_of under git merge -q -m merged main
    git merge --abort || true
    under git rebase -q -X theirs main
    under git rev-parse HEAD
}

define sqlite quick "sqlite3" "sqlite3"
case_sqlite() {
    prove sqlite3 -version
    sed "s/@ROWS@/$(by_mode 20000 300000)/" "$inputs/script.sql" | under sqlite3 -bail test.db
    under sqlite3 test.db .dump | sha256sum
}

define ghostscript quick "gs" "ghostscript fonts-urw-base35"
case_ghostscript() {
    prove gs --version
    render() { under gs -q -dSAFER -dBATCH -dNOPAUSE --permit-file-read="$inputs/" "$@"; }
    local pages
    pages=$(by_mode 3 40)
    render -dPages="$pages" -sDEVICE=ppmraw -r100 -dTextAlphaBits=4 -dGraphicsAlphaBits=4 -sOutputFile=page%d.ppm "$inputs/page.ps"
    checksums page*.ppm
    render -dPages="$pages" -sDEVICE=pdfwrite -sOutputFile=pages.pdf "$inputs/page.ps"
    # Bands by several threads.
    render -sDEVICE=pgmraw -r150 -dNumRenderingThreads=4 -dBandHeight=64 -dMaxBitmap=100000 -sOutputFile=band%d.pgm pages.pdf
    checksums band*.pgm
}

define make quick "make gcc ar python3" "make gcc binutils libc6-dev python3"
case_make() {
    prove make --version
    prove ar --version
    prove sh -c :
    python3 "$inputs/make_source.py" project "$(by_mode 30 300)"
    under make -s -j2
    ./project
    checksums libproject.a
    touch part3.c
    under make -j2 | sort
    under make -q && echo "up to date"
}

define shell quick "bash sort awk sed grep tar xz gzip zstd pigz openssl find" \
    "bash coreutils mawk sed grep tar xz-utils gzip zstd pigz openssl findutils"
case_shell() {
    local tool lines
    for tool in bash sort awk grep xz zstd; do prove $tool --version; done
    lines=$(by_mode 200000 1500000)
    under awk -v n="$lines" 'BEGIN { x = 42; for (i = 0; i < n; i++) { x = (x * 16807) % 2147483647; print x, i, x % 1000 } }' >numbers
    checksums numbers
    under sort --parallel=4 -S 8M -k3,3n -k1,1 numbers | sha256sum
    under sort --parallel=2 -u -k3,3 numbers | wc -l
    under awk '{ count[$3]++; text[$3] = text[$3] $2 } END { for (k in count) print k, count[k], length(text[k]) }' numbers | sort | sha256sum
    under grep -cE '(12|34).*9 ' numbers
    under grep -P '(\d)\1\1' numbers | wc -l
    under sed -E 's/([0-9]+) ([0-9]+)/\2 \1/; s/99+/<&>/g' numbers | sha256sum
    under paste numbers numbers | under cut -f2 | under tr 0-9 a-j | under uniq -c | sha256sum
    under split -n 4 numbers part.
    under tar --sort=name --mtime=@0 --owner=0 --group=0 -cf parts.tar part.*
    for tool in "xz -1 -T2 --block-size=1MiB" "gzip -6" "zstd -q -T2 -5" "pigz -p 3" "bzip2 -1"; do
        type -P "${tool%% *}" >/dev/null || continue
        # shellcheck disable=SC2086
        under $tool -c parts.tar >parts.packed
        # shellcheck disable=SC2086
        under ${tool%% *} -dc <parts.packed | sha256sum
    done
    under openssl enc -aes-256-ctr -pbkdf2 -pass pass:tide -S 0011223344556677 -in parts.tar | sha256sum
    under find . -name 'part.*' -size +1k -print0 | under sort -z | under xargs -0 -P2 -n1 cksum | sort
    # shellcheck disable=SC2016
    under bash -c '
        declare -A table
        list=()
        for ((i = 0; i < 20000; i++)); do table[key$((i % 700))]+=$i; list+=("$i"); done
        echo "${#table[@]} ${#table[key7]} ${#list[@]} ${list[*]: -3}"
        text=$(printf "%s " "${list[@]}"); text=${text//9/nine}; echo "${#text}"
        for i in 1 2 3 4 5; do (echo "subshell $i $((${#text} * i))"); done | sort
        mapfile -t lines <numbers; echo "${#lines[@]}"
        read -r -a words <<<"$text"; echo "${#words[@]}"
        wait'
}

define stress full "stress-ng" "stress-ng"
case_stress() {
    prove stress-ng --version
    local turns stressor
    turns=$(by_mode 1 3)
    # stress-ng restarts a worker that dies of a signal: look for what it says about that, too.
    stressed() {
        local status=0
        under stress-ng "$@" --verify --oomable --no-rand-seed --temp-path "$PWD" --timeout 100 -v >stress.log 2>&1 || status=$?
        if ((status)) || grep -E 'SIG(SEGV|ABRT|BUS|ILL)|abort|fail:|error:|unsuccessful' stress.log >&2; then
            tail -5 stress.log >&2
            return 1
        fi
        echo "$1 $(grep -o 'successful run completed' stress.log)"
    }
    stressed --malloc 2 --malloc-ops $((turns * 20000)) --malloc-bytes 64M --malloc-pthreads 2
    stressed --malloc 2 --malloc-ops $((turns * 2000)) --malloc-bytes 8M --malloc-max 2000 --malloc-touch
    stressed --malloc 2 --malloc-ops $((turns * 50000)) --malloc-bytes 1M --malloc-max 20000 --malloc-zerofree
    stressed --malloc 4 --malloc-ops $((turns * 100000)) --malloc-bytes 2K --malloc-pthreads 4 --malloc-thresh 64K
    for stressor in list heapsort tsearch hsearch zlib; do
        stressed --$stressor 2 --$stressor-ops $((turns * 10))
    done
    stressed --tree 2 --tree-ops $((turns * 2)) --tree-size 5000
    stressed --pthread 2 --pthread-ops $((turns * 2000))
}

define cmake full "cmake ninja g++" "cmake ninja-build g++"
case_cmake() {
    prove cmake --version
    prove ninja --version
    python3 "$inputs/make_source.py" project 100
    printf '%s\n' 'cmake_minimum_required(VERSION 3.13)' 'project(generated C)' 'file(GLOB parts CONFIGURE_DEPENDS part*.c)' \
        'add_executable(generated main.c ${parts})' >CMakeLists.txt
    under cmake -G Ninja -B build -DCMAKE_BUILD_TYPE=Release . | grep -E '^-- (The C|Configuring|Generating) ' | sed 's/ (.*//'
    under ninja -C build -j2 | tail -1
    ./build/generated
    touch part4.c
    under ninja -C build -j2 -d explain 2>/dev/null | grep -c 'Building' || true
}

define gdb full "gdb gcc python3" "gdb gcc python3"
case_gdb() {
    prove gdb --version
    python3 "$inputs/make_source.py" c 1500 >big.c
    gcc -g -O1 big.c -o program
    # Debug information is read by several C++ threads.
    under gdb -nx -batch -ex 'maint set worker-threads 4' -ex 'info functions function_1[0-9]' -ex 'info types node' \
        -ex 'disassemble main' -ex 'info scope function_7' program 2>/dev/null | sha256sum
}
