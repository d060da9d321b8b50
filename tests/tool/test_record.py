"""`tide record`: real processes are recorded to their end, whatever ends them, and nothing stands between a program and
its caller; and the sampler against processes that are made up."""

import io
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path
from types import SimpleNamespace

from tide_case import CLEAN, LIBRARY, TOOL, TideCase

TOOLS = os.environ.get("TIDEMALLOC_TOOLS", str(Path(__file__).resolve().parents[2] / "tools"))
if TOOLS not in sys.path:
    sys.path.insert(0, TOOLS)

from tide import mapped_allocator, record_sampling, series, status  # noqa: E402  the tool under test, by the path above
from tide import window as windows  # noqa: E402
from tide.process import Process, ProcessError  # noqa: E402

MIB = 1 << 20

# Says "ready", and on a line of input touches 32 MiB and says "grown"; ends with its input, with status 5.
GROWING = """
import mmap, sys
print("ready", flush=True)
sys.stdin.readline()
memory = mmap.mmap(-1, 32 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for _ in range(32):
    memory.write(b"x" * (1 << 20))
print("grown", flush=True)
sys.stdin.read()
sys.exit(5)
"""

# Takes 40 MiB by malloc, gives it back, and rests.
BURST = """
import ctypes, sys, time
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
blocks = [libc.malloc(4000) for _ in range(10000)]
for block in blocks:
    ctypes.memset(block, 1, 4000)
time.sleep(0.3)
for block in blocks:
    libc.free(block)
print("freed", flush=True)
time.sleep(1.2)
"""


class RecordCase(TideCase):
    def setUp(self):
        super().setUp()
        self.out = self.folder / "out.jsonl"

    def program(self, text, *, env=None):
        process = subprocess.Popen(
            [sys.executable, "-c", text], env={**CLEAN, **(env or {})}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip

        def end():
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()

        self.addCleanup(end)
        return process

    def grower(self):
        process = self.program(GROWING)
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def wait_for_samples(self, count, path=None):
        """Wait until so many samples are in the file, 20 s at most."""
        path = path or self.out
        for _ in range(1000):
            if path.exists() and path.read_text().count('"rss"') >= count:
                return
            time.sleep(0.02)
        self.fail(f"fewer than {count} samples in {path}")


class OfAProcess(RecordCase):
    def test_until_it_ends(self):
        process = self.grower()
        recorder = self.start("record", process.pid, "-i", "10", "-o", self.out)
        self.wait_for_samples(3)
        process.stdin.write("\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), "grown\n")
        self.wait_for_samples(len(series.load(self.out).samples) + 4)
        process.stdin.close()
        self.assertEqual(recorder.wait(timeout=20), 0)
        found = series.load(self.out)
        self.assertEqual(found.header["pid"], process.pid)
        self.assertEqual(found.header["command"], [sys.executable, "-c", GROWING])
        self.assertEqual((found.header["allocator"], found.header["mode"]), ("glibc", None))
        self.assertNotIn("host", found.header)
        self.assertEqual(found.end, {"exit_status": 5})  # of a zombie that nobody has waited for yet
        self.assertEqual(process.wait(timeout=20), 5)
        summary = series.summarize(found)
        self.assertGreater(summary.peak - found.samples[0].rss, 32 * MIB - 65536)
        self.assertLess(summary.peak - found.samples[0].rss, 36 * MIB)
        times = [sample.t_ms for sample in found.samples]
        self.assertEqual(times, sorted(set(times)))
        cpu = [sample.cpu_ms for sample in found.samples]
        self.assertEqual(cpu, sorted(cpu))
        self.assertGreater(cpu[-1], cpu[0])
        self.assertGreater(found.sampling_ms, 0)

    def test_a_process_that_is_killed(self):
        process = self.grower()
        recorder = self.start("record", "-i", "10", "-o", self.out, process.pid)
        self.wait_for_samples(3)
        process.send_signal(signal.SIGKILL)
        self.assertEqual(recorder.wait(timeout=20), 0)
        self.assertEqual(series.load(self.out).end, {"signal": 9})

    def test_signals_end_the_recording_and_not_the_process(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process = self.grower()
            out = self.folder / f"{number.name}.jsonl"
            recorder = self.start("record", "-i", "60000", "-o", out, process.pid)
            self.wait_for_samples(1, out)
            recorder.send_signal(number)
            self.assertEqual(recorder.wait(timeout=20), 0, number)
            self.assertEqual(series.load(out).end, {"detached": True})
            self.assertIsNone(process.poll())

    def test_tide_killed(self):
        process = self.grower()
        recorder = self.start("record", "-i", "2", "-o", self.out, process.pid)
        self.wait_for_samples(20)
        recorder.kill()
        recorder.wait()
        found = series.load(self.out)
        self.assertGreaterEqual(len(found.samples), 20)
        self.assertIsNone(found.end)
        self.assertIsNone(process.poll())

    def test_duration_and_standard_output(self):
        result = self.tide("record", "--interval", "50", "--duration", "0.3", os.getpid())
        self.assertEqual(result.returncode, 0, result)
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        self.assertEqual(lines[0]["tide_record"], 1)
        self.assertEqual(lines[-1]["end"], {"detached": True})
        self.assertTrue(2 <= len(lines) - 2 <= 8, lines)
        self.assertTrue(250 <= lines[-1]["t_ms"] < 5000, lines[-1])

    def test_csv(self):
        result = self.tide("record", os.getpid(), "-i", "20", "--duration", "0.2", "--format", "csv", "-o", self.out)
        self.assertEqual(result.returncode, 0, result)
        found = series.load(self.out)
        self.assertGreater(found.samples[0].rss, MIB)
        self.assertIsNone(found.samples[0].stats)

    def test_a_reader_that_left(self):
        process = self.grower()
        recorder = self.start("record", "-i", "5", process.pid)
        recorder.stdout.readline()
        recorder.stdout.close()
        self.assertEqual(recorder.wait(timeout=20), 0)
        self.assertEqual(recorder.stderr.read(), "")

    def test_mistakes(self):
        self.assert_one_line_error(self.tide("record", 2**22 + 1), 3, "no process")
        self.assert_one_line_error(self.tide("record"), 125, "tide record --help")
        self.assert_one_line_error(self.tide("record", "-i", "0", os.getpid()), 2, "interval")
        self.assert_one_line_error(self.tide("record", "--duration", "nan", os.getpid()), 2, "duration")
        self.assert_one_line_error(self.tide("record", os.getpid(), "-o", self.folder / "none/out"), 1, "none/out")
        self.assert_one_line_error(self.tide("record", os.getpid(), "1"), 2, "one PID")
        self.assert_one_line_error(self.tide("record", "--as-is", os.getpid()), 2, "--as-is")
        self.assert_one_line_error(self.tide("record", "-O", "mode=static", os.getpid()), 2, "options")

    def test_a_process_of_another_user(self):
        if os.getuid() != 0:
            self.skipTest("needs root to become another user")
        result = subprocess.run(
            [sys.executable, "-B", "-c", f"import sys; sys.path.insert(0, {TOOLS!r})\n"
             "from tide import cli; sys.exit(cli.main(['record', '1']))"],
            env=CLEAN, capture_output=True, text=True, timeout=30, user=65534, group=65534, extra_groups=[],
        )  # fmt: skip
        if "Permission denied" in result.stderr and "Traceback" in result.stderr:
            self.skipTest("the tool lies where another user cannot read it")
        self.assert_one_line_error(result, 4, "another user")

    def test_a_full_disk(self):
        process = self.grower()
        self.assert_one_line_error(self.tide("record", process.pid, "-i", "5", "-o", "/dev/full"), 1, "No space left")
        limit = 20_001
        result = subprocess.run(
            [TOOL, "record", str(process.pid), "-i", "2", "-o", str(self.out)], env=CLEAN, capture_output=True,
            text=True, timeout=60, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )  # fmt: skip
        self.assertEqual((result.returncode, result.stderr.count("error: ")), (1, 1), result)
        self.assertIn("out.jsonl: File too large", result.stderr)
        found = series.load(self.out)
        self.assertFalse(found.truncated)
        self.assertIn(f"({len(found.samples)} samples)", result.stderr)
        self.assertIsNone(process.poll())


class OfAProgram(RecordCase):
    def record(self, *arguments, **options):
        return self.tide("record", "-i", "20", "-o", self.out, *arguments, **options)

    def test_exit_status_passes(self):
        for number in (0, 3, 125):
            with self.subTest(status=number):
                result = self.record("--", "sh", "-c", f"sleep 0.1; exit {number}")
                self.assertEqual(result.returncode, number, result)
                self.assertEqual(series.load(self.out).end, {"exit_status": number})

    def test_death_by_signal_passes(self):
        for name, number in (("TERM", 15), ("KILL", 9), ("INT", 2)):
            result = self.record("--", "sh", "-c", f"sleep 0.1; kill -{name} $$")
            self.assertEqual(result.returncode, -number, result)
            self.assertEqual(series.load(self.out).end, {"signal": number})

    def test_signals_pass(self):
        for name in ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH"):
            script = f"trap 'exit 42' {name}; echo ready; while :; do sleep 0.05; done"
            process = self.start("record", "-o", self.out, "--", "sh", "-c", script)
            self.assertEqual(process.stdout.readline(), "ready\n")
            process.send_signal(getattr(signal, f"SIG{name}"))
            self.assertEqual(process.wait(timeout=20), 42, name)

    def test_streams_and_environment_pass(self):
        result = subprocess.run(
            [TOOL, "record", "-o", str(self.out), "--as-is", "--", "sh", "-c", "cat; echo $MINE; echo err >&2"],
            input="in\n", env={**CLEAN, "MINE": "7"}, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        self.assertEqual(result.stdout, "in\n7\n")
        self.assertTrue(result.stderr.startswith("err\n"), result.stderr)

    def test_default_name(self):
        result = subprocess.run(
            [TOOL, "record", "--", "/bin/sleep", "0.2"], env=CLEAN, capture_output=True, text=True, timeout=30,
            cwd=self.folder,
        )  # fmt: skip
        self.assertEqual((result.returncode, result.stdout), (0, ""))
        (path,) = self.folder.glob("sleep-*.jsonl")
        self.assertGreater(len(series.load(path).samples), 0)
        self.assertIn(path.name, result.stderr)

    def test_on_tidemalloc(self):
        result = self.record("-O", "mode=flush", "--", sys.executable, "-c", BURST)
        self.assertEqual((result.returncode, result.stdout), (0, "freed\n"), result.stderr)
        found = series.load(self.out)
        self.assertEqual((found.header["allocator"], found.header["mode"]), ("tidemalloc", "flush"))
        self.assertEqual(found.header["command"], [sys.executable, "-c", BURST])
        summary = series.summarize(found)
        live = max((sample.figure("allocated_bytes") or 0 for sample in found.samples), default=0)
        self.assertGreater(live, 39 * MIB)
        self.assertLess(summary.idle, summary.baseline + 24 * MIB)
        self.assertLess(summary.at_idle["allocated_bytes"], live - 38 * MIB)
        given = sum(event.get("given", 0) for event in found.events if event["event"] == "flush")
        self.assertGreater(given, 30 * MIB, found.events)
        for event in found.events:
            self.assertTrue(0 <= event["t_ms"] <= found.end_ms, event)

    def test_as_is(self):
        result = self.record("--as-is", "--", sys.executable, "-c", BURST)
        self.assertEqual(result.returncode, 0, result.stderr)
        found = series.load(self.out)
        self.assertEqual((found.header["allocator"], found.header["mode"]), ("glibc", None))
        self.assertEqual([sample.stats for sample in found.samples if sample.stats], [])

    def test_seen_in_the_middle_of_its_start(self):
        """The kernel shows no environment yet: what is seen then is not kept."""

        class Starting:
            directory = os.open("/proc/self", os.O_RDONLY)
            texts = ["", "LD_PRELOAD=x\0", ""]

            def read(self, name):
                return self.texts.pop(0)

        process = Starting()
        self.addCleanup(os.close, process.directory)
        seen = [mapped_allocator.environment_of(process) for _ in range(3)]
        self.assertEqual(seen, ["", "LD_PRELOAD=x\0", "LD_PRELOAD=x\0"])

    def test_a_preloaded_peer(self):
        jemalloc = next(Path("/usr/lib").glob("*/libjemalloc.so.2"), None)
        if jemalloc is None:
            self.skipTest("libjemalloc2 is not installed")
        first = {f"{jemalloc}": "jemalloc", f"libc.so.6:{jemalloc}": "glibc", f"{jemalloc} {LIBRARY}": "jemalloc"}
        for preload, name in first.items():
            with subprocess.Popen(["sleep", "5"], env={**CLEAN, "LD_PRELOAD": preload}) as process:
                try:
                    with Process(process.pid) as seen:
                        mapped_allocator.wait_for_libraries(seen, threading.Event())
                        self.assertEqual(mapped_allocator.allocator_of(seen)[0], name)
                finally:
                    process.kill()

    def test_a_program_that_becomes_another(self):
        self.record("--as-is", "--", "sh", "-c", f"sleep 0.2; exec env TIDE_MODE=flush LD_PRELOAD={LIBRARY} sleep 1.2")
        header = series.load(self.out).header
        self.assertEqual((header["allocator"], header["mode"]), ("tidemalloc", "flush"))
        self.assertEqual(header["command"], ["sleep", "1.2"])

    def test_a_program_that_writes_over_its_environment(self):
        """As servers do that change their title."""
        program = (
            "import ctypes, os, time\n"
            "start, end = map(int, open('/proc/self/stat').read().rpartition(')')[2].split()[47:49])\n"
            "ctypes.memset(start, ord('x'), end - start)\n"
            "print(len(open('/proc/self/environ').read().strip('x')), flush=True)\n"
            "time.sleep(0.8)\n"
        )
        result = self.record("--mode", "shrink", "--", sys.executable, "-c", program)
        self.assertEqual(result.stdout, "0\n", result)
        self.assertEqual(series.load(self.out).header["mode"], "shrink")
        process = self.program(program, env={"LD_PRELOAD": LIBRARY, "TIDE_MODE": "shrink"})
        process.stdout.readline()
        with Process(process.pid) as seen:
            self.assertEqual(mapped_allocator.allocator_of(seen), ("tidemalloc", None))

    def test_not_found_and_not_writable(self):
        self.assert_one_line_error(self.record("--", "no-such-program-here"), 127, "not found")
        self.assertFalse(self.out.exists())
        plain = self.script("plain", "text\0")
        self.assert_one_line_error(self.record("--", plain), 126, "cannot execute")
        self.assertFalse(self.out.exists())
        result = self.tide("record", "-o", self.folder / "none/out", "--", "sh", "-c", "echo started")
        self.assert_one_line_error(result, 125, "none/out")

    def test_a_program_outlives_a_full_disk(self):
        result = self.tide("record", "-o", "/dev/full", "--", "sh", "-c", "sleep 0.2; echo whole")
        self.assertEqual((result.returncode, result.stdout), (1, "whole\n"), result)
        self.assertEqual(result.stderr.count("error: "), 1, result.stderr)

    def test_a_program_that_is_too_short(self):
        for _ in range(5):
            result = self.record("--", "true")
            self.assertEqual(result.returncode, 0, result)

    def test_duration_leaves_the_program(self):
        result = self.record("--duration", "0.2", "--", "sh", "-c", "sleep 0.8; echo whole")
        self.assertEqual((result.returncode, result.stdout), (0, "whole\n"), result)
        self.assertEqual(series.load(self.out).end, {"detached": True})


class MadeUp:
    """A process whose samples take as long as they are told to."""

    pid = 1
    directory = -1

    def __init__(self, cost_s=0.0, lasts=1000, problem=None):
        self.cost_s, self.lasts, self.problem = cost_s, lasts, problem

    def rollup(self):
        self.lasts -= 1
        if self.lasts < 0:
            raise self.problem or ProcessError(status.NO_PROCESS, "gone")
        end = time.thread_time() + self.cost_s
        while time.thread_time() < end:
            pass
        return {"rss": MIB}

    def cpu_ns(self):
        return 1_000_000

    def read(self, name):
        raise ProcessError(status.NO_PROCESS, "gone")

    def uses_tidemalloc(self):
        return False

    def threads(self):
        return []

    def alive(self):
        return True

    name = "made up"
    errors = staticmethod(contextlib.nullcontext)


class Sampling(RecordCase):
    def run_record(self, process, interval_s, window=None, **options):
        """(Series, what stood on stderr, the last line's figures)."""
        stderr = io.StringIO()
        before = windows.Window.open
        if window is not None:
            windows.Window.open = window
        try:
            with series.Recorder(str(self.out), {"command": ["x"], "allocator": "glibc"}) as recorder:
                with contextlib.redirect_stderr(stderr):
                    last = record_sampling.record_process(process, recorder, interval_s, threading.Event(), **options)
        finally:
            windows.Window.open = before
        return series.load(self.out), stderr.getvalue(), last

    def test_a_costly_sample_widens_the_interval_and_says_so_once(self):
        found, stderr, _ = self.run_record(MadeUp(cost_s=0.004, lasts=40), 0.01, duration_s=3.0)
        self.assertEqual(stderr.count("\n"), 1, stderr)
        self.assertIn("5%", stderr)
        widened = [event for event in found.events if event["event"] == "interval"]
        self.assertGreaterEqual(widened[0]["interval_ms"], 80)
        gaps = [after.t_ms - before.t_ms for before, after in zip(found.samples[-3:], found.samples[-2:])]
        self.assertGreaterEqual(min(gaps), 70)

    def test_the_interval_comes_back_when_samples_are_cheap_again(self):
        class Shrinking(MadeUp):
            def rollup(self):
                if self.lasts < 30:
                    self.cost_s = 0.0
                return super().rollup()

        found, stderr, _ = self.run_record(Shrinking(cost_s=0.002, lasts=40), 0.02)
        self.assertEqual(stderr.count("\n"), 1, stderr)
        intervals = [event["interval_ms"] for event in found.events]
        self.assertGreaterEqual(intervals[0], 40)
        self.assertEqual(intervals[-1], 20)

    def test_a_cheap_sample_keeps_it(self):
        found, stderr, _ = self.run_record(MadeUp(lasts=30), 0.01)
        self.assertEqual((stderr, found.events, len(found.samples)), ("", [], 30))
        self.assertEqual(found.end, {"exit_status": None})

    def test_rounded_up(self):
        for value, wanted in ((0.0004, 0.001), (0.001, 0.001), (0.0011, 0.0015), (0.03, 0.03), (0.6, 0.7), (8, 10)):
            self.assertAlmostEqual(record_sampling.rounded_up(value), wanted)

    def test_a_process_that_becomes_another_user_s(self):
        problem = ProcessError(status.NOT_PERMITTED, "not yours")
        with self.assertRaises(ProcessError):
            self.run_record(MadeUp(lasts=3, problem=problem), 0.005)
        self.assertEqual(series.load(self.out).end, {"detached": True})

    def test_events_and_statistics_of_a_window(self):
        start_ns = time.monotonic_ns()
        kinds = [
            (10, "started", 0, 0), (10, "flush", 5, 0), (10, "hold", 7, 2_500_000), (10, "busy", 0, 1_250_000),
            (10, "trim", 9, 11), (10, "asked", 3, 7),
        ]  # fmt: skip
        kinds.insert(0, (-1, "flush", 1, 0))  # from before the record
        events = [
            SimpleNamespace(at_ns=start_ns + at_ms * 1_000_000, kind=kind, given_bytes=given, argument=argument)
            for at_ms, kind, given, argument in kinds
        ]

        class Played:
            lost = 2

            def stats(self):
                return SimpleNamespace(totals={"allocated_bytes": 4})

            def events(self):
                found = [event for event in events if event.at_ns <= time.monotonic_ns()]
                del events[: len(found)]
                return found

            def close(self):
                pass

        found, _, _ = self.run_record(MadeUp(lasts=20), 0.005, lambda process: Played())
        self.assertEqual({sample.figure("allocated_bytes") for sample in found.samples}, {4})
        seen = [{key: value for key, value in event.items() if key != "t_ms"} for event in found.events]
        self.assertIn({"event": "lost", "count": 2}, seen)
        seen.remove({"event": "lost", "count": 2})
        self.assertEqual(
            seen,
            [{"event": "started"}, {"event": "flush", "given": 5}, {"event": "hold", "given": 7, "hold_ms": 2.5},
             {"event": "busy", "quiet_ms": 1.2}, {"event": "trim", "given": 9, "spare": 11},
             {"event": "asked", "given": 3}],
        )  # fmt: skip

    def test_much_that_is_given_back_is_seen_at_once(self):
        start_ns = time.monotonic_ns()
        pending = [
            SimpleNamespace(at_ns=start_ns + at_ms * 1_000_000, kind="flush", given_bytes=2 * MIB, argument=0)
            for at_ms in (300, 500)
        ]

        class Played:
            lost = 0

            def stats(self):
                return SimpleNamespace(totals={})

            def events(self):
                found = [event for event in pending if event.at_ns <= time.monotonic_ns()]
                del pending[: len(found)]
                return found

            def close(self):
                pass

        found, _, _ = self.run_record(MadeUp(), 5.0, lambda process: Played(), duration_s=8.0)
        times = [sample.t_ms for sample in found.samples]
        # The first, the one that was brought forward, and the next of the grid; the second flush gets none of its own.
        self.assertEqual(len(times), 3, times)
        self.assertTrue(300 <= times[1] < 1500 and times[2] >= 5000, times)

    def test_a_keeper_that_stops_answering(self):
        asked = []

        class Silent:
            lost = 0

            def stats(self):
                asked.append(1)
                raise ProcessError(status.NO_KEEPER, "no answer")

            def events(self):
                return []

            def close(self):
                pass

        found, stderr, _ = self.run_record(MadeUp(lasts=60), 0.01, lambda process: Silent())
        self.assertEqual(stderr, "")
        self.assertEqual(len(found.samples), 60)
        self.assertTrue(1 <= len(asked) <= 3, len(asked))

    def test_a_window_of_another_version(self):
        looks = []

        def refuse(process):
            looks.append(1)
            raise ProcessError(status.BAD_FILE, "of version 9")

        found, stderr, _ = self.run_record(MadeUp(lasts=40), 0.01, refuse)
        self.assertEqual((stderr.count("\n"), len(looks), len(found.samples)), (1, 1, 40))


if __name__ == "__main__":
    unittest.main()
