"""`tide record`: write the memory of a process over time, until it ends.

Each moment holds the kernel's own count (smaps_rollup, for any allocator) and, on tidemalloc, what the allocator says
of itself and what its keeper has done since. Sampling costs the watched process something: the kernel holds its map of
memory while it counts, 2 or 3 ms for 100 MiB, and the keeper wakes to answer. So an interval of which a
sample would take more than a twentieth is widened for as long as that is so, and the record ends with the processor
time that sampling took.

    tide record PID              watches; Ctrl-C, TERM or HUP end the record (exit status 0), the process goes on
    tide record -- PROGRAM ...   starts it on tidemalloc and stays as its parent (parent.py): signals and the
                                 exit status pass, as with `tide run`
"""

import argparse
import contextlib
import datetime
import os
import select
import signal
import sys

from . import messages, options, parent, record_sampling, run, series, status, window
from .mapped_allocator import allocator_of, wait_for_libraries
from .process import Process, ProcessError

WHO = "tide record"
INTERVAL_MS = 100.0

record_process, Sampler = record_sampling.record_process, record_sampling.Sampler


# --------------------------------------------------------------------------------------------------- the command


def milliseconds(text):
    return _number(text, 1, record_sampling.LONGEST_MS, "milliseconds")


def seconds(text):
    return _number(text, 0.001, 1e9, "seconds")


def _number(text, least, most, unit):
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of {unit} from {least:g} to {most:g}")
    return value


def register(subparsers):
    parser = subparsers.add_parser(
        "record",
        help="write a process's memory over time, for tide report",
        usage="tide record [OPTION]... PID | -- PROGRAM [ARG]...",
        description="Write the memory of process PID, or of PROGRAM started on tidemalloc, until it ends. Any "
        "allocator can be watched; tidemalloc also tells about its tiers and what its keeper does.",
        epilog="examples:\n"
        "  tide record -o redis.jsonl $(pidof redis-server)\n"
        "  tide record -o static.jsonl --mode static -- python3 app.py\n"
        "  tide record -o own.jsonl --as-is -- python3 app.py       (on the allocator that it has)\n"
        "  tide report *.jsonl\n\n"
        "Exit status: with PID as 'tide --help' lists them, 0 after Ctrl-C; with PROGRAM as 'tide run'.",
        conflict_handler="resolve",  # -o is the file here, as with other recorders; --option and -O set options
    )
    options.add_to(parser)
    parser.add_argument("-O", metavar="NAME=VALUE", type=options.assignment, action="append", dest="option",
                        help="the same as --option")  # fmt: skip
    parser.add_argument("--as-is", action="store_true", help="leave PROGRAM on its own allocator")
    parser.add_argument("--library", metavar="PATH", help=f"the {run.LIBRARY} to use (default: the one tide came with)")
    parser.add_argument(
        "-o", "--out", metavar="FILE",
        help="write there (default: the standard output; with PROGRAM: its name and pid, .jsonl)",
    )  # fmt: skip
    parser.add_argument("--format", choices=("jsonl", "csv"), default="jsonl", help="csv: samples only, no events")
    parser.add_argument(
        "-i", "--interval", metavar="MS", type=milliseconds, default=INTERVAL_MS, help="between samples (default: 100)"
    )
    parser.add_argument("--duration", metavar="S", type=seconds, help="stop recording after this many seconds")
    parser.add_argument("command", metavar="PID | -- PROGRAM [ARG]...", nargs="...", help="what to watch")
    parser.set_defaults(main=main, parser=parser, option=[])


def main(args):
    words = args.command
    if words[:1] != ["--"] and words and words[0].isdecimal():
        args.parser.parse_args(words[1:], args)  # options may stand behind the PID, too
        if args.command:
            args.parser.error("one PID at a time; to start a program, put -- before it")
        return record_pid(int(words[0]), args)
    return record_program(words[1:] if words[:1] == ["--"] else words, args)


def record_pid(pid, args):
    for name, given in (("--as-is", args.as_is), ("--library", args.library), ("options", args.option)):
        if given:
            args.parser.error(f"{name}: only for a program that is started; process {pid} runs already")
    recording = Recording(args.out, args.interval, args.format, args.duration)
    try:
        with Process(pid) as process, Ended(process) as ended:
            recording.watch(process, ended)
    except ProcessError as problem:
        messages.error(WHO, str(problem))
        return problem.status
    recording.say_what_was_written()
    return status.FAILED if recording.failed else status.OK


def record_program(command, args):
    path = args.out
    try:
        if not command:
            raise run.RunError(run.STATUS_OWN_ERROR, "no PID and no program given (try 'tide record --help')")
        program = run.find_program(command[0])
        if args.as_is:
            environment = run.initial_environment()
        else:
            library = run.find_library(args.library)
            run.warn_if_deaf(program, library, WHO)
            environment = run.environment_for(library, args.option)
        if path is None:
            path = f"{os.path.basename(command[0])}-{os.getpid()}.{args.format}"
        recording = Recording(path, args.interval, args.format, args.duration, command)
        recording.open_early()
        try:
            ended_as = parent.run_beside(program, command, environment, recording.watch_pid)
        except OSError as problem:
            recording.discard()
            raise run.cannot_execute(command[0], problem) from None
    except run.RunError as problem:
        messages.error(WHO, str(problem))
        return problem.status
    recording.say_what_was_written()
    exit_status = parent.end_like(ended_as)
    return status.FAILED if recording.failed and exit_status == 0 else exit_status


# -------------------------------------------------------------------------------------------------- a recording


class Recording:
    """A file and what is to be written into it: says itself, in one line, what goes wrong with it."""

    def __init__(self, path, interval_ms=INTERVAL_MS, form="jsonl", duration_s=None, command=None, who=WHO):
        self.path = path
        self.failed = False
        self._interval_ms, self._form, self._duration_s = interval_ms, form, duration_s
        self._command, self._who = command, who
        self._recorder = None
        self._end = {}

    def open_early(self):
        """Before the program is started: a path that cannot be written is known then. Raises run.RunError."""
        try:
            self._recorder = series.Recorder(self.path, None, self._form, window.TOTALS)
        except OSError as problem:
            raise run.RunError(run.STATUS_OWN_ERROR, f"{series.printable(self.path)}: {problem.strerror}") from None

    def discard(self):
        """The program could not be started: leave no empty file."""
        self._recorder.discard()

    def watch_pid(self, pid, ended):
        """For parent.run_beside: record process `pid`, which is starting, until the Event `ended`."""
        try:
            with Process(pid) as process:
                wait_for_libraries(process, ended)
                self.watch(process, ended)
        except ProcessError as problem:
            if problem.status != status.NO_PROCESS:
                self._fail(f"{problem}: nothing is recorded")
            elif not self._recorder.begun:
                self._recorder.discard()
                messages.warning(self._who, "the program ended before the first sample: nothing was recorded")

    def watch(self, process, ended):
        """Record `process` until it ends, or until `ended.wait` says so. Raises ProcessError."""
        try:
            header = header_of(process, self._interval_ms, self._command)
            if self._recorder is None:
                self._recorder = series.Recorder(self.path, None, self._form, window.TOTALS)
            self._recorder.begin(header)
            self._end = record_process(
                process, self._recorder, self._interval_ms / 1000, ended, self._duration_s, self._who
            )
        except BrokenPipeError:
            pass  # the reader has seen enough
        except OSError as problem:
            place = "the standard output" if self.path is None else series.printable(self.path)
            whole = f"; what was written before ({self._recorder.samples} samples) is whole" if self._begun() else ""
            self._fail(f"{place}: {problem.strerror}{whole}")
        finally:
            if self._recorder is not None:
                self._recorder.close()

    def _begun(self):
        return self._recorder is not None and self._recorder.samples

    def _fail(self, text):
        self.failed = True
        messages.error(self._who, text)

    def say_what_was_written(self):
        if self.path is not None and not self.failed and self._begun():
            took = self._end.get("sampling_share")
            cost = "" if took is None else f", sampling took {100 * took:.1f} % of one processor"
            text = f"{self._who}: {series.printable(self.path)}: {self._recorder.samples} samples{cost}"
            with contextlib.suppress(OSError):
                print(text, file=sys.stderr, flush=True)


def header_of(process, interval_ms=INTERVAL_MS, command=None):
    """The first line of a record of `process`."""
    allocator, mode = allocator_of(process)
    return {
        "pid": process.pid,
        "command": list(command or record_sampling.command_of(process)),
        "allocator": allocator,
        "mode": mode,
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "interval_ms": interval_ms,
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
    }


class Ended:
    """Waits for the end of a process that is not tide's child, or for a signal that ends the recording."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, process):
        self._process = process
        self._descriptors = []

    def __enter__(self):
        self._poll = select.poll()
        with contextlib.suppress(OSError):  # without it, the next sample notices
            self._add(os.pidfd_open(self._process.pid))
        if not self._process.alive():
            self.__exit__()
            raise ProcessError(status.NO_PROCESS, f"no process {self._process.pid}")
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._add(reader)
        self._descriptors.append(writer)
        self._wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._handlers = {n: signal.getsignal(n) for n in self.SIGNALS if signal.getsignal(n) is not signal.SIG_IGN}
        for number in self._handlers:
            signal.signal(number, lambda *_: None)
        return self

    def _add(self, descriptor):
        self._descriptors.append(descriptor)
        self._poll.register(descriptor, select.POLLIN)

    def __exit__(self, *_):
        for number, handler in getattr(self, "_handlers", {}).items():
            signal.signal(number, handler)
        if hasattr(self, "_wakeup"):
            signal.set_wakeup_fd(self._wakeup)
        for descriptor in self._descriptors:
            os.close(descriptor)

    def wait(self, timeout_s):
        return bool(self._poll.poll(max(0.0, timeout_s) * 1000))
