"""A real memory hog: the keeper answers the kernel's own news of memory pressure (PSI).

A program on tidemalloc in mode `flush`, which gives nothing back while it works, frees a burst every second and goes on working. Beside
it, in a control group with a small limit, hogs read a file again and again that does not fit, so the kernel reclaims, threads wait for
memory, and /proc/pressure/memory says so to everybody. The program's keeper must say that it has given memory back because of that. Skipped
(77) where there is no right to make control groups, or the kernel reports no pressure however hard the hogs try.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SKIPPED = 77
LIMIT_MIB, FILE_MIB, BURST_MIB = 48, 160, 96
PATIENCE_S = 20
LEAST_KIB = 1024
PRESSURE = Path("/proc/pressure/memory")

WORKER = f"""
import time
while True:
    blocks = [bytes(1000) for _ in range({BURST_MIB} << 10)]
    del blocks
    until = time.monotonic() + 1
    while time.monotonic() < until:
        [bytes(3000) for _ in range(200)]
"""
ANSWER = re.compile(r"memory pressure .*: gave back (\d+) KiB")


def skip(why):
    print(f"skipped: {why}")
    sys.exit(SKIPPED)


def text_of(log):
    log.seek(0)
    return log.read()


def given_kib(log):
    """The most that one answer to pressure has given back so far."""
    return max((int(kib) for kib in ANSWER.findall(text_of(log))), default=0)


def stalled_us():
    return int(PRESSURE.read_text().split("total=")[1].split()[0])


def make_group():
    """A control group for memory with a limit, of either version."""
    own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    v1 = next((path for _, names, path in own if "memory" in names.split(",")), None)
    if v1 is not None:
        group = Path("/sys/fs/cgroup/memory") / f"tidemalloc-hog-{os.getpid()}"
        limit = "memory.limit_in_bytes"
    else:
        group = Path("/sys/fs/cgroup") / f"tidemalloc-hog-{os.getpid()}"
        limit = "memory.max"
    try:
        group.mkdir()
    except OSError as problem:
        skip(f"no control group can be made: {problem.strerror}")
    try:
        (group / limit).write_text(str(LIMIT_MIB << 20))
    except OSError as problem:
        group.rmdir()
        skip(f"the group has no limit for memory: {problem.strerror}")
    return group


def hog(group, path):
    """Read the file for ever, from within the group."""
    pid = os.fork()
    if pid:
        return pid
    try:
        (group / "cgroup.procs").write_text(str(os.getpid()))
        with open(path, "rb", buffering=0) as file:
            while True:
                file.seek(0)
                while file.read(1 << 20):
                    pass
    finally:
        os._exit(1)


def main(library):
    if not PRESSURE.exists():
        skip("the kernel does not report pressure")
    group = make_group()
    hogs, worker = [], None
    folder = os.environ.get("TMPDIR", "/var/tmp")
    with tempfile.NamedTemporaryFile(dir=folder) as file, tempfile.TemporaryFile("w+", dir=folder) as log:
        try:
            environment = dict(os.environ, LD_PRELOAD=library, TIDE_MODE="flush", TIDE_LOG="keeper", PYTHONMALLOC="malloc")
            worker = subprocess.Popen([sys.executable, "-c", WORKER], env=environment, stderr=log)
            for _ in range(FILE_MIB):
                file.write(os.urandom(1 << 20))
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            before = stalled_us()
            hogs = [hog(group, file.name) for _ in range(3)]
            deadline = time.monotonic() + PATIENCE_S
            while not (given := given_kib(log)) or given < LEAST_KIB:
                if worker.poll() is not None:
                    sys.exit(f"failed: the program ended with {worker.returncode}:\n{text_of(log)}")
                if time.monotonic() > deadline:
                    stalled = (stalled_us() - before) / 1e6
                    if stalled < 0.15 * PATIENCE_S / 2:
                        skip(f"only {stalled:.1f} s of stalls in {PATIENCE_S} s: no real pressure here")
                    sys.exit(f"failed: no answer after {stalled:.1f} s of stalls:\n{text_of(log)}")
                time.sleep(0.05)
            print(f"gave back {given / 1024:.1f} MiB after {(stalled_us() - before) / 1e6:.2f} s of stalls")
        finally:
            for pid in hogs:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
            if worker is not None:
                worker.kill()
                worker.wait()
            for _ in range(100):
                try:
                    group.rmdir()
                    break
                except OSError:
                    time.sleep(0.02)


main(sys.argv[1])
