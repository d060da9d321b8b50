"""Promise P6: what the library adds to a program that does nothing, its own size, and what its bookkeeping takes."""

import re
import statistics
import subprocess

from allocators import Allocator
from measure import Place, RunFailed, last_line, tool_environment
from report import verdict

RSS_LIMIT_KIB, START_LIMIT_US, SIZE_LIMIT_KIB, METADATA_LIMIT = 256, 100, 120, 0.01
START_ROUNDS, RSS_ROUNDS, HEAP_MIB = 300, 11, 256


def preloaded(allocator: Allocator) -> dict[str, str]:
    return tool_environment() | ({"LD_PRELOAD": str(allocator.library)} if allocator.library else {})


def hello_rss_kib(allocator: Allocator, place: Place) -> int:
    with subprocess.Popen([place.programs / "hello", "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          env=preloaded(allocator)) as process:
        if not process.stdout.readline():
            raise RunFailed("hello said nothing")
        with open(f"/proc/{process.pid}/smaps_rollup") as rollup:
            found = re.search(r"^Rss:\s+(\d+) kB", rollup.read(), re.MULTILINE)
    if process.returncode != 0 or not found:
        raise RunFailed("hello failed")
    return int(found[1])


def hello_rss(allocators: list[Allocator], place: Place) -> dict[str, float]:
    taken = {a.name: [] for a in allocators}
    for _ in range(RSS_ROUNDS):
        for a in allocators:
            taken[a.name].append(hello_rss_kib(a, place))
    return {name: statistics.median(values) for name, values in taken.items()}


def start_us(allocators: list[Allocator], place: Place) -> dict[str, float]:
    """Medians of a whole run of hello, and the median of the differences to glibc's run of the same round."""
    libraries = [a for a in allocators if a.library]
    done = subprocess.run([place.programs / "starts", str(START_ROUNDS), place.programs / "hello",
                           *(a.library for a in libraries)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RunFailed(f"starts: {last_line(done.stderr.encode())}")
    rounds = [[int(ns) / 1000 for ns in line.split()] for line in done.stdout.splitlines()]
    found = {"glibc": statistics.median(r[0] for r in rounds)}
    for i, a in enumerate(libraries, 1):
        found[a.name] = found["glibc"] + statistics.median(r[i] - r[0] for r in rounds)
    return found


def library_bytes(allocator: Allocator) -> int | None:
    """Text and data as `size` counts them: text includes constants and unwind tables."""
    if not allocator.library:
        return None
    done = subprocess.run(["size", allocator.library], capture_output=True, text=True)
    if done.returncode != 0:
        raise RunFailed(f"size: {last_line(done.stderr.encode())}")
    text, data = done.stdout.splitlines()[1].split()[:2]
    return int(text) + int(data)


def metadata_share(allocator: Allocator, place: Place) -> float | None:
    """Bytes of bookkeeping for each byte of live blocks; None when the library has no tide_stats_get."""
    done = subprocess.run([place.programs / "heap", str(HEAP_MIB)], capture_output=True, text=True,
                          env=preloaded(allocator))
    if done.returncode == 3:
        return None
    if done.returncode != 0:
        raise RunFailed(f"heap: {last_line(done.stderr.encode())}")
    metadata, allocated, _ = map(int, done.stdout.split())
    return metadata / allocated


def measure(allocators: list[Allocator], place: Place) -> dict:
    ours = [a for a in allocators if a.name == "tide"]
    return {
        "hello_rss_kib": hello_rss(allocators, place),
        "start_us": start_us(allocators, place),
        "library_bytes": {a.name: library_bytes(a) for a in allocators if a.library},
        "metadata_share": metadata_share(ours[0], place) if ours else None,
    }


def verdicts(found: dict) -> list[dict]:
    rss, start, size = (found[key].get("tide") for key in ("hello_rss_kib", "start_us", "library_bytes"))
    if rss is None or "glibc" not in found["hello_rss_kib"]:
        return []
    more_rss, more_start = rss - found["hello_rss_kib"]["glibc"], start - found["start_us"]["glibc"]
    share = found["metadata_share"]
    return [
        verdict("P6 hello RSS", more_rss <= RSS_LIMIT_KIB, f"glibc + {more_rss:.0f} KiB (goal {RSS_LIMIT_KIB})"),
        verdict("P6 start-up", more_start <= START_LIMIT_US, f"glibc + {more_start:.0f} us (goal {START_LIMIT_US})"),
        verdict("P6 text + data", size <= SIZE_LIMIT_KIB * 1024, f"{size / 1024:.1f} KiB (goal {SIZE_LIMIT_KIB})"),
        verdict("P6 metadata", share is not None and share <= METADATA_LIMIT,
                "not exported (no tide_stats_get)" if share is None
                else f"{share:.2%} of live bytes (goal {METADATA_LIMIT:.0%})"),
    ]
