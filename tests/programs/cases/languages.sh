# Interpreters and runtimes, each with a script of its own under inputs/.
# shellcheck shell=bash disable=SC2154 # $inputs comes from one.sh

define python full "python3" "python3"
case_python() {
    prove python3 -c 0
    under python3 "$inputs/work.py" "$(by_mode 1 6)"
}

define python_malloc quick "python3" "python3"
case_python_malloc() {
    prove python3 -c 0
    PYTHONMALLOC=malloc under python3 "$inputs/work.py" "$(by_mode 1 6)"
}

# Python's own test modules. What is compared: each module's name and count of tests, and that all passed.
python_tests() {
    prove python3 -c 0
    under python3 -m test -j0 --timeout 300 --tempdir "$PWD" -v "$@" >tests.log 2>&1 || {
        tail -40 tests.log >&2
        return 1
    }
    grep -aE '^(Ran|OK|FAILED)|^[^ ]+ (passed|failed|crashed|skipped)|^Tests result|^All [0-9]+ tests' tests.log |
        sed -E 's/ in [0-9.]+s$//' | sort
}
needs_python_tests() { /usr/bin/python3 -c 'import test.test_list, test.regrtest'; }

define python_tests quick "python3" "libpython3.11-testsuite"
case_python_tests() {
    # shellcheck disable=SC2046
    python_tests $(by_mode "test_list test_dict test_set test_thread test_memoryview test_array" \
        "test_list test_dict test_set test_thread test_memoryview test_array test_bytes test_unicode
        test_io test_json test_re test_gc test_weakref test_threading test_threading_local test_subprocess test_fork1 test_queue
        test_zlib test_lzma test_ctypes test_pickle test_deque test_multiprocessing_fork test_faulthandler")
}
needs_python_tests_malloc() { needs_python_tests; }

define python_tests_malloc full "python3" "libpython3.11-testsuite"
case_python_tests_malloc() {
    export PYTHONMALLOC=malloc
    python_tests test_list test_dict test_set test_bytes test_unicode test_json test_re test_gc test_threading test_pickle test_deque
}

define node quick "node" "nodejs"
case_node() {
    prove node -e 0
    under node "$inputs/work.js" "$(by_mode 1 6)"
}

define perl quick "perl" "perl"
case_perl() {
    prove perl -e 0
    under perl "$inputs/work.pl" "$(by_mode 1 6)"
}

define lua quick "lua5.4" "lua5.4"
case_lua() {
    prove lua5.4 -v
    under lua5.4 "$inputs/work.lua" "$(by_mode 1 6)"
}

define ruby quick "ruby" "ruby"
case_ruby() {
    prove ruby -e 0
    under ruby "$inputs/work.rb" "$(by_mode 1 6)"
}

define php quick "php" "php-cli"
case_php() {
    # -n: no extensions. PHP opens those with RTLD_DEEPBIND, so that they free with libc what libc's strdup allocated with
    # the preloaded malloc: Debian's PHP crashes with any preloaded allocator, jemalloc included.
    prove php -n -v
    under php -n "$inputs/work.php" "$(by_mode 1 6)"
    # PHP's own allocator off: every allocation is a malloc.
    USE_ZEND_ALLOC=0 under php -n "$inputs/work.php" 1
}

define java full "javac java" "openjdk-17-jdk-headless"
case_java() {
    prove java -version
    cp "$inputs/Work.java" .
    under javac -d . Work.java
    MALLOC_ARENA_MAX=2 under java -Xmx256m -cp . Work
}
