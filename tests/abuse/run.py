#!/usr/bin/env python3
"""Run every case of one abuse program and judge its death: SIGABRT, and one line on stderr that matches.

usage: run.py program [--preload library] [case ...]
With TIDEMALLOC_TEST_ON_ANY=1 only the cases themselves are checked: each must reach its mistake.
"""

import argparse
import os
import re
import resource
import signal
import subprocess
import sys

TIMEOUT_S = 60
EMULATOR = os.environ.get("TIDEMALLOC_TEST_EMULATOR", "").split()  # where programs of another processor are tested


def complaint(program, environment, name, expected, on_any):
    """What is wrong with the death of this case, or None."""
    try:
        case = subprocess.run([*EMULATOR, program, name], env=environment, capture_output=True, text=True, errors="replace",
                              timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"still alive after {TIMEOUT_S} s"
    pointers = re.fullmatch(r"(0x[0-9a-f]+) (0x[0-9a-f]+)\n", case.stdout)
    if not pointers:
        return f"did not reach its mistake: stdout {case.stdout!r}, stderr {case.stderr!r}"
    if on_any:
        return None
    if case.returncode != -signal.SIGABRT:
        return f"ended with {case.returncode}, not by SIGABRT; stderr {case.stderr!r}"
    # An emulator has the last word.
    lines = [line for line in case.stderr.splitlines() if not (EMULATOR and line.startswith("qemu: uncaught target signal 6"))]
    if len(lines) != 1 or not case.stderr.endswith("\n"):
        return f"wrote {len(lines)} lines: {case.stderr!r}"
    pattern = expected.replace("PTR", pointers[1]).replace("START", pointers[2])
    if not re.fullmatch(pattern, lines[0]):
        return f"wrote {lines[0]!r}, expected {pattern!r}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--preload")
    parser.add_argument("case", nargs="*")
    arguments = parser.parse_intermixed_args()

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    environment = dict(os.environ)
    if arguments.preload:
        environment["LD_PRELOAD"] = arguments.preload
    on_any = environment.get("TIDEMALLOC_TEST_ON_ANY") == "1"

    listing = subprocess.run([*EMULATOR, arguments.program, "--list"], env=environment, capture_output=True, text=True,
                             timeout=TIMEOUT_S, check=True)
    cases = dict(line.split("\t") for line in listing.stdout.splitlines())
    chosen = arguments.case or list(cases)
    if not chosen:
        sys.exit("no cases")
    failures = 0
    for name in chosen:
        wrong = complaint(arguments.program, environment, name, cases[name], on_any)
        print(f"{'ok  ' if wrong is None else 'FAIL'} {name}{'' if wrong is None else ': ' + wrong}", flush=True)
        failures += wrong is not None
    print(f"{len(chosen) - failures} of {len(chosen)} cases died as they should")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
