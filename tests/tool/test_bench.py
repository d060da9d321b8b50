"""`tide bench` and `tide battle`: the time that is left, and following a script that measures."""

import io
import os
import pty
import signal
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

from tide_case import CLEAN, SOURCE, TOOL, TOOLS, TideCase

sys.path.insert(0, TOOLS)
from tide import bench  # noqa: E402
from tide.progress import Estimate, Progress, in_words  # noqa: E402

# What bench/run.py does, without measuring: its words are those of --progress.
SCRIPT = """\
import sys, time
def say(text): print(text, file=sys.stderr, flush=True)
assert sys.argv[1] == "--progress", sys.argv
say("progress plan one*1 two*3 one*1 two*3")
for number in (1, 2):
    for name in ("one*1", "two*3"):
        time.sleep({pause})
        say(f"progress done {{name}}")
    say(f"round {{number}} of 2 done, {{number}} s")
say("FAILED something")
print("the table", sys.argv[2:])
sys.exit({status})
"""


class Left(unittest.TestCase):
    def test_nothing_is_known_at_first(self):
        self.assertIsNone(Estimate([("a", 1.0)]).left_s())

    def test_a_step_takes_as_long_as_before_and_a_new_one_as_the_mean(self):
        estimate = Estimate([("a", 1.0), ("b", 1.0), ("a", 1.0), ("c", 1.0)])
        estimate.done("a", 1.0, 2.0)
        estimate.done("b", 1.0, 6.0)
        self.assertEqual(estimate.left_s(), 2.0 + 4.0)
        self.assertEqual(estimate.spent_s(), 8.0)

    def test_weights(self):
        estimate = Estimate([("a", 3.0), ("a", 1.0)])
        estimate.done("a", 3.0, 6.0)
        self.assertEqual(estimate.left_s(), 2.0)

    def test_steps_that_were_not_planned_do_no_harm(self):
        estimate = Estimate([])
        estimate.done("a", 1.0, 2.0)
        self.assertEqual(estimate.left_s(), 0.0)

    def test_words(self):
        self.assertEqual([in_words(s) for s in (0.2, 89, 600, 7200)], ["1 s", "89 s", "10 min", "2 h"])


class Lines(unittest.TestCase):
    def test_script_s_lines(self):
        stream = io.StringIO()
        with Progress(stream=stream) as progress:
            for line in ("progress plan a*1 b-c*2", "progress done a*1", "round 1 of 2: a done, 3 s", "odd words", ""):
                bench.take(line, progress, "tide bench")
            self.assertEqual(progress.estimate.left, {"a": 0.0, "b-c": 2.0})
        first, second = stream.getvalue().splitlines()
        self.assertRegex(first, r"^round 1 of 2: a done, 3 s, about \d+ s left$")
        self.assertEqual(second, "odd words")


class Follow(TideCase):
    def tree(self, status=0, pause=0.01):
        (self.folder / "bench/battle").mkdir(parents=True)
        for place in ("bench/run.py", "bench/battle/run.py"):
            (self.folder / place).write_text(SCRIPT.format(status=status, pause=pause))
        return self.folder

    def test_lines_where_there_is_no_terminal(self):
        words = ("--quick", "--runs", "2", "--only", "x y", "--", "--no-small")
        result = self.tide("bench", "--source", self.tree(), *words)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stdout, "the table ['--quick', '--runs', '2', '--only', 'x y', '--no-small']\n")
        lines = result.stderr.splitlines()
        self.assertRegex(lines[0], r"^round 1 of 2 done, 1 s, about \d+ s left$")
        self.assertEqual(lines[2], "FAILED something")
        self.assertNotIn("progress ", result.stderr)

    def test_status_of_the_script(self):
        for command in ("bench", "battle"):
            with self.subTest(command=command):
                self.assertEqual(self.tide(command, "--source", self.tree(status=1)).returncode, 1)
                for path in sorted(self.folder.rglob("*"), reverse=True):
                    path.rmdir() if path.is_dir() else path.unlink()

    def test_bar_on_a_terminal(self):
        master, slave = pty.openpty()
        output = []

        def read():
            try:
                while data := os.read(master, 4096):
                    output.append(data)
            except OSError:
                pass

        reader = threading.Thread(target=read)
        reader.start()
        command = [TOOL, "bench", "--source", self.tree(pause=0.3)]
        environment = {**CLEAN, "TERM": "xterm"}
        result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=slave, timeout=30)
        os.close(slave)
        reader.join()
        os.close(master)
        self.assertEqual((result.returncode, result.stdout), (0, b"the table []\n"))
        shown = b"".join(output).decode()
        self.assertIn("left", shown)
        self.assertRegex(shown, r"\d+ %")
        self.assertIn("FAILED something", shown)
        self.assertIn("\x1b[?25h", shown)  # the cursor is back

    def test_interrupt_ends_the_script_and_what_it_runs(self):
        (self.folder / "bench").mkdir()
        (self.folder / "bench/run.py").write_text(
            "import subprocess, sys\nprint('progress plan a*1', file=sys.stderr, flush=True)\n"
            f"open({str(self.folder / 'up')!r}, 'w').close()\n"
            "try:\n    subprocess.run(['sleep', '123.25'])\n"
            f"finally:\n    open({str(self.folder / 'tidied')!r}, 'w').close()\n"
        )
        process = self.start("bench", "--source", self.folder)
        while not (self.folder / "up").exists():
            time.sleep(0.02)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(timeout=20), -signal.SIGINT)
        self.assertEqual(process.stderr.read(), "")
        self.assertTrue((self.folder / "tidied").exists())
        self.assertNotIn("sleep\x00123.25", everybody())

    def test_installed_tool_has_no_benchmarks(self):
        tool = self.folder / "bin/tide"
        tool.parent.mkdir()
        tool.write_bytes(Path(TOOL).read_bytes())
        tool.chmod(0o755)
        self.assert_one_line_error(self.tide("bench", tool=tool), 2, "--source")
        self.assert_one_line_error(self.tide("battle", "--source", self.folder), 2, "has no bench/battle/run.py")

    def test_real_scripts_know_the_option(self):
        result = self.tide("bench", "--source", SOURCE, "--", "--list")
        self.assertIn("pair-16\n", result.stdout)
        result = self.tide("battle", "--source", SOURCE, "--", "--list")
        self.assertIn("burst-tiny", result.stdout)

    def test_mistakes_of_the_script_become_ours(self):
        result = self.tide("battle", "--source", SOURCE, "--only", "no-such-scenario")
        self.assert_one_line_error(result, 2, "no-such-scenario")
        self.assertTrue(result.stderr.startswith("tide battle: error: "), result.stderr)


def everybody():
    """The command lines of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_text())
        except OSError:
            pass
    return "\n".join(found)


if __name__ == "__main__":
    unittest.main()
