"""`tide smaps`: what the memory of a process consists of, kind by kind, with any allocator; and what changed.

The figures come from /proc/PID/smaps, so their sum is that of smaps_rollup. `mappings` tells what each mapping is for.
The heap of tidemalloc is cut along the slices that the process's window describes, and its pages are counted in
/proc/PID/pagemap: Rss and Swap of the tiers are counts, their other figures are shared out in the proportion of Rss.
"""

import argparse
import contextlib
import datetime
import json
import os
import re
import subprocess
import sys
import time

from . import mappings, messages, status
from .children import Child
from .pages import PageMap
from .process import Process, ProcessError, printable
from .segments import image_bytes
from .snapshots import SmapsError, changes, compare, comparison, content, load, save
from .window import Window

WHO = "tide smaps"
FLUSH_PHASE = "after-flush"
PROGRAM_AT_S = 1.0  # when a program that was started is looked at, unless told
END_GRACE_S = 5.0

HEADINGS = {
    "size": "Size",
    "rss": "Rss",
    "pss": "Pss",
    "private_dirty": "Private_Dirty",
    "lazy_free": "LazyFree",
    "anon_huge": "AnonHuge",
    "swap": "Swap",
}


# --- one snapshot --------------------------------------------------------------------------------------------------


def take(process, label="", flushed=None):
    """A snapshot of the process, as it goes into a file."""
    facts, window_note = find_facts(process)
    classified = mappings.classify(mappings.parse(process.read("smaps")), facts)
    if not classified.parts:
        reason = "has no memory of its own: a thread of the kernel" if process.alive() else "has ended"
        raise ProcessError(status.NO_PROCESS, f"process {process.pid} {reason}")
    kinds = add_up(process, classified.parts)
    snapshot = {
        "label": label,
        "pid": process.pid,
        "name": printable(process.read("comm").rstrip("\n")),  # a program that was just started gets its own later
        "command": process.command_line(),
        "allocator": classified.allocator,
        "taken": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds"),
        "kinds": [{"kind": kind, **kinds[kind]} for kind in sorted(kinds, key=mappings.order_of)],
        "total": {figure: sum(kind[figure] for kind in kinds.values()) for figure in mappings.FIGURES},
        "notes": notes_of(classified, facts, window_note),
    }
    if flushed is not None:
        snapshot["flush"] = flushed
    return snapshot


def find_facts(process):
    """What smaps does not tell, and why tidemalloc's tiers are not known, if they are not."""
    regions, note = (), None
    if process.uses_tidemalloc():
        try:
            with Window.open(process) as window:
                regions = tuple((region.base, bytes(region.kinds)) for region in window.slices())
        except ProcessError as problem:
            note = str(problem)
    try:
        program = os.readlink("exe", dir_fd=process.directory)
    except OSError:
        program = ""
    facts = mappings.Facts(
        program=program,
        stack_pointers=tuple(stack_pointers(process)),
        stack_bytes=default_stack_bytes(process),
        regions=regions,
        image_bytes=lambda path: image_bytes(f"/proc/{process.pid}/root{path}"),
    )
    return facts, note


def stack_pointers(process):
    """Of the threads but the first. A thread that runs at this moment, or that we must not look at, tells none."""
    for tid, _ in process.threads():
        if tid != process.pid:
            with contextlib.suppress(ProcessError, ValueError, IndexError):
                yield int(process.read(f"task/{tid}/syscall").split()[-2], 16)


def default_stack_bytes(process):
    """What glibc gives a thread: the limit of the main stack, when it is finite."""
    with contextlib.suppress(ProcessError):
        found = re.search(r"^Max stack size +(\d+)", process.read("limits"), re.MULTILINE)
        if found:
            return int(found[1])
    return 2 << 20


def add_up(process, parts):
    """Kind -> its figures, summed over all mappings."""
    kinds = {}
    with contextlib.ExitStack() as files:
        pagemap = None
        for part in parts:
            counts = [(0, 0, 0)] * len(part.pieces)
            if len({piece.kind for piece in part.pieces}) > 1:
                with process.errors():
                    pagemap = pagemap or files.enter_context(PageMap(process))
                    counts = pagemap.count(part.pieces)
            page_bytes = pagemap.page_bytes if pagemap else 0
            for kind, figures in mappings.figures_by_kind(part, counts, page_bytes).items():
                sums = kinds.setdefault(kind, dict.fromkeys(mappings.FIGURES, 0))
                for figure, value in figures.items():
                    sums[figure] += value
    return kinds


def notes_of(classified, facts, window_note):
    notes = []
    pointed, laid_out = classified.stacks_by_pointer, classified.stacks_by_layout
    if pointed or laid_out:
        ways = [f"{pointed} by stack pointer"] if pointed else []
        ways += [f"{laid_out} by guard page and size"] if laid_out else []
        notes.append(f"thread stacks: {', '.join(ways)}")
    if window_note is not None:
        notes.append(f"tidemalloc's tiers are not told apart: {window_note}")
    if classified.allocator == "tidemalloc" and not classified.has_labels:
        known_by = "what its window tells" if facts.regions else "its layout"
        notes.append(f"no labels on anonymous memory here; tidemalloc's heap is known by {known_by}")
    return notes


# --- which process, and when ---------------------------------------------------------------------------------------


def find_process(word):
    """The process with this number or, of those of this user, this name."""
    if word.isdigit():
        return Process(int(word))
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(ProcessError):
                process = Process(int(entry))
                if has_name(process, word):
                    found.append(process)
                else:
                    process.close()
    if len(found) == 1:
        return found[0]
    for process in found:
        process.close()
    if not found:
        raise ProcessError(
            status.NO_PROCESS, f"no process of yours is named '{word}' (to start one: tide smaps -- {word})"
        )
    numbers = ", ".join(str(pid) for pid in sorted(process.pid for process in found))
    raise SmapsError(status.USAGE, f"{len(found)} processes are named '{word}', give the number of one: {numbers}")


def has_name(process, word):
    first = process.read("cmdline").split("\0")[0]
    return word in (process.name, os.path.basename(first))


def flush(process):
    """Have the process give back what it can; the report as a dictionary."""
    with Window.open(process) as window:
        report = window.flush()
    return {name: getattr(report, name) for name in ("returned_bytes", "kept_bytes", "pinned_bytes", "missed_bytes")}


class Moments:
    """When the snapshots are taken: at given seconds, each time Enter is pressed, or now."""

    def __init__(self, labels, at_s):
        self.labels, self.at_s = labels, at_s
        self.start = time.monotonic()

    def wait(self, index, is_over):
        """Wait for the snapshot of this index. False: the user wants no more."""
        if self.at_s:
            while not is_over() and (left := self.at_s[index] - (time.monotonic() - self.start)) > 0:
                time.sleep(min(left, 0.1))
        elif len(self.labels) > 1:
            progress(f"{index + 1} of {len(self.labels)}: press Enter for '{self.labels[index]}'")
            return sys.stdin.readline() != ""
        return True


def progress(text):
    print(f"{WHO}: {text}", file=sys.stderr, flush=True)


def take_all(process, labels, moments):
    """The snapshots, yielded as they are taken."""
    for index, label in enumerate(labels):
        if not moments.wait(index, lambda: not process.alive()):
            return
        flushed = None
        if label == FLUSH_PHASE:
            flushed = flush(process)
            progress(f"flushed: {mib(flushed['returned_bytes'])} MiB went back")
        snapshot = take(process, label, flushed)
        if len(labels) > 1:
            progress(f"{label}: {mib(snapshot['total']['rss'])} MiB resident")
        yield snapshot


@contextlib.contextmanager
def started(command):
    """A Process that runs within, and is ended afterwards."""
    try:
        # Its output must not mix with the table, nor its input with the key that takes a snapshot.
        child = Child(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    except OSError as problem:
        raise SmapsError(status.FAILED, f"cannot start '{command[0]}': {problem.strerror}") from None
    with child:
        try:
            with Process(child.pid) as process:
                yield process
        finally:
            child.end(END_GRACE_S)


# --- what is shown -------------------------------------------------------------------------------------------------


def mib(value, sign=""):
    """MiB with one decimal; a dash where there is nothing at all."""
    text = f"{value / (1 << 20):{sign}.1f}"
    return "-" if value == 0 else text.lstrip("+-") if float(text) == 0 else text


def table(head, rows):
    """Lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width + 2) for cell, width in zip(row[1:], widths[1:]))]
        yield "".join(cells).rstrip()


def show(snapshot):
    """The lines for one snapshot."""
    allocator = f", on {snapshot['allocator']}" if snapshot["allocator"] else ""
    yield f"{snapshot['name']} ({snapshot['pid']}){allocator}; MiB"
    rows = [[row["kind"], *(mib(row[figure]) for figure in HEADINGS)] for row in snapshot["kinds"]]
    rows.append(["total", *(mib(snapshot["total"][figure]) for figure in HEADINGS)])
    yield from table(["kind", *HEADINGS.values()], rows)
    for note in snapshot["notes"]:
        yield f"note: {note}"


def show_comparison(snapshots, figure):
    compared = compare(snapshots)
    labels = compared["labels"]
    names = list(dict.fromkeys(f"{snapshot['name']} ({snapshot['pid']})" for snapshot in snapshots))
    yield f"{HEADINGS[figure]} of {', '.join(names)}; MiB"
    rows = {kind: columns[figure] for kind, columns in compared["kinds"].items() if any(columns[figure])}
    rows["total"] = compared["total"][figure]
    yield from table(["kind", *labels], [[kind, *map(mib, values)] for kind, values in rows.items()])
    yield ""
    yield "change from the one before"
    heads = [*labels[1:], "first to last"]
    changed = {kind: changes(values) for kind, values in rows.items()}
    shown = [kind for kind in rows if any(changed[kind]) or kind == "total"]
    yield from table(["kind", *heads], [[kind, *(mib(value, "+") for value in changed[kind])] for kind in shown])
    yield ""
    yield "all kinds together"
    totals = [[HEADINGS[name], *map(mib, values)] for name, values in compared["total"].items()]
    yield from table(["figure", *labels], totals)
    yield from notes_together(snapshots)


def notes_together(snapshots):
    """Each note once, with the labels of its snapshots unless it is about all of them."""
    labels = {}
    for snapshot in snapshots:
        for note in snapshot["notes"]:
            labels.setdefault(note, []).append(snapshot["label"])
    for note, about in labels.items():
        yield f"note: {note}" if len(about) == len(snapshots) else f"note: {', '.join(about)}: {note}"


# --- the command ---------------------------------------------------------------------------------------------------


def label_list(text):
    labels = [name.strip() for name in text.split(",")]
    if not all(labels):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of names with commas")
    return [label(name) for name in labels]


def label(text):
    if not text.isprintable():
        raise argparse.ArgumentTypeError("a name with control characters")
    return text


def second_list(text):
    try:
        seconds = [float(word) for word in text.split(",")]
    except ValueError:
        seconds = []
    if not seconds or sorted(seconds) != seconds or not 0 <= seconds[0] <= seconds[-1] < 1e9:
        raise argparse.ArgumentTypeError(f"'{text}' is not a rising list of seconds with commas")
    return seconds


def register(subparsers):
    parser = subparsers.add_parser(
        "smaps",
        help="show what a process's memory consists of, kind by kind",
        usage="tide smaps [OPTION]... PID | NAME | -- PROGRAM [ARG]...\n"
        "       tide smaps --compare FILE... [OPTION]...",
        description="Show the memory of a process by kind: the tiers of tidemalloc, other heaps, stacks, files, ... "
        "with any allocator. Rss and Swap of the tiers are counted page by page, their other figures shared out in the "
        "proportion of Rss. Several snapshots are compared. A PROGRAM is started for it, looked at after 1 s unless "
        "--at or --phases says otherwise, and ended afterwards.",
        epilog="examples:\n"
        "  tide smaps redis-server\n"
        "  tide smaps redis-server --phases baseline,heavy,idle,after-flush --save redis.json\n"
        "  tide smaps --at 0,2,5 -- tide run -- python3 app.py\n"
        "  tide smaps --compare glibc.json redis.json --by private_dirty\n\n"
        "Exit status: as 'tide --help' lists them; 5 and 6 only where a flush is wanted.",
    )
    parser.add_argument(
        "--phases",
        metavar="NAME,...",
        type=label_list,
        help=f"take one snapshot for each NAME, when Enter is pressed; before one named {FLUSH_PHASE} the process is "
        "flushed; the end of the input ends it early",
    )
    parser.add_argument(
        "--at", metavar="S,...", type=second_list, default=[], help="take the snapshots at these seconds, not at Enter"
    )
    parser.add_argument("--label", metavar="NAME", type=label, help="the name of the snapshot, if it is one")
    parser.add_argument("--save", metavar="FILE.json", help="write the snapshots there, too")
    parser.add_argument("--compare", metavar="FILE", nargs="+", help="compare the snapshots in files, in this order")
    parser.add_argument(
        "--by", metavar="FIGURE", choices=list(HEADINGS), default="rss", help="compare by this: " + ", ".join(HEADINGS)
    )
    parser.add_argument("--json", action="store_true", help="print JSON, in bytes")
    parser.add_argument("words", metavar="PID | NAME | -- PROGRAM [ARG]...", nargs="...", help="what to look at")
    parser.set_defaults(main=main, parser=parser)


def main(args):
    try:
        program, target = read_words(args)
        if args.compare:
            snapshots, problem = compare_files(args.compare, args), None
        else:
            snapshots, problem = look(program, target, args)
        if args.save:
            save(args.save, snapshots)
        print_result(args, snapshots)
    except (ProcessError, SmapsError) as failure:
        problem = failure
    if problem is None:
        return status.OK
    messages.error(WHO, str(problem))
    return problem.status


def read_words(args):
    """The program to start, or the process to look at; the options behind the latter go into `args`."""
    words = args.words
    if words[:1] == ["--"]:
        program, target = words[1:], None
    else:
        program, target = None, words[0] if words else None
        args.parser.parse_args(words[1:], args)
        if args.words:
            args.parser.error("one process at a time; to start a program, put -- before it")
    if args.compare:
        if program or target or args.phases or args.at or args.label:
            args.parser.error("--compare looks at files only: no process, --phases, --at or --label")
    elif not program and not target:
        args.parser.error("name a process by PID or NAME, or give '-- PROGRAM'")
    if args.phases and args.at and len(args.phases) != len(args.at):
        args.parser.error(f"{len(args.phases)} names in --phases, but {len(args.at)} times in --at")
    if args.label is not None and (args.phases or len(args.at) > 1):
        args.parser.error("--label is for one snapshot; name several with --phases")
    return program, target


def compare_files(paths, args):
    snapshots = [snapshot for path in paths for snapshot in load(path)]
    if len(snapshots) < 2:
        args.parser.error("there is only one snapshot in the files: nothing to compare it with")
    return snapshots


def look(program, target, args):
    """Take the snapshots that the command line asks for: those that could be taken, and why there are no more."""
    at_s = args.at or ([PROGRAM_AT_S] if program and not args.phases else [])
    labels = args.phases or ([f"{second:g} s" for second in at_s] if len(at_s) > 1 else [args.label or ""])
    snapshots = []
    with started(program) if program else find_process(target) as process:
        if FLUSH_PHASE in labels and not program and not process.uses_tidemalloc():
            raise ProcessError(
                status.NOT_TIDEMALLOC, f"process {process.pid} ({process.name}) does not run on tidemalloc: no flush"
            )
        try:
            for snapshot in take_all(process, labels, Moments(labels, at_s)):
                snapshots.append(snapshot)
        except ProcessError as problem:
            if not snapshots:
                raise
            return snapshots, problem
    if not snapshots:
        raise SmapsError(status.FAILED, "the input ended before the first snapshot")
    return snapshots, None


def print_result(args, snapshots):
    if args.json:
        shown = comparison(snapshots) if args.compare else content(snapshots)
        print(json.dumps(shown, indent=1))
    else:
        lines = show(snapshots[0]) if len(snapshots) == 1 else show_comparison(snapshots, args.by)
        print("\n".join(lines))
    sys.stdout.flush()
