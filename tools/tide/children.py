"""Programs that tide starts for a measurement, and that never outlive it.

Each gets a session of its own, so that Ctrl-C reaches tide alone, which ends them in order. The kernel kills them when
tide dies without a chance to (PR_SET_PDEATHSIG), and hands over to tide what they leave behind
(PR_SET_CHILD_SUBREAPER), so that daemons and grandchildren are found, too. See prctl(2).
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PATIENCE_S = 10.0  # between SIGTERM and SIGKILL

_libc = ctypes.CDLL(None, use_errno=True)
_at_work = set()  # the pids of every Child that has not ended


@dataclass(frozen=True)
class Used:
    """What a process, and the children it has waited for, cost in all."""

    cpu_s: float
    faults: int


class Child:
    """One program. `returncode` is as subprocess has it, and `used` is filled, once it has ended."""

    def __init__(self, command, environment=None, **streams):
        parent = os.getpid()

        def bind_to_parent():
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:  # it died before
                os._exit(1)

        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.begun = time.monotonic()
        self._process = subprocess.Popen(
            command, env=environment, start_new_session=True, preexec_fn=bind_to_parent, **streams
        )
        self.pid = self._process.pid
        _at_work.add(self.pid)
        self._ready = os.pidfd_open(self.pid)
        self.returncode = self.used = self.wall_s = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end(0)
        os.close(self._ready)

    @property
    def stderr(self):
        return self._process.stderr

    def wait(self, timeout_s=None):
        """Wait until it has ended, for so long at most; returns whether it has."""
        if self.returncode is not None:
            return True
        poll = select.poll()
        poll.register(self._ready, select.POLLIN)
        if not poll.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000):
            return False
        self.wall_s = time.monotonic() - self.begun
        _, status, used = os.wait4(self.pid, 0)
        _at_work.discard(self.pid)
        self._process.returncode = self.returncode = os.waitstatus_to_exitcode(status)
        self.used = Used(used.ru_utime + used.ru_stime, used.ru_minflt + used.ru_majflt)
        return True

    def end(self, patience_s=PATIENCE_S, first=signal.SIGTERM):
        """End it and all that it has started; returns whether it went when it was asked to."""
        willing = self.returncode is not None
        if not willing and patience_s > 0:
            self._signal(first)
            willing = self.wait(patience_s)
        self._signal(signal.SIGKILL)  # the whole session, also when the leader has ended
        self.wait()
        end_strays()
        return willing

    def _signal(self, number):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def descendants():
    """The children of tide by now: what its programs left behind counts as its own."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def end_strays():
    """Kill and collect what programs have left behind. Each may leave children again, so until none is left."""
    for _ in range(100):
        strays = [pid for pid in descendants() if pid not in _at_work]
        if not strays:
            return
        for pid in strays:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def last_line(path):
    """The last line of a program's messages, for an error of ours."""
    text = Path(path).read_text(errors="replace").strip()
    line = text.splitlines()[-1] if text else "no message"
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:200]
