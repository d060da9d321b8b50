"""What the tests of the `tide` command share."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

TOOL = os.environ["TIDEMALLOC_TOOL"]
LIBRARY = os.environ["TIDEMALLOC_LIBRARY"]
SOURCE = os.environ.get("TIDEMALLOC_SOURCE", str(Path(__file__).resolve().parents[2]))
TOOLS = os.environ.get("TIDEMALLOC_TOOLS", str(Path(SOURCE, "tools")))
COMPLETIONS = os.environ.get("TIDEMALLOC_COMPLETIONS", str(Path(TOOL).with_name("completions")))

# Colours and a preload of the caller must not change what the tests see.
CLEAN = {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "NO_COLOR")}


class TideCase(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="tide-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        # Where tide keeps what it needs for a while: this test's own, since other tests run at the same time.
        self.scratch = Path(tempfile.mkdtemp(prefix="tide-test-scratch-"))
        self.addCleanup(shutil.rmtree, self.scratch)
        self.environment = {**CLEAN, "TMPDIR": str(self.scratch)}

    def tide(self, *arguments, tool=TOOL, env=None):
        """Run tide to its end; returns the finished process with its output as text."""
        return subprocess.run(
            [tool, *map(str, arguments)],
            env={**self.environment, **(env or {})}, capture_output=True, text=True, timeout=30,
        )  # fmt: skip

    def start(self, *arguments):
        """Start tide and leave it running; it is killed at the end of the test."""
        process = subprocess.Popen(
            [TOOL, *map(str, arguments)],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

        def end():
            process.kill()
            process.communicate()

        self.addCleanup(end)
        return process

    def script(self, name, text):
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def assert_one_line_error(self, result, status, words):
        self.assertEqual(result.returncode, status, result)
        self.assertEqual(result.stdout, "")
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertIn("error: ", result.stderr)
        self.assertIn(words, result.stderr)
