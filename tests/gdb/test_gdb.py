"""tools/gdb/tide.py, on a process, on its core file, and as gdb loads it by itself."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

PROGRAM = os.environ["TIDEMALLOC_GDB_PROGRAM"]
SCRIPT = os.environ["TIDEMALLOC_GDB_SCRIPT"]
PRELOADED = os.environ["TIDEMALLOC_GDB_PRELOADED"]
SECURE = os.environ["TIDEMALLOC_SECURE_LIBRARY"]
COMPARE = Path(__file__).parent / "compare.py"
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "DEBUGINFOD_URLS")}


def gdb(*arguments):
    return subprocess.run(["gdb", "-batch", "-nx", "-iex", "set auto-load safe-path /", *map(str, arguments)], env=ENVIRONMENT,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)


def commands(*texts):
    return [word for text in texts for word in ("-ex", text)]


class GdbTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="tide-gdb-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def expect_compared(self, result):
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertRegex(result.stdout, r"compared \d\d blocks")

    def test_process_and_core(self):
        core = self.folder / "core"
        live = gdb(*commands(f"source {SCRIPT}", "break stop_here", "run", f"source {COMPARE}", f"gcore {core}", "kill"), PROGRAM)
        self.expect_compared(live)
        self.expect_compared(gdb(*commands(f"source {SCRIPT}", f"source {COMPARE}"), PROGRAM, core))

    def test_damaged_list(self):
        result = gdb(*commands(f"source {SCRIPT}", "break stop_here", "run damaged", "up", "tide block freed"), PROGRAM)
        self.assertIn("the free list of the span at 0x", result.stdout)
        self.assertIn("is damaged: it leads to 0x5555555555555555", result.stdout)

    def test_secure(self):
        """Links are encoded there, and what was freed waits."""
        result = gdb(*commands(f"source {SCRIPT}", "set startup-with-shell off", f"set environment LD_PRELOAD {SECURE}",
                               "break stop_here", "run secure", "up", "tide block tiny[9]", "tide block freed", "tide block remote[0]",
                               "tide block gone", "tide span freed", "tide heaps"), PRELOADED)
        states = re.findall(r"^  state +(.*)$", result.stdout, re.MULTILINE)
        self.assertEqual(states, ["live", "freed, waits in quarantine", "freed by another thread, not collected yet",
                                  "freed, held back from use"], result.stdout)
        self.assertNotIn("damaged", result.stdout)
        self.assertNotIn("Traceback", result.stdout)

    def test_before_the_first_block(self):
        result = gdb(*commands(f"source {SCRIPT}", "tide stats", "starti", "tide heaps"), PROGRAM)
        self.assertIn("no tidemalloc in this program, or no debug information for it", result.stdout)
        self.assertNotIn("Traceback", result.stdout)

    def test_foreign_program(self):
        result = gdb(*commands(f"source {SCRIPT}", "tide heaps", "tide block", "tide block 0"), "/bin/true")
        self.assertIn("no tidemalloc in this program", result.stdout)
        self.assertIn("which address?", result.stdout)
        self.assertNotIn("Traceback", result.stdout)

    def test_help(self):
        result = gdb(*commands(f"source {SCRIPT}", "help tide"))
        for name in ("block", "span", "heaps", "runs", "stats"):
            self.assertTrue(re.search(rf"^tide {name} --", result.stdout, re.MULTILINE), result.stdout)


if __name__ == "__main__":
    unittest.main()
