"""The allocators that are compared: where each library is, and the proof that a program really uses it."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Each peer's package, by its names in different releases of Debian, and its library in that package.
PACKAGES = {
    "mimalloc": (("libmimalloc2.0", "libmimalloc3"), "libmimalloc.so.[23]*"),
    "jemalloc": (("libjemalloc2",), "libjemalloc.so.2"),
    "tcmalloc": (("libtcmalloc-minimal4", "libtcmalloc-minimal4t64"), "libtcmalloc_minimal.so.4"),
}
PEERS = tuple(PACKAGES)
DEFAULT = ("glibc", *PEERS, "tide")
SYMBOLS = ("malloc", "free", "calloc", "realloc", "malloc_usable_size")


class AllocatorError(Exception):
    """One line for the user."""


@dataclass(frozen=True)
class Allocator:
    name: str
    library: Path | None  # None: the C library's own, nothing preloaded
    version: str

    def preload(self, program_links_other: bool = False) -> Path | None:
        """The library to preload. A program that was linked to another malloc gets even the C library's this way."""
        if self.library is None and program_links_other:
            return c_library()
        return self.library

    def owns(self, mapped: str) -> bool:
        """Whether `mapped`, a path of the loader's messages, is this allocator's library."""
        wanted = (self.library or c_library()).resolve()
        return Path(mapped).resolve() == wanted


def c_library() -> Path:
    output = subprocess.run(["ldd", "/bin/sh"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"libc\.so\.6 => (\S+)", output)
    if not found:
        raise AllocatorError("cannot find libc.so.6 with ldd")
    return Path(found[1])


def package_version(package: str) -> str | None:
    query = subprocess.run(["dpkg-query", "-W", "-f=${Version}", package], capture_output=True, text=True)
    return query.stdout if query.returncode == 0 and query.stdout else None


def find_peer(name: str) -> Allocator:
    packages, pattern = PACKAGES[name]
    for package in packages:
        version = package_version(package)
        if not version:
            continue
        listing = subprocess.run(["dpkg-query", "-L", package], capture_output=True, text=True, check=True).stdout
        for path in sorted(map(Path, listing.split("\n")), key=lambda p: len(p.name)):
            if path.match(pattern) and path.is_file():
                return Allocator(name, path, f"{package} {version}")
    raise AllocatorError(f"{name} is not installed: apt-get install {packages[0]}")


def find_all(names: list[str], extra: dict[str, Path], tide_library: Path) -> list[Allocator]:
    found = []
    for name in names:
        if name in extra:
            continue
        if name == "glibc":
            found.append(Allocator(name, None, f"libc6 {package_version('libc6') or 'unknown'}"))
        elif name in PACKAGES:
            found.append(find_peer(name))
        elif name == "tide":
            if not tide_library.is_file():
                raise AllocatorError("build/libtidemalloc.so is missing: run make, or leave tide out with --allocators")
            found.append(Allocator(name, tide_library.resolve(), "this tree"))
        else:
            raise AllocatorError(f"unknown allocator {name}: give its library as {name}=path.so")
    for name, path in extra.items():
        if not path.is_file():
            raise AllocatorError(f"{name}: no such library: {path}")
        found.append(Allocator(name, path.resolve(), "given library"))
    return found


def read_bindings(debug_files: list[Path]) -> list[tuple[str, str, str]]:
    """(file, file it is bound to, symbol) for each allocation function, as written under LD_DEBUG=bindings."""
    pattern = re.compile(r"binding file (\S+) \[\d+\] to (\S+) \[\d+\]: normal symbol `(\w+)'")
    found = []
    for file in debug_files:
        with file.open(errors="replace") as lines:
            found += [match.groups() for match in map(pattern.search, lines) if match and match[3] in SYMBOLS]
    return found


def check_bindings(allocator: Allocator, debug_files: list[Path]) -> None:
    """Every allocation function must be bound to the allocator.

    A program that takes the address of `free` offers an entry of its own to all libraries, which jumps to where the
    program's `free` is bound: such a detour through a file is right if that file itself is bound to the allocator.
    """
    bindings = read_bindings(debug_files)
    forwarders = {(source, symbol) for source, target, symbol in bindings if allocator.owns(target)}
    for source, target, symbol in bindings:
        if not allocator.owns(target) and (target, symbol) not in forwarders:
            raise AllocatorError(f"{symbol} of {Path(source).name} is bound to {Path(target).name}")
    if not bindings:
        raise AllocatorError("no allocation function was bound at all")
