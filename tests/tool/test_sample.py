"""`tide sample`: real figures of a real process."""

import csv
import io
import os
import signal
import subprocess
import sys
import time
import unittest

from tide_case import CLEAN, TideCase

COLUMNS = ["time_ms", "rss_kib", "pss_kib", "private_dirty_kib", "anon_huge_kib"]

# Says "ready", and on a line of input touches 32 MiB and says "grown"; ends with its input.
GROWING = """
import mmap, sys
print("ready", flush=True)
sys.stdin.readline()
memory = mmap.mmap(-1, 32 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.write(b"x" * (32 << 20))
print("grown", flush=True)
sys.stdin.read()
"""


class Sample(TideCase):
    def grower(self):
        process = subprocess.Popen(
            [sys.executable, "-c", GROWING], env=CLEAN, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

        def end():
            process.kill()
            process.communicate()

        self.addCleanup(end)
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def test_samples_until_the_process_ends(self):
        process = self.grower()
        out = self.folder / "memory.csv"
        sampler = self.start("sample", "--interval", "10", "--out", out, process.pid)
        self.wait_for_rows(out, 3)
        process.stdin.write("\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), "grown\n")
        self.wait_for_rows(out, len(self.rows(out)) + 3)
        process.communicate()
        self.assertEqual(sampler.wait(timeout=20), 0)

        rows = self.rows(out)
        self.assertEqual(list(rows[0]), COLUMNS)
        times = [row["time_ms"] for row in rows]
        self.assertEqual(times, sorted(times))
        # Not the last row: on its way out the process has unmapped the memory already.
        growth = max(row["rss_kib"] for row in rows) - rows[0]["rss_kib"]
        self.assertGreater(growth, 32 * 1024 - 64)
        for row in rows:
            self.assertGreaterEqual(row["rss_kib"], row["pss_kib"])
            self.assertGreaterEqual(row["rss_kib"], row["private_dirty_kib"])

    def test_duration_and_standard_output(self):
        result = self.tide("sample", "--interval", "20", "--duration", "0.3", os.getpid())
        self.assertEqual(result.returncode, 0, result.stderr)
        rows = list(csv.DictReader(io.StringIO(result.stdout)))
        self.assertTrue(1 <= len(rows) <= 16, rows)

    def test_no_such_process(self):
        self.assert_one_line_error(self.tide("sample", 2**22 + 1), 3, "no process")

    def test_mistakes(self):
        self.assert_one_line_error(self.tide("sample"), 2, "PID")
        self.assert_one_line_error(self.tide("sample", "--interval", "0", os.getpid()), 2, "--interval")
        self.assert_one_line_error(self.tide("sample", "--interval", "x", os.getpid()), 2, "not a number above 0")

    def test_interrupt_is_a_way_to_end_it(self):
        out = self.folder / "memory.csv"
        sampler = self.start("sample", "--interval", "10", "--out", out, os.getpid())
        self.wait_for_rows(out, 3)
        sampler.send_signal(signal.SIGINT)
        self.assertEqual((sampler.wait(timeout=20), sampler.stderr.read()), (0, ""))
        self.assertTrue(out.read_text().endswith("\n"))

    def test_output_that_cannot_be_written(self):
        result = self.tide("sample", "--out", self.folder / "none/out.csv", os.getpid())
        self.assert_one_line_error(result, 1, "out.csv")

    def rows(self, path):
        with path.open(newline="") as file:
            return [{key: int(value) for key, value in row.items()} for row in csv.DictReader(file)]

    def wait_for_rows(self, path, count):
        """Wait until the sampler has written so many rows, 20 s at most."""
        for _ in range(1000):
            if path.exists() and path.read_text().count("\n") > count:
                return
            time.sleep(0.02)
        self.fail(f"fewer than {count} samples")


if __name__ == "__main__":
    unittest.main()
