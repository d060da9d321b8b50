#!/usr/bin/env python3
"""Runs the soak and judges it: what a process holds at rest must not grow.

run.py --program PROGRAM --library LIBRARY [--seconds N] [--seed N] [--burst MIB] [--lose BYTES] [--must-fail]
       [--csv FILE]
run.py --judge FILE
run.py --self-test

For each column a line is fitted by least squares through the values at rest, without the first tenth of the time and
the first ten cycles, in which libc's stacks and our metadata reach their size. The growth that the line shows over the
whole time, less two standard errors, must stay below the column's bound."""
import argparse
import csv
import math
import os
import random
import subprocess
import sys

WARM_PART = 0.1
WARM_CYCLES = 10
# Growth over the run; of about 100 MiB that come and go in every cycle.
BOUNDS = {"resident_kib": 1024.0, "overhead_kib": 1024.0, "metadata_kib": 256.0, "mappings": 16.0}


def fit(times, values):
    """Slope and its standard error."""
    count = len(times)
    mean_time, mean = sum(times) / count, sum(values) / count
    spread = sum((t - mean_time) ** 2 for t in times)
    slope = sum((t - mean_time) * (v - mean) for t, v in zip(times, values)) / spread
    residue = sum((v - mean - slope * (t - mean_time)) ** 2 for t, v in zip(times, values))
    return slope, math.sqrt(residue / (count - 2) / spread)


def judge(text):
    """Prints the figures; True: nothing grows."""
    rows = list(csv.DictReader(text.splitlines()))
    for row in rows:
        row["overhead_kib"] = float(row["resident_kib"]) - float(row["live_kib"])
    seconds = float(rows[-1]["seconds"])
    used = [row for row in rows[WARM_CYCLES:] if float(row["seconds"]) >= WARM_PART * seconds]
    if len(used) < 8:
        print(f"{len(used)} cycles are too few to judge")
        return False
    times = [float(row["seconds"]) for row in used]
    resting = sum(row["still"] == "1" for row in used)
    print(f"{len(rows)} cycles in {seconds:.0f} s, {resting} of {len(used)} judged ones ended with the keeper at rest, "
          f"{float(rows[-1]['returned_kib']) / 1048576:.1f} GiB given back")
    good = True
    for column, bound in BOUNDS.items():
        values = [float(row[column]) for row in used]
        slope, error = fit(times, values)
        growth, doubt = slope * seconds, 2 * error * seconds
        grows = growth - doubt > bound
        good = good and not grows
        print(f"{column}: {min(values):.0f} to {max(values):.0f}, mean {sum(values) / len(values):.0f}; "
              f"slope {slope * 3600:+.1f} an hour, {growth:+.1f} over the run (+-{doubt:.1f}), bound {bound:.0f}"
              + (": GROWS" if grows else ""))
    return good


def self_test():
    """Made-up runs: what does not grow passes, what grows in one column fails."""
    dice = random.Random(1)

    def made(column="", growth=0.0):
        lines = ["seconds,kind,still,resident_kib,live_kib,metadata_kib,mappings,heaps,returned_kib"]
        for i in range(700):
            extra = growth * i / 700
            live = 7000 + dice.gauss(0, 200)
            resident = live + 6000 + dice.gauss(0, 600) + (extra if column == "resident_kib" else 0)
            metadata = 700 + (extra if column == "metadata_kib" else 0)
            mappings = 48 + (extra if column == "mappings" else 0)
            lines.append(f"{i * 1.7},made,1,{resident:.0f},{live:.0f},{metadata:.0f},{mappings:.0f},9,{i * 40000}")
        return "\n".join(lines)

    wrong = 0 if judge(made()) else 1
    for column, growth in (("resident_kib", 1700), ("metadata_kib", 300), ("mappings", 20)):
        wrong += judge(made(column, growth))
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--judge")
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--program")
    parser.add_argument("--library")
    parser.add_argument("--seconds", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--burst", type=int, default=96)
    parser.add_argument("--lose", type=int, default=0)
    parser.add_argument("--must-fail", action="store_true")
    parser.add_argument("--csv")
    options = parser.parse_args()
    if options.self_test:
        return self_test()
    if options.judge:
        with open(options.judge) as file:
            text = file.read()
    else:
        command = [options.program] + [str(n) for n in (options.seed, options.seconds, options.burst, options.lose)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False,
                              env=dict(os.environ, LD_PRELOAD=options.library))
        text = done.stdout
        if options.csv:
            with open(options.csv, "w") as file:
                file.write(text)
        if done.returncode != 0:
            print(f"the program ends with {done.returncode}")
            return 1
    good = judge(text)
    return 0 if good != options.must_fail else 1


if __name__ == "__main__":
    sys.exit(main())
