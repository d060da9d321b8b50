"""`tide stat`: what it shows of figures that are known, and of real programs."""

import contextlib
import importlib.util
import io
import json
import os
import signal
import subprocess
import time
import unittest

from fake_window import MIB, THREADS, TOTALS, FakeKeeper
from real_program import RealProgram
from tide_case import CLEAN, TOOL, TideCase

from tide import cli, stat, window
from tide import process as processes


class FakeCase(unittest.TestCase):
    """tide stat of this very process, whose window is a fake."""

    def setUp(self):
        self.fake = FakeKeeper()
        self.addCleanup(self.fake.close)
        self.addCleanup(setattr, window.Window, "open", window.Window.open)
        window.Window.open = lambda process: self.fake.open(process)
        parser = cli.Parser(prog="tide")
        stat.register(parser.add_subparsers())
        self.parser = parser

    def stat(self, *arguments):
        """(exit status, output, errors)"""
        args = self.parser.parse_args(["stat", *arguments, str(os.getpid())])
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            status = args.main(args)
        return status, output.getvalue(), errors.getvalue()

    def page(self, *arguments):
        status, output, errors = self.stat(*arguments)
        self.assertEqual((status, errors), (0, ""))
        return output

    def assert_row(self, page, *cells):
        """A line of the page has these cells, in this order, at its beginning."""
        lines = [line.split() for line in page.splitlines()]
        self.assertIn(list(cells), [line[: len(cells)] for line in lines], page)


class Page(FakeCase):
    def test_memory(self):
        page = self.page()
        for name, value in {"allocated": "20.0", "active": "22.0", "retained": "4.0", "metadata": "0.5"}.items():
            self.assert_row(page, name, value)
        self.assert_row(page, "returned", "100.0")
        resident = next(float(line.split()[1]) for line in page.splitlines() if line.startswith("resident"))
        with processes.Process(os.getpid()) as me:
            self.assertAlmostEqual(resident, me.rollup()["rss"] / MIB, delta=5)

    def test_tiers_and_pools(self):
        page = self.page()
        self.assert_row(page, "tiny", "12.0", "1.0", "0.2", "1.0", "memory")
        self.assert_row(page, "mid", "5.0", "2.0", "0.8", "10.0", "balanced")
        self.assert_row(page, "large", "3.0", "0.5", "-", "80.0", "performance")

    def test_what_is_counted(self):
        page = self.page()
        self.assert_row(page, "misses", "1000")
        self.assertNotIn("hits", page)
        self.assertIn("regret: 10.0 % of what was returned", page)
        self.assertIn("3 came, 1 in vain; patience 350 ms", page)
        self.assertIn("now asleep", page)
        self.assert_row(page, "keeper", "CPU", "25.0", "ms")

    def test_hits_where_they_are_counted(self):
        self.fake.totals["allocation_count"] = 50_000
        self.fake.classes = [(64, 3, 1000, 24, 1536, 10_000, 900, 0, 2)]
        page = self.page("--classes")
        self.assert_row(page, "hits", "49000", "98.0", "%")
        self.assert_row(page, "64", "tiny", "performance", "3", "1000", "24", "0.1", "0.0", "900", "9100", "91.0", "%")

    def test_what_keeps_memory(self):
        page = self.page()
        self.assert_row(page, "pinned", "1.0")
        self.assert_row(page, "locked", "0.1")
        self.assertNotIn("membarrier", page)
        self.fake.totals["claim_possible"] = 0
        self.assertIn("membarrier", self.page())

    def test_tables_on_demand(self):
        page = self.page("--classes", "--threads")
        self.assert_row(page, "64", "tiny", "performance", "3", "1000", "24", "0.1", "0.0", "900")
        self.assert_row(page, "4096", "mid", "balanced", "2", "100", "28", "0.4", "0.1", "100")
        self.assertNotIn("\n   32 ", page)  # not in use
        with processes.Process(os.getpid()) as me:
            name = dict(me.threads())[THREADS[0][0]]
        self.assert_row(page, str(THREADS[0][0]), name, "active", "15.0", "1.0", "20", "600")
        self.assert_row(page, "-", "-", "ended", "5.0", "2.0", "9", "400")
        self.fake.left_out = 12
        self.assertIn("and 12 more", self.page("--threads"))
        self.assertNotIn("CLASS", self.page())
        self.fake.classes = []
        self.assertIn("none in use", self.page("--classes"))

    def test_no_class_and_no_division_by_nothing(self):
        self.fake.totals = dict.fromkeys(window.TOTALS, 0)
        self.fake.classes, self.fake.threads = [], []
        self.page("--classes", "--threads")
        self.page("--json", "--classes", "--threads")
        self.fake.totals = dict.fromkeys(window.TOTALS, 2**64 - 1)
        self.page()

    def test_nothing_hangs_over(self):
        for line in self.page("--classes", "--threads").splitlines():
            self.assertEqual(line, line.rstrip())
            self.assertLessEqual(len(line), 120, line)


class Rates(FakeCase):
    def grow(self):
        """The counters grow steadily."""
        start_ns = time.monotonic_ns()

        def prepare(fake, at_ns):
            seconds = (at_ns - start_ns) / 1e9
            fake.totals = TOTALS | {
                "returned_bytes": int(seconds * 8 * MIB),
                "refill_count": int(seconds * 5000),
                "keeper_wakeup_count": int(seconds * 80),
            }

        self.fake.prepare = prepare

    def test_rates_are_differences(self):
        self.grow()
        lines = [json.loads(line) for line in self.page("--json", "-i", "0.2", "-n", "4").splitlines()]
        self.assertEqual(len(lines), 4)
        self.assertNotIn("rates_per_second", lines[0])
        last = lines[-1]["rates_per_second"]
        self.assertAlmostEqual(last["returned_bytes"] / MIB, 8, delta=0.01)
        self.assertAlmostEqual(last["refill_count"], 5000, delta=10)
        self.assertEqual(last["refault_bytes"], 0)
        self.assertGreaterEqual(lines[-1]["time"] - lines[0]["time"], 0.39)  # three steps, the first may be short

    def test_one_line_each(self):
        self.grow()
        lines = self.page("-i", "0.2", "-n", "3").splitlines()
        self.assertEqual(len(lines), 4)
        self.assertEqual(lines[0].split()[:5], ["time", "resident", "allocated", "retained", "pinned"])
        self.assertEqual(lines[1].split()[2:6], ["20.0", "4.0", "1.0", "-"])
        self.assertEqual(lines[3].split()[5], "8.0")
        self.assertEqual(lines[3].split()[-2:], ["asleep", "memo/bala/perf"])
        self.assertLessEqual(max(map(len, lines)), 120)

    def test_tables_again_and_again(self):
        page = self.page("-i", "0.05", "-n", "2", "--threads")
        self.assertEqual(page.count("THREAD"), 2)
        self.assertIn("a second", page)

    def test_another_program_in_its_place(self):
        """Counters that fall give no rates below nothing."""
        self.fake.spoil = lambda fake, _: fake.totals.update(refill_count=fake.totals["refill_count"] - 400)
        lines = [json.loads(line) for line in self.page("--json", "-i", "0.05", "-n", "2").splitlines()]
        self.assertNotIn("refill_count", lines[1]["rates_per_second"])


class Json(FakeCase):
    def test_one_object(self):
        shown = json.loads(self.page("--json"))
        self.assertEqual(shown["stats"], TOTALS)
        self.assertEqual((shown["tide_stat"], shown["pid"]), (1, os.getpid()))
        self.assertGreater(shown["memory"]["rss"], MIB)
        self.assertEqual(shown["derived"]["keeper_state"], "still")
        self.assertEqual(shown["derived"]["pool_states"], {"tiny": "memory", "mid": "balanced", "large": "performance"})
        self.assertEqual(shown["derived"]["reallocation_rate"], 0.1)
        self.assertIsNone(shown["derived"]["hit_rate"])
        self.assertNotIn("classes", shown)

    def test_tables(self):
        shown = json.loads(self.page("--json", "--classes", "--threads"))
        self.assertEqual([row["block_bytes"] for row in shown["classes"]], [64, 4096, 32])
        self.assertEqual(shown["threads"][1], {
            "name": None, "tid": 0, "state": "orphan", "claim": "marked", "live_bytes": 5 * MIB,
            "retained_bytes": 2 * MIB, "span_count": 9, "refill_count": 400, "allocation_count": 0,
        })


@unittest.skipUnless(importlib.util.find_spec("prometheus_client"), "needs python3-prometheus-client")
class OpenMetrics(FakeCase):
    def test_text(self):
        text = self.page("--openmetrics")
        self.assertRegex(text, rf'(?m)^tidemalloc_allocated_bytes\{{[^}}]*pid="{os.getpid()}"\}} 2.097152e\+07$')
        self.assertTrue(text.endswith("# EOF\n"))

    def test_no_answer(self):
        self.fake.answering = False
        self.addCleanup(setattr, stat, "ANSWER_S", stat.ANSWER_S)
        stat.ANSWER_S = 0.05
        status, text, errors = self.stat("--openmetrics")
        self.assertEqual((status, errors.count("\n")), (6, 1))
        self.assertIn("tidemalloc_resident_bytes{", text)
        self.assertNotIn("tidemalloc_allocated_bytes{", text)


class NoAnswer(FakeCase):
    def setUp(self):
        super().setUp()
        self.fake.answering = False
        self.addCleanup(setattr, stat, "ANSWER_S", stat.ANSWER_S)
        stat.ANSWER_S = 0.05

    def test_only_the_outside_is_shown(self):
        status, output, errors = self.stat()
        self.assertEqual(status, 6)
        self.assert_row(output, "resident")
        self.assertNotIn("allocated", output)
        self.assertEqual(errors.count("\n"), 1)
        self.assertIn("did not answer", errors)

    def test_json(self):
        status, output, errors = self.stat("--json")
        self.assertEqual(status, 6)
        shown = json.loads(output)
        self.assertIsNone(shown["stats"])
        self.assertIn("did not answer", shown["note"])
        self.assertGreater(shown["memory"]["rss"], MIB)

    def test_it_is_asked_again_and_said_once(self):
        def answer_now(*_):
            self.fake.answering = True

        signal.signal(signal.SIGALRM, answer_now)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        status, output, errors = self.stat("-i", "0.1", "-n", "10", "--json")
        lines = [json.loads(line) for line in output.splitlines()]
        self.assertIsNone(lines[0]["stats"])
        self.assertEqual(lines[-1]["stats"], TOTALS)
        self.assertEqual((status, errors.count("\n")), (0, 1))


class Mistakes(TideCase):
    def test_command_line(self):
        for arguments, words in (
            ((), "PID"),
            (("x",), "PID"),
            (("-n", "3", "1"), "-n needs -i"),
            (("-i", "0", "1"), "above 0"),
            (("-i", "1", "-n", "0", "1"), "from 1 on"),
            (("--json", "--openmetrics", "1"), "not allowed"),
            (("--openmetrics", "--classes", "1"), "--openmetrics"),
        ):
            with self.subTest(arguments=arguments):
                self.assert_one_line_error(self.tide("stat", *arguments), 2, words)

    def test_no_such_process(self):
        self.assert_one_line_error(self.tide("stat", 2**22 + 1), 3, "no process")
        child = subprocess.Popen(["true"])
        self.addCleanup(child.wait)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        self.assert_one_line_error(self.tide("stat", child.pid), 3, "has ended")

    def test_other_allocator(self):
        child = subprocess.Popen(["sleep", "60"], env=CLEAN)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        self.assert_one_line_error(self.tide("stat", child.pid), 5, "does not run on tidemalloc")

    def test_help_has_an_example(self):
        self.assertIn("tide stat -i 1", self.tide("stat", "--help").stdout)


class Real(TideCase):
    def stats(self, program, *arguments):
        result = self.tide("stat", "--json", *arguments, program.pid)
        self.assertEqual((result.returncode, result.stderr), (0, ""), result)
        return json.loads(result.stdout)

    def test_figures_of_a_program(self):
        program = RealProgram(self)
        program.do("hold(40)")
        shown = self.stats(program, "--classes", "--threads")
        stats = shown["stats"]
        self.assertAlmostEqual(stats["allocated_bytes"] / MIB, 44, delta=8)
        self.assertEqual(stats["tiny_bytes"] + stats["mid_bytes"] + stats["large_bytes"], stats["allocated_bytes"])
        self.assertGreater(min(stats["tiny_bytes"], stats["mid_bytes"], stats["large_bytes"]), 7 * MIB)
        self.assertGreaterEqual(shown["memory"]["rss"], stats["allocated_bytes"] * 0.9)
        live = sum(row["block_bytes"] * row["live_blocks"] for row in shown["classes"])
        self.assertAlmostEqual(live / MIB, (stats["tiny_bytes"] + stats["mid_bytes"]) / MIB, delta=2)
        tids = [row["tid"] for row in shown["threads"]]
        self.assertIn(program.pid, tids)
        main = shown["threads"][tids.index(program.pid)]
        self.assertAlmostEqual(main["live_bytes"] / MIB, stats["allocated_bytes"] / MIB, delta=16)

        program.do("held.clear()")
        time.sleep(0.5)
        after = self.stats(program)["stats"]
        self.assertLess(after["allocated_bytes"], 8 * MIB)
        self.assertLess(after["retained_bytes"], MIB)
        self.assertGreater(after["returned_bytes"], 30 * MIB)

        page = self.tide("stat", "--classes", "--threads", program.pid)
        self.assertEqual((page.returncode, page.stderr), (0, ""))
        self.assertIn("NOT RETURNED", page.stdout)
        self.assertTrue(page.stdout.partition("\n")[0].endswith(", mode hybrid"), page.stdout)

    def test_small_program_has_no_keeper(self):
        result = subprocess.Popen(
            [TOOL, "run", "cat"], env=CLEAN, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        self.addCleanup(result.wait)
        self.addCleanup(result.stdin.close)
        self.wait_for_library(result.pid)
        shown = self.tide("stat", result.pid)
        self.assertEqual(shown.returncode, 6)
        self.assertIn("no keeper to ask", shown.stderr)
        self.assertIn("resident", shown.stdout)

    def wait_for_library(self, pid):
        """Until `tide run` has become the program."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with processes.Process(pid) as process:
                if process.name == "cat" and process.uses_tidemalloc():
                    return
            time.sleep(0.01)
        self.fail("the program did not start")

    def test_keeper_off(self):
        program = RealProgram(self, "-o", "keeper=off")
        program.do("hold(20)")
        result = self.tide("stat", program.pid)
        self.assertEqual(result.returncode, 6)
        self.assertEqual(result.stderr.count("\n"), 1)
        self.assertIn("TIDE_KEEPER=off", result.stderr)

    def test_stopped_program(self):
        program = RealProgram(self)
        program.do("hold(20)")
        self.stats(program)
        os.kill(program.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, program.pid, os.WSTOPPED | os.WNOWAIT)
        result = self.tide("stat", program.pid)
        self.assertEqual(result.returncode, 6)
        self.assertIn("is stopped", result.stderr)
        os.kill(program.pid, signal.SIGCONT)
        self.stats(program)

    def test_watching_to_the_end(self):
        program = RealProgram(self)
        program.do("hold(20)")
        watcher = self.start("stat", "-i", "0.05", program.pid)
        for _ in range(4):
            self.assertTrue(watcher.stdout.readline())
        program.process.kill()
        program.process.wait()
        self.assertEqual(watcher.wait(timeout=20), 0)
        self.assertEqual(watcher.stderr.read(), "")

    def test_interrupt_ends_watching(self):
        program = RealProgram(self)
        program.do("hold(20)")
        watcher = self.start("stat", "-i", "0.05", program.pid)
        for _ in range(3):
            self.assertTrue(watcher.stdout.readline())
        watcher.send_signal(signal.SIGINT)
        self.assertEqual(watcher.wait(timeout=20), 0)
        self.assertEqual(watcher.stderr.read(), "")

    def test_parent_and_child_after_fork(self):
        program = RealProgram(self)
        program.do("hold(20)")
        program.do("child = os.fork() or (hold(30), time.sleep(60))")
        self.stats(program)
        with processes.Process(program.pid) as parent:
            children = parent.read(f"task/{program.pid}/children").split()
        self.assertEqual(len(children), 1)
        child = int(children[0])
        self.addCleanup(os.kill, child, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while True:
            result = self.tide("stat", "--json", child)
            if result.returncode == 0 and json.loads(result.stdout)["stats"]["allocated_bytes"] > 45 * MIB:
                break
            self.assertIn(result.returncode, (0, 6), result)
            self.assertLess(time.monotonic(), deadline, result)
            time.sleep(0.05)
        self.assertLess(self.stats(program)["stats"]["allocated_bytes"], 40 * MIB)

    def test_many_askers_at_once(self):
        program = RealProgram(self)
        program.do("hold(20)")
        askers = [self.start("stat", "--json", program.pid) for _ in range(4)] + [self.start("flush", program.pid)]
        for asker in askers:
            self.assertEqual(asker.wait(timeout=30), 0, asker.stderr.read() if asker.returncode else "")

    def test_nothing_is_left_when_the_program_is_killed(self):
        program = RealProgram(self)
        program.do("hold(20)")
        self.stats(program)
        program.process.kill()
        program.process.wait()
        self.assert_one_line_error(self.tide("stat", program.pid), 3, "no process")

    def test_counting_library(self):
        library = os.path.join(os.path.dirname(os.environ["TIDEMALLOC_LIBRARY"]), "libtidemalloc-count.so")
        if not os.path.exists(library):
            self.skipTest("there is no libtidemalloc-count.so in this build")
        program = RealProgram(self, "--library", library)
        program.do("hold(40)")
        derived = self.stats(program)["derived"]
        self.assertGreater(derived["hit_count"], derived["miss_count"])
        self.assertTrue(0.5 < derived["hit_rate"] <= 1, derived)
        self.assertIn("of the allocations", self.tide("stat", program.pid).stdout)

    @unittest.skipUnless(os.getuid() == 0, "only root can start a program as another user")
    def test_other_user(self):
        program = RealProgram(self)
        program.do("hold(20)")
        result = subprocess.run(
            ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", TOOL, "stat", str(program.pid)],
            env=CLEAN, capture_output=True, text=True, timeout=30,
        )
        self.assert_one_line_error(result, 4, "belongs to another user")


if __name__ == "__main__":
    unittest.main()
