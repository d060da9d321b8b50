"""`tide investigate`: what figures mean, and whole investigations of small programs."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
import unittest
from pathlib import Path

from tide_case import TOOL, TOOLS, TideCase

sys.path.insert(0, TOOLS)
from tide import advice, allocators, series  # noqa: E402
from tide.advice import FAILS, GO, HOLDS, NO_GO, NOT_DECIDED, UNDECIDED  # noqa: E402

MIB = 1 << 20

# Writes 64 MiB in blocks of 4,000 bytes, drops them, and rests. PYTHONMALLOC=malloc makes Python use malloc.
BURST = """\
import time
blocks = [bytes(4000) for _ in range(16384)]
del blocks
time.sleep({rest})
"""

# Listens on a socket; for each connection writes and drops 32 MiB, and answers.
SERVER = """\
import socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
while True:
    connection, _ = server.accept()
    blocks = [bytes(4000) for _ in range(8192)]
    del blocks
    connection.sendall(b"done")
    connection.close()
"""
CLIENT = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(9)"


def run_of(idle=10 * MIB, cpu_s=1.0, wall_s=2.0, **more):
    figures = {"baseline": MIB, "peak": 100 * MIB, "idle": idle, "exit": idle, "mean": 50.0 * MIB, "faults": 9}
    return advice.Run(**{**figures, "cpu_s": cpu_s, "wall_s": wall_s, **more})


def advised(static, hybrid, **more):
    return advice.advise({"static": static, "hybrid": hybrid}, **more)


class Intervals(unittest.TestCase):
    def test_few_values_are_an_interval_of_all_of_them(self):
        found = advice.median_interval([3.0, 1.0, 2.0])
        self.assertEqual((found.middle, found.low, found.high, found.confidence), (2.0, 1.0, 3.0, 0.75))
        self.assertEqual(advice.median_interval([5.0]).confidence, 0.0)

    def test_many_values_leave_the_outer_ones_out(self):
        # For ten values the table of the sign test says: from the second to the ninth, 97.9 %.
        found = advice.median_interval([float(n) for n in range(10)])
        self.assertEqual((found.low, found.high), (1.0, 8.0))
        self.assertAlmostEqual(found.confidence, 1 - 22 / 1024)

    def test_interval_holds_the_median_as_often_as_it_says(self):
        dice = random.Random(1)
        for count in (3, 5, 9):
            held = 0
            for _ in range(4000):
                found = advice.median_interval([dice.expovariate(1.0) for _ in range(count)])
                held += found.low <= 0.6931 <= found.high
            self.assertAlmostEqual(held / 4000, found.confidence, delta=0.03)

    def test_ratios_pair_the_rounds(self):
        # The machine was ten times slower in the second round.
        found = advice.ratios([1.0, 10.0], [2.0, 20.0])
        self.assertEqual(found, [-0.5, -0.5])


class Verdicts(unittest.TestCase):
    def test_go(self):
        found = advised([run_of(30 * MIB)] * 5, [run_of(10 * MIB, cpu_s=1.02)] * 5)
        self.assertEqual((found.verdict, [c.verdict for c in found.criteria]), (GO, [HOLDS, HOLDS]))
        self.assertIn("20.0 MiB", found.headline)

    def test_too_little_comes_back(self):
        found = advised([run_of(10 * MIB + MIB // 2)] * 5, [run_of()] * 5)
        self.assertEqual((found.verdict, found.criteria[0].verdict), (NO_GO, FAILS))
        self.assertIn("less than 1 MiB", found.headline)

    def test_exactly_one_mib_is_not_more_than_one(self):
        self.assertEqual(advised([run_of(11 * MIB)] * 5, [run_of()] * 5).criteria[0].verdict, FAILS)

    def test_it_costs_too_much(self):
        found = advised([run_of(30 * MIB)] * 5, [run_of(cpu_s=1.06)] * 5)
        self.assertEqual((found.verdict, found.criteria[1].verdict), (NO_GO, FAILS))
        self.assertIn("5 % or more", found.headline)

    def test_noise_larger_than_the_limit_decides_nothing(self):
        noisy = [run_of(cpu_s=s) for s in (0.9, 0.95, 1.0, 1.05, 1.1)]
        found = advised([run_of(30 * MIB)] * 5, noisy)
        self.assertEqual((found.verdict, found.criteria[1].verdict), (NOT_DECIDED, UNDECIDED))
        self.assertIn("--runs", found.headline)

    def test_one_run_shows_memory_but_no_cost(self):
        found = advised([run_of(30 * MIB)], [run_of()])
        self.assertEqual([c.verdict for c in found.criteria], [HOLDS, UNDECIDED])
        self.assertIn("one run", found.criteria[1].text)

    def test_who_waits_visibly_longer_pays_too(self):
        found = advised([run_of(30 * MIB)] * 5, [run_of(wall_s=2.2)] * 5)
        self.assertEqual((found.verdict, found.criteria[1].verdict), (NO_GO, FAILS))
        # But noise in it alone decides nothing.
        found = advised([run_of(30 * MIB)] * 3, [run_of(wall_s=s) for s in (1.9, 2.0, 2.3)])
        self.assertEqual(found.verdict, GO)

    def test_program_without_measurable_time(self):
        self.assertEqual(advised([run_of(cpu_s=0.0)] * 3, [run_of(cpu_s=0.0)] * 3).criteria[1].verdict, UNDECIDED)


class Sentences(unittest.TestCase):
    def test_waste_by_tier(self):
        rest = {"tiny_retained_bytes": MIB, "mid_retained_bytes": 2 * MIB, "large_retained_bytes": 3 * MIB}
        found = advised([run_of(at_rest=rest)] * 3, [run_of()] * 3)
        self.assertTrue(any("6.0 MiB" in s and "tiny 1.0, mid 2.0, large 3.0" in s for s in found.sentences))

    def test_reallocation(self):
        rest = {"refault_bytes": 2 * MIB, "returned_bytes": 8 * MIB}
        found = advised([run_of(faults=100)] * 3, [run_of(faults=600, at_rest=rest)] * 3)
        self.assertIn(
            "Hybrid takes 500 page faults more than static: it gave 8.0 MiB back in all, of which 2.0 MiB were wanted "
            "again soon after.",
            found.sentences,
        )

    def test_hit_rates(self):
        hits = {"tiny": advice.Hits(1000, 10), "mid": advice.Hits(0, 0)}
        found = advised([run_of()] * 3, [run_of()] * 3, hits=hits)
        self.assertTrue(any(s.endswith("tiny 99.0 % of 1,000.") for s in found.sentences), found.sentences)

    def test_peers(self):
        runs = {"static": [run_of()] * 3, "hybrid": [run_of()] * 3, "glibc": [run_of(40 * MIB)] * 3}
        self.assertIn("On glibc it rests at 40.0 MiB; hybrid holds 30.0 MiB less.", advice.advise(runs).sentences)

    def test_program_that_hardly_uses_malloc(self):
        peak = {"allocated_bytes": 3 * MIB, "retained_bytes": MIB}
        found = advised([run_of(at_peak=peak)] * 3, [run_of()] * 3)
        self.assertTrue(any("Of the 100.0 MiB at its peak only 4.0 MiB came from malloc" in s for s in found.sentences))


class Peers(unittest.TestCase):
    def test_c_library_is_found(self):
        self.assertRegex(str(allocators.peer("glibc").library), r"/libc\.so\.6$")

    def test_own_is_the_caller_s_environment(self):
        self.assertNotIn(b"TIDE_MODE", allocators.peer("own").environment())

    def test_any_library(self):
        libc = allocators.c_library()
        found = allocators.peer(f"mine={libc}")
        self.assertEqual((found.name, found.library), ("mine", libc))
        self.assertTrue(found.environment()[b"LD_PRELOAD"].startswith(os.fsencode(libc)))

    def test_mistakes(self):
        for text in ("no-such", "x=/no/such.so", f"static={allocators.c_library()}", "=x", f"x={__file__}"):
            with self.subTest(text=text), self.assertRaises(allocators.NotFound):
                allocators.peer(text)


class Whole(TideCase):
    def investigate(self, *words, **options):
        return self.tide("investigate", "-o", self.folder / "page.html", *words, **options)

    def program(self, text):
        path = self.folder / "program.py"
        path.write_text(text)
        return ["/usr/bin/python3", "-S", path]

    def assert_nothing_left(self):
        self.assertEqual(list(self.scratch.iterdir()), [])
        marker = str(self.folder)
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                self.assertNotIn(marker, path.read_text())
            except OSError:
                pass

    def test_program_that_ends(self):
        keep = self.folder / "records"
        result = self.investigate(
            "--runs", "1", "--keep", keep, "--peer", "glibc", "--", *self.program(BURST.format(rest=0.9)),
            env={"PYTHONMALLOC": "malloc"},
        )  # fmt: skip
        self.assertEqual(result.returncode, 0, result.stderr)
        rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.strip()}
        static, hybrid = (dict(zip(("baseline", "peak", "rest"), map(float, rows[n]))) for n in ("static", "hybrid"))
        self.assertGreater(static["peak"], 60)
        self.assertGreater(static["rest"] - hybrid["rest"], 50, result.stdout)
        self.assertIn("glibc", rows)
        self.assertIn("gives back: holds", result.stdout)
        self.assertIn("Not decided", result.stdout)  # one run says nothing about the cost
        self.assertRegex(result.stdout, r"tiny \d+\.\d % of [\d,]+")

        page = (self.folder / "page.html").read_text()
        self.assertIn("What would tidemalloc save python3?", page)
        self.assertIn('id="table-verdict"', page)
        # The page's figures are those of the terminal.
        medians = page.partition('id="table-medians"')[2].partition("</table>")[0]
        for name in ("static", "hybrid"):
            row = medians.partition(f">{name}</bdi>")[2].partition("</tr>")[0]
            for text in rows[name][:5]:
                self.assertIn(f">{text}<", row)

        # And those of the records.
        found = series.load(str(keep / "hybrid-1.jsonl"))
        self.assertEqual((found.header["mode"], found.end), ("hybrid", {"exit_status": 0}))
        self.assertAlmostEqual(max(s.rss for s in found.samples[:-1]) / MIB, hybrid["peak"], delta=0.06)

    def test_server_with_a_load(self):
        place = self.folder / "socket"
        server = [*self.program(SERVER), place]
        client = f"/usr/bin/python3 -S -c '{CLIENT}' {place} && rm {place}"
        result = self.investigate(
            "--runs", "1", "--seconds", "1", "--during", client, "--", *server, env={"PYTHONMALLOC": "malloc"}
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.strip()}
        self.assertGreater(float(rows["static"][2]) - float(rows["hybrid"][2]), 25, result.stdout)
        self.assertLess(float(rows["hybrid"][2]) - float(rows["hybrid"][0]), 5)
        self.assert_nothing_left()

    def test_server_without_a_load_is_not_waited_for_for_ever(self):
        with socket.socket(socket.AF_UNIX) as _:
            place = self.folder / "socket"
            server = ["sh", "-c", f"rm -f {place}; exec /usr/bin/python3 -S {self.program(SERVER)[2]} {place}"]
            result = self.investigate("--runs", "1", "--seconds", "0.5", "--", *server)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("No load was put on it", result.stdout)

    def test_input_from_a_file_comes_anew_in_each_run(self):
        text = self.folder / "input"
        text.write_text("x" * 1000)
        script = "import sys, time; data = sys.stdin.read(); time.sleep(0.2); sys.exit(len(data) != 1000)"
        command = [TOOL, "investigate", "-o", self.folder / "page.html", "--runs", "1", "--", "/usr/bin/python3", "-c"]
        with text.open() as file:
            result = subprocess.run(
                [*command, script],
                env=self.environment, stdin=file, capture_output=True, text=True, timeout=60,
            )  # fmt: skip
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertNotIn("ends with", result.stderr)

    def test_program_that_breaks_on_one_allocator_only(self):
        script = "import os, sys, time; time.sleep(0.2); sys.exit(3 if os.environ.get('TIDE_MODE') == 'static' else 0)"
        result = self.investigate("--runs", "1", "--", "/usr/bin/python3", "-c", script)
        self.assert_one_line_error(result, 1, "status 3")
        self.assertFalse((self.folder / "page.html").exists())

    def test_failures_are_one_line_and_leave_nothing(self):
        page = self.folder / "page.html"
        server = [*self.program(SERVER), self.folder / "socket"]
        for words, wanted in (
            (("--during", "exit 7", "--", *server), "the load ended with status 7"),
            (("--during", "true", "--", "/usr/bin/python3", "-c", "import time; time.sleep(0.3)"), "before the load"),
            (("--", "no-such-program-here"), "not found"),
            (("--peer", "no-such", "--", "true"), "no-such"),
        ):
            with self.subTest(words=words):
                result = self.investigate("--runs", "1", *words)
                self.assert_one_line_error(result, 1, wanted)
                self.assertFalse(page.exists())
                (self.folder / "socket").unlink(missing_ok=True)
                self.assert_nothing_left()
        missing = "/no/such/page.html"
        self.assert_one_line_error(self.tide("investigate", "-o", missing, "true"), 1, missing)
        self.assert_one_line_error(self.tide("investigate"), 2, "no program")
        self.assert_one_line_error(self.tide("investigate", "--runs", "0", "true"), 2, "1 to 1000")

    def test_interrupt_and_termination_leave_nothing(self):
        for number, status in ((signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 128 + signal.SIGTERM)):
            with self.subTest(signal=number):
                place = self.folder / "socket"
                place.unlink(missing_ok=True)
                words = ("-o", self.folder / "page.html", "--during", "sleep 20", "--", *self.program(SERVER), place)
                process = self.start("investigate", *words)
                while not place.exists():
                    time.sleep(0.05)
                time.sleep(1.0)
                process.send_signal(number)
                self.assertEqual(process.wait(timeout=20), status)
                self.assertNotIn("Traceback", process.stderr.read())
                self.assert_nothing_left()
                self.assertFalse((self.folder / "page.html").exists())

    def test_what_the_program_leaves_behind_is_ended(self):
        # A daemon: its own session, reparented, and deaf to SIGTERM.
        pids = self.folder / "pids"
        script = f"(setsid sh -c 'trap \"\" TERM; echo $$ >> {pids}; sleep 60 & wait' &); sleep 0.3"
        result = self.investigate("--runs", "1", "--", "sh", "-c", script)
        self.assertEqual(result.returncode, 0, result.stderr)
        started = pids.read_text().split()
        self.assertEqual(len(started), 3)  # counting, static, hybrid
        self.assertEqual([pid for pid in started if os.path.exists(f"/proc/{pid}")], [])

    def test_death_of_tide_is_the_program_s_death(self):
        place = self.folder / "socket"
        process = self.start("investigate", "-o", self.folder / "page.html", "--", *self.program(SERVER), place)
        while not place.exists():
            time.sleep(0.05)
        process.kill()
        process.wait()
        for _ in range(100):
            if not any(str(self.folder) in text for text in command_lines()):
                break
            time.sleep(0.05)
        self.assertFalse([text for text in command_lines() if str(self.folder) in text])


def command_lines():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_text()
        except OSError:
            pass


if __name__ == "__main__":
    unittest.main()
