# Entry points. CMake and Ninja do the work in build/; every target first installs what it needs (TIDEMALLOC_SETUP=off: not).
# CC, CFLAGS, LDFLAGS of the environment or command line are respected. WERROR=OFF lets warnings pass.
PREFIX ?= /usr/local
DESTDIR ?=

.DEFAULT_GOAL := all
.PHONY: all debug check check-programs check-arm64 check-musl check-clang bench battle verify fuzz soak demo lint format install uninstall clean help

all: ## build/libtidemalloc.so, build/libtidemalloc.a and build/tide (the default)
	@scripts/setup.sh build
	@scripts/build.sh release tidemalloc tidemalloc_static tide_command

debug: ## build/debug: internal checks on, and every source file compiled on its own
	@scripts/setup.sh build
	@scripts/build.sh debug

check: ## build every variant and run all tests; ends with `N passed, N failed`
	@scripts/setup.sh check
	@scripts/check.sh

check-programs: all ## run large real programs on tidemalloc (long; installs them)
	@scripts/setup.sh programs
	@tests/programs/run.sh --full

check-arm64: ## cross-compile for 64-bit ARM, run the tests in qemu-user (10 minutes)
	@scripts/setup.sh arm64
	@scripts/check-variant.sh arm64

check-musl: ## build against musl, run the tests
	@scripts/setup.sh musl
	@scripts/check-variant.sh musl

check-clang: ## build everything with clang, run the tests but the longest
	@scripts/setup.sh clang
	@scripts/check-variant.sh clang

bench: all ## measure time and memory against other allocators
	@scripts/setup.sh bench
	@scripts/build.sh release -DTIDE_BENCH=ON bench_programs
	@python3 bench/run.py $(BENCH_ARGS)

verify: ## check the models of the claim with large bounds, and prove what tests/proofs says (an hour)
	@scripts/setup.sh verify
	@tests/model/verify.sh --large
	@tests/proofs/run.sh
	@tests/proofs/run.sh --mutants

fuzz: ## fuzz each target for FUZZ_SECONDS (60), from the kept corpora
	@scripts/setup.sh fuzz
	@scripts/fuzz.sh

soak: ## hours of bursts and rests: nothing may grow (SOAK_SECONDS=1200); and all tests that are too long for check
	@scripts/setup.sh check
	@scripts/soak.sh

battle: all ## burst, then rest: what comes back, in every mode and with other allocators
	@scripts/setup.sh bench
	@scripts/build.sh release -DTIDE_BENCH=ON bench_programs
	@python3 bench/battle/run.py $(BATTLE_ARGS)

demo: all ## see memory flow back while a program runs
	@scripts/setup.sh demo
	@scripts/demo.sh

lint: ## format, static analysis, layer rule, scripts
	@scripts/setup.sh lint
	@scripts/lint.sh

format: ## rewrite C and C++ files in the project's layout
	@scripts/setup.sh lint
	@scripts/lint.sh --fix-format

install: all ## install below PREFIX (/usr/local), staged in DESTDIR if given
	@DESTDIR="$(DESTDIR)" cmake --install build --prefix "$(PREFIX)"
	@[ -n "$(DESTDIR)" ] || [ "$$(id -u)" != 0 ] || ldconfig

uninstall: all ## remove what install put there
	@scripts/uninstall.sh build "$(PREFIX)" "$(DESTDIR)"

clean: ## remove build/
	@rm -rf build

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
