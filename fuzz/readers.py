#!/usr/bin/env python3
"""Fuzzes what the `tide` command reads: text of smaps, windows, records, snapshots, ELF files; and its metrics.

    fuzz/readers.py FILE|FOLDER...                      feed these files to their readers
    fuzz/readers.py --seconds N [--findings FOLDER]     change the files in fuzz/corpus/readers for so long

The first word of a file's name says which reader gets it. All of them read what other programs wrote, so any bytes must
end in a result that makes sense or in the one exception that the reader documents. Inputs are a file of the corpus and
a list of edits to it, from hypothesis, which makes a finding as small as it can.
"""

import argparse
import contextlib
import fcntl
import io
import os
import random
import re
import struct
import sys
import tempfile
import time
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, os.environ.get("TIDEMALLOC_TOOLS", str(HERE.parent / "tools")))

from tide import elf, levels, mappings, segments, series, smaps, snapshots  # noqa: E402  by the path above
from tide import window as windows  # noqa: E402
from tide.process import ProcessError  # noqa: E402

CORPUS = HERE / "corpus" / "readers"


class Finding(Exception):
    pass


def must(condition, text):
    if not condition:
        raise Finding(text)


def printable(text):
    """Nothing that a terminal obeys may come from a file."""
    must(all(c.isprintable() or c == "\n" for c in text), f"not printable: {ascii(text)[:200]}")


@contextlib.contextmanager
def file_of(data):
    with tempfile.NamedTemporaryFile(prefix="tide-fuzz-") as file:
        file.write(data)
        file.flush()
        yield file.name


# --- smaps(5) ------------------------------------------------------------------------------------------------------


def smaps_text(data):
    """/proc/PID/smaps, and after a line of equal signs what the window tells: regions, `base kinds` in hex."""
    text, _, told = data.decode("utf-8", "replace").partition("\n====\n")
    try:
        found = [m for m in mappings.parse(text) if m.start < m.end]
    except ValueError:
        return  # a figure that no kernel writes; names, which programs choose, never end here
    found.sort(key=lambda m: m.start)
    apart = [m for m, after in zip(found, found[1:]) if m.end <= after.start] + found[-1:]  # as the kernel has them
    regions = []
    for line in told.splitlines():
        words = re.fullmatch("([0-9a-f]{1,16}) ((?:[0-9a-f]{2}){0,4096})", line)
        if words:
            regions.append((int(words[1], 16), bytes.fromhex(words[2])))
    pointers = tuple(m.start + m.size_bytes // 2 for m in apart[::7])
    facts = mappings.Facts(
        program=apart[0].name if apart else "",
        stack_pointers=pointers,
        stack_bytes=8 << 20,
        regions=tuple(regions),
        image_bytes=lambda path: None if len(path) % 3 == 0 else len(path) << 12,
    )
    for parts in mappings.classify(apart, facts).parts:
        pieces = parts.pieces
        must(pieces[0].start == parts.mapping.start and pieces[-1].end == parts.mapping.end, f"not whole: {parts}")
        must(all(a.end == b.start for a, b in zip(pieces, pieces[1:])), f"not in order: {pieces}")
        must(all(p.start < p.end and p.kind for p in pieces), f"an empty piece: {pieces}")
        counts = [((p.end - p.start) % 97, p.start % 5, p.end % 3) for p in pieces]
        figures = mappings.figures_by_kind(parts, counts, 4096)
        for figure, total in parts.mapping.figures.items():
            if figure not in ("size", "rss", "swap") or figure == "rss":
                must(sum(row[figure] for row in figures.values()) == total, f"{figure} does not add up")


# --- the window ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def window_of(data):
    """The tool's end of a window with these bytes, whose keeper has answered before it was asked."""
    descriptor = os.memfd_create("tidemalloc-window", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, windows.FILE_BYTES)
        os.pwrite(descriptor, data[: windows.FILE_BYTES], 0)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        answer(descriptor)
        window = windows.Window(descriptor, os.getpid())
    except ProcessError:
        yield None
        return
    try:
        yield window
    finally:
        window.close()


def answer(descriptor):
    """Let the number of the answer be that of the next question."""
    (asked,) = struct.unpack("<I", os.pread(descriptor, 4, 20))
    os.pwrite(descriptor, struct.pack("<I", (asked + 1) & 0xFFFFFFFF), 24)


def window_file(data):
    with window_of(data) as window:
        if window is None:
            return
        for ask in (window.events, window.stats, window.flush, window.slices, window.events):
            with contextlib.suppress(ProcessError):
                answer(window._descriptor)
                got = ask() if ask == window.events else ask(timeout_s=0.001)
                look_at(got)


def look_at(answered):
    """What was made of the bytes is bounded, and texts are ours."""
    if isinstance(answered, windows.Snapshot):
        must(set(answered.totals) == set(windows.TOTALS), "totals are missing")
        must(len(answered.classes) <= 256 and len(answered.threads) <= 4096, "more rows than there is room for")
        for row in (*answered.classes, *answered.threads):
            for value in vars(row).values():
                must(isinstance(value, (int, type(None))) or re.fullmatch("[a-z]+(-[0-9]+)?", value), f"odd: {row}")
    elif isinstance(answered, list) and answered and isinstance(answered[0], windows.Region):
        slices = sum(len(region.kinds) for region in answered)
        must(slices <= windows.MOST_ANSWERS * windows.MOST_KINDS, "too many slices")


# --- records -------------------------------------------------------------------------------------------------------


def record(data):
    with file_of(data) as path:
        try:
            read = series.load(path)
        except series.BadFile as problem:
            printable(str(problem))
            return
    summary = levels.summarize(read)
    must(summary.peak >= summary.baseline >= 0, "a baseline above the peak")
    must(all(phase.from_ms <= phase.to_ms for phase in summary.phases), "a phase that ends before it begins")
    must(read.duration_ms >= 0, "it lasts less than nothing")


# --- snapshots -----------------------------------------------------------------------------------------------------


def snapshot_file(data):
    with file_of(data) as path:
        try:
            read = snapshots.load(path)
        except snapshots.SmapsError as problem:
            printable(str(problem))
            return
    for snapshot in read:
        printable("\n".join(smaps.show(snapshot)))
    if read:
        printable("\n".join(smaps.show_comparison(read, "rss")))
        snapshots.comparison(read)


# --- ELF files -----------------------------------------------------------------------------------------------------


def elf_file(data):
    with file_of(data) as path:
        found = elf.read(path)
        must(found is None or found.bits in (32, 64), f"{found}")
        elf.script_interpreter(path)
        size = segments.image_bytes(path, 4096)
        must(size is None or (size >= 0 and size % 4096 == 0), f"an image of {size} bytes")


# --- metrics -------------------------------------------------------------------------------------------------------


class NamedProcess:
    """A process may call itself anything."""

    def __init__(self, name, pid, figures):
        self.name, self.pid, self._figures = name, pid, figures

    def rollup(self):
        return self._figures


def metrics(data):
    """Bytes for names and figures; what is written from them must be read back by prometheus_client's own parser."""
    try:
        from prometheus_client.openmetrics.parser import text_string_to_metric_families
        from tide import openmetrics
    except ImportError:
        return
    name, _, rest = data.partition(b"\0")
    numbers = [value for (value,) in struct.iter_unpack("<Q", rest[: len(rest) // 8 * 8])] or [0]
    memory = dict.fromkeys(mappings.FIGURES, numbers[0])
    totals = {total: numbers[i % len(numbers)] for i, total in enumerate(windows.TOTALS)}
    snapshot = windows.Snapshot(1, totals, [], [], 0)
    process = NamedProcess(name.decode("utf-8", "replace"), 4711, memory)
    text = openmetrics.render([(process, snapshot), (NamedProcess("other", 1, memory), None)])
    families = {family.name: family for family in text_string_to_metric_families(text)}
    labels = families["tidemalloc_resident_bytes"].samples[0].labels
    must(labels["name"] == process.name, f"the name {ascii(process.name)} came back as {ascii(labels['name'])}")
    must(families["tidemalloc_allocated_bytes"].samples[0].value == float(totals["allocated_bytes"]), "another figure")


READERS = {
    "smaps": smaps_text,
    "window": window_file,
    "record": record,
    "snapshots": snapshot_file,
    "elf": elf_file,
    "metrics": metrics,
}


def reader_of(path):
    return READERS[Path(path).name.partition("-")[0]]


def feed(reader, data):
    """Raises what the reader should not."""
    with contextlib.redirect_stderr(io.StringIO()):
        reader(data)


# --- edits ---------------------------------------------------------------------------------------------------------

NUMBERS = (
    0, 1, 2, 7, 255, 256, 4095, 4096, 65535, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 47) + 1, (1 << 63) - 1, 1 << 63,
    (1 << 64) - 1,
)  # fmt: skip
WORDS = (
    b"-1", b"0", b"1e999", b"1e308", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b"[" * 2000, b"\x1b[31m",
    b"\xff\xfe", b"\xe2\x80\xae", b"\0", b"\n", b"\r", b" ", b",", b":", b"18446744073709551616", b"9" * 26, b"0.5",
    b"9" * 5000, b"ffffffffffffffff", b"[anon:tidemalloc: heap]", b"/lib/x.so (deleted)", b"---p", b"rw-s", b" kB",
    b'"stats"', b"t_ms",
)  # fmt: skip
TOKEN = re.compile(rb"[0-9a-zA-Z_.]+|[^0-9a-zA-Z_.]")


def edit(data, kind, where, what):
    """One change. `where` runs from 0 to 1, so that it means something in any text."""
    if kind == "word":  # of a binary file; most of a window is zeros, so the places are those with something in them
        places = [i for i in range(0, min(len(data), 70000) - 7, 4) if any(data[i : i + 8])] or [0]
        at = places[int(where * (len(places) - 1))]
        size = 4 if what % 3 == 0 else 8
        value = NUMBERS[what % len(NUMBERS)] & ((1 << (8 * size)) - 1)
        return data[:at] + value.to_bytes(size, "little") + data[at + size :]
    if kind == "byte":
        at = int(where * max(len(data) - 1, 0))
        return data[:at] + bytes([what & 255]) + data[at + 1 :]
    if kind == "cut":
        return data[: int(where * len(data))]
    if kind == "insert":
        at = int(where * len(data))
        return data[:at] + WORDS[what % len(WORDS)] + data[at:]
    if kind == "token":
        tokens = list(TOKEN.finditer(data))
        if not tokens:
            return data
        token = tokens[int(where * (len(tokens) - 1))]
        number = str(NUMBERS[what % len(NUMBERS)]).encode()
        new = (WORDS[what % len(WORDS)], number, b"%x" % NUMBERS[what % len(NUMBERS)], b"")[what // 7 % 4]
        return data[: token.start()] + new + data[token.end() :]
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    at, other = int(where * (len(lines) - 1)), what % len(lines)
    if kind == "drop":
        del lines[at : at + 1 + what % 3]
    elif kind == "double":
        lines.insert(other, lines[at])
    else:
        lines[at], lines[other] = lines[other], lines[at]
    return b"".join(lines)


TEXT_EDITS = ("token", "token", "token", "insert", "drop", "double", "swap", "cut", "byte")
BINARY_EDITS = ("word", "word", "word", "byte", "cut")


def edits_for(name):
    return BINARY_EDITS if name in ("window", "elf", "metrics") else TEXT_EDITS


def changed(data, edits):
    for kind, where, what in edits:
        data = edit(data, kind, where, what)
    return data


# --- the two ways to run -------------------------------------------------------------------------------------------


def files_in(paths):
    for path in map(Path, paths):
        yield from sorted(path.iterdir()) if path.is_dir() else [path]


def replay(paths):
    failed = count = 0
    for path in files_in(paths):
        count += 1
        try:
            feed(reader_of(path), path.read_bytes())
        except Exception as problem:  # noqa: BLE001  whatever it is
            failed += 1
            print(f"failed: {path}: {type(problem).__name__}: {ascii(problem)[:300]}")
    print(f"{count} inputs, {failed} failed")
    return 1 if failed or not count else 0


def search(seconds, folder):
    """Until the time is up or something is found."""
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st
    from hypothesis.errors import HypothesisWarning

    warnings.simplefilter("ignore", HypothesisWarning)
    corpus = [(path, path.read_bytes()) for path in files_in([CORPUS])]
    end = time.monotonic() + seconds
    count, small = 0, None
    quick = settings(
        max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink], print_blob=False,
    )  # fmt: skip
    while time.monotonic() < end:
        path, data = random.choice(corpus)
        reader, kinds = reader_of(path), edits_for(path.name.partition("-")[0])
        edits = st.lists(
            st.tuples(st.sampled_from(kinds), st.floats(0, 1), st.integers(0, (1 << 16) - 1)), min_size=1, max_size=8
        )

        @seed(random.getrandbits(64))
        @quick
        @given(edits)
        def one(chosen):
            nonlocal count, small
            count += 1
            small = changed(data, chosen)
            feed(reader, small)

        try:
            one()
        except Exception as problem:  # noqa: BLE001
            found = Path(folder) / f"{path.name.partition('-')[0]}-{os.getpid()}"
            found.write_bytes(small)  # hypothesis has run the smallest one last
            print(f"fuzz: readers: FOUND {found}: {type(problem).__name__}: {ascii(problem)[:300]}")
            print(f"fuzz: repeat it with      python3 fuzz/readers.py {found}")
            return 1
    print(f"fuzz: readers: {count} inputs in {seconds:g} s")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--findings", default=".")
    args = parser.parse_args()
    return search(args.seconds, args.findings) if args.seconds else replay(args.files or [CORPUS])


if __name__ == "__main__":
    sys.exit(main())
