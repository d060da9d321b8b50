"""One life of a program under investigation: started, led through its phases, watched, and gone.

    OneRun      starts the program, and knows when it has settled, when its load is over and when it rests
    Recorded    beside it: a record of its memory (record.py), and the figures of the run
    Counted     beside it: what the counting library's counters say
"""

import contextlib
import os
import signal
import statistics
import threading
import time
from subprocess import DEVNULL

from . import advice, allocators, mapped_allocator, record, record_sampling, series, status, window
from .children import Child, last_line
from .process import Process, ProcessError

LOAD_BEGINS = "load begins"  # the text of a mark in the record
QUIET_SHARE = 0.03  # of one processor: a program that uses less does nothing
SETTLE_S, LONGEST_SETTLE_S = 0.5, 10.0
ASK_S = 0.05  # between looks at the counters of the counting library


class InvestigateError(Exception):
    """What went wrong, in one line for the user."""


def ending(returncode):
    return f"status {returncode}" if returncode >= 0 else f"signal {-returncode} ({signal.strsignal(-returncode)})"


class OneRun:
    """One life of the program, from its start to its end."""

    def __init__(self, investigation, environment):
        self.investigation, self.args = investigation, investigation.args
        self._environment = environment
        self._messages = investigation.scratch / "messages"
        self.stopped = False  # it was a server, and was ended by us
        self.load_s = None
        self.rest = None  # (start, end) of the silence, by time.monotonic

    def __enter__(self):
        self._stack = contextlib.ExitStack()
        try:
            errors = self._stack.enter_context(open(self._messages, "wb"))
            self.child = self._stack.enter_context(
                Child(
                    self.investigation.command,
                    self._environment,
                    stdin=self._stack.enter_context(input_again()),
                    stdout=DEVNULL,
                    stderr=errors,
                )
            )
            self.process = self._stack.enter_context(Process(self.child.pid))
        except OSError as problem:
            self._stack.close()
            raise InvestigateError(f"cannot start '{self.investigation.command[0]}': {problem.strerror}") from None
        except ProcessError as problem:
            self._stack.close()
            raise InvestigateError(f"the program ended at once ({problem}): {self.last_words()}") from None
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_):
        self._stack.close()

    def last_words(self):
        return last_line(self._messages) if self._messages.exists() else "no message"

    def live(self, mark):
        """Lead the program through its phases; returns once it has ended. `mark` notes a moment in the record."""
        if self.args.during is None:
            self._until_end_or_rest(mark)
        else:
            self._settle()
            mark(LOAD_BEGINS)
            self._load()
            mark("load ended")
            self._silence()
        if self.stopped:
            mark("told to end")
            self._stop()

    def _stop(self):
        self._remark_children()
        if not self.child.end():
            self.investigation.remark("The program had to be killed, since it did not end within 10 s of SIGTERM.")

    def _until_end_or_rest(self, mark):
        """A server that has nothing to do waits for a load that will not come."""
        quiet = Quiet(self.process)
        while not self.child.wait(0.1):
            if quiet.since_s() >= self.args.seconds and listens(self.process):
                self.stopped = True
                now = time.monotonic()
                self.rest = (now - self.args.seconds, now)
                self.investigation.remark(
                    "No load was put on it, only its start and its rest were seen: --during gives it one."
                )
                return

    def _settle(self):
        """Until the program waits for its load: it has done nothing for a while, and listens if it is to do so soon."""
        quiet = Quiet(self.process)
        while not self.child.wait(0.05):
            if quiet.age_s() > LONGEST_SETTLE_S:
                return
            if quiet.since_s() >= SETTLE_S and (quiet.age_s() > LONGEST_SETTLE_S / 3 or listens(self.process)):
                return
        raise InvestigateError(
            f"the program ended ({ending(self.child.returncode)}) before the load: {self.last_words()}; "
            "a server has to stay in the foreground"
        )

    def _load(self):
        said = self.investigation.scratch / "load"
        with (
            open(said, "wb") as errors,
            Child(["sh", "-c", self.args.during], stdin=DEVNULL, stdout=DEVNULL, stderr=errors) as load,
        ):
            while not load.wait(0.1):
                self._must_live("during the load")
        self.load_s = load.wall_s
        if load.returncode != 0:
            raise InvestigateError(f"the load ended with {ending(load.returncode)}: {last_line(said)}")

    def _silence(self):
        begun = time.monotonic()
        if self.child.wait(self.args.seconds):
            self._must_live("in the silence after the load")
        self.stopped = True
        self.rest = (begun, time.monotonic())

    def _must_live(self, when):
        if self.child.wait(0):
            raise InvestigateError(f"the program ended ({ending(self.child.returncode)}) {when}: {self.last_words()}")

    def _remark_children(self):
        with contextlib.suppress(Exception):
            count = len(self.process.read(f"task/{self.child.pid}/children").split())
            if count:
                children = "a child process" if count == 1 else f"{count} child processes"
                self.investigation.remark(f"Only the process that was started is measured; it has {children}.")


@contextlib.contextmanager
def input_again():
    """The standard input for a run: from its beginning if it is a file, else empty."""
    try:
        regular = os.path.isfile("/proc/self/fd/0")
        file = open("/proc/self/fd/0" if regular else os.devnull, "rb")
    except OSError:
        file = open(os.devnull, "rb")
    with file:
        yield file


class Quiet:
    """For how long a process has done nothing: has used less than QUIET_SHARE of a processor."""

    def __init__(self, process):
        self._process = process
        self._begun = self._since = self._looked = time.monotonic()
        self._cpu_ns = 0

    def age_s(self):
        return time.monotonic() - self._begun

    def since_s(self):
        now = time.monotonic()
        with contextlib.suppress(ProcessError):
            cpu_ns = self._process.cpu_ns()
            if cpu_ns - self._cpu_ns > QUIET_SHARE * 1e9 * (now - self._looked) + 1e6:
                self._since = now
            self._cpu_ns, self._looked = cpu_ns, now
        return now - self._since


def listens(process):
    """Whether the process has a socket on which others can reach it."""
    inodes = set()
    try:
        for name in process.listing("fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"fd/{name}", dir_fd=process.directory)
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
        for name in ("net/tcp", "net/tcp6"):
            rows = [line.split() for line in process.read(name).splitlines()[1:]]
            if any(row[3] == "0A" and row[9] in inodes for row in rows):  # LISTEN
                return True
        rows = [line.split() for line in process.read("net/unix").splitlines()[1:]]
        return any(row[3] == "00010000" and row[6] in inodes for row in rows)  # __SO_ACCEPTCON
    except (OSError, ProcessError):
        return False


# ---------------------------------------------------------------------------------------- what is taken beside a run


class Beside:
    """A thread that looks at the program while it runs. Errors of it are those of the investigation."""

    def __enter__(self):
        self._ended = threading.Event()
        self._problem = None
        self._thread = threading.Thread(target=self._guarded, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind, *_):
        self.join()
        if kind is None and self._problem is not None:
            raise self._problem

    def join(self):
        self._ended.set()
        self._thread.join()

    def _guarded(self):
        try:
            self.look()
        except ProcessError as problem:
            if problem.status != status.NO_PROCESS:
                self._problem = InvestigateError(str(problem))
        except OSError as problem:
            self._problem = InvestigateError(f"cannot write the record: {problem.strerror}")


class Recorded(Beside):
    """A record of the run, and its figures."""

    def __init__(self, one, path, allocator):
        self.one, self.path, self.allocator = one, path, allocator

    def __enter__(self):
        process, interval_s = self.one.process, self.one.args.interval / 1000
        try:
            mapped_allocator.wait_for_libraries(process, threading.Event())
            header = record.header_of(process, self.one.args.interval, self.one.investigation.command)
        except ProcessError:
            raise InvestigateError(f"the program ended too soon to be measured: {self.one.last_words()}") from None
        if self.allocator.name in allocators.PEERS[1:-1] and header["allocator"] != self.allocator.name:
            raise InvestigateError(f"the program does not run on {self.allocator.name}, but on {header['allocator']}")
        # We know better than what can be seen of the process.
        if self.allocator.mode:
            header |= {"allocator": "tidemalloc", "mode": self.allocator.mode}
        else:
            name = self.allocator.name
            header |= {"allocator": f"own ({header['allocator']})" if name == "own" else name, "mode": None}
        self._recorder = series.Recorder(str(self.path), header)
        self._sampler = record_sampling.Sampler(process, self._recorder, interval_s, who=None)
        self._zero = time.monotonic() - self._sampler.now_ms() / 1000
        self._marks = {}
        return super().__enter__()

    def look(self):
        try:
            self._sampler.run(self._ended, None)
        finally:
            self._sampler.close()

    def mark(self, text):
        self._marks[text] = self._sampler.now_ms()
        self._recorder.event(self._marks[text], "mark", text=text)

    def finish(self):
        """After the program has ended: the record's last line."""
        self.join()
        code = self.one.child.returncode
        if not self._recorder.failed:
            how = {"exit_status": code} if code >= 0 else {"signal": -code}
            self._recorder.end(self._sampler.now_ms(), how, sampling_ms=round(self._sampler.cpu_s * 1000, 2))

    def __exit__(self, *problem):
        try:
            super().__exit__(*problem)
        finally:
            self._recorder.close()

    def figures(self):
        found = series.load(str(self.path))
        summary = series.summarize(found)
        told = self._marks.get("told to end", float("inf"))
        # While a process ends, its memory goes piece by piece: its last sample may be of that.
        samples = [s for s in found.samples if s.t_ms <= told] if self.one.stopped else found.samples[:-1]
        samples = samples or found.samples[:1]
        rest = self._at_rest(samples)
        idle = statistics.median(s.rss for s in rest)
        if not self.one.stopped and summary.idle is not None:
            idle = summary.idle
        begun = self._marks.get(LOAD_BEGINS)
        before = [s.rss for s in samples if begun is not None and begun - SETTLE_S * 1000 <= s.t_ms <= begun]
        used = self.one.child.used
        return advice.Run(
            baseline=round(statistics.median(before)) if before else summary.baseline,
            peak=max(s.rss for s in samples),
            idle=round(idle),
            exit=samples[-1].rss,
            mean=summary.mean,
            cpu_s=used.cpu_s,
            wall_s=self.one.load_s if self.one.load_s is not None else self.one.child.wall_s,
            faults=used.faults,
            at_rest=next((s.stats for s in reversed(samples) if s.stats is not None), None),
            at_peak=max(samples, key=lambda s: s.rss).stats,
        )

    def _at_rest(self, samples):
        """The samples of the last half of the silence, of its last second at most; or the last one."""
        if self.one.rest is None:
            return samples[-1:]
        start, end = ((moment - self._zero) * 1000 for moment in self.one.rest)
        since = max(end - 1000, (start + end) / 2)
        return [s for s in samples if since <= s.t_ms <= end] or samples[-1:]


class Counted(Beside):
    """What the counting library's counters said last, by tier."""

    def __init__(self, one):
        self.one = one
        self._classes = []

    def look(self):
        found = None
        try:
            while not self._ended.wait(ASK_S):
                try:
                    found = found or window.Window.open(self.one.process)
                    self._classes = found.stats().classes
                except ProcessError as problem:
                    if problem.status == status.NO_PROCESS:
                        return
                    if found is not None:
                        found.close()
                        found = None
        finally:
            if found is not None:
                found.close()

    def hits(self):
        found = {}
        for tier in ("tiny", "mid"):
            classes = [one for one in self._classes if one.tier == tier]
            found[tier] = advice.Hits(
                sum(one.allocation_count for one in classes), sum(one.refill_count for one in classes)
            )
        return found
