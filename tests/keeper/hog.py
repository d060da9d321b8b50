"""A real memory hog: the keeper answers the kernel's own news of memory pressure (PSI).

A program on tidemalloc in mode `flush`, which gives nothing back while it works, keeps a freed burst and goes on working. Beside
it, in a control group with a small limit, a hog reads a file again and again that does not fit, so the kernel reclaims, threads wait for
memory, and /proc/pressure/memory says so to everybody. The program's memory must go. Skipped (77) where there is no right to make control
groups, or the kernel reports no pressure however hard the hog tries.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SKIPPED = 77
LIMIT_MIB, FILE_MIB, BURST_MIB = 48, 160, 96
PATIENCE_S = 60
PRESSURE = Path("/proc/pressure/memory")

WORKER = f"""
import time
blocks = [bytes(1000) for _ in range({BURST_MIB} << 10)]
del blocks
print("ready", flush=True)
while True:
    [bytes(3000) for _ in range(200)]
    time.sleep(0.001)
"""


def skip(why):
    print(f"skipped: {why}")
    sys.exit(SKIPPED)


def resident_mib(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:")) / 1024


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
    with tempfile.NamedTemporaryFile(dir=os.environ.get("TMPDIR", "/var/tmp")) as file:
        try:
            environment = dict(os.environ, LD_PRELOAD=library, TIDE_MODE="flush", TIDE_LOG="keeper", PYTHONMALLOC="malloc")
            worker = subprocess.Popen(
                [sys.executable, "-c", WORKER], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            worker.stdout.readline()
            time.sleep(1)
            held = resident_mib(worker.pid)
            if held < BURST_MIB:
                sys.exit(f"failed: {held:.1f} MiB resident without pressure, at least {BURST_MIB} expected")
            for _ in range(FILE_MIB):
                file.write(os.urandom(1 << 20))
            file.flush()
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            before = stalled_us()
            hogs = [hog(group, file.name) for _ in range(3)]
            deadline = time.monotonic() + PATIENCE_S
            while resident_mib(worker.pid) > held / 2:
                if time.monotonic() > deadline:
                    stalled = (stalled_us() - before) / 1e6
                    if stalled < 0.15 * PATIENCE_S / 2:
                        skip(f"only {stalled:.1f} s of stalls in {PATIENCE_S} s: no real pressure here")
                    sys.exit(f"failed: {resident_mib(worker.pid):.1f} of {held:.1f} MiB still held after {stalled:.1f} s of stalls")
                time.sleep(0.05)
            print(f"{held:.1f} MiB held, {resident_mib(worker.pid):.1f} MiB after {(stalled_us() - before) / 1e6:.2f} s of stalls")
            worker.kill()
            log = worker.stderr.read()
            if "memory pressure" not in log:
                sys.exit(f"failed: no word of pressure in the log:\n{log}")
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
