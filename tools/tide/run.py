"""`tide run`: start a program with tidemalloc as its allocator.

tide sets LD_PRELOAD and then becomes the program by execve(2), so there is no process in between: the program keeps
tide's process id, terminal and open files, gets every signal itself, and its exit status is what the caller sees.
With --record, tide stays beside the program and behaves as if it were it (parent.py).
"""

import argparse
import errno
import os
import re
import shutil
import signal
import stat
from pathlib import Path

from . import elf, messages, options

WHO = "tide run"
LIBRARY = "libtidemalloc.so"
COUNTING_LIBRARY = "libtidemalloc-count.so"

# As env(1), nohup(1) and timeout(1) have it, so that a script can tell tide's failures from the program's.
STATUS_OWN_ERROR = 125
STATUS_NOT_EXECUTABLE = 126
STATUS_NOT_FOUND = 127


class RunError(Exception):
    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


def register(subparsers):
    parser = subparsers.add_parser(
        "run",
        help="run a program on tidemalloc",
        usage="tide run [OPTION]... [--] PROGRAM [ARG]...",
        description="Run PROGRAM with tidemalloc as its allocator. No option is needed.",
        epilog="examples:\n"
        "  tide run redis-server --port 7000\n"
        "  tide run --mode static --record static.jsonl -- python3 app.py\n\n"
        "Exit status: that of PROGRAM; 125 if tide itself fails; 126 if PROGRAM cannot be executed; "
        "127 if it is not found.",
        allow_abbrev=False,
    )
    parser.usage_status = STATUS_OWN_ERROR
    options.add_to(parser)
    parser.add_argument(
        "--count",
        action="store_true",
        help=f"use {COUNTING_LIBRARY}, which counts every allocation for the hit rates of tide stat; slower",
    )
    parser.add_argument(
        "--record", metavar="FILE", help="write its memory over time to FILE, for tide report, as tide record does"
    )
    parser.add_argument("--library", metavar="PATH", help=f"the {LIBRARY} to use (default: the one tide came with)")
    # One list for the program and its arguments, so that argparse never looks at the program's own options.
    parser.add_argument("command", metavar="PROGRAM [ARG]...", nargs=argparse.REMAINDER, help="what to run")
    parser.set_defaults(main=main, parser=parser)


def main(args):
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    try:
        if not command:
            raise RunError(STATUS_OWN_ERROR, "no program given (try 'tide run --help')")
        if args.count and args.library:
            raise RunError(STATUS_OWN_ERROR, "--count and --library exclude each other: each names a library")
        library = find_library(args.library, COUNTING_LIBRARY if args.count else LIBRARY)
        program = find_program(command[0])
        warn_if_deaf(program, library)
        environment = environment_for(library, args.option)
        if args.record is None:
            execute(program, command, environment)
        return execute_and_record(program, command, environment, args.record)
    except RunError as problem:
        messages.error(WHO, str(problem))
        return problem.status


def find_library(given=None, name=LIBRARY):
    """Return the absolute path of the library, fit to stand in LD_PRELOAD."""
    if given is not None:
        path = Path(given).absolute()
        if not path.is_file():
            raise RunError(STATUS_OWN_ERROR, f"no library at {given}")
    else:
        path = next((place for place in library_places(name) if place.is_file()), None)
        if path is None:
            raise RunError(
                STATUS_OWN_ERROR,
                f"cannot find {name} near this tide; build it with 'make', or give a path with --library",
            )
    if elf.read(path) is None:
        raise RunError(STATUS_OWN_ERROR, f"{path} is not a shared library, or not readable")
    if re.search("[ :]", str(path)):
        # ld.so splits LD_PRELOAD at these two characters and knows no way to quote them.
        raise RunError(
            STATUS_OWN_ERROR,
            f"LD_PRELOAD cannot hold the path '{path}', because it has a space or colon; "
            "move the library, or give a symbolic link to it with --library",
        )
    return path


def library_places(name=LIBRARY):
    """Where the library may be, seen from this tool: the build directory, then an installation."""
    # The folder that holds this package is the zipapp itself: build/tide/tide/run.py.
    tool = Path(__file__).resolve().parents[1]
    yield tool.parent / name
    prefix = tool.parent.parent
    for directory in ("lib", "lib64", f"lib/{os.uname().machine}-linux-gnu"):
        yield prefix / directory / name


def find_program(name):
    """Return the path that execve needs: `name` itself if it has a slash, else its place in PATH."""
    path = shutil.which(name)
    if path is not None:
        return path
    if os.sep in name:
        candidates = [name]
    else:
        candidates = [os.path.join(place or ".", name) for place in os.get_exec_path()]
    if name and any(os.path.lexists(candidate) for candidate in candidates):
        raise RunError(STATUS_NOT_EXECUTABLE, f"cannot execute '{name}': not an executable file")
    raise RunError(STATUS_NOT_FOUND, f"program not found: '{name}'")


def warn_if_deaf(program, library, who=WHO):
    """Say so if the dynamic linker will ignore LD_PRELOAD for this program; returns whether it will."""
    # A script is started by its interpreter, which may be a script again; the kernel follows four of them.
    name = program
    for _ in range(4):
        interpreter = elf.script_interpreter(program)
        if interpreter is None:
            break
        program = os.fsdecode(interpreter)

    binary = elf.read(program)
    preloaded = elf.read(library)
    if runs_with_other_rights(program):
        reason = "it runs with other rights than yours (set-user-ID, set-group-ID or file capabilities)"
    elif binary and not binary.has_interpreter:
        reason = "it is statically linked"
    elif binary and (binary.bits, binary.machine) != (preloaded.bits, preloaded.machine):
        reason = "it is built for another kind of processor than the library"
    else:
        return False
    messages.warning(who, f"'{name}' keeps its own allocator: {reason}")
    return True


def runs_with_other_rights(path):
    try:
        status = os.stat(path)
        if status.st_mode & stat.S_ISUID and status.st_uid != os.getuid():
            return True
        if status.st_mode & stat.S_ISGID and status.st_mode & stat.S_IXGRP and status.st_gid != os.getgid():
            return True
        return os.getuid() != 0 and "security.capability" in os.listxattr(path)
    except OSError:
        return False


def environment_for(library, options):
    """The caller's environment plus LD_PRELOAD and the options, as bytes."""
    environment = initial_environment()
    others = environment.get(b"LD_PRELOAD", b"")
    environment[b"LD_PRELOAD"] = os.fsencode(library) + (b":" + others if others else b"")
    environment.update((name.encode(), os.fsencode(value)) for name, value in options)
    return environment


def initial_environment():
    """The environment as tide was given it: in the C locale Python adds LC_CTYPE to its own, and the program must
    not see that."""
    try:
        block = Path("/proc/self/environ").read_bytes()
    except OSError:
        return dict(os.environb)
    return dict(entry.split(b"=", 1) for entry in block.split(b"\0") if b"=" in entry)


def execute_and_record(program, command, environment, path):
    """Run the program with a recorder beside it; returns its exit status, or dies by the signal that killed it."""
    from . import parent, record

    recording = record.Recording(path, command=command)
    recording.open_early()
    try:
        ended_as = parent.run_beside(program, command, environment, recording.watch_pid)
    except OSError as problem:
        recording.discard()
        raise cannot_execute(command[0], problem) from None
    return parent.end_like(ended_as)


def execute(program, command, environment):
    # Python ignores these two for itself, and an ignored signal stays ignored across execve.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execve(program, command, environment)
    except OSError as problem:
        raise cannot_execute(command[0], problem) from None


def cannot_execute(name, problem):
    if problem.errno == errno.ENOENT:
        return RunError(STATUS_NOT_FOUND, f"cannot execute '{name}': its interpreter is missing")
    return RunError(STATUS_NOT_EXECUTABLE, f"cannot execute '{name}': {problem.strerror}")
