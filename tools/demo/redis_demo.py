"""Measure the resident memory of redis-server through load, delete and idle, on glibc and on tidemalloc.

    start -- settle -- load ------------------- delete ------ idle -----------------
             |         | redis-cli --pipe:       | FLUSHALL   | nothing is sent
             |         |   strings, lists and    |   SYNC     |
             |         |   hashes, 16 B-256 KiB  |            |
             |         | redis-benchmark: set,   |
             |         |   get, lpush, hset      |
             baseline                      peak       after delete       after idle

Both servers are the same program, get the same bytes and run one after the other. Debian's redis-server is linked with
jemalloc, so for glibc too the allocator must be preloaded: libc.so.6 itself. Which library malloc really comes from is
read from the dynamic linker before each run and kept with the figures.
"""

import argparse
import csv
import json
import os
import platform
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pictures

SAMPLE_INTERVAL_MS = 20
SETTLE_S = 1.0
HOLD_S = 1.0  # between the load and the delete
IDLE_S = 10.0
AFTER_DELETE_S = 0.2  # after FLUSHALL has returned
LOAD_BYTES = 170 << 20
SEED = 7


class DemoError(Exception):
    """What went wrong, in one line."""


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("build", "scratch", "out"):
        arguments.add_argument(f"--{name}", type=Path, required=True)
    paths = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        demo(paths)
    except DemoError as problem:
        sys.exit(f"demo: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)


def demo(paths):
    tide = str(paths.build / "tide")
    allocators = {
        "glibc": (["env", f"LD_PRELOAD={glibc_path()}"], "libc.so.6"),
        "tidemalloc": ([tide, "run", "--"], "libtidemalloc.so"),
    }
    workload = b"".join(commands())
    runs = {}
    for name, (launcher, library) in allocators.items():
        bound_to = malloc_library(launcher)
        if Path(bound_to).name != library:
            raise DemoError(f"redis-server takes malloc from {bound_to}, not from {library}")
        print(f"redis-server on {name}: load, delete, {IDLE_S:.0f} s of idle ...", flush=True)
        runs[name] = measure(name, launcher, tide, paths.scratch, workload)
        runs[name]["figures"]["malloc_from"] = Path(bound_to).name

    write_csv(paths.out / "redis.csv", runs)
    write_json(paths.out / "redis.json", runs)
    pictures.write_svg(paths.out / "redis.svg", runs)
    pictures.print_chart(runs)
    print_table(runs)
    shown = paths.out.relative_to(Path.cwd()) if paths.out.is_relative_to(Path.cwd()) else paths.out
    print(f"\nPicture: {shown}/redis.svg   samples: {shown}/redis.csv   figures: {shown}/redis.json")


def glibc_path():
    """The C library that this Python itself runs on."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith("/libc.so.6"):
            return line.split()[-1]
    raise DemoError("cannot find the C library among the files that are mapped here")


def malloc_library(launcher):
    """Ask the dynamic linker which library redis-server gets malloc from."""
    result = subprocess.run(
        [*launcher, "env", "LD_DEBUG=bindings", "redis-server", "--version"], capture_output=True, text=True
    )
    found = re.search(r"binding file \S*redis-server \S+ to (\S+) \S+ normal symbol `malloc'", result.stderr)
    if not found:
        raise DemoError(f"redis-server does not start: {last_line(result.stderr)}")
    return found[1]


def last_line(text):
    return (text.strip().splitlines() or ["no message"])[-1]


class Server:
    """A redis-server that can be reached by a socket in the scratch folder only, and keeps nothing on disk."""

    def __init__(self, name, launcher, scratch):
        self.socket = scratch / f"{name}.sock"
        self.log = scratch / f"{name}.log"
        # setpriv has the kernel stop the server if this process dies without a chance to.
        command = ["setpriv", "--pdeathsig", "KILL", *launcher, "redis-server"]
        command += ["--port", "0", "--unixsocket", self.socket, "--unixsocketperm", "700", "--dir", scratch]
        command += ["--save", "", "--appendonly", "no", "--daemonize", "no", "--jemalloc-bg-thread", "no"]
        command += ["--pidfile", scratch / f"{name}.pid"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def __enter__(self):
        try:
            for _ in range(500):
                if self.process.poll() is not None:
                    raise DemoError(f"redis-server ended at once: {last_line(self.log.read_text())}")
                if self.socket.exists() and self.cli("PING", check=False) == "PONG":
                    return self
                time.sleep(0.02)
            raise DemoError("redis-server does not answer")
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def client(self, program, *arguments, **options):
        try:
            return subprocess.run(
                [program, "-s", str(self.socket), *map(str, arguments)], capture_output=True, timeout=60, **options
            )
        except subprocess.TimeoutExpired:
            raise DemoError(f"{program} took more than 60 s") from None

    def cli(self, *arguments, check=True, **options):
        result = self.client("redis-cli", *arguments, **options)
        answer = result.stdout.decode(errors="replace").strip()
        if check and (result.returncode != 0 or answer.startswith("ERR")):
            raise DemoError(f"redis-cli {arguments[0]}: {last_line(answer + result.stderr.decode())}")
        return answer


def measure(name, launcher, tide, scratch, workload):
    """One run: its samples and the moments where its phases begin, in seconds since FLUSHALL, and its figures."""
    samples_path = scratch / f"{name}.csv"
    with Server(name, launcher, scratch) as server:
        pid = server.process.pid
        sampler = subprocess.Popen(
            [tide, "sample", "--interval", str(SAMPLE_INTERVAL_MS), "--out", str(samples_path), str(pid)]
        )
        try:
            time.sleep(SETTLE_S)
            moments = {"load": age_s(pid)}
            load(server, workload)
            moments["hold"] = age_s(pid)
            time.sleep(HOLD_S)
            moments["delete"] = age_s(pid)
            server.cli("FLUSHALL", "SYNC")
            moments["idle"] = age_s(pid)
            time.sleep(IDLE_S)
            moments["end"] = age_s(pid)
            used_bytes = int(re.search(r"^used_memory:(\d+)", server.cli("INFO", "memory"), re.MULTILINE)[1])
            if server.process.poll() is not None:
                raise DemoError(f"redis-server on {name} ended early: {last_line(server.log.read_text())}")
        finally:
            sampler.terminate()
            sampler.wait()

    zero = moments["delete"]
    moments = {phase: moment - zero for phase, moment in moments.items()}
    with samples_path.open(newline="") as file:
        rows = [{key: int(value) for key, value in row.items()} for row in csv.DictReader(file)]
    samples = [(row["time_ms"] / 1000 - zero, row) for row in rows]
    # What redis-server itself has allocated in the end: the least that its allocator must hold.
    end = {"after_idle_used_by_redis_kib": used_bytes // 1024}
    return {"samples": samples, "moments": moments, "figures": figures(samples, moments) | end}


def age_s(pid):
    """Seconds since the process started: the clock of `tide sample`."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def load(server, workload):
    answer = server.cli("--pipe", input=workload)
    if "errors: 0" not in answer:
        raise DemoError(f"redis-cli --pipe: {last_line(answer)}")
    result = server.client(
        "redis-benchmark", "-q", "-n", 60000, "-P", 16, "-c", 20, "-r", 20000, "-d", 200, "-t", "set,get,lpush,hset"
    )
    if result.returncode != 0:
        raise DemoError(f"redis-benchmark: {last_line(result.stderr.decode())}")


def commands():
    """Commands with LOAD_BYTES of values in them, the same on every call: the sizes of strings are spread evenly over
    the powers of two from 16 B to 4 KiB, and a few are up to 256 KiB; every eighth key is a list or a hash."""
    dice = random.Random(SEED)
    filler = dice.randbytes(1 << 20)

    def value(smallest, largest):
        size = int(smallest * (largest / smallest) ** dice.random())
        start = dice.randrange(len(filler) - size)
        return filler[start : start + size]

    sent = number = 0
    while sent < LOAD_BYTES:
        number += 1
        key = b"key:%d" % number
        kind = dice.random()
        if kind < 0.06:
            words = [b"RPUSH", key, *(value(16, 512) for _ in range(dice.randrange(1, 40)))]
        elif kind < 0.12:
            words = [b"HSET", key]
            for field in range(dice.randrange(1, 40)):
                words += [b"field:%d" % field, value(16, 512)]
        elif kind < 0.123:
            words = [b"SET", key, value(32 << 10, 256 << 10)]
        else:
            words = [b"SET", key, value(16, 4096)]
        sent += sum(map(len, words))
        yield b"*%d\r\n" % len(words)
        for word in words:
            yield b"$%d\r\n%b\r\n" % (len(word), word)


def figures(samples, moments):
    def rss_kib(start, end):
        found = [row["rss_kib"] for moment, row in samples if start <= moment < end]
        if not found:
            raise DemoError("too few samples; the machine is too busy for this demo")
        return found

    def first_kib(start):
        return rss_kib(start, moments["end"])[0]

    baseline = round(statistics.median(rss_kib(moments["load"] - SETTLE_S / 2, moments["load"])))
    return {
        "baseline_rss_kib": baseline,
        "peak_rss_kib": max(rss_kib(moments["load"], moments["end"])),
        "after_delete_rss_kib": first_kib(moments["idle"] + AFTER_DELETE_S),
        "after_idle_rss_kib": round(statistics.median(rss_kib(moments["end"] - 1, moments["end"]))),
        "load_seconds": round(moments["hold"] - moments["load"], 3),
        "delete_seconds": round(moments["idle"] - moments["delete"], 3),
    }


def write_csv(path, runs):
    with path.open("w", newline="") as file:
        columns = list(next(iter(runs.values()))["samples"][0][1])
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["allocator", "seconds_since_delete", *columns])
        for name, run in runs.items():
            rows.writerows([name, f"{moment:.3f}", *row.values()] for moment, row in run["samples"])


def write_json(path, runs):
    redis = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout
    huge_pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    report = {
        "program": "redis-server " + re.search(r"v=(\S+)", redis)[1],
        "kernel": platform.release(),
        "glibc": platform.libc_ver()[1],
        "transparent_huge_pages": huge_pages.read_text().strip() if huge_pages.exists() else None,
        "sample_interval_ms": SAMPLE_INTERVAL_MS,
        "after_delete_means": f"first sample {AFTER_DELETE_S} s after FLUSHALL SYNC returned",
        "after_idle_means": f"median of the last second of {IDLE_S:.0f} s without requests",
        "allocators": {name: run["figures"] for name, run in runs.items()},
    }
    path.write_text(json.dumps(report, indent=2) + "\n")


def print_table(runs):
    print(f"\n{'resident memory, MiB':<22}{'baseline':>10}{'peak':>10}{'deleted':>10}{'idle':>10}{'held':>10}")
    for name, run in runs.items():
        found = [run["figures"][f"{moment}_rss_kib"] for moment in ("baseline", "peak", "after_delete", "after_idle")]
        found.append(found[-1] - found[0])
        print(f"{name:<22}" + "".join(f"{kib / 1024:>10.1f}" for kib in found))
    used = max(run["figures"]["after_idle_used_by_redis_kib"] for run in runs.values())
    print(f"{'in use by redis itself':<22}{'':>30}{used / 1024:>10.1f}")
    print(f"deleted: {AFTER_DELETE_S} s after FLUSHALL; idle: {IDLE_S:.0f} s after it; held: idle less baseline")
    print("One run each, so this says nothing about speed.")


if __name__ == "__main__":
    main()
