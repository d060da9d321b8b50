#!/usr/bin/env python3
"""Runs programs on the library while one of its system calls fails, with each plausible error and at different times.

run.py --fault PROGRAM --work PROGRAM --library LIBRARY [--all] [--only CALL] [--table FILE]

Without --all: one error for each call, on the test's own program. With it: all errors and times, late calls, and real
programs, too; --table writes the results into the file, between the lines that say so. Each run must end by itself,
without a crash, with all contents whole, without a refusal where no memory was refused to the library, and with a line
on stderr exactly where a user should know."""
import argparse
import concurrent.futures
import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

SKIPPED = 77
NO_MEMORY_FROM_THE_START = 3
LIMIT_SECONDS = 60
TABLE_BEGIN = "<!-- tests/faults/run.py --all --table: begin -->"
TABLE_END = "<!-- end -->"


@dataclass
class Fault:
    call: str
    errors: list
    memory: bool = False  # allocations may be refused
    no_claims: bool = False
    no_keeper: bool = False
    at: list = field(default_factory=lambda: ["always"])
    more: list = field(default_factory=lambda: ["every:3", "from:8", "every:2", "between:5:40"])


TWO = ["always", "every:3"]
REST = ["from:8", "every:2", "between:5:40"]
FAULTS = [
    Fault("mmap", ["ENOMEM", "EAGAIN", "EPERM"], memory=True, at=["always", "from:5", "every:3"],
          more=["every:2", "between:5:40"]),
    Fault("mprotect", ["ENOMEM", "EACCES", "EPERM"], memory=True, at=["from:8", "every:3"],
          more=["always", "every:2", "between:5:40"]),
    Fault("madvise", ["EAGAIN", "ENOMEM", "EINVAL", "EPERM"], at=TWO, more=REST),
    Fault("mremap", ["ENOMEM", "EINVAL", "EFAULT", "EPERM"]),
    Fault("munmap", ["ENOMEM", "EINVAL", "EPERM"]),
    Fault("mincore", ["ENOSYS", "EAGAIN", "ENOMEM", "EPERM"]),
    Fault("membarrier", ["EPERM", "ENOSYS", "EINVAL", "ENOMEM"], no_claims=True, at=TWO, more=REST),
    Fault("futex", ["EPERM", "ENOSYS", "EINTR", "EAGAIN", "ETIMEDOUT"], at=TWO, more=REST),
    Fault("clone3", ["EAGAIN", "ENOMEM", "EPERM"], no_keeper=True),
    Fault("openat", ["ENOENT", "EACCES", "EMFILE", "ENFILE", "EPERM"]),
    Fault("read", ["EIO", "EAGAIN", "EINTR", "EPERM"]),
    Fault("ppoll", ["EINTR", "ENOMEM", "EPERM"]),
    Fault("prlimit64", ["EPERM", "EINVAL"]),
    Fault("close_range", ["ENOSYS", "EMFILE", "ENOMEM", "EPERM"]),
    Fault("unshare", ["EPERM", "ENOMEM", "ENOSYS"]),
    Fault("chdir", ["EACCES", "EPERM"]),
    Fault("memfd_create", ["ENOSYS", "EMFILE", "ENFILE", "ENOMEM", "EPERM"]),
    Fault("ftruncate", ["EPERM", "EINTR", "EINVAL"]),
    Fault("fcntl", ["EPERM", "EMFILE", "EINVAL"]),
    Fault("pwrite64", ["ENOSPC", "EIO", "EINTR", "EPERM"]),
    Fault("write", ["EPIPE", "EAGAIN", "EIO"]),
    Fault("close", ["EINTR", "EIO"]),
    Fault("prctl", ["EINVAL", "EPERM"]),
    Fault("rt_sigprocmask", ["EPERM", "EINVAL"], at=TWO, more=REST),
    Fault("sigaltstack", ["EPERM"]),
    Fault("gettid", ["EPERM", "ENOSYS"], at=TWO, more=REST),
    Fault("getpid", ["EPERM"]),
    Fault("nanosleep", ["EINTR", "EPERM", "ENOSYS"]),
    Fault("clock_nanosleep", ["EINTR", "EPERM"]),
]
DELAYED = ["mmap", "mprotect", "madvise", "mremap", "mincore", "membarrier", "futex", "clone3", "close_range", "munmap"]

PYTHON = """
import hashlib, threading, time
def work(n):
    d = {}
    for i in range(20000): d[i * n] = str(i) * (i % 7)
    a = bytearray()
    for i in range(60): a += bytes([i]) * 50000
    return hashlib.sha1(bytes(a) + repr(sorted(d.items())[:5000]).encode()).hexdigest()
r = [None] * 4
def main(k): r[k] = work(k + 3)
for _ in range(2):
    t = [threading.Thread(target=main, args=(k,)) for k in range(4)]
    [x.start() for x in t]; [x.join() for x in t]
    time.sleep(0.06)
print(hashlib.sha1(repr(r).encode()).hexdigest())
"""
REDIS = """
d=$(mktemp -d); trap 'rm -rf "$d"' EXIT; s=$d/sock
redis-server --port 0 --unixsocket "$s" --save '' --dir "$d" --daemonize no >"$d/log" 2>&1 & p=$!
n=0; until [ "$(redis-cli -s "$s" ping 2>/dev/null)" = PONG ]; do n=$((n+1)); [ $n -lt 200 ] || exit 4; sleep 0.05; done
redis-benchmark -s "$s" -q -n 3000 -c 10 -r 3000 -d 900 -t set,lpush,hset >/dev/null 2>&1 || exit 5
redis-cli -s "$s" set answer 42 >/dev/null; redis-cli -s "$s" flushall >/dev/null; sleep 0.1
redis-cli -s "$s" set answer 43 >/dev/null; redis-cli -s "$s" get answer
redis-cli -s "$s" shutdown nosave; wait $p; echo "end $?"
"""


@dataclass
class Result:
    fault: Fault
    error: str
    when: str
    program: str
    calls: int = 0
    failed: int = 0
    refused: int = 0
    seconds: float = 0.0
    problem: str = ""
    start: bool = True  # it had memory at all


def programs(options):
    found = {"work": [options.work, "1", "2" if options.all else "1", "3"]}
    if options.all:
        found["python"] = [shutil.which("python3", path="/usr/bin:/bin") or sys.executable, "-c", PYTHON]
        if shutil.which("redis-server") and shutil.which("redis-benchmark"):
            found["redis"] = ["/bin/sh", "-c", REDIS]
    return found


def expect_work(result, code, output, errors):
    """What is wrong with this end of the test's own program, or an empty string."""
    fault = result.fault
    if code == NO_MEMORY_FROM_THE_START and fault.memory and result.failed:
        result.start = False
        return ""
    last = re.search(r"refused (\d+) claims (\d+) keeper (\d+)\n$", output)
    if code != 0 or not last:
        return f"exit {code}: {errors.strip()[-300:]}"
    result.refused, claims, keeper = map(int, last.groups())
    if result.refused and not fault.memory:
        return f"{result.refused} allocations were refused"
    injected = result.when == "always" and result.error != ""
    if fault.no_claims and injected and claims:
        return "the statistics say that claims are possible"
    if fault.no_keeper and injected and keeper:
        return "the statistics say that there is a keeper"
    # Each of at most three processes at a time may ask once a second, and once more.
    if fault.no_keeper and result.when == "always" and result.calls > 10 + 3 * result.seconds:
        return f"asks for a thread {result.calls} times in {result.seconds:.1f} s"
    return ""


def expect_lines(result, errors):
    """One line where the user should know: no thread for the keeper. A forked child that has not told it may, too."""
    lines = [line for line in errors.splitlines() if line.startswith("tidemalloc: ")]
    told = "tidemalloc: no thread for the keeper, so memory comes back in part only: error "
    if any(not (result.fault.no_keeper and line.startswith(told)) for line in lines):
        return f"says: {lines[0]}"
    if result.program == "redis":
        return ""  # its lines go to its log
    if result.fault.no_keeper and result.when == "always" and result.error and result.failed and not lines:
        return "does not say that it has no keeper"
    if result.program == "work" and len(lines) > 2:
        return f"says it {len(lines)} times"
    return ""


def run(options, result, command, expected):
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report")
        head = [options.fault, "--library", os.path.realpath(options.library), "--report", report]
        head += ["--call", result.fault.call, "--limit", str(LIMIT_SECONDS)]
        head += ["--errno", str(getattr(errno, result.error))] if result.error else ["--delay", "2000"]
        with open(os.path.join(folder, "out"), "w+") as out, open(os.path.join(folder, "err"), "w+") as err:
            begun = time.monotonic()
            done = subprocess.run(head + ["--when", result.when, "--"] + command, stdin=subprocess.DEVNULL, stdout=out,
                                  stderr=err, timeout=4 * LIMIT_SECONDS, check=False)
            result.seconds = time.monotonic() - begun
            out.seek(0)
            err.seek(0)
            output, errors = out.read(), err.read()
        if done.returncode == SKIPPED:
            return None
        if not os.path.exists(report):
            result.problem = f"fault: {done.returncode}: {errors[-300:]}"
            return result
        with open(report) as file:
            calls, failed, how, number = file.read().split()
    result.calls, result.failed = int(calls), int(failed)
    refusing = result.fault.memory and result.failed > 0
    if how == "hang":
        result.problem = f"hangs for {number} s"
    elif how == "signal" and not (refusing and result.program != "work" and int(number) == 6):
        result.problem = f"ends by signal {number}: {errors.strip()[-300:]}"
    elif result.program == "work":
        result.problem = expect_work(result, int(number), output, errors)
    elif output != expected and not refusing:
        result.problem = f"exit {number}, prints {output.strip()[-100:]!r}: {errors.strip()[-300:]}"
    elif output != expected:
        result.start = False
    result.problem = result.problem or expect_lines(result, errors)
    return result


def healthy(command):
    """What the program prints when nothing fails, on the system's own malloc."""
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          check=True, text=True).stdout


def plan(options, names):
    for fault in FAULTS:
        if options.only and fault.call not in options.only.split(","):
            continue
        for error in fault.errors if options.all else fault.errors[:1]:
            for when in fault.at + (fault.more if options.all else []):
                yield Result(fault, error, when, "work")
            for name in names:
                if name != "work":
                    yield Result(fault, error, fault.at[0] if not fault.memory else "from:30", name)
        if options.all and fault.call in DELAYED:
            yield Result(fault, "", "every:3", "work")


def table(results):
    """Rows of Markdown: what happened, for each call and error."""
    rows = ["| call | error | calls that failed | result |", "|---|---|---|---|"]
    for fault in FAULTS:
        cells = {}
        for error in fault.errors + [""]:
            mine = [r for r in results if r.fault is fault and r.error == error]
            failed = sum(r.failed for r in mine)
            refused = sum(r.refused for r in mine)
            if not mine:
                continue
            words = []
            if any(r.problem for r in mine):
                words.append("**fails**")
            elif failed == 0:
                words.append("the library does not make this call here")
            else:
                words.append("all work")
            if refused:
                words.append("allocations refused with `ENOMEM`, all contents whole")
            if any(not r.start for r in mine):
                words.append("a program that gets no memory says so and ends")
            if failed and fault.no_claims:
                words.append("`claim_possible` is 0")
            if failed and fault.no_keeper and error:
                words.append("no keeper, one warning")
            name = error or "2 ms late"
            cells.setdefault("; ".join(words), []).append((name, failed))
        for words, names in cells.items():
            rows.append(f"| `{fault.call}` | {', '.join(n for n, _ in names)} | {sum(f for _, f in names)} | {words} |")
    return rows


def write_table(path, results):
    with open(path) as file:
        text = file.read()
    begin, end = text.index(TABLE_BEGIN) + len(TABLE_BEGIN), text.index(TABLE_END)
    runs = len(results)
    total = sum(r.failed for r in results)
    bad = sum(1 for r in results if r.problem)
    summary = f"{runs} runs, {total:,} calls made to fail or to come late, {bad} runs with a fault."
    with open(path, "w") as file:
        file.write(text[:begin] + "\n" + summary + "\n\n" + "\n".join(table(results)) + "\n" + text[end:])


def main():
    parser = argparse.ArgumentParser()
    for name in ("fault", "work", "library"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--only")
    parser.add_argument("--table")
    options = parser.parse_args()
    names = programs(options)
    expected = {name: healthy(command) for name, command in names.items() if name != "work"}
    planned = list(plan(options, names))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda r: run(options, r, names[r.program], expected.get(r.program)), planned))
    if any(r is None for r in results):
        print("no filters with a supervisor here")
        return SKIPPED
    for r in results:
        if r.problem:
            print(f"{r.program}: {r.fault.call} {r.error or 'late'} {r.when}: {r.problem}")
    idle = {r.fault.call for r in results} - {r.fault.call for r in results if r.failed}
    failed, refused = sum(r.failed for r in results), sum(r.refused for r in results)
    print(f"{len(results)} runs, {failed} calls made to fail, {refused} allocations refused")
    print("not made here: " + ", ".join(sorted(idle)))
    if options.table:
        write_table(options.table, results)
    return 1 if any(r.problem for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
