"""`tide sample`: write the resident memory of a process over time as CSV.

The figures come from /proc/PID/smaps_rollup, which the kernel adds up page by page, so they are exact at the moment
of the sample (VmRSS in /proc/PID/status may lag behind by some pages per thread). One sample of a process of 200 MiB
takes the kernel a millisecond or so, during which the process cannot map or unmap memory.
"""

import contextlib
import csv
import os
import sys
import time

from . import messages

WHO = "tide sample"
STATUS_FAILED = 1

# Column of the CSV and the line of smaps_rollup it comes from.
FIELDS = {
    "rss_kib": "Rss",
    "pss_kib": "Pss",
    "private_dirty_kib": "Private_Dirty",
    "anon_huge_kib": "AnonHugePages",
}


class Process:
    """A process by its /proc directory, which, unlike a number, never comes to mean another process."""

    def __init__(self, pid):
        self._directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY)
        # Field 22 of proc_pid_stat(5) counts clock ticks since boot; the name in field 2 may hold spaces and ')'.
        ticks = int(self._read("stat").rpartition(")")[2].split()[19])
        self._started_ns = ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")

    def _read(self, name):
        descriptor = os.open(name, os.O_RDONLY, dir_fd=self._directory)
        with open(descriptor, encoding="ascii", errors="replace") as file:
            return file.read()

    def age_ms(self):
        return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self._started_ns) // 1_000_000

    def memory_kib(self):
        """The FIELDS of this moment. Raises ProcessLookupError or FileNotFoundError once the process has ended."""
        lines = (line.split() for line in self._read("smaps_rollup").splitlines())
        values = {words[0].rstrip(":"): int(words[1]) for words in lines if words[-1] == "kB"}
        return {column: values[field] for column, field in FIELDS.items()}


def positive(text):
    value = float(text)
    if not 0 < value < 1e9:
        raise ValueError
    return value


def register(subparsers):
    parser = subparsers.add_parser(
        "sample",
        help="write a process's resident memory over time as CSV",
        description="Write the resident memory of process PID over time as CSV, until it ends. time_ms counts from "
        "the start of the process.",
        allow_abbrev=False,
    )
    parser.add_argument("--interval", metavar="MS", type=positive, default=100.0, help="between samples (default: 100)")
    parser.add_argument("--duration", metavar="S", type=positive, help="stop after this many seconds")
    parser.add_argument("--out", metavar="FILE.csv", help="write there instead of to the standard output")
    parser.add_argument("pid", metavar="PID", type=int)
    parser.set_defaults(main=main, parser=parser)


def main(args):
    try:
        process = Process(args.pid)
    except OSError:
        messages.error(WHO, f"no process {args.pid}")
        return STATUS_FAILED
    try:
        with open_output(args.out) as output:
            write_samples(process, output, args.interval / 1000, args.duration)
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left: no more to say at exit
        return 0
    except OSError as problem:
        place = problem.filename if problem.filename == args.out else f"process {args.pid}"
        messages.error(WHO, f"{place}: {problem.strerror}")
        return STATUS_FAILED
    return 0


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
            memory = process.memory_kib()
        except (ProcessLookupError, FileNotFoundError):
            return
        rows.writerow({"time_ms": process.age_ms(), **memory})
        output.flush()  # a reader, or whoever ends us, finds whole lines
        # Keep to the grid of the interval; what a slow sample missed is left out.
        elapsed = time.monotonic() - start
        next_at = (elapsed // interval_s + 1) * interval_s
        if duration_s is not None and next_at > duration_s:
            time.sleep(max(0.0, duration_s - elapsed))
            return
        time.sleep(max(0.0, next_at - elapsed))
