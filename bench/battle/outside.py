"""The real programs of the battle test, watched from outside: redis and python.

Both have work of their own to do in the silence (redis ten times a second), so they are shown and not judged.
"""

import random
import re
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from battle.configurations import Configuration
from battle.scenarios import Scenario
from measure import RunFailed, last_line, tool_environment
from real import redis

PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).resolve().parent / "build_and_drop.py"
SETTLED_MS = 1000
FIELDS = {"rss_kib": "Rss", "private_dirty_kib": "Private_Dirty", "anon_huge_kib": "AnonHugePages",
          "lazy_free_kib": "LazyFree"}
NEEDS = {"redis": (("redis-server", "redis-server"),), "python": ((PYTHON, "python3"),)}


def cpu_ns(pid: int) -> int:
    """CPU time of all threads of a process, by the clock that clock_getcpuclockid would name."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def take_sample(pid: int, planned_ms: int, since_ns: int) -> dict:
    at_us = (time.monotonic_ns() - since_ns) // 1000
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        text = rollup.read()
    found = {key: int(re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)[1]) for key, name in FIELDS.items()}
    with open(f"/proc/{pid}/status") as status:
        threads = int(re.search(r"^Threads:\s+(\d+)", status.read(), re.MULTILINE)[1])
    return {"at_ms": planned_ms, "at_us": at_us, **found, "others_cpu_ns": cpu_ns(pid), "others_switches": 0,
            "threads": threads}


def preloaded(configuration: Configuration, links_other: bool) -> dict[str, str]:
    library = configuration.allocator.preload(links_other)
    return tool_environment() | configuration.environment | ({"LD_PRELOAD": str(library)} if library else {})


def expect_line(process: subprocess.Popen, word: bytes) -> None:
    if process.stdout.readline().strip() != word:
        raise RunFailed("python did not follow its script")


class PythonProgram:
    """A script that builds objects and drops them when told to."""

    def __init__(self, configuration: Configuration, scratch: Path):
        environment = preloaded(configuration, False) | {"PYTHONMALLOC": "malloc", "PYTHONHASHSEED": "0"}
        self.process = subprocess.Popen([PYTHON, "-S", str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env=environment, cwd=scratch)
        expect_line(self.process, b"ready")

    def burst(self) -> None:
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        expect_line(self.process, b"dropped")

    def end(self) -> None:
        self.process.stdin.close()


class RedisServer:
    VALUES, BATCH = 100000, 500

    def __init__(self, configuration: Configuration, scratch: Path):
        path = scratch / "socket"
        self.process = subprocess.Popen([*redis.SERVER, "--dir", str(scratch), "--unixsocket", str(path)],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                        env=preloaded(configuration, True))
        self.connection = redis.connect(path, self.process)
        self.ask([("SET", "first", "value"), ("FLUSHALL",)])

    def ask(self, requests: list[tuple[object, ...]]) -> None:
        words = b"".join(redis.encode(*request) for request in requests)
        self.connection.sendall(words + redis.encode("ECHO", "<<end>>"))
        redis.read_answers(self.connection, b"<<end>>\r\n")

    def burst(self) -> None:
        rng = random.Random(5)
        value = "v" * 2400
        for start in range(0, self.VALUES, self.BATCH):
            self.ask([("SET", f"key:{i}", value[:rng.randint(16, 2400)]) for i in range(start, start + self.BATCH)])
        self.ask([("FLUSHALL",)])

    def end(self) -> None:
        self.connection.sendall(redis.encode("SHUTDOWN", "NOSAVE"))
        self.connection.close()


PROGRAMS = {"redis": RedisServer, "python": PythonProgram}


class Outside(threading.Thread):
    """One run of a real program; looks like runner.Process to who waits for it."""

    def __init__(self, scenario: Scenario, configuration: Configuration, until_ms: int):
        super().__init__(daemon=True)
        self.scenario, self.configuration = scenario, configuration
        self.times = [t for t in scenario.times if t <= until_ms]
        self.settled = threading.Event()
        self.result: dict | None = None
        self.error: str | None = None
        self.warning, self.disturbed = "", False
        self.start()

    def run(self) -> None:
        with tempfile.TemporaryDirectory(prefix="tide-") as scratch:
            program = None
            try:
                program = PROGRAMS[self.scenario.name](self.configuration, Path(scratch))
                self.watch(program)
                program.end()
                if program.process.wait(30) != 0:
                    raise RunFailed(f"exit code {program.process.returncode}")
            except (RunFailed, OSError, subprocess.TimeoutExpired) as error:
                self.result = None
                self.error = str(error) if isinstance(error, RunFailed) else type(error).__name__
                if program:
                    program.process.kill()
                    self.error += ": " + last_line(program.process.communicate()[1] or b"")
            finally:
                self.settled.set()

    def watch(self, program) -> None:
        pid = program.process.pid
        take_sample(pid, 0, time.monotonic_ns())
        time.sleep(0.2)
        baseline = take_sample(pid, 0, time.monotonic_ns())
        start_ns, start_cpu_ns = time.monotonic_ns(), cpu_ns(pid)
        program.burst()
        freed_ns = time.monotonic_ns()
        burst = {"wall_ns": freed_ns - start_ns, "cpu_ns": cpu_ns(pid) - start_cpu_ns}
        samples = []
        for at_ms in self.times:
            time.sleep(max(0, freed_ns + at_ms * 1000000 - time.monotonic_ns()) / 1e9)
            samples.append(take_sample(pid, at_ms, freed_ns))
            if at_ms >= SETTLED_MS:
                self.settled.set()
        self.result = {"scenario": self.scenario.name, "baseline": baseline, "burst": burst, "live_page_kib": 0,
                       "samples": samples, "cycles": []}

    def wait_settled(self) -> int:
        self.settled.wait()
        return 0

    def finish(self) -> dict:
        self.join()
        if self.error or not self.result:
            raise RunFailed(self.error or "no result")
        return self.result
