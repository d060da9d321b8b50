"""Which allocator a running process is on, by the libraries that are mapped in it.

The dynamic linker takes malloc from the first library that has one: what is preloaded, in its order, then what the
program is linked to. What is preloaded stands in the environment; of the other libraries at most one is an allocator
besides the C library. An allocator that is linked into the program itself does not show, and counts as the C library's.
"""

import os
import re
import weakref

from . import options

# By the name of the file; the first that is mapped, unless something is preloaded.
ALLOCATORS = {
    "tidemalloc": r"libtidemalloc(-[a-z]+)?\.so",
    "jemalloc": r"libjemalloc\.so",
    "mimalloc": r"libmimalloc(-[a-z]+)?\.so",
    "tcmalloc": r"libtcmalloc(_[a-z_]+)?\.so",
    "glibc": r"libc(-[0-9.]+)?\.so",
    "musl": r"ld-musl-",
}
DEFAULT_MODE = "hybrid"

# What the environment of a process was when it was first looked at: programs that change their title write over it.
_environments = weakref.WeakKeyDictionary()


def allocator_of(process):
    """(name, mode): the mode is tidemalloc's, or None. Raises ProcessError."""
    mapped = {_allocator(name) for name in mapped_libraries(process)} - {None}
    variables = variables_of(process) or {}
    preloaded = [_allocator(os.path.basename(path)) for path in re.split("[ :]", variables.get("LD_PRELOAD", ""))]
    name = next((name for name in [*preloaded, *ALLOCATORS] if name in mapped), "unknown")
    if name in ("glibc", "unknown") and name not in preloaded and process.uses_tidemalloc():  # static
        name = "tidemalloc"
    return name, mode_of(process) if name == "tidemalloc" else None


def _allocator(name):
    return next((allocator for allocator, form in ALLOCATORS.items() if re.match(form, name)), None)


def mapped_libraries(process):
    """The names of the files that are mapped."""
    paths = (line.split(None, 5)[5:] for line in process.read("maps").splitlines())
    return {os.path.basename(path[0].removesuffix(" (deleted)")) for path in paths if path and path[0][0] == "/"}


def program_of(process):
    """The file that the process runs; another one after execve. None if it cannot be seen."""
    try:
        return os.readlink("exe", dir_fd=process.directory)
    except OSError:
        return None


def mode_of(process):
    """The mode that the environment sets; None if the program has written over its environment before it was seen."""
    variables = variables_of(process)
    if variables is None:
        return None
    mode = variables.get("TIDE_MODE", DEFAULT_MODE)
    return mode if mode in options.OPTIONS["mode"][0] else DEFAULT_MODE


def variables_of(process):
    """The environment as a dict; None if something else stands where it was."""
    entries = [entry for entry in environment_of(process).split("\0") if entry]
    if not all(re.match("[^=]+=", entry) for entry in entries):
        return None
    return dict(entry.partition("=")[::2] for entry in entries)


def environment_of(process):
    program = program_of(process)
    seen, text = _environments.get(process, (None, None))
    if text is None or seen != program:
        text = process.read("environ")
        if text:  # in the middle of execve there is none yet
            _environments[process] = program, text
    return text


def wait_for_libraries(process, ended):
    """A program that has just been started: wait, a tenth of a second at most, until its libraries are mapped."""
    before, same = None, 0
    for _ in range(100):
        environment_of(process)
        now = mapped_libraries(process)
        same = same + 1 if now == before else 0
        if same >= (3 if any(map(_allocator, now)) else 30) or ended.wait(0.001):
            return
        before = now
