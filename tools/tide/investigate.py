"""`tide investigate`: would this program give memory back, how much, and at what price?

The first phase of the project's plan in one command: believe nothing that was not measured. The program runs with the
allocator's `static` mode, which gives nothing back, with `hybrid`, and on any peers named, in rounds, so that what
slows the machine down for a while meets all of them:

    one run with the counting library, for the hit rates; it also warms the files up
    round 1   static   hybrid   peers ...
    round 2   hybrid   peers ...   static
    ...

    a server (--during):   start .. settled | the load runs ...... | silence | SIGTERM
                                    baseline                   peak      idle
    any other program:     start ............................................ end
                           baseline                   peak      idle: before its end

Every run is recorded (record.py), the rules of advice.py say what the figures mean, and report.py puts all of it on one
page. A program that listens on a socket, and has had nothing to do for a while, waits for requests: without --during it
is ended then. Whatever is started is gone when this command ends, however it ends.
"""

import argparse
import os
import shlex
import shutil
import signal
import statistics
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from . import advice, allocators, messages, run, status
from .one_run import LOAD_BEGINS, SETTLE_S, Counted, InvestigateError, OneRun, Recorded, ending
from .sample import positive

WHO = "tide investigate"
HOW_JUDGED = (
    "Both are intervals that hold the median of many runs, over pairs of runs of static and hybrid in the same round. "
    "A criterion holds or fails when the whole interval lies on one side of its limit; else it is undecided."
)
INTERVAL_MS = 25.0
ROUNDS = 5
SILENCE_S = 3.0


def rounds(text):
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 to 1000")
    return number


def register(subparsers):
    parser = subparsers.add_parser(
        "investigate",
        help="would a program give memory back, how much, and at what price?",
        usage="tide investigate [OPTION]... [--] PROGRAM [ARG]...",
        description="Run PROGRAM with tidemalloc's static mode, which gives nothing back, and with hybrid, which does; "
        "measure what it holds at rest and what it costs; say go or no-go; and write a report as one page. Go means: "
        "more than 1 MiB comes back, for less than 5 % of time.\n\n"
        "A server needs a load: --during. Other programs run until they end. Everything is run several times, without "
        "input unless it comes from a file, its output thrown away; nothing is left running.",
        epilog="examples:\n"
        "  tide investigate -- python3 script.py\n"
        "  tide investigate --peer glibc --peer jemalloc -- ./program < input\n"
        "  tide investigate --during 'redis-benchmark -q -p 7000 -n 200000 -r 100000 -d 500 -t set' \\\n"
        "      -- redis-server --port 7000 --save ''\n\n"
        "Exit status: 0 the report is written, whatever it says; 1 a run failed, or the report cannot be written; "
        "2 bad usage.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "-o", "--out", metavar="FILE.html", help="where the report goes (default: PROGRAM-report.html in this folder)"
    )
    parser.add_argument(
        "--during", metavar="COMMAND", help="the load: a shell command to run against PROGRAM once that has settled"
    )
    parser.add_argument(
        "--seconds",
        metavar="S",
        type=positive,
        default=SILENCE_S,
        help=f"of silence after the load, before the end (default: {SILENCE_S:g})",
    )
    parser.add_argument(
        "--peer",
        metavar="ALLOCATOR",
        action="append",
        default=[],
        help=f"compare with it, too: {', '.join(allocators.PEERS)} (what PROGRAM has now), or NAME=PATH.so; "
        "may be repeated",
    )
    parser.add_argument(
        "--runs", metavar="N", type=rounds, default=ROUNDS, help=f"rounds (default: {ROUNDS}); 1: no noise known"
    )
    parser.add_argument(
        "--interval",
        metavar="MS",
        type=positive,
        default=INTERVAL_MS,
        help=f"between samples (default: {INTERVAL_MS:g})",
    )
    parser.add_argument("--keep", metavar="DIR", help="keep the records there, for tide report")
    parser.add_argument("command", metavar="PROGRAM [ARG]...", nargs=argparse.REMAINDER, help="what to investigate")
    parser.set_defaults(main=main, parser=parser)


def main(args):
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        args.parser.error("no program given")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # through everything that tidies up
    try:
        return investigate(args, command)
    except (InvestigateError, allocators.NotFound, run.RunError) as problem:
        messages.error(WHO, str(problem))
        return status.FAILED


def investigate(args, command):
    page = Path(args.out or f"{Path(command[0]).name}-report.html")
    check_writable(page)
    library = run.find_library()
    program = run.find_program(command[0])
    if run.warn_if_deaf(program, library, WHO):
        raise InvestigateError("so there is nothing to investigate")
    compared = [allocators.tidemalloc("static", library), allocators.tidemalloc("hybrid", library)]
    compared += [allocators.peer(text) for text in dict.fromkeys(args.peer)]

    if args.keep:
        os.makedirs(args.keep, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tide-investigate-") as scratch:
        found = Investigation(args, command, Path(scratch)).all_rounds(compared, counting_library())
        advised = advice.advise(found.runs, found.hits, load=args.during is not None)
        written = write_page(found, advised, page)
    print_summary(found, advised, page)
    return written


def check_writable(page):
    """Minutes of measuring must not end with a page that cannot be written."""
    try:
        if page.is_dir():
            raise IsADirectoryError
        with tempfile.TemporaryFile(dir=page.parent):
            pass
    except IsADirectoryError:
        raise InvestigateError(f"{page} is a folder; name a file with -o") from None
    except OSError as problem:
        raise InvestigateError(f"cannot write {page}: {problem.strerror}") from None


def counting_library():
    try:
        return run.find_library(None, run.COUNTING_LIBRARY)
    except run.RunError as problem:
        messages.warning(WHO, f"no hit rates: {problem}")
        return None


# ------------------------------------------------------------------------------------------------------ all rounds


class Investigation:
    """All runs of one program; keeps what they showed."""

    def __init__(self, args, command, scratch):
        self.args, self.command, self.scratch = args, command, scratch
        self.records = Path(args.keep) if args.keep else scratch
        self.runs = {}  # by allocator, one a round
        self.paths = {}  # of their records
        self.hits = None
        self.remarks = []
        self._ended_as = None  # the exit status of the first run: the others must have the same

    def all_rounds(self, compared, counting):
        from .progress import Progress

        self.runs = {one.name: [] for one in compared}
        self.paths = {one.name: [] for one in compared}
        plan = [("run", 1.0)] * (self.args.runs * len(compared) + (counting is not None))
        with Progress(plan) as progress:
            if counting is not None:
                progress.working_on("counting hits")
                self.hits = self._count(counting)
                progress.done("run")
            for number in range(self.args.runs):
                shift = number % len(compared)
                for one in compared[shift:] + compared[:shift]:
                    progress.working_on(f"round {number + 1} of {self.args.runs}: {one.name}")
                    self._round(one, number + 1)
                    progress.done("run")
                so_far = f"{time.monotonic() - progress.begun:.0f} s"
                progress.milestone(f"round {number + 1} of {self.args.runs} done, {so_far}")
        return self

    def _round(self, allocator, number):
        path = self.records / f"{allocator.name}-{number}.jsonl"
        with OneRun(self, allocator.environment()) as one, Recorded(one, path, allocator) as recorded:
            one.live(recorded.mark)
            recorded.finish()
        self._check_end(one, allocator.name)
        self.runs[allocator.name].append(recorded.figures())
        self.paths[allocator.name].append(path)

    def _count(self, library):
        with OneRun(self, allocators.tidemalloc("hybrid", library).environment()) as one, Counted(one) as counted:
            one.live(lambda text: None)
        self._check_end(one, "hybrid, counting")
        return counted.hits()

    def _check_end(self, one, name):
        """A program that was not ended by us ends in the same way on every allocator, or something is wrong."""
        if one.stopped:
            return
        if self._ended_as is None:
            self._ended_as = one.child.returncode
            if one.child.returncode != 0:
                messages.warning(WHO, f"the program ends with {ending(one.child.returncode)}: {one.last_words()}")
        elif one.child.returncode != self._ended_as:
            raise InvestigateError(
                f"on {name} the program ended with {ending(one.child.returncode)}, before with "
                f"{ending(self._ended_as)}: {one.last_words()}"
            )

    def remark(self, text):
        if text not in self.remarks:
            self.remarks.append(text)

    def representatives(self):
        """(path, Series, Run) of each allocator: the record of the round whose level at rest is the median."""
        from . import series

        found = []
        for name, runs in self.runs.items():
            order = sorted(range(len(runs)), key=lambda i: runs[i].idle)
            chosen = order[(len(order) - 1) // 2]
            path = str(self.paths[name][chosen])
            record = series.load(path)
            begun = next((event["t_ms"] for event in record.events if event.get("text") == LOAD_BEGINS), 0.0)
            # A server's baseline is what it holds before the load, and not while it starts.
            record.samples = [s for s in record.samples if s.t_ms >= begun - SETTLE_S * 1000] or record.samples
            found.append((path, record, runs[chosen]))
        return found


# --------------------------------------------------------------------------------------------------------- summary

COLUMNS = {  # title: (figure of advice.Run, how it is written)
    "baseline": ("baseline", advice.mib),
    "peak": ("peak", advice.mib),
    "at rest": ("idle", advice.mib),
    "at exit": ("exit", advice.mib),
    "mean": ("mean", advice.mib),
    "CPU s": ("cpu_s", "{:.2f}".format),
    "wall s": ("wall_s", "{:.2f}".format),
    "page faults": ("faults", "{:,.0f}".format),
}


def medians(found):
    """(name, {column: (value, text)}) of each allocator."""
    for name, runs in found.runs.items():
        cells = {}
        for title, (key, write) in COLUMNS.items():
            value = statistics.median(getattr(run, key) for run in runs)
            cells[title] = (value, write(value))
        yield name, cells


def what_is_shown(found):
    count = found.args.runs
    wall = "; wall: of the load" if found.args.during else ""
    return f"{'one run each' if count == 1 else f'medians of {count} runs each'}{wall}"


def print_summary(found, advised, page):
    """What the page says, for the terminal."""
    print(f"{shlex.join(found.command)}: {what_is_shown(found)}\n")
    print(f"{'MiB resident':<14}" + "".join(f"{title:>12}" for title in COLUMNS))
    for name, cells in medians(found):
        print(f"{name:<14}" + "".join(f"{text:>12}" for _, text in cells.values()))
    print()
    for criterion in advised.criteria:
        print_wrapped(f"{criterion.name}: {criterion.verdict}: {criterion.text}")
    for sentence in advised.sentences + found.remarks:
        print_wrapped(sentence)
    print()
    print_wrapped(advised.headline)
    print(f"Report: {page}")


def print_wrapped(text):
    """To the width of the terminal; whole lines for everybody else, who may want to search them."""
    if sys.stdout.isatty():
        text = textwrap.fill(text, max(40, min(110, shutil.get_terminal_size().columns)), subsequent_indent="  ")
    print(text)


def write_page(found, advised, page):
    """The report of the representative records, with the verdict in front of it; returns the exit status."""
    from . import report, report_figures, report_page, report_tables
    from .report_tables import Figure, Table

    shown_runs = found.representatives()
    title = f"What would tidemalloc save {Path(found.command[0]).name}?"
    built = report_figures.build([(path, record) for path, record, _ in shown_runs], title)
    # What we know of all runs, and of when the load began, in place of what can be read from one record each.
    built.findings, built.cautions = [advised.headline, *advised.sentences], found.remarks
    for shown, (_, _, figures) in zip(built.runs, shown_runs):
        if shown.summary.grew:
            shown.summary.baseline, shown.summary.idle = figures.baseline, figures.idle
    anew = {"levels": report_tables.levels, "ablation": report_tables.ablation}
    built.tables = [anew[table.key](built.runs) if table.key in anew else table for table in built.tables]
    criteria = [[one.name, one.verdict, one.text] for one in advised.criteria]
    rows = [[name, *(Figure(value, text) for value, text in cells.values())] for name, cells in medians(found)]
    shown = f"{what_is_shown(found)}; the plots show the run with the median at rest"
    caption = f"MiB resident, seconds, page faults: {shown}"
    built.tables = [
        Table("verdict", advised.headline, ["Criterion", "Verdict", "Measured"], criteria, HOW_JUDGED),
        Table("medians", caption, ["Allocator", *COLUMNS], rows),
        *built.tables,
    ]
    try:
        return report.write_page(report_page.render(built), str(page))
    except report_page.Missing as problem:
        raise InvestigateError(str(problem)) from None
