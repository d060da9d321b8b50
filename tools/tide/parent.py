"""Be the parent of a program as if there were none: for `tide run --record`, which has to stay beside it.

    caller ---- tide ---- program        signals sent to tide go on to the program; its exit status, or the signal
                 |                       that killed it, becomes tide's own
                 `-- a thread that samples

Terminal keys (Ctrl-C, Ctrl-Z) reach the program by themselves, since it is in the same process group: what the kernel
sends is not passed on, what a process sends is. When the program is stopped, tide stops too, and the shell sees a
stopped job. All signals are blocked in tide and taken one by one with sigwaitinfo(2), the program starts with none
blocked; so nothing is lost and no handler runs.
"""

import os
import resource
import signal
import threading

# Not to be had by waiting for them: they cannot be blocked, or mean a mistake of our own.
OURS = {
    signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP,
    signal.SIGABRT, signal.SIGSYS,
}  # fmt: skip


def run_beside(program, command, environment, beside):
    """Run `program` with `beside(pid, ended)` in a thread, where `ended` is an Event; returns its wait status.

    Raises OSError when it cannot be executed. `beside` has to return soon after `ended` is set."""
    taken = signal.valid_signals() - OURS
    before = signal.pthread_sigmask(signal.SIG_BLOCK, taken)
    try:
        # Python ignores these two for itself, and an ignored signal stays ignored across execve.
        pid = os.posix_spawn(
            program, command, environment, setsigmask=before, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ]
        )
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    ended = threading.Event()
    watcher = threading.Thread(target=beside, args=(pid, ended), daemon=True)
    watcher.start()
    status = pass_signals(pid, taken)
    ended.set()
    watcher.join()
    os.waitpid(pid, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, before - {signal.SIGINT})
    return status


def pass_signals(pid, taken):
    """Until the program has ended; it stays a zombie, so that its number belongs to nobody else meanwhile."""
    while True:
        found = signal.sigwaitinfo(taken)
        if found.si_signo == signal.SIGCHLD:
            state = os.waitid(os.P_PID, pid, os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
            if state is None:
                continue
            if state.si_code == os.CLD_STOPPED:
                os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG)
                os.kill(os.getpid(), signal.SIGSTOP)
                continue
            return state.si_status << 8 if state.si_code == os.CLD_EXITED else state.si_status
        if found.si_code <= 0:  # from a process; the kernel's are above 0
            os.kill(pid, found.si_signo)


def end_like(status):
    """Return the exit status in `status`, or die by the signal in it."""
    if not os.WIFSIGNALED(status):
        return os.waitstatus_to_exitcode(status)
    number = os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # one core is enough
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    return 128 + number
