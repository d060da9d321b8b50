"""The `tide` command itself: help, mistakes, colours, and what every command does when nobody can read it."""

import argparse
import os
import pty
import re
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

from tide_case import CLEAN, SOURCE, TOOL, TOOLS, TideCase

sys.path.insert(0, TOOLS)
from tide import cli  # noqa: E402

NO_PROCESS = str(2**22 + 1)  # above the largest pid there can be
TRACEBACK = "Traceback"


def parsers():
    """The parser of each command, by its name."""
    found = next(a for a in cli.build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return found.choices


class Help(TideCase):
    def test_version_is_that_of_the_header(self):
        header = Path(os.environ["TIDEMALLOC_HEADER"]).read_text()
        version = re.search('TIDEMALLOC_VERSION "(.*)"', header)[1]
        self.assertEqual(self.tide("--version").stdout, f"tide {version}\n")

    def test_without_arguments_it_is_the_help(self):
        result = self.tide()
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertEqual(result.stdout, self.tide("--help").stdout)
        for name in cli.COMMANDS:
            self.assertRegex(result.stdout, rf"(?m)^    {name}\b")

    def test_help_command(self):
        self.assertEqual(self.tide("help").stdout, self.tide("--help").stdout)
        self.assertEqual(self.tide("help", "run").stdout, self.tide("run", "--help").stdout)
        self.assert_one_line_error(self.tide("help", "no-such-command"), 2, "no-such-command")

    def test_every_command_has_help_with_an_example(self):
        self.assertEqual(set(parsers()), set(cli.COMMANDS))
        for name in cli.COMMANDS:
            with self.subTest(command=name):
                result = self.tide(name, "--help", env={"COLUMNS": "80"})
                self.assertEqual((result.returncode, result.stderr), (0, ""))
                self.assertRegex(result.stdout, rf"usage: tide {name}\b")
                self.assertRegex(result.stdout, r"(?i)\bexamples?:\s")
                example = re.split(r"(?i)\bexamples?:\s", result.stdout, maxsplit=1)[1]
                self.assertIn(f"tide {name}", example)
                for line in result.stdout.partition("\n\n")[2].splitlines():  # behind the usage
                    self.assertLessEqual(len(line), 100, line)

    def test_every_option_has_help(self):
        for name, parser in parsers().items():
            for action in parser._actions:
                with self.subTest(command=name, option=action.option_strings or action.dest):
                    self.assertTrue(action.help or not action.option_strings)


class Mistakes(TideCase):
    def test_command_line(self):
        self.assert_one_line_error(self.tide("no-such-command"), 2, "no-such-command")
        for name in cli.COMMANDS:
            with self.subTest(command=name):
                usage = 125 if name in ("run", "record") else 2
                result = self.tide(name, "--no-such-option")
                self.assertIn(result.returncode, (2, usage), result)
                self.assert_one_line_error(result, result.returncode, f"tide {name}")

    def test_process_that_does_not_exist(self):
        for name in ("stat", "flush", "smaps", "record", "sample"):
            with self.subTest(command=name):
                self.assert_one_line_error(self.tide(name, NO_PROCESS), 3, NO_PROCESS)

    def test_process_on_another_allocator(self):
        for name in ("stat", "flush"):
            with self.subTest(command=name):
                self.assert_one_line_error(self.tide(name, os.getpid()), 5, "not run on tidemalloc")

    def test_process_without_a_keeper(self):
        process = self.start("run", "--keeper", "off", "sh", "-c", "echo up; exec sleep 20")
        self.assertEqual(process.stdout.readline(), "up\n")
        self.assertEqual(self.tide("flush", process.pid).returncode, 6)

    @unittest.skipUnless(os.getuid() == 0, "only root can become another user")
    def test_process_of_another_user(self):
        process = subprocess.Popen(["sleep", "20"])
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        for name in ("stat", "flush", "smaps", "record", "sample"):
            with self.subTest(command=name):
                result = subprocess.run(
                    [TOOL, name, str(process.pid)], env=CLEAN, user=65534, group=65534, extra_groups=[], cwd="/",
                    capture_output=True, text=True, timeout=30,
                )  # fmt: skip
                self.assert_one_line_error(result, 4, "process")

    def test_file_that_is_none_of_ours(self):
        foreign = self.folder / "foreign.jsonl"
        foreign.write_text('{"a": 1}\n')
        self.assert_one_line_error(self.tide("report", foreign), 7, "foreign.jsonl")


class Output(TideCase):
    """Nobody reads, or the disk is full: one line or silence, never a traceback."""

    COMMANDS = (
        ("--help",), ("--version",), ("help", "investigate"), ("stat", "--help"), ("smaps", "{pid}"),
        ("sample", "--duration", "0.2", "{pid}"), ("record", "--duration", "0.2", "{pid}"), ("top", "--once"),
    )  # fmt: skip

    def outcomes(self, stdout):
        for words in self.COMMANDS:
            with self.subTest(command=words):
                command = [TOOL, *(word.format(pid=os.getpid()) for word in words)]
                yield subprocess.run(command, env=CLEAN, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=30)

    def test_full_disk(self):
        with open("/dev/full", "w") as full:
            for result in self.outcomes(full):
                self.assertEqual(result.returncode, 1, result)
                self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
                self.assertIn("No space left on device", result.stderr)

    def test_reader_that_left(self):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w") as broken:
            for result in self.outcomes(broken):
                self.assertEqual((result.returncode, result.stderr), (0, ""), result)

    def test_closed_streams(self):
        for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
            for words in ("--help", "run true", "stat 1x", f"sample --duration 0.1 {os.getpid()}"):
                with self.subTest(command=words, closed=closed):
                    result = subprocess.run(
                        f'"{TOOL}" {words} {closed}', shell=True, env=CLEAN, capture_output=True, text=True, timeout=30
                    )
                    self.assertNotIn(TRACEBACK, result.stderr)
                    self.assertLess(result.returncode, 120)

    def test_colour_only_on_a_terminal_that_wants_it(self):
        def stderr_of(env):
            master, slave = pty.openpty()
            try:
                subprocess.run([TOOL, "run"], env={**CLEAN, **env}, stderr=slave, timeout=30)
                return os.read(master, 4096)
            finally:
                os.close(slave)
                os.close(master)

        self.assertIn(b"\033[", stderr_of({"TERM": "xterm"}))
        self.assertNotIn(b"\033[", stderr_of({"TERM": "xterm", "NO_COLOR": "1"}))
        self.assertNotIn(b"\033[", stderr_of({"TERM": "dumb"}))
        self.assertNotIn("\033[", self.tide("run", env={"TERM": "xterm"}).stderr)


class Interrupt(TideCase):
    """Ctrl-C at any command that takes its time: it ends at once, without a traceback."""

    @staticmethod
    def wait_for_the_interpreter(process):
        """Its start takes a second on a busy machine, and an interrupt in there is none of ours."""
        for _ in range(60):
            if process.poll() is not None:
                return
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            if (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") >= 0.25:
                return
            time.sleep(0.05)

    def test_long_commands(self):
        source = str(SOURCE)
        for words in (
            ("sample", os.getpid()), ("record", "-o", self.folder / "r.jsonl", os.getpid()),
            ("smaps", "--at", "0,20", os.getpid()), ("exporter", "--listen", "127.0.0.1:0"),
            ("investigate", "-o", self.folder / "i.html", "--", "sleep", "20"),
            ("record", "-o", self.folder / "p.jsonl", "--", "sleep", "20"),
            ("battle", "--source", source, "--quick"),
        ):  # fmt: skip
            if words[0] == "battle" and not os.path.exists(os.path.join(os.path.dirname(TOOL), "bench", "battle")):
                continue  # make check does not build the benchmark programs
            with self.subTest(command=words[0]):
                process = self.start(*words)
                time.sleep(1.0)
                self.wait_for_the_interpreter(process)
                self.assertIsNone(process.poll(), process.stderr.read() if process.poll() is not None else "")
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=20)
                self.assertIn(process.returncode, (0, 130, -signal.SIGINT), errors)
                self.assertNotIn(TRACEBACK, errors)


if __name__ == "__main__":
    unittest.main()
