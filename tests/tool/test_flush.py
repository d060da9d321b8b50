"""`tide flush`: it asks for the right tiers, tells what went and what not, and makes real programs small at once."""

import contextlib
import io
import json
import os
import signal
import subprocess
import threading
import time
import unittest

from fake_window import FLUSHED, MIB, FakeKeeper
from real_program import RealProgram
from tide_case import CLEAN, TideCase

from tide import cli, flush, window


class Fake(unittest.TestCase):
    """tide flush of this very process, whose window is a fake."""

    def setUp(self):
        self.fake = FakeKeeper()
        self.addCleanup(self.fake.close)
        self.addCleanup(setattr, window.Window, "open", window.Window.open)
        window.Window.open = lambda process: self.fake.open(process)

    def flush(self, *arguments):
        parser = cli.Parser(prog="tide")
        flush.register(parser.add_subparsers())
        args = parser.parse_args(["flush", *arguments, str(os.getpid())])
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            status = args.main(args)
        return status, output.getvalue(), errors.getvalue()

    def test_tiers(self):
        for arguments, mask in (
            ((), 7),
            (("--tier", "tiny"), 1),
            (("--tier", "mid"), 2),
            (("--tier", "large"), 4),
            (("--tier", "large", "--tier", "tiny", "--tier", "tiny"), 5),
        ):
            with self.subTest(arguments=arguments):
                self.assertEqual(self.flush(*arguments)[0], 0)
                self.assertEqual(self.fake.asked[-1], (window.FLUSH, mask))

    def test_report(self):
        status, output, errors = self.flush()
        self.assertEqual((status, errors), (0, ""))
        lines = output.splitlines()
        self.assertIn("3.0 MiB returned in ", lines[0])
        self.assertEqual(len(lines), 4)
        self.assertIn("hold a live one", lines[1])
        self.assertIn("mlock", lines[2])
        self.assertIn("at work", lines[3])

    def test_what_is_nothing_is_not_told(self):
        self.fake.flushed = (3 * MIB, 0, 0, 0)
        self.assertEqual(len(self.flush()[1].splitlines()), 1)

    def test_json(self):
        shown = json.loads(self.flush("--json", "--tier", "mid")[1])
        names = ("returned_bytes", "kept_bytes", "pinned_bytes", "missed_bytes")
        self.assertEqual(tuple(shown[name] for name in names), FLUSHED)
        self.assertEqual((shown["tiers"], shown["pid"]), (["mid"], os.getpid()))
        self.assertGreater(shown["rss_before_bytes"], MIB)
        self.assertGreater(shown["elapsed_ms"], 0)

    def test_no_answer(self):
        self.fake.answering = False
        self.addCleanup(setattr, flush, "ANSWER_S", flush.ANSWER_S)
        flush.ANSWER_S = 0.05
        status, output, errors = self.flush()
        self.assertEqual((status, output, errors.count("\n")), (6, "", 1))


class Mistakes(TideCase):
    def test_command_line(self):
        self.assert_one_line_error(self.tide("flush"), 2, "PID")
        self.assert_one_line_error(self.tide("flush", "--tier", "huge", "1"), 2, "huge")

    def test_processes_that_cannot_be_asked(self):
        self.assert_one_line_error(self.tide("flush", 2**22 + 1), 3, "no process")
        child = subprocess.Popen(["sleep", "60"], env=CLEAN)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        self.assert_one_line_error(self.tide("flush", child.pid), 5, "does not run on tidemalloc")

    def test_help_has_an_example(self):
        self.assertIn("tide flush --tier mid", self.tide("flush", "--help").stdout)


class Real(TideCase):
    def flush(self, program, *arguments):
        result = self.tide("flush", "--json", *arguments, program.pid)
        self.assertEqual((result.returncode, result.stderr), (0, ""), result)
        return json.loads(result.stdout)

    def freed(self):
        """A program whose allocator keeps what was freed: static gives nothing back by itself."""
        program = RealProgram(self, "-o", "mode=static")
        program.do("hold(60)")
        program.do("held.clear()")
        return program

    def test_memory_goes_at_once(self):
        program = self.freed()
        report = self.flush(program)
        self.assertGreater(report["returned_bytes"], 45 * MIB)
        self.assertLess(report["rss_after_bytes"], report["rss_before_bytes"] - 45 * MIB)
        again = self.flush(program)
        self.assertLess(again["returned_bytes"], 2 * MIB)

    def test_one_tier(self):
        program = RealProgram(self, "-o", "mode=static")
        program.do("held.extend(bytearray(600) for _ in range(40000))")  # tiny: 23 MiB, every tenth stays
        program.do("held.extend(bytearray(6000) for _ in range(4000))")  # mid: 23 MiB, every tenth stays
        program.do("held[:] = held[::10]")
        report = self.flush(program, "--tier", "large")
        self.assertEqual(report["tiers"], ["large"])
        self.assertLess(report["returned_bytes"], 2 * MIB)
        self.assertGreater(self.flush(program, "--tier", "mid")["returned_bytes"], 10 * MIB)

    def test_survivors_are_told(self):
        program = RealProgram(self, "-o", "mode=static")
        program.do("held.extend(bytearray(600) for _ in range(40000))")
        program.do("held[:] = held[::6]")  # one in each page of 4 KiB
        report = self.flush(program)
        self.assertGreater(report["pinned_bytes"], 5 * MIB)
        self.assertIn("hold a live one", self.tide("flush", program.pid).stdout)

    def test_killed_while_it_is_asked(self):
        program = self.freed()
        for _ in range(3):
            self.tide("stat", program.pid)
        threading.Timer(0.05, program.process.kill).start()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            result = self.tide("flush", program.pid)
            if result.returncode != 0:
                break
        self.assert_one_line_error(result, 3, str(program.pid))

    def test_stopped_program(self):
        program = self.freed()
        os.kill(program.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, program.pid, os.WSTOPPED | os.WNOWAIT)
        self.assert_one_line_error(self.tide("flush", program.pid), 6, "is stopped")
        os.kill(program.pid, signal.SIGCONT)
        # The question stands in the window still, and is answered now; the next one has its own answer.
        self.flush(program)


if __name__ == "__main__":
    unittest.main()
