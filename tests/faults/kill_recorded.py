#!/usr/bin/env python3
"""Kills programs, and `tide record` itself, at random moments: what was written until then must load and be reported.

kill_recorded.py --tide TOOL --library LIBRARY --program PROGRAM [--rounds N] [--seed N]"""
import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def one_round(options, dice, folder, kill_recorder):
    """What went wrong, or an empty string, and the number of samples."""
    path = os.path.join(folder, "record.jsonl")
    command = [options.tide, "record", "-i", "5", "-o", path, "--library", options.library]
    command += ["--", options.program, "7", "30", "4"]
    with open(os.path.join(folder, "log"), "w+") as log:
        recorder = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        limit = time.monotonic() + 60
        # Not before there is a sample: a record of nothing is another case.
        while time.monotonic() < limit and (not os.path.exists(path) or os.path.getsize(path) < 2000):
            time.sleep(0.005)
        victims = children_of(recorder.pid)
        time.sleep(dice.random() * 0.2)
        if not victims:
            recorder.kill()
            return "the program is no child of the recorder", 0
        os.kill(recorder.pid if kill_recorder else victims[0], signal.SIGKILL)
        try:
            status = recorder.wait(60)
        except subprocess.TimeoutExpired:
            recorder.kill()
            return "tide record does not end", 0
        finally:
            for victim in victims:
                try:
                    os.kill(victim, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        if not kill_recorder and status not in (-signal.SIGKILL, 128 + signal.SIGKILL):
            return f"tide record ends with {status}", 0
    report = subprocess.run([options.tide, "report", "--text", path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, check=False)
    if report.returncode != 0:
        return f"tide report: {report.stdout[-300:]}", 0
    with open(path, "rb") as file:
        return "", file.read().count(b"\n")


def main():
    parser = argparse.ArgumentParser()
    for name in ("tide", "library", "program"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    lines = 0
    for i in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            problem, count = one_round(options, dice, folder, kill_recorder=i % 2 == 1)
            lines += count
        if problem:
            print(f"round {i}: {'the recorder' if i % 2 else 'the program'} is killed: {problem}")
            return 1
    print(f"{options.rounds} records of killed programs and killed recorders, {lines} lines, all load")
    return 0


if __name__ == "__main__":
    sys.exit(main())
