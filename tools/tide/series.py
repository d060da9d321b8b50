"""A record of a process's memory over time: how it is written and read back; levels.py sums it up.

The file is JSON Lines. It grows a line at a time and is valid after each of them, so a recorder that is killed, or a
disk that is full, costs the last moment and nothing else.

    {"tide_record": 1, "pid": 4711, "command": ["redis-server"], "allocator": "tidemalloc", "mode": "hybrid", ...}
    {"t_ms": 0.4, "rss": 5242880, "pss": ..., "cpu_ms": 3.1, "stats": {"allocated_bytes": ..., ...}}     a sample
    {"t_ms": 812.9, "event": "flush", "given": 1048576}                                                  an event
    {"t_ms": 900.5, "event": "exec", "command": ["other"], "allocator": "glibc", "mode": null}    another program since
    {"t_ms": 1000.2, "end": {"exit_status": 0}, "sampling_ms": 1.2}                                      the last line

Times count from the start of the recording. Memory is in bytes. CSV, the other form, holds the samples only.
"""

import csv
import errno
import json
import os
import stat
import sys
import threading
from array import array
from dataclasses import dataclass

from . import levels

VERSION = 1
STATUS_BAD_FILE = 7

# The columns of smaps_rollup that every sample has, and the processor time so far.
MEMORY = ("rss", "pss", "private_dirty", "anon_huge", "lazy_free", "swap")
LIMIT = 1 << 63  # no figure of a real process is as large

summarize, Summary, Phase = levels.summarize, levels.Summary, levels.Phase  # what a Series amounts to


class BadFile(ValueError):
    """A file that is no record, or none that can be read; the text is the one line for the user."""

    status = STATUS_BAD_FILE


def printable(text):
    """`text` without what would move a cursor, colour a terminal or turn the direction of writing: as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text))


# ----------------------------------------------------------------------------------------------------- writing


class Recorder:
    """Writes a record, each line by one write(2). `out` is a path, or None for the standard output.

    Without a header nothing is written, nor an existing file emptied, before `begin`. OSError of a write passes to the
    caller, after the file has been cut back to its last whole line.
    """

    def __init__(self, out, header=None, form="jsonl", stats_names=()):
        self.path = out
        self.samples = 0
        self.begun = False
        self._program = None  # what the header says of it
        self.failed = False
        self._csv = form == "csv"
        self._stats_names = tuple(stats_names)  # the further columns of a CSV file
        self._size = 0
        self._lock = threading.Lock()  # samples and marks may come from two threads
        self._created = out is not None and not os.path.lexists(out)
        if out is None:
            sys.stdout.flush()
            self._fd = sys.stdout.fileno()
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
            self._fd = os.open(out, flags, 0o666)
        self._regular = out is not None and stat.S_ISREG(os.fstat(self._fd).st_mode)
        if header is not None:
            self.begin(header)

    def begin(self, header):
        self._program = {name: header.get(name) for name in ("allocator", "mode")}
        if self._regular:
            os.ftruncate(self._fd, 0)
        if self._csv:
            self._line(",".join(("t_ms", *MEMORY, "cpu_ms", *self._stats_names)))
        else:
            self._object({"tide_record": VERSION, **header})
        self.begun = True

    def discard(self):
        """There is nothing to record: take away a file that did not exist before."""
        if self._created and not self.begun:
            os.unlink(self.path)
        self.close()

    def sample(self, t_ms, memory, cpu_ms=None, stats=None):
        """`memory` holds at least the figures of MEMORY, in bytes; `stats` those of struct tide_stats, or None."""
        figures = {name: memory.get(name, 0) for name in MEMORY}
        if stats is not None:  # "without limit" is the largest number in C
            stats = {name: min(value, LIMIT - 1) for name, value in stats.items()}
        if self._csv:
            stats = stats or {}
            row = [round(t_ms, 1), *figures.values(), "" if cpu_ms is None else round(cpu_ms, 2)]
            self._line(",".join(map(str, row + [stats.get(name, "") for name in self._stats_names])))
        else:
            line = {"t_ms": round(t_ms, 1), **figures}
            if cpu_ms is not None:
                line["cpu_ms"] = round(cpu_ms, 2)
            if stats is not None:
                line["stats"] = stats
            self._object(line)
        self.samples += 1

    def event(self, t_ms, kind, **figures):
        if not self._csv:
            self._object({"t_ms": round(t_ms, 1), "event": kind, **figures})

    def became(self, t_ms, command, allocator, mode):
        """The process runs another program now, by execve. Nothing is written if its allocator is the same."""
        program = {"allocator": allocator, "mode": mode}
        if program != self._program and not self._csv:
            self._program = program
            self._object({"t_ms": round(t_ms, 1), "event": "exec", "command": command, **program})

    def end(self, t_ms, how, **figures):
        """The last line. `how` is {"exit_status": n}, {"signal": n} or {"detached": True}."""
        if not self._csv:
            self._object({"t_ms": round(t_ms, 1), "end": how, **figures})

    def close(self):
        if self._fd is not None and self.path is not None:
            os.close(self._fd)
        self._fd = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _object(self, line):
        self._line(json.dumps(line, separators=(",", ":"), allow_nan=False))

    def _line(self, text):
        rest = text.encode("ascii") + b"\n"
        length = len(rest)
        with self._lock:
            try:
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
            except BaseException:
                self.failed = True
                if self._regular and len(rest) < length:
                    os.ftruncate(self._fd, self._size)
                raise
            self._size += length


# ----------------------------------------------------------------------------------------------------- reading


class Sample:
    """One moment: t_ms, the figures of MEMORY in bytes, cpu_ms or None, and stats, a dict or None.

    An hour at 20 ms is 180,000 of these: the figures lie in arrays, and their names are kept once.
    """

    __slots__ = ("t_ms", "cpu_ms", "_memory", "_names", "_values")

    def __init__(self, t_ms, memory, cpu_ms=None, names=(), values=None):
        self.t_ms, self.cpu_ms, self._memory, self._names, self._values = t_ms, cpu_ms, memory, names, values

    @property
    def stats(self):
        return None if self._values is None else dict(zip(self._names, self._values))

    def figure(self, name):
        """One of the stats, or None: cheaper than the whole dict."""
        if self._values is None:
            return None
        try:
            return self._values[self._names.index(name)]
        except ValueError:
            return None


def _memory_figure(position):
    return property(lambda self: self._memory[position])


for _position, _name in enumerate(MEMORY):
    setattr(Sample, _name, _memory_figure(_position))


@dataclass
class Series:
    header: dict
    samples: list  # of Sample, by time
    events: list  # of dict, by time: t_ms, event, ...
    end: dict | None  # how the process ended; None: the record just stops
    truncated: bool = False  # the last line was not whole, and is left out
    end_ms: float | None = None
    sampling_ms: float | None = None  # processor time that the recording took

    @property
    def duration_ms(self):
        return max(self.end_ms or 0.0, self.samples[-1].t_ms) - self.samples[0].t_ms


def load(path):
    """Read a record. Raises BadFile, and OSError if it cannot be opened."""
    name = printable(path)
    try:
        with open(path, "rb") as file:
            if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            first = file.readline()
            if first.startswith(b"t_ms,"):
                file.seek(0)
                return _load_csv(name, file)
            return _load_lines(name, first, file)
    except UnicodeDecodeError:
        raise BadFile(f"{name}: not a record of tide (not text)") from None


def _load_lines(name, first, file):
    header = _parse(name, 1, first)
    if "tide_record" not in header:
        raise BadFile(f"{name}: not a record of tide")
    if header["tide_record"] != VERSION:
        found = printable(header["tide_record"])[:20]
        raise BadFile(f"{name}: a record of version {found}; this tide reads version {VERSION}")
    if not first.endswith(b"\n"):
        raise BadFile(f"{name}: ends within its first line; record again")
    series = Series(_checked_header(name, 1, header), [], [], None)
    names = {}  # tuples of names, each kept once
    for number, line in enumerate(file, 2):
        if not line.endswith(b"\n"):
            series.truncated = True
            break
        entry = _parse(name, number, line)
        t_ms = _number(name, number, entry, "t_ms")
        if "end" in entry:
            if not isinstance(entry["end"], dict):
                raise BadFile(f"{name}: line {number}: 'end' is not an object")
            series.end, series.end_ms = entry["end"], t_ms
            if "sampling_ms" in entry:
                series.sampling_ms = _number(name, number, entry, "sampling_ms")
        elif "event" in entry:
            if entry["event"] == "exec":
                program = {key: entry.get(key) for key in ("command", "allocator", "mode")}
                series.header = _checked_header(name, number, {**series.header, **program})
            else:
                _check_event(name, number, entry)
                series.events.append(entry)
        else:
            series.samples.append(_sample(name, number, entry, t_ms, names))
    return _sorted(name, series)


def _sorted(name, series):
    if not series.samples:
        raise BadFile(f"{name}: holds no sample; record for longer")
    series.samples.sort(key=lambda sample: sample.t_ms)
    series.events.sort(key=lambda event: event["t_ms"])
    return series


def _parse(name, number, line):
    try:
        entry = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        what = "not a record of tide" if number == 1 else f"line {number} is damaged"
        raise BadFile(f"{name}: {what}")
    return entry


def _refuse_constant(constant):
    raise ValueError(constant)


def _number(name, line, entry, key):
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < LIMIT:
        raise BadFile(f"{name}: line {line}: '{printable(key)[:40]}' is missing, or not a number that can be")
    return value


def _sample(name, line, entry, t_ms, known_names):
    memory = array("q", (int(_number(name, line, entry, key)) for key in MEMORY))
    cpu_ms = _number(name, line, entry, "cpu_ms") if entry.get("cpu_ms") is not None else None
    stats = entry.get("stats")
    if stats is None:
        return Sample(t_ms, memory, cpu_ms)
    if not isinstance(stats, dict):
        raise BadFile(f"{name}: line {line}: 'stats' is not an object")
    names = tuple(stats)
    names = known_names.setdefault(names, names)
    return Sample(t_ms, memory, cpu_ms, names, array("q", (int(_number(name, line, stats, key)) for key in names)))


def _check_event(name, line, entry):
    if not isinstance(entry["event"], str):
        raise BadFile(f"{name}: line {line}: 'event' is not a text")
    for key, value in entry.items():
        if isinstance(value, (dict, list)):
            raise BadFile(f"{name}: line {line}: '{printable(key)[:40]}' is neither a number nor a text")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            _number(name, line, entry, key)


def _checked_header(name, line, header):
    command = header.get("command", [])
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        raise BadFile(f"{name}: line {line}: 'command' is not a list of texts")
    for key in ("allocator", "mode", "started"):
        if not isinstance(header.get(key), (str, type(None))):
            raise BadFile(f"{name}: line {line}: '{key}' is not a text")
    for key in ("pid", "interval_ms", "page_bytes"):
        if header.get(key) is not None:
            _number(name, line, header, key)
    return {**header, "command": command}


def _load_csv(name, file):
    """A record in the form of CSV knows neither its command nor its allocator."""
    series = Series({"tide_record": VERSION, "command": [], "allocator": None, "mode": None}, [], [], None)
    # A last line that was cut would still be numbers, only wrong ones: it counts when its newline is there.
    lines = file.read().decode("utf-8").splitlines(keepends=True)
    if not lines[-1].endswith("\n"):
        lines.pop()
        series.truncated = True
    rows = csv.reader(lines)
    columns = next(rows, [])
    if not {"t_ms", *MEMORY} <= set(columns):
        raise BadFile(f"{name}: not a record of tide (a column is missing)")
    known_names = {}
    number = 1
    try:
        for number, row in enumerate(rows, 2):
            if len(row) != len(columns):
                raise BadFile(f"{name}: line {number} is damaged")
            entry = {key: float(value) if "." in value else int(value) for key, value in zip(columns, row) if value}
            known = ("t_ms", "cpu_ms", *MEMORY)
            stats = {key: value for key, value in entry.items() if key not in known}
            entry["stats"] = stats or None
            series.samples.append(_sample(name, number, entry, _number(name, number, entry, "t_ms"), known_names))
    except BadFile:
        raise
    except (ValueError, csv.Error):
        raise BadFile(f"{name}: line {number} is damaged") from None
    return _sorted(name, series)
