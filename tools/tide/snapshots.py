"""Snapshots of `tide smaps`: their file, and what changed from one to the next.

A file of snapshots is JSON, bytes everywhere:

    {"tide_smaps": 1, "snapshots": [
        {"label", "pid", "name", "command", "allocator", "taken",
         "kinds": [{"kind", FIGURES ...}, ...], "total": {FIGURES ...}, "notes": [text, ...],
         "flush": {"returned_bytes", ...}, which only a snapshot after a flush has}, ...]}
"""

import contextlib
import json
import os
import stat
import tempfile
from pathlib import Path

from . import mappings, status

FILE_KEY, FILE_VERSION = "tide_smaps", 1


class SmapsError(Exception):
    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


def content(snapshots):
    """What a file holds."""
    return {FILE_KEY: FILE_VERSION, "snapshots": snapshots}


def save(path, snapshots):
    text = json.dumps(content(snapshots), indent=1) + "\n"
    try:
        write_whole(path, text)
    except OSError as problem:
        raise SmapsError(status.FAILED, f"{path}: {problem.strerror}") from None


def write_whole(path, text):
    """Write beside, then rename: no half a file is left. Except what is no regular file, like /dev/stdout."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            return
    place = os.path.realpath(path)  # a link stays a link
    descriptor, temporary = tempfile.mkstemp(prefix=".tide-", dir=os.path.dirname(place))
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, place)
    except BaseException:
        os.unlink(temporary)
        raise


def load(path):
    """The snapshots in a file, whose name is the label of those that have none."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as problem:
        raise SmapsError(status.FAILED, f"{path}: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise SmapsError(status.BAD_FILE, f"{path}: not a file of 'tide smaps --save'") from None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        kind = "truncated" if text.lstrip().startswith('{\n "' + FILE_KEY) else "not a file of 'tide smaps --save'"
        raise SmapsError(status.BAD_FILE, f"{path}: {kind}") from None
    version = found.get(FILE_KEY) if isinstance(found, dict) else None
    if version is None:
        raise SmapsError(status.BAD_FILE, f"{path}: not a file of 'tide smaps --save'")
    if version != FILE_VERSION:
        raise SmapsError(status.BAD_FILE, f"{path}: of version {version}, this tide reads version {FILE_VERSION}")
    try:
        snapshots = [checked(snapshot) for snapshot in found["snapshots"]]
    except (KeyError, TypeError, ValueError):
        raise SmapsError(status.BAD_FILE, f"{path}: damaged, something is missing or not what it should be") from None
    for snapshot in snapshots:
        snapshot["label"] = snapshot["label"] or Path(path).stem
    return snapshots


def checked(snapshot):
    """The snapshot, if all that is used of it is there, of its type, and fit for a terminal."""
    rows = snapshot["kinds"]
    texts = [snapshot["label"], snapshot["name"], *snapshot["notes"], *(row["kind"] for row in rows)]
    numbers = [snapshot["pid"], *(row[figure] for row in [*rows, snapshot["total"]] for figure in mappings.FIGURES)]
    if not all(isinstance(text, str) and text.isprintable() for text in texts):
        raise ValueError
    if not all(type(number) is int for number in numbers):
        raise ValueError
    return snapshot


def compare(snapshots):
    """The figures of all snapshots side by side: lists of one value a snapshot."""
    present = {row["kind"] for snapshot in snapshots for row in snapshot["kinds"]}
    rows = {kind: {figure: [] for figure in mappings.FIGURES} for kind in sorted(present, key=mappings.order_of)}
    total = {figure: [snapshot["total"][figure] for snapshot in snapshots] for figure in mappings.FIGURES}
    for snapshot in snapshots:
        known = {row["kind"]: row for row in snapshot["kinds"]}
        for kind, columns in rows.items():
            for figure, values in columns.items():
                values.append(known[kind][figure] if kind in known else 0)
    return {"labels": [snapshot["label"] for snapshot in snapshots], "kinds": rows, "total": total}


def changes(values):
    """From each value to the next, and from the first to the last."""
    return [after - before for before, after in zip(values, values[1:])] + [values[-1] - values[0]]


def comparison(snapshots):
    """The same, with changes, as it is printed as JSON."""
    compared = compare(snapshots)
    for columns in (*compared["kinds"].values(), compared["total"]):
        columns["changes"] = {figure: changes(columns[figure]) for figure in mappings.FIGURES}
    return {"tide_smaps_comparison": FILE_VERSION, **compared}
