"""The window: how a process on tidemalloc shows itself, without being stopped and at no cost while nobody looks.

The keeper's thread holds an unlinked file in memory (memfd), sealed in its size. Whoever the kernel lets look at the
process's files opens it through /proc, writes a command, and wakes the keeper, which writes the answer into the file:

    0      page 0: Header, then the ring of the last 64 events
    4096   answer: struct tide_stats of include/tidemalloc.h
    6144   answer: struct tide_flush_report
    8192   answer: figures by size class
    16384  answer: figures by thread
    65536  answer: what each 64 KiB slice is used for

src/keeper/window.h has the same from the other side.

What is read was written by another program, which may be broken or hostile: the file is opened only if it is what it
should be, every count is checked against the room there is, and only page 0 is mapped. The answers are read by
pread(2), which can fail, but not kill, and does not bring in memory.
"""

import contextlib
import ctypes
import fcntl
import mmap
import os
import platform
import stat
import struct
import time
from dataclasses import dataclass

from . import process as processes
from . import status
from .process import ProcessError

VERSION = 1
FILE_BYTES = 1 << 20
FILE_NAME = "/memfd:tidemalloc-window (deleted)"
PAGE_BYTES = 4096  # of the window's layout, whatever the machine's pages are

STATS, FLUSH, SLICES = 1, 2, 3
STATS_AT, FLUSH_AT, CLASSES_AT, THREADS_AT, SLICES_AT = 4096, 6144, 8192, 16384, 65536
MOST_REGIONS = 8
KINDS_AT = SLICES_AT + 256
MOST_KINDS = 524288  # slices in one answer
MOST_ANSWERS = 256  # 8 TiB of heap: more must be nonsense
MOST_KEEPERS, MOST_FILES = 4, 256  # a program may call its threads what it likes, and open as many files
SLICE_BYTES = 65536

TIERS = ("tiny", "mid", "large")
MODES = ("static", "flush", "shrink", "adaptive", "hybrid")
POOL_STATES = ("memory", "balanced", "performance")
KEEPER_STATES = ("watch", "look", "hold", "still")
THREAD_STATES = ("orphan", "bound", "lost")
CLAIMS = ("own", "vacated", "marked")
KINDS = ("free clean", "free dirty", "tiny", "mid", "large", "other")
EVENT_KINDS = (None, "started", "flush", "hold", "busy", "trim", "pressure", "asked")

# struct tide_stats, version 3, behind `version` and `size`. Later versions append to it.
TOTALS = (
    "allocated_bytes active_bytes tiny_bytes mid_bytes large_bytes retained_bytes metadata_bytes committed_bytes "
    "reserved_bytes returned_bytes refill_count span_retire_count remote_free_count nested_count heap_count "
    "thread_count "
    "keeper_running keeper_wakeup_count keeper_cpu_ns flush_count hold_count hold_hit_count hold_miss_count trim_count "
    "pressure_count refault_bytes patience_ns claim_possible claim_mark_count claim_wake_count claim_wait_count "
    "claim_wait_p99_ns claim_wait_max_ns tiny_state mid_state large_state tiny_rate_bytes mid_rate_bytes "
    "large_rate_bytes "
    "tiny_retained_bytes mid_retained_bytes large_retained_bytes tiny_pinned_bytes mid_pinned_bytes locked_bytes "
    "allocation_count keeper_state"
).split()

EVENT_RING_AT, EVENT_RING_LENGTH, EVENT_BYTES = 128, 64, 40
EVENTS_KEPT = EVENT_RING_LENGTH - 1  # the oldest may be overwritten at any moment

_POLL_S = 0.0003
_LOOK_EVERY_S = 0.02  # whether the process is still there, and not stopped
_LOCK_S = 1.0  # others may be asking
_READY_S = 0.1  # from the file's creation to its header
_FUTEX_WAKE = 1
_SYS_FUTEX = {"x86_64": 202, "aarch64": 98}
_PUNCH_HOLE_KEEP_SIZE = 3
_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW

_libc = ctypes.CDLL(None, use_errno=True)


class Header(ctypes.LittleEndianStructure):
    """Page 0 of the window. Its words are written and read whole."""

    _fields_ = [
        ("magic", ctypes.c_char * 8),
        ("version", ctypes.c_uint32),
        ("file_bytes", ctypes.c_uint32),
        ("wake", ctypes.c_uint32),  # a futex, shared; the keeper sleeps on it
        ("asked", ctypes.c_uint32),
        ("answered", ctypes.c_uint32),
        ("command", ctypes.c_uint32),
        ("argument", ctypes.c_uint64),
        ("error", ctypes.c_int32),
        ("page_bytes", ctypes.c_uint32),
        ("answered_ns", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("event_count", ctypes.c_uint64),
        ("event_bytes", ctypes.c_uint32),
        ("process_id", ctypes.c_uint32),
    ]


MAGIC = b"tidewin"  # and the zero that ends it


@dataclass(frozen=True)
class ClassFigures:
    block_bytes: int
    span_count: int
    live_blocks: int
    free_blocks: int
    resident_free_bytes: int  # an estimate
    allocation_count: int  # 0 unless counted
    refill_count: int
    tier: str
    state: str = None  # of POOL_STATES, the highest of all threads; None where the library does not say


@dataclass(frozen=True)
class ThreadFigures:
    """A thread's heap. tid 0: the thread has ended and nobody uses the heap."""

    tid: int
    state: str
    claim: str
    live_bytes: int
    retained_bytes: int
    span_count: int
    refill_count: int
    allocation_count: int


@dataclass(frozen=True)
class Snapshot:
    at_ns: int  # CLOCK_MONOTONIC, when the process answered
    totals: dict  # by the names in TOTALS
    classes: list
    threads: list
    threads_left_out: int
    mode: str | None = None  # TIDE_MODE as it is now


@dataclass(frozen=True)
class FlushReport:
    returned_bytes: int
    kept_bytes: int
    pinned_bytes: int
    missed_bytes: int
    elapsed_ms: float  # from asking to the answer


@dataclass(frozen=True)
class Event:
    number: int
    at_ns: int
    kind: str
    given_bytes: int
    argument: int


@dataclass(frozen=True)
class Region:
    base: int
    kinds: bytes  # one of KINDS for each slice


def name_of(number, names):
    """The name of a state, for numbers that a process may have made up."""
    return names[number] if 0 <= number < len(names) and names[number] else f"unknown-{number}"


class Window:
    """The window of one process. Takes over the open file `descriptor`; `process` is watched while waiting."""

    def __init__(self, descriptor, pid, process=None):
        self.pid = pid
        self.lost = 0  # events that were overwritten before anybody read them
        self._descriptor = descriptor
        self._process = process
        self._map = self._header = None
        self._event = 0
        try:
            if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SIZE_SEALS != _SIZE_SEALS:
                raise self._bad("its size is not sealed")
            if os.fstat(descriptor).st_size != FILE_BYTES:
                raise self._bad(f"it is not {FILE_BYTES} bytes long")
            self._map = mmap.mmap(descriptor, PAGE_BYTES)
            self._header = Header.from_buffer(self._map)
            self._check_header()
            self._event = max(0, self._header.event_count - EVENTS_KEPT)
        except (OSError, ValueError) as problem:  # ValueError: mmap's, for a file that is too short
            self.close()
            raise self._bad(str(problem)) from None
        except ProcessError:
            self.close()
            raise

    @classmethod
    def open(cls, process):
        """Open the window of a Process. Raises ProcessError."""
        problem = None
        for descriptor in _window_files(process):
            try:
                window = cls(descriptor, process.pid, process)
            except ProcessError as other:
                problem = other
                continue
            if window.process_id == process.inner_pid:
                return window
            window.close()  # handed on by another process
        if problem is not None:
            raise problem
        if not process.alive():
            raise ProcessError(status.NO_PROCESS, f"process {process.pid} has ended")
        if not process.uses_tidemalloc():
            raise ProcessError(
                status.NOT_TIDEMALLOC,
                f"process {process.pid} ({process.name}) does not run on tidemalloc: start it with 'tide run'",
            )
        raise _no_keeper(process.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Leave the window, and give back the memory of the answers unless somebody else is reading one."""
        if self._descriptor < 0:
            return
        if self._header is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._header.asked == self._header.answered:
                    length = ctypes.c_long(FILE_BYTES - STATS_AT)
                    _libc.fallocate(self._descriptor, _PUNCH_HOLE_KEEP_SIZE, ctypes.c_long(STATS_AT), length)
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self._header = None  # It lies in the mapping, so nobody else may hold it, or the mapping stays.
        if self._map is not None:
            self._map.close()
        os.close(self._descriptor)
        self._descriptor = -1

    # --- the header ---

    def _bad(self, text):
        return ProcessError(status.BAD_FILE, f"the window of process {self.pid} cannot be read: {text}")

    def _check_header(self):
        deadline = time.monotonic() + _READY_S
        while not self._header.magic and time.monotonic() < deadline:
            time.sleep(_POLL_S)  # made a moment ago
        if not self._header.magic:
            raise _no_keeper(self.pid)
        if self._header.magic != MAGIC:
            raise self._bad("it is not one of tidemalloc's")
        if self._header.version != VERSION:
            raise self._bad(
                f"it has version {self._header.version}, this tide reads version {VERSION}: "
                "use the tide that came with the library"
            )
        if self._header.file_bytes != FILE_BYTES or self._header.event_bytes != EVENT_BYTES:
            raise self._bad("its layout is not that of its version")

    @property
    def page_bytes(self):
        return self._header.page_bytes

    @property
    def process_id(self):
        """The process that made the window, by its own number."""
        return self._header.process_id

    # --- asking ---

    def _watch(self):
        """Raise ProcessError when the process cannot answer any more."""
        if self._process is None:
            return
        if not self._process.alive():
            raise ProcessError(status.NO_PROCESS, f"process {self.pid} has ended")
        if self._process.stopped():
            raise ProcessError(
                status.NO_KEEPER,
                f"process {self.pid} is stopped and cannot answer: continue it with 'kill -CONT {self.pid}'",
            )

    @contextlib.contextmanager
    def _locked(self):
        deadline = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ProcessError(
                        status.NO_KEEPER, f"others keep asking process {self.pid}: try again when they are done"
                    ) from None
                time.sleep(_POLL_S)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def _asked(self, command, argument, timeout_s):
        """Within: the answer to `command` stands in the file, and nobody else asks."""
        with self._locked():
            # In this order: who finds a new number in `asked` reads the others. x86-64 keeps the order of stores.
            self._header.command = command
            self._header.argument = argument
            number = (self._header.asked + 1) & 0xFFFFFFFF
            self._header.asked = number
            self._header.wake = (self._header.wake + 1) & 0xFFFFFFFF
            self._wake()
            start = time.monotonic()
            look_at = start + _LOOK_EVERY_S
            while self._header.answered != number:
                now = time.monotonic()
                if now >= look_at:
                    self._watch()
                    look_at = now + _LOOK_EVERY_S
                if now - start > timeout_s:
                    raise ProcessError(
                        status.NO_KEEPER,
                        f"process {self.pid} did not answer within {timeout_s:g} s: its machine may be busy, try again",
                    )
                time.sleep(_POLL_S)
            if self._header.error != 0:
                text = os.strerror(abs(self._header.error))
                raise ProcessError(status.FAILED, f"process {self.pid} could not answer: {text}")
            yield

    def _wake(self):
        number = _SYS_FUTEX.get(platform.machine())
        if number is None:
            raise ProcessError(status.FAILED, f"tide does not know how to wake a process on {platform.machine()}")
        address = ctypes.c_void_p(ctypes.addressof(self._header) + Header.wake.offset)
        _libc.syscall(number, address, _FUTEX_WAKE, 1, None, None, 0)

    def _read(self, offset, count):
        """Exactly `count` bytes."""
        try:
            data = os.pread(self._descriptor, count, offset)
        except OSError as problem:
            raise self._bad(problem.strerror) from None
        if len(data) != count:
            raise self._bad("it is truncated")
        return data

    # --- what can be asked ---

    def stats(self, timeout_s=0.2):
        """Ask for all figures: a Snapshot. Raises ProcessError NO_KEEPER when the process does not answer in time."""
        with self._asked(STATS, 0, timeout_s):
            mode = name_of(self._header.mode, MODES)
            return Snapshot(self._header.answered_ns, self._totals(), self._classes(), *self._threads(), mode)

    def _totals(self):
        version, size = struct.unpack("<II", self._read(STATS_AT, 8))
        if version < 3 or size < 8 + 8 * len(TOTALS) or size > FLUSH_AT - STATS_AT:
            raise self._bad(f"its statistics have version {version} and {size} bytes")
        values = struct.unpack(f"<{len(TOTALS)}Q", self._read(STATS_AT + 8, 8 * len(TOTALS)))
        return dict(zip(TOTALS, values))

    def _table(self, at, end):
        """(rows, how many were left out) of a table between two places; rows may grow in later versions."""
        count, row_bytes, left_out, _ = struct.unpack("<4I", self._read(at, 16))
        if row_bytes < 64 or row_bytes % 8 != 0 or count * row_bytes > end - at - 16:
            raise self._bad(f"a table of {count} rows of {row_bytes} bytes")
        data = self._read(at + 16, count * row_bytes)
        form = f"<{row_bytes // 8}Q"
        return [struct.unpack_from(form, data, index * row_bytes) for index in range(count)], left_out

    def _classes(self):
        rows, _ = self._table(CLASSES_AT, THREADS_AT)
        return [
            ClassFigures(*row[:7], name_of(row[7], TIERS), name_of(row[8], POOL_STATES) if len(row) > 8 else None)
            for row in rows
        ]

    def _threads(self):
        rows, left_out = self._table(THREADS_AT, SLICES_AT)
        threads = [
            ThreadFigures(row[0], name_of(row[1], THREAD_STATES), name_of(row[2], CLAIMS), *row[3:8]) for row in rows
        ]
        return threads, left_out

    def flush(self, tiers=frozenset(TIERS), timeout_s=5.0):
        """Have the free memory of `tiers` given back: a FlushReport."""
        start = time.monotonic()
        with self._asked(FLUSH, sum(1 << TIERS.index(tier) for tier in set(tiers)), timeout_s):
            elapsed_ms = (time.monotonic() - start) * 1000
            return FlushReport(*struct.unpack("<4Q", self._read(FLUSH_AT, 32)), elapsed_ms)

    def slices(self, timeout_s=1.0):
        """What each 64 KiB slice of the heap is used for: a list of Regions."""
        regions = {}  # kinds by base
        seen = 0
        for _ in range(MOST_ANSWERS):
            with self._asked(SLICES, seen, timeout_s):
                pieces = self._slices_answer()
            for base, first, kinds in pieces:
                known = regions.setdefault(base, bytearray())
                if first > len(known):
                    raise self._bad("slices that do not follow each other")
                known[first : first + len(kinds)] = kinds  # a region before it may have grown since the last answer
                seen += len(kinds)
            if len(pieces) < MOST_REGIONS and sum(len(kinds) for _, _, kinds in pieces) < MOST_KINDS:
                break
        return [Region(base, bytes(kinds)) for base, kinds in sorted(regions.items())]

    def _slices_answer(self):
        (count,) = struct.unpack("<Q", self._read(SLICES_AT, 8))
        if count > MOST_REGIONS:
            raise self._bad(f"{count} regions")
        table = struct.unpack(f"<{3 * count}Q", self._read(SLICES_AT + 8, 24 * count))
        if sum(table[2::3]) > MOST_KINDS:
            raise self._bad(f"{sum(table[2::3])} slices")
        pieces, at = [], KINDS_AT
        for base, first, length in zip(table[::3], table[1::3], table[2::3]):
            pieces.append((base, first, self._read(at, length)))
            at += length
        return pieces

    # --- events ---

    def events(self):
        """The Events since the last call, at first the last 63. Nothing is asked. `lost` counts those missed."""
        found = []
        count = self._header.event_count
        if count - self._event > EVENTS_KEPT:
            self.lost += count - EVENTS_KEPT - self._event
            self._event = count - EVENTS_KEPT
        while self._event < count:
            at = EVENT_RING_AT + self._event % EVENT_RING_LENGTH * EVENT_BYTES
            number, at_ns, kind, _, given, argument = struct.unpack("<QQIIQQ", self._map[at : at + EVENT_BYTES])
            if number <= self._event:
                break  # counted already, written in a moment
            # The writer may have come round meanwhile, and have been writing what is read here.
            if number == self._event + 1 and self._header.event_count - self._event <= EVENTS_KEPT:
                found.append(Event(self._event, at_ns, name_of(kind, EVENT_KINDS), given, argument))
            else:
                self.lost += 1
            self._event += 1
        return found


def _no_keeper(pid):
    return ProcessError(
        status.NO_KEEPER,
        f"process {pid} runs on tidemalloc, but has no keeper to ask: it has touched less than 2 MiB, "
        "or has TIDE_KEEPER=off or TIDE_VISIBLE=off",
    )


def _window_files(process):
    """Yield the open windows among the files of the process's keeper; what only looks like one is left alone."""
    keepers = [tid for tid, name in process.threads() if name == processes.KEEPER_THREAD]
    with process.errors():
        for tid in keepers[:MOST_KEEPERS]:
            folder = f"task/{tid}/fd"
            try:
                for number in sorted(process.listing(folder), key=int)[:MOST_FILES]:
                    if os.readlink(f"{folder}/{number}", dir_fd=process.directory) == FILE_NAME:
                        yield from _open_window_file(process, f"{folder}/{number}")
            except (FileNotFoundError, ProcessLookupError):
                pass  # the thread has ended, or closed it


def _open_window_file(process, path):
    """[descriptor], or [] when the file is not a memfd of the process's user.

    The name says nothing: it can be forged by mounts, and the file can change between two looks. So the place is
    opened first without opening what is there (O_PATH: no effect on a device, no waiting for a pipe) and looked at.
    Only a memfd made for sealing has seals on its size.
    """
    place = os.open(path, os.O_PATH | os.O_CLOEXEC, dir_fd=process.directory)
    try:
        found = os.fstat(place)
        # uid 0: the process had other rights when it made the file.
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 0 or found.st_uid not in process.uids | {0}:
            return []
        descriptor = os.open(f"/proc/self/fd/{place}", os.O_RDWR | os.O_CLOEXEC)
    finally:
        os.close(place)
    try:
        if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SIZE_SEALS == _SIZE_SEALS:
            return [descriptor]
    except OSError:
        pass
    os.close(descriptor)
    return []
