"""What `tide top` knows of the processes on tidemalloc, and the thread that finds it out.

A stopped process answers late or never, so asking happens beside the screen. The thread takes orders from a queue and
hands over what it has found by a function, which runs in the thread.
"""

import collections
import contextlib
import queue
import threading
import time

from . import status
from .process import ProcessError, processes_on_tidemalloc
from .top_view import GRAPH_MOST, Row
from .window import Window

SEARCH_EVERY_S = 2.0  # for new processes: reads the mappings of all
ASK_TIMEOUT_S = 0.2


class Watched:
    """One process, its window, and its past."""

    def __init__(self, process):
        self.process = process
        self._window = None
        self._history = collections.deque(maxlen=GRAPH_MOST)
        self._cpu = None  # (time, processor time) in ns

    def close(self):
        self._leave_window()
        self.process.close()

    def _leave_window(self):
        if self._window is not None:
            self._window.close()
            self._window = None

    def look(self):
        """A Row of this moment. Raises ProcessError once the process has ended."""
        rss = self.process.rollup()["rss"]
        self._history.append(rss)
        row = Row(self.process.pid, self.process.name, rss, self._cpu_percent(), history=tuple(self._history))
        row.command = self.process.command_line()
        try:
            self._window = self._window or Window.open(self.process)
            snapshot = self._window.stats(ASK_TIMEOUT_S)
        except ProcessError as problem:
            self._leave_window()
            if problem.status == status.NO_PROCESS:
                raise
            row.problem = str(problem)
        else:
            row.totals, row.heaps = snapshot.totals, snapshot.threads
            row.heaps_left_out = snapshot.threads_left_out
            row.thread_names = dict(self.process.threads())
        return row

    def _cpu_percent(self):
        now = time.monotonic_ns(), self.process.cpu_ns()
        before, self._cpu = self._cpu or now, now
        elapsed_ns = now[0] - before[0]
        return 100 * (now[1] - before[1]) / elapsed_ns if elapsed_ns else 0.0

    def flush(self, tiers):
        """Returns (report, rss before, rss after)."""
        before = self.process.rollup()["rss"]
        with Window.open(self.process) as window:
            report = window.flush(tiers)
        return report, before, self.process.rollup()["rss"]


class Watch:
    """All processes on tidemalloc that the user may ask."""

    def __init__(self):
        self._watched = {}
        self._searched_at = None

    def look(self):
        """A Row for each."""
        if self._searched_at is None or time.monotonic() - self._searched_at >= SEARCH_EVERY_S:
            self._search()
        rows = []
        for pid, watched in list(self._watched.items()):
            try:
                rows.append(watched.look())
            except ProcessError:
                self._watched.pop(pid).close()
        return rows

    def _search(self):
        self._searched_at = time.monotonic()
        for process in processes_on_tidemalloc():
            known = self._watched.get(process.pid)
            if known is None or not known.process.alive():
                if known is not None:
                    known.close()
                self._watched[process.pid] = Watched(process)
            elif known.process.name != process.name:  # it has become another program
                known.process.name = process.name
                process.close()
            else:
                process.close()

    def flush(self, pid, tiers):
        if pid not in self._watched:
            raise ProcessError(status.NO_PROCESS, f"process {pid} has ended")
        return self._watched[pid].flush(tiers)

    def close(self):
        for watched in self._watched.values():
            watched.close()
        self._watched.clear()


class Sampler(threading.Thread):
    """Looks every `interval_s`, and flushes when told. `deliver(kind, content)` gets what it finds, by kind:

    "rows": a list of Row; "flushed": (row, tiers, report, rss before, rss after); "refused": why a flush was not done;
    "broken": the exception that ended the thread."""

    def __init__(self, interval_s, deliver, watch=None):
        super().__init__(daemon=True)
        self._interval_s = interval_s
        self._deliver = deliver
        self._watch = watch or Watch()
        self._orders = queue.SimpleQueue()

    def flush(self, row, tiers):
        self._orders.put((row, tiers))

    def stop(self):
        self._orders.put(None)

    def run(self):
        try:
            next_at = time.monotonic()
            while True:
                now = time.monotonic()
                if now >= next_at:
                    self._deliver("rows", self._watch.look())
                    # Keep to the grid of the interval; what slow answers missed is left out.
                    next_at += self._interval_s * max(1, (time.monotonic() - next_at) // self._interval_s + 1)
                order = self._wait(next_at - time.monotonic())
                if order is None:
                    break
                if order:
                    self._obey(*order)
        except Exception as problem:  # whatever it is, the screen must hear of it, or it would stand still
            self._deliver("broken", problem)
        finally:
            self._watch.close()

    def _wait(self, seconds):
        """The next order; () when there is none in time."""
        with contextlib.suppress(queue.Empty):
            return self._orders.get(timeout=max(0.0, seconds))
        return ()

    def _obey(self, row, tiers):
        try:
            self._deliver("flushed", (row, tiers, *self._watch.flush(row.pid, tiers)))
        except ProcessError as problem:
            self._deliver("refused", str(problem))
        self._deliver("rows", self._watch.look())
