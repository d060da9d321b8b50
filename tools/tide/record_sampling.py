"""Takes the samples of a record, on a grid of time, for as long as the process runs.

An interval of which a sample would take more than a twentieth is widened, for as long as that is so: the kernel holds
the process's map of memory while it counts.
"""

import collections
import contextlib
import os
import statistics
import time

from . import messages, status, window
from .mapped_allocator import allocator_of, program_of
from .process import ProcessError

WHO = "tide record"
MOST_SHARE = 0.05  # of the interval, for taking a sample
COSTS = 4  # samples over which its median is taken
CAUTION = 1.4
EVENTS_S = 0.05  # between looks at what the keeper has done; nobody is asked
MUCH_BYTES = 1 << 20
LONGEST_MS = 60_000.0
RETRY_S = 0.5  # between looks for a window that is not there, or does not answer
EXEC_LOOKS_S = (0.0, 0.02, 0.1, 0.5)  # after execve, when the libraries may be mapped
EARLY_S = 1.0  # but at every sample while the process is as young as this


def record_process(process, recorder, interval_s, until_exit, duration_s=None, who=WHO):
    """Sample `process` into `recorder`, whose header is written, until it has ended or `until_exit.wait` says so.

    `until_exit` is a threading.Event or has its `wait(seconds)`. Returns the last line's figures. Raises OSError if the
    file cannot be written, and ProcessError if the process may not be looked at any more (it became another user's)."""
    sampler = Sampler(process, recorder, interval_s, who)
    how = {"detached": True}
    try:
        sampler.run(until_exit, duration_s)
        how = how_it_ended(process) or how
    finally:
        sampler.close()
        last = {"sampling_ms": round(sampler.cpu_s * 1000, 2)}
        if not recorder.failed:
            recorder.end(sampler.now_ms(), how, **last)
    return {**last, "end": how, "sampling_share": sampler.cpu_s * 1000 / max(sampler.now_ms(), 1)}


def command_of(process):
    """The program and its arguments as a list; the name in brackets where there are none."""
    words = process.read("cmdline").rstrip("\0").split("\0")
    return words if any(words) else [f"[{process.name}]"]


def how_it_ended(process):
    """The end of a process that has ended, for the last line; None if it goes on.

    Its exit status stands in its zombie's last field of /proc/PID/stat, for as long as there is a zombie."""
    for _ in range(200):
        try:
            fields = process.read("stat").rpartition(")")[2].split()
        except ProcessError:
            return {"exit_status": None}
        if fields[0] in "ZX":
            code = int(fields[49])
            return {"signal": os.WTERMSIG(code)} if os.WIFSIGNALED(code) else {"exit_status": os.WEXITSTATUS(code)}
        if _has_memory(process):
            return None
        time.sleep(0.005)  # it is on its way out
    return None


def _has_memory(process):
    try:
        return bool(process.read("cmdline") or process.rollup())
    except ProcessError:
        return False


class Sampler:
    """Takes a sample on each point of a grid of time, and what the keeper did since the last one."""

    def __init__(self, process, recorder, interval_s, who=WHO):
        self._process, self._recorder, self._who = process, recorder, who  # None: no word about a wider interval
        self.interval_s = self._wanted_s = interval_s
        self._start_ns = time.monotonic_ns()
        self.cpu_s = 0.0  # that sampling took
        self._window = None
        self._next_look_s = 0.0
        self._program = program_of(process)
        self._looks_s = []
        self._costs = collections.deque(maxlen=COSTS)
        self._widened = False
        self._lost = 0
        self._given_back = False  # much, since the last sample
        self._extra_at_s = None

    def now_ms(self):
        return (time.monotonic_ns() - self._start_ns) / 1e6

    def close(self):
        if self._window is not None:
            with contextlib.suppress(ProcessError, OSError):
                self._window.close()
            self._window = None

    def run(self, until_exit, duration_s=None):
        """Until the process has ended, `until_exit.wait(seconds)` returns true, or the time is up. In one thread."""
        started_s = time.thread_time()
        while True:
            try:
                self.take()
            except ProcessError as problem:
                self._events()  # what the keeper did last is still in its window
                if problem.status == status.NO_PROCESS:
                    return
                raise
            self.cpu_s = time.thread_time() - started_s
            self._adapt()
            elapsed_s = self.now_ms() / 1000
            next_s = (elapsed_s // self.interval_s + 1) * self.interval_s  # what a slow sample missed is left out
            if duration_s is not None and next_s > duration_s:
                until_exit.wait(max(0.0, duration_s - elapsed_s))
                return
            if self._wait(until_exit, next_s):
                self._events()
                return

    def _wait(self, until_exit, next_s):
        """Until the next point of the grid, or until much has been given back, which the record shall show when it
        happens: at most one more sample for each point of the grid. Returns whether it was the end."""
        while True:
            left_s = next_s - self.now_ms() / 1000
            if left_s <= 0:
                return False
            if until_exit.wait(left_s if self._window is None else min(left_s, EVENTS_S)):
                return True
            self._events()
            if self._given_back and self._extra_at_s != next_s:
                self._extra_at_s = next_s
                return False

    def take(self):
        """One sample. Raises ProcessError when the process is gone."""
        if self._window is None:
            self._look()
        started_s = time.thread_time()
        self._given_back = False
        memory = self._process.rollup()
        now_ms = self.now_ms()
        cpu_ms = self._process.cpu_ns() / 1e6
        stats = self._stats() if self._window is not None else None
        self._recorder.sample(now_ms, memory, cpu_ms, stats)
        self._events()
        self._costs.append(time.thread_time() - started_s)  # most of it is the kernel's counting
        self._notice_exec()

    def _stats(self):
        """The allocator's own figures, or None when it does not answer."""
        try:
            return self._window.stats().totals
        except ProcessError:
            # The keeper has ended, or the program has become another one by execve.
            self._events()
            self.close()
            self._next_look_s = time.monotonic() + RETRY_S
            return None

    def _look(self):
        now_s = time.monotonic()
        if now_s < self._next_look_s:
            return
        try:
            self._window = window.Window.open(self._process)
        except ProcessError as problem:
            young = self.now_ms() < EARLY_S * 1000
            far = 10 if problem.status == status.NOT_TIDEMALLOC else 1
            self._next_look_s = now_s + (RETRY_S / 10 if young else RETRY_S * far)
            if problem.status == status.BAD_FILE:
                messages.warning(self._who, f"{problem}; only what the kernel knows is recorded")
                self._next_look_s = float("inf")

    def _notice_exec(self):
        """A program may become another one by execve, as `env` does, and be on another allocator then."""
        program = program_of(self._process)
        now_s = time.monotonic()
        if program != self._program:
            self._program, self._looks_s = program, [now_s + delay_s for delay_s in EXEC_LOOKS_S]
        if not self._looks_s or now_s < self._looks_s[0]:
            return
        self._looks_s = [look_s for look_s in self._looks_s if look_s > now_s]
        with contextlib.suppress(ProcessError):
            allocator, mode = allocator_of(self._process)
            self._recorder.became(self.now_ms(), command_of(self._process), allocator, mode)

    def _events(self):
        if self._window is None:
            return
        for event in self._window.events():
            if event.kind in ("flush", "hold", "trim", "pressure", "asked"):
                self._given_back |= event.given_bytes >= MUCH_BYTES
            at_ms = (event.at_ns - self._start_ns) / 1e6
            if at_ms >= 0:  # else from before the recording
                self._recorder.event(at_ms, **event_figures(event))
        lost = self._window.lost
        if lost > self._lost:
            self._recorder.event(self.now_ms(), "lost", count=lost - self._lost)
            self._lost = lost

    def _adapt(self):
        """Sampling must stay a small part of the time, also while a process has many GiB."""
        if len(self._costs) < COSTS:
            return
        cost_s = statistics.median(self._costs)
        if self.interval_s > self._wanted_s:
            cost_s *= CAUTION  # wider as soon as it must be, narrower when it is clear that it may
        fits = cost_s <= MOST_SHARE * self._wanted_s
        interval_s = self._wanted_s if fits else min(rounded_up(cost_s / MOST_SHARE), LONGEST_MS / 1000)
        if interval_s == self.interval_s or self.interval_s < interval_s < self.interval_s * CAUTION:
            return
        self.interval_s = interval_s
        self._costs.clear()
        self._recorder.event(self.now_ms(), "interval", interval_ms=round(interval_s * 1000, 1))
        if not self._widened and self._who is not None:
            self._widened = True
            messages.warning(
                self._who,
                f"a sample takes {cost_s * 1000:.1f} ms, more than {MOST_SHARE:.0%} of the interval of "
                f"{self._wanted_s * 1000:g} ms: every {interval_s * 1000:g} ms for as long as that is so",
            )


def event_figures(event):
    """An event of the window, as a line of the record has it."""
    figures = {"kind": event.kind}
    if event.given_bytes or event.kind in ("flush", "hold", "trim", "pressure", "asked"):
        figures["given"] = event.given_bytes
    if event.kind == "hold":
        figures["hold_ms"] = round(event.argument / 1e6, 1)
    elif event.kind == "busy":
        figures["quiet_ms"] = round(event.argument / 1e6, 1)
    elif event.kind == "trim":
        figures["spare"] = event.argument
    elif event.kind == "pressure":
        figures["source"] = event.argument
    return figures


def rounded_up(value_s):
    """To 1, 1.5, 2, 3, 5 or 7 times a power of ten of milliseconds."""
    step_s = 0.001
    while True:
        for factor in (1, 1.5, 2, 3, 5, 7):
            if step_s * factor >= value_s:
                return step_s * factor
        step_s *= 10
