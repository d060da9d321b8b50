"""A process seen from outside, through its /proc directory.

The directory is held open: unlike a number it never comes to mean another process. Whatever a process chooses itself
(its name, its command line, the names of its threads) may hold anything, so control characters are taken out before
they can reach a terminal.
"""

import contextlib
import errno
import os
import re
import time

from . import status

KEEPER_THREAD = "tide-keeper"

# The library (also one that was replaced on disk since), or what a statically linked one calls its mappings.
_TIDEMALLOC_MAPPING = re.compile(
    rb"/libtidemalloc(-[a-z]+)?\.so[0-9.]*( \(deleted\))?$|\[anon:tidemalloc\b", re.MULTILINE
)

# A process that is ending still has its directory, but files in it say one of these.
_GONE = (errno.ENOENT, errno.ESRCH)
_FORBIDDEN = (errno.EACCES, errno.EPERM)

_CPUCLOCK_SCHED = 2  # the kernel's number for "processor time of a process" in the low bits of a clock id


class ProcessError(Exception):
    """What is wrong with a process, as one line for the user, and the exit status that goes with it."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


def printable(text):
    """`text` with everything replaced that could move a cursor or end a line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


class Process:
    """A process of the calling user, or any process for root."""

    def __init__(self, pid):
        self.pid = pid
        self._directory = -1
        try:
            if pid <= 0:
                raise ProcessLookupError(errno.ESRCH, "")
            self._directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._look()
        except ProcessError:
            self.close()
            raise
        except OSError as problem:
            self.close()
            raise self._error(problem) from None

    def _look(self):
        fields = dict(line.split(":", 1) for line in self.read("status").splitlines() if ":" in line)
        if int(fields["Tgid"]) != self.pid:
            raise ProcessError(status.NO_PROCESS, f"{self.pid} is a thread of process {int(fields['Tgid'])}")
        real, effective, saved, _ = map(int, fields["Uid"].split())
        self.uids = {real, effective, saved}
        # The kernel checks this, too; here it is checked before anything is touched.
        if os.geteuid() != 0 and self.uids != {os.geteuid()}:
            raise ProcessError(
                status.NOT_PERMITTED,
                f"process {self.pid} belongs to another user (uid {effective}): only that user and root may ask it",
            )
        # As the process itself sees its number: the innermost of its namespaces.
        self.inner_pid = int(fields.get("NSpid", str(self.pid)).split()[-1])
        self.name = printable(self.read("comm").rstrip("\n"))
        # Field 22 of proc_pid_stat(5) counts clock ticks since boot; the name in field 2 may hold spaces and ')'.
        self._started_ns = self._ticks_ns(self._stat_fields()[19])
        if not self.alive():
            raise ProcessError(status.NO_PROCESS, f"process {self.pid} has ended, and waits for its parent to notice")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    # --- files ---

    @property
    def directory(self):
        """The open directory, for openat(2) and friends."""
        return self._directory

    def _error(self, problem):
        if problem.errno in _FORBIDDEN:
            return ProcessError(status.NOT_PERMITTED, f"the kernel does not let you look into process {self.pid}")
        if problem.errno in _GONE:
            return ProcessError(status.NO_PROCESS, f"no process {self.pid}")
        return ProcessError(status.FAILED, f"process {self.pid}: {problem.strerror}")

    @contextlib.contextmanager
    def errors(self):
        """Within: an OSError from a file of the process becomes a ProcessError."""
        try:
            yield
        except OSError as problem:
            raise self._error(problem) from None

    def _read_bytes(self, name):
        with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory), "rb") as file:
            return file.read()

    def read(self, name):
        """The text of /proc/PID/`name`. Raises ProcessError."""
        with self.errors():
            return self._read_bytes(name).decode("utf-8", errors="replace")

    def _read_memory_file(self, name):
        """The bytes of `name`, which tells about the address space: the kernel shows none through a main thread
        that has ended while others go on."""
        with self.errors():
            if self._stat_fields()[0] != "Z":
                return self._read_bytes(name)
            for tid in self._tids():
                with contextlib.suppress(OSError):
                    if self._read_bytes(f"task/{tid}/stat").rpartition(b")")[2].split()[0] != b"Z":
                        return self._read_bytes(f"task/{tid}/{name}")
            return b""

    def listing(self, name):
        """The names in the directory /proc/PID/`name`. Raises OSError."""
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            return os.listdir(descriptor)
        finally:
            os.close(descriptor)

    # --- what it is ---

    def _stat_fields(self):
        """The fields of /proc/PID/stat from the third one, the state, on."""
        return self.read("stat").rpartition(")")[2].split()

    @staticmethod
    def _ticks_ns(text):
        return int(text) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")

    def command_line(self):
        """The program and its arguments, separated by spaces; the name in brackets where there are none."""
        words = self.read("cmdline").rstrip("\0").split("\0")
        return printable(" ".join(words)) or f"[{self.name}]"

    def age_ms(self):
        return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self._started_ns) // 1_000_000

    def state(self):
        """One letter, as in proc_pid_stat(5): R, S, D, T (stopped), t (traced), Z, X (ended)."""
        try:
            return self._stat_fields()[0]
        except (ProcessError, IndexError):
            return "X"

    def stopped(self):
        return self.state() in "Tt"

    def alive(self):
        """Whether the process runs, or at least one of its threads does."""
        if self.state() not in "ZX":
            return True
        for tid in self._tids():
            with contextlib.suppress(OSError):
                if self._read_bytes(f"task/{tid}/stat").rpartition(b")")[2].split()[0] not in (b"Z", b"X"):
                    return True
        return False

    def _tids(self):
        try:
            return sorted(int(tid) for tid in self.listing("task"))
        except OSError:
            return []

    def threads(self):
        """(tid, name) of every thread."""
        found = []
        for tid in self._tids():
            with contextlib.suppress(OSError):  # it may have ended
                name = self._read_bytes(f"task/{tid}/comm").decode("utf-8", errors="replace")
                found.append((tid, printable(name.rstrip("\n"))))
        return found

    def cpu_ns(self):
        """Processor time of all threads, also those that have ended."""
        try:
            used_ns = time.clock_gettime_ns(~self.pid << 3 | _CPUCLOCK_SCHED)
        except OSError:
            used_ns = None
        fields = self._stat_fields()  # also shows that it is still this process that has the number
        return self._ticks_ns(fields[11]) + self._ticks_ns(fields[12]) if used_ns is None else used_ns

    def rollup(self):
        """The sums of /proc/PID/smaps_rollup in bytes: rss, pss, private_dirty, lazy_free, anon_huge, swap, ...

        The kernel counts page by page, so they are exact, and the process cannot map memory meanwhile: about a
        millisecond for 200 MiB.
        """
        figures = {}
        for line in self._read_memory_file("smaps_rollup").splitlines():
            words = line.split()
            if len(words) == 3 and words[2] == b"kB":
                name = re.sub("(?<=[a-z])(?=[A-Z])", "_", words[0].rstrip(b":").decode("ascii")).lower()
                figures[{"anon_huge_pages": "anon_huge"}.get(name, name)] = int(words[1]) * 1024
        if "rss" not in figures:
            raise ProcessError(status.NO_PROCESS, f"process {self.pid} has ended")
        return figures

    def uses_tidemalloc(self):
        """Whether its memory comes from tidemalloc: preloaded, linked, or static."""
        if _TIDEMALLOC_MAPPING.search(self._read_memory_file("maps")):
            return True
        # A static library on a kernel that does not name mappings.
        return any(name == KEEPER_THREAD for _, name in self.threads())


def _may_use_tidemalloc(pid):
    """A first look at a process, which rules most of them out cheaply."""
    try:
        with open(f"/proc/{pid}/maps", "rb") as file:
            if _TIDEMALLOC_MAPPING.search(file.read()):
                return True
        return len(os.listdir(f"/proc/{pid}/task")) > 1  # one of them may be a keeper
    except OSError:
        return False


def processes_on_tidemalloc():
    """The processes on tidemalloc of this user, of all users for root. The caller closes them."""
    found = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        if not _may_use_tidemalloc(pid):
            continue
        with contextlib.suppress(ProcessError):
            process = Process(pid)
            try:
                uses = process.uses_tidemalloc()
            except ProcessError:
                uses = False
            if uses:
                found.append(process)
            else:
                process.close()
    return found
