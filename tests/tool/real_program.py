"""A program on tidemalloc that tests fill, empty, fork, and look at: Python, told by lines on its standard input."""

import subprocess
import sys

from tide_case import CLEAN, TOOL

MIB = 1 << 20

# Each line is run as Python, and answered with "ok". hold(n) holds about n MiB in blocks of all tiers.
PROGRAM = """
import os, sys, threading, time
held = []
def hold(mib):
    sizes = [600, 900, 3000, 12000, 100000]
    share = (mib << 20) // len(sizes)
    for size in sizes:
        held.extend(bytearray(size) for _ in range(share // size))
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
    print("ok", flush=True)
"""


class RealProgram:
    """Started by `tide run` with options, and ended at the end of the test."""

    def __init__(self, case, *options, environment=None):
        self.process = subprocess.Popen(
            [TOOL, "run", *options, "--", sys.executable, "-c", PROGRAM],
            env={**CLEAN, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid

        def end():
            self.process.kill()
            self.process.communicate()

        case.addCleanup(end)
        case.assertEqual(self.process.stdout.readline(), "ready\n")
        self._case = case

    def do(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        self._case.assertEqual(self.process.stdout.readline(), "ok\n")
