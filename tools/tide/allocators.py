"""The allocators that a program can be compared with, and how it is started on each.

    static, hybrid ...   tidemalloc in that mode
    own                  whatever the program uses by itself: nothing is preloaded
    glibc                the C library's; preloaded, too, since a program may be linked to another one
    jemalloc ...         the shared library of that name that the system's linker knows
    NAME=PATH.so         any other
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import elf, options, run

# What the libraries are called, and the package of Debian that has one.
KNOWN = {
    "jemalloc": (r"libjemalloc\.so\.\d+", "libjemalloc2"),
    "mimalloc": (r"libmimalloc\.so\.\d+", "libmimalloc2.0"),
    "tcmalloc": (r"libtcmalloc(_minimal)?\.so\.\d+", "libtcmalloc-minimal4"),
}
PEERS = ("glibc", *KNOWN, "own")


class NotFound(Exception):
    """One line for the user."""


@dataclass(frozen=True)
class Allocator:
    name: str
    library: Path | None
    mode: str | None = None

    def environment(self):
        """The caller's environment, so changed that a program gets this allocator. As bytes."""
        if self.library is None:
            return run.initial_environment()
        return run.environment_for(self.library, [("TIDE_MODE", self.mode)] if self.mode else [])


def tidemalloc(mode, library):
    if mode not in options.OPTIONS["mode"][0]:
        raise ValueError(mode)
    return Allocator(mode, library, mode)


def peer(text):
    """The Allocator that the user names: one of PEERS, or NAME=PATH.so. Raises NotFound."""
    name, equals, path = text.partition("=")
    if equals:
        if not re.fullmatch(r"[\w.+-]+", name) or name in options.OPTIONS["mode"][0]:
            raise NotFound(f"'{text}': the name before '=' is empty, a mode, or has odd characters")
        return Allocator(name, _checked(Path(path), text))
    if name == "own":
        return Allocator(name, None)
    if name == "glibc":
        return Allocator(name, c_library())
    if name in KNOWN:
        return Allocator(name, _checked(known_library(name), text))
    raise NotFound(f"no allocator is known as '{name}': name one of {', '.join(PEERS)}, or give NAME=PATH.so")


def _checked(path, text):
    if elf.read(path) is None:
        raise NotFound(f"{text}: {path} is not a shared library, or not readable")
    if re.search("[ :]", str(path.absolute())):
        raise NotFound(f"{text}: LD_PRELOAD cannot hold a path with a space or colon; give a symbolic link to it")
    return path.absolute()


def c_library():
    """The C library that this Python itself runs on."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if re.search(r"/libc(-[0-9.]+)?\.so(\.6)?$", line):
            return Path(line.split(None, 5)[5])
    raise NotFound("glibc: cannot find the C library among the files that are mapped here")


def known_library(name):
    pattern, package = KNOWN[name]
    try:
        listing = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True).stdout
    except OSError:
        listing = ""
    for line in listing.splitlines():
        file, arrow, path = line.strip().partition(" => ")
        if arrow and re.match(pattern + r" ", file) and elf.read(path) and elf.read(path).bits == 64:
            return Path(path)
    raise NotFound(f"{name} is not installed: apt install {package}, or give {name}=PATH.so")
