"""`tide sample`: write the resident memory of a process over time as CSV.

The figures come from /proc/PID/smaps_rollup, which the kernel adds up page by page, so they are exact at the moment
of the sample (VmRSS in /proc/PID/status may lag behind by some pages per thread). One sample of a process of 200 MiB
takes the kernel a millisecond or so, during which the process cannot map or unmap memory.

It is the plain little brother of `tide record`: four columns, any process, the clock of the process itself. Ctrl-C ends
it with status 0.
"""

import argparse
import contextlib
import csv
import math
import sys
import time

from . import messages, status
from .process import Process, ProcessError

WHO = "tide sample"

# Column of the CSV, and the figure of Process.rollup that stands in it.
FIELDS = {
    "rss_kib": "rss",
    "pss_kib": "pss",
    "private_dirty_kib": "private_dirty",
    "anon_huge_kib": "anon_huge",
}


def positive(text):
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return value


def register(subparsers):
    parser = subparsers.add_parser(
        "sample",
        help="write a process's resident memory over time as CSV",
        description="Write the resident memory of process PID over time as CSV, until it ends. time_ms counts from "
        "the start of the process.",
        epilog="example:\n  tide sample --interval 20 --duration 60 --out memory.csv $(pidof redis-server)",
        allow_abbrev=False,
    )
    parser.add_argument("--interval", metavar="MS", type=positive, default=100.0, help="between samples (default: 100)")
    parser.add_argument("--duration", metavar="S", type=positive, help="stop after this many seconds")
    parser.add_argument("--out", metavar="FILE.csv", help="write there instead of to the standard output")
    parser.add_argument("pid", metavar="PID", type=int, help="the process to look at")
    parser.set_defaults(main=main, parser=parser)


def main(args):
    try:
        with Process(args.pid) as process, open_output(args.out) as output:
            write_samples(process, output, args.interval / 1000, args.duration)
    except ProcessError as problem:
        messages.error(WHO, str(problem))
        return problem.status
    except KeyboardInterrupt:
        return status.OK
    return status.OK


def open_output(path):
    if path is None:
        return contextlib.nullcontext(sys.stdout)
    return open(path, "w", encoding="ascii", newline="")


def write_samples(process, output, interval_s, duration_s):
    rows = csv.DictWriter(output, ["time_ms", *FIELDS], lineterminator="\n")
    rows.writeheader()
    start = time.monotonic()
    while True:
        try:
            memory = process.rollup()
        except ProcessError as problem:
            if problem.status != status.NO_PROCESS:
                raise
            return
        rows.writerow({"time_ms": process.age_ms()} | {name: memory[field] // 1024 for name, field in FIELDS.items()})
        output.flush()  # a reader, or whoever ends us, finds whole lines
        # Keep to the grid of the interval; what a slow sample missed is left out.
        elapsed = time.monotonic() - start
        next_at = (elapsed // interval_s + 1) * interval_s
        if duration_s is not None and next_at > duration_s:
            time.sleep(max(0.0, duration_s - elapsed))
            return
        time.sleep(max(0.0, next_at - elapsed))
