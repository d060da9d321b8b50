"""`tide stat`: what a process on tidemalloc holds, why, and what its keeper does about it.

The figures come from the process itself, which is not stopped: its keeper answers through the window. With an interval,
rates per second are the differences of two answers. A process that has no keeper is shown from outside only.
"""

import argparse
import json
import sys
import time

from . import messages, status
from .process import Process, ProcessError
from .sample import positive
from .window import KEEPER_STATES, POOL_STATES, TIERS, Window, name_of

WHO = "tide stat"
ANSWER_S = 1.0
HEADER_EVERY = 20  # lines

# What only grows: with an interval, its rate per second is shown, too.
COUNTERS = (
    "returned_bytes refault_bytes refill_count allocation_count span_retire_count remote_free_count nested_count "
    "keeper_wakeup_count keeper_cpu_ns flush_count hold_count hold_hit_count hold_miss_count trim_count pressure_count "
    "claim_mark_count claim_wake_count claim_wait_count"
).split()

KEEPER_WORDS = {"watch": "watching", "look": "looking", "hold": "holding", "still": "asleep"}


def count(text):
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 on")
    return number


def register(subparsers):
    parser = subparsers.add_parser(
        "stat",
        help="show what a process on tidemalloc holds, and what its keeper does",
        usage="tide stat [-h] [-i SECONDS [-n COUNT]] [--json | --openmetrics] [--classes] [--threads] PID",
        description="Show the memory of process PID as its allocator sees it, without stopping the process.",
        epilog="example:\n  tide stat -i 1 --threads $(pidof redis-server)\n\n"
        "Exit status: 0; 2 bad usage; 3 no such process; 4 not permitted; 5 not on tidemalloc; "
        "6 on tidemalloc, but no keeper answers: then only the figures from outside are shown. "
        "With -i, the end of the process and Ctrl-C end it with 0.",
    )
    parser.add_argument("-i", "--interval", metavar="SECONDS", type=positive, help="again and again, with rates")
    parser.add_argument("-n", "--count", metavar="COUNT", type=count, help="stop after so many; needs -i")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object, with -i one a line; bytes and nanoseconds")
    form.add_argument("--openmetrics", action="store_true", help="OpenMetrics text, as 'tide exporter' serves it")
    parser.add_argument("--classes", action="store_true", help="add a table of the size classes in use")
    parser.add_argument("--threads", action="store_true", help="add a table of the threads' heaps")
    parser.add_argument("pid", metavar="PID", type=int, help="the process to look at")
    parser.set_defaults(main=main, parser=parser)


def main(args):
    if args.count is not None and args.interval is None:
        args.parser.error("-n needs -i")
    if args.openmetrics and (args.interval is not None or args.classes or args.threads):
        args.parser.error("--openmetrics is one answer without tables: leave -i, --classes and --threads out")
    try:
        with Process(args.pid) as process:
            return show_openmetrics(process) if args.openmetrics else watch(process, args)
    except ProcessError as problem:
        messages.error(WHO, str(problem))
        return problem.status
    except KeyboardInterrupt:
        if args.interval is None:
            raise
        return status.OK


class Inside:
    """The process's own view, for as long as there is one: a process may get its keeper late, and a new program in
    its place has another."""

    def __init__(self, process):
        self._process = process
        self._window = None

    def snapshot(self):
        """A Snapshot, or the ProcessError (NO_KEEPER) that says why there is none. Raises the other ProcessErrors."""
        try:
            if self._window is None:
                self._window = Window.open(self._process)
            return self._window.stats(timeout_s=ANSWER_S)
        except ProcessError as problem:
            self.close()
            if problem.status != status.NO_KEEPER:
                raise
            return problem.with_traceback(None)

    def close(self):
        if self._window is not None:
            self._window.close()
            self._window = None


class Sight:
    """A process at one moment, from outside and from inside."""

    def __init__(self, process, inside):
        found = inside.snapshot()
        self.snapshot, self.problem = (None, found) if isinstance(found, ProcessError) else (found, None)
        self.at_ns = time.monotonic_ns() if self.snapshot is None else self.snapshot.at_ns
        self.time = time.time()
        self.memory = process.rollup()
        self.cpu_ns = process.cpu_ns()

    def rates(self, before):
        """Per second since the Sight `before`, by the names of the counters; {} where that says nothing."""
        if before is None or before.at_ns >= self.at_ns:
            return {}
        seconds = (self.at_ns - before.at_ns) / 1e9
        rates = {"cpu_ns": (self.cpu_ns - before.cpu_ns) / seconds}
        if self.snapshot and before.snapshot:
            new, old = self.snapshot.totals, before.snapshot.totals
            if all(new[name] >= old[name] for name in COUNTERS):  # else another program has taken its place
                rates |= {name: (new[name] - old[name]) / seconds for name in COUNTERS}
        return rates


def share(part, whole):
    return part / whole if whole else None


def ratios(totals):
    """What is worth knowing of the figures together: None where nothing was counted."""
    allocations = totals["allocation_count"]
    hits = allocations - totals["refill_count"] if allocations else None
    return {
        "hit_count": hits,
        "miss_count": totals["refill_count"],
        "hit_rate": share(hits, allocations) if allocations else None,
        "reallocation_rate": share(totals["refault_bytes"], totals["returned_bytes"]),
        "pinned_bytes": totals["tiny_pinned_bytes"] + totals["mid_pinned_bytes"],
    }


def watch(process, args):
    inside = Inside(process)
    before, shown, told = None, 0, None
    start = time.monotonic()
    try:
        while True:
            try:
                sight = Sight(process, inside)
            except ProcessError as problem:
                if before is not None and problem.status == status.NO_PROCESS:
                    return status.OK  # it has ended, and was shown to its end
                raise
            if args.json:
                print(json.dumps(as_json(process, sight, sight.rates(before), args)))
            elif args.interval is not None and not (args.classes or args.threads):
                for line in lines_of_watch(sight, sight.rates(before), shown % HEADER_EVERY == 0):
                    print(line)
            else:
                print(("\n" if shown else "") + "\n".join(page(process, sight, sight.rates(before), args)))
            sys.stdout.flush()
            shown += 1
            if sight.problem and told is None:
                messages.error(WHO, str(sight.problem))
            told = sight.problem
            if args.interval is None or shown == args.count:
                return status.OK if sight.problem is None else sight.problem.status
            before = sight
            # Keep to the grid of the interval; what a slow answer missed is left out.
            elapsed = time.monotonic() - start
            time.sleep((elapsed // args.interval + 1) * args.interval - elapsed)
    finally:
        inside.close()


# --- JSON ---


def as_json(process, sight, rates, args):
    shown = {
        "tide_stat": 1,
        "time": round(sight.time, 3),
        "pid": process.pid,
        "name": process.name,
        "command": process.command_line(),
        "age_ms": process.age_ms(),
        "cpu_ns": sight.cpu_ns,
        "memory": sight.memory,
        "stats": None,
    }
    if sight.snapshot is None:
        shown["note"] = str(sight.problem)
    else:
        totals = sight.snapshot.totals
        shown["stats"] = totals
        shown["derived"] = ratios(totals) | {
            "mode": sight.snapshot.mode,
            "keeper_state": name_of(totals["keeper_state"], KEEPER_STATES),
            "pool_states": {tier: name_of(totals[f"{tier}_state"], POOL_STATES) for tier in TIERS},
        }
        if args.classes:
            shown["classes"] = [vars(figures) for figures in sight.snapshot.classes]
        if args.threads:
            names = dict(process.threads())
            shown["threads"] = [{"name": names.get(row.tid)} | vars(row) for row in sight.snapshot.threads]
            shown["threads_left_out"] = sight.snapshot.threads_left_out
    if rates:
        shown["rates_per_second"] = {name: round(rate, 3) for name, rate in rates.items()}
    return shown


def show_openmetrics(process):
    from . import openmetrics

    inside = Inside(process)
    try:
        found = inside.snapshot()
        snapshot = None if isinstance(found, ProcessError) else found
        sys.stdout.write(openmetrics.render([(process, snapshot)]))
        sys.stdout.flush()
        if snapshot is None:
            messages.error(WHO, str(found))
            return found.status
        return status.OK
    finally:
        inside.close()


# --- text ---


def mib(size):
    return "-" if size is None else f"{size / (1 << 20):.1f}"


def rate(value, digits=0):
    return "-" if value is None else f"{value:.{digits}f}"


def percent(part):
    return "-" if part is None else f"{100 * part:.1f} %"


def aligned(rows, left=(0,), gap=2):
    """Lines of a table: the columns in `left` start at the left, the others end at the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = (
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        )
        lines.append((" " * gap).join(cells).rstrip())
    return lines


def page(process, sight, rates, args):
    """Everything about one moment."""
    lines = [f"{process.name} ({process.pid}), running for {duration(process.age_ms() / 1000)}", ""]
    if sight.snapshot is None:
        return lines + outside_table(sight)
    lines[0] += f", mode {sight.snapshot.mode}"
    totals = sight.snapshot.totals
    lines += memory_table(sight, totals, rates)
    lines += [""] + tier_table(totals)
    lines += [""] + work_table(totals, rates)
    lines += [""] + pinning_lines(totals)
    if args.classes:
        lines += [""] + class_table(sight.snapshot.classes)
    if args.threads:
        lines += [""] + thread_table(sight.snapshot, dict(process.threads()))
    return lines


def duration(seconds):
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days} d " if days else "") + f"{hours:02}:{minutes:02}:{seconds:02}"


def outside_rows(sight):
    memory = sight.memory
    rows = [("resident", mib(memory["rss"]), "all the process's memory in RAM")]
    rows.append(("  private", mib(memory["private_dirty"]), "written by it alone"))
    if memory.get("anon_huge"):
        rows.append(("  huge", mib(memory["anon_huge"]), "in transparent huge pages"))
    if memory.get("swap"):
        rows.append(("swapped", mib(memory["swap"]), "out of RAM"))
    return rows


def outside_table(sight):
    return aligned([("MEMORY", "MiB", "")] + outside_rows(sight), left=(0, 2))


def memory_table(sight, totals, rates):
    returned_rate = rates.get("returned_bytes")
    rows = outside_rows(sight) + [
        ("allocated", mib(totals["allocated_bytes"]), "live blocks"),
        ("active", mib(totals["active_bytes"]), "spans that hold at least one"),
        ("retained", mib(totals["retained_bytes"]), "free, kept for what comes next"),
        ("metadata", mib(totals["metadata_bytes"]), "descriptors and heaps"),
        (
            "returned",
            mib(totals["returned_bytes"]),
            "given back since the start" + ("" if returned_rate is None else f", now {mib(returned_rate)} a second"),
        ),
    ]
    return aligned([("MEMORY", "MiB", "")] + rows, left=(0, 2))


def tier_table(totals):
    rows = [("TIER (MiB)", "allocated", "retained", "pinned", "MiB/s taken", "pool")]
    for tier in TIERS:
        rows.append(
            (
                tier,
                mib(totals[f"{tier}_bytes"]),
                mib(totals[f"{tier}_retained_bytes"]),
                mib(totals.get(f"{tier}_pinned_bytes")),
                mib(totals[f"{tier}_rate_bytes"] * 10),  # the keeper smooths over 100 ms
                name_of(totals[f"{tier}_state"], POOL_STATES),
            )
        )
    return aligned(rows, left=(0, 5))


def work_table(totals, rates):
    """What was done since the start, and how often now."""
    derived = ratios(totals)
    rows = [("SINCE THE START", "", "a second", "")]

    def add(title, name, words=""):
        rows.append((title, str(totals[name]), rate(rates.get(name), digits=1), words))

    if derived["hit_count"] is not None:
        hits = rates.get("allocation_count", 0) - rates.get("refill_count", 0) if rates else None
        words = f"{percent(derived['hit_rate'])} of the allocations"
        rows.append(("hits", str(derived["hit_count"]), rate(hits, digits=1), words))
    add("misses", "refill_count", "a thread's list of ready blocks was empty")
    rows.append(
        (
            "taken again",
            f"{mib(totals['refault_bytes'])} MiB",
            mib(rates.get("refault_bytes")),
            f"regret: {percent(derived['reallocation_rate'])} of what was returned",
        )
    )
    add("emptied spans", "span_retire_count")
    add("remote frees", "remote_free_count", "by another thread than the block's")
    state = name_of(totals["keeper_state"], KEEPER_STATES)
    add("keeper wake-ups", "keeper_wakeup_count", f"now {KEEPER_WORDS.get(state, state)}")
    cpu_rate = rates.get("keeper_cpu_ns")
    rows.append(
        (
            "keeper CPU",
            f"{totals['keeper_cpu_ns'] / 1e6:.1f} ms",
            "-" if cpu_rate is None else f"{cpu_rate / 1e6:.1f}",
            "" if cpu_rate is None else f"{percent(cpu_rate / 1e9)} of a core",
        )
    )
    add("flushes", "flush_count", "quiet spells in which everything went back")
    hits, misses = totals["hold_hit_count"], totals["hold_miss_count"]
    add("holds", "hold_count", f"waited for a burst: {hits} came, {misses} in vain; patience {patience(totals)}")
    add("trims", "trim_count", "shrinks while busy")
    add("pressure", "pressure_count", "answers to memory pressure")
    lines = aligned(rows, left=(0, 3))
    return lines if rates else aligned([(row[0], row[1], row[3]) for row in rows], left=(0, 2))


def patience(totals):
    return f"{totals['patience_ns'] / 1e6:.0f} ms"


def pinning_lines(totals):
    """Why free memory is still there."""
    rows = [("NOT RETURNED", "MiB", "")]
    pinned = totals["tiny_pinned_bytes"] + totals["mid_pinned_bytes"]
    rows.append(("pinned", mib(pinned), "free blocks on pages that hold a live one, too"))
    rows.append(("locked", mib(totals["locked_bytes"]), "the system did not take it (mlock)"))
    if totals["claim_possible"]:
        words = "threads inside an operation are passed over: 'tide flush' says how much"
    else:
        words = "caches of all sleeping threads: this kernel or a filter forbids membarrier"
    rows.append(("missed", "-", words))
    return aligned(rows, left=(0, 2))


def class_table(classes):
    used = [row for row in classes if row.span_count or row.refill_count or row.allocation_count]
    counted = any(row.allocation_count for row in used)
    title = ("CLASS", "tier", "state", "spans", "live", "free", "live MiB", "kept MiB", "misses")
    rows = [title + (("hits", "") if counted else ())]
    for figures in sorted(used, key=lambda row: row.block_bytes):
        cells = (
            str(figures.block_bytes),
            figures.tier,
            figures.state or "-",
            str(figures.span_count),
            str(figures.live_blocks),
            str(figures.free_blocks),
            mib(figures.live_blocks * figures.block_bytes),
            mib(figures.resident_free_bytes),
            str(figures.refill_count),
        )
        rows.append(cells + (hit_cells(figures) if counted else ()))
    return aligned(rows, left=(1, 2)) if used else ["CLASS", "none in use"]


def hit_cells(figures):
    if not figures.allocation_count:
        return "-", "-"
    hits = figures.allocation_count - figures.refill_count
    return str(hits), percent(hits / figures.allocation_count)


def thread_table(snapshot, names):
    counted = any(row.allocation_count for row in snapshot.threads)
    rows = [("THREAD", "name", "heap", "live MiB", "kept MiB", "spans", "misses") + (("hits", "") if counted else ())]
    for figures in snapshot.threads:
        state = "ended" if figures.tid == 0 else {"own": "active", "marked": "idle"}.get(figures.claim, figures.claim)
        cells = (
            str(figures.tid) if figures.tid else "-",
            names.get(figures.tid, "-"),
            state if figures.state != "lost" else "lost",
            mib(figures.live_bytes),
            mib(figures.retained_bytes),
            str(figures.span_count),
            str(figures.refill_count),
        )
        rows.append(cells + (hit_cells(figures) if counted else ()))
    lines = aligned(rows, left=(1, 2))
    if snapshot.threads_left_out:
        lines.append(f"and {snapshot.threads_left_out} more")
    return lines


def lines_of_watch(sight, rates, with_header):
    """One moment in one line, in MiB."""
    form = "{:8}  {:>8}  {:>9}  {:>8}  {:>6}  {:>10}  {:>10}  {:>7}  {:>10}  {:8}  {}"
    header = "time resident allocated retained pinned returned/s misses/s again/s wake-ups/s keeper pools".split()
    clock = time.strftime("%H:%M:%S", time.localtime(sight.time))
    cells = [clock, mib(sight.memory["rss"])]
    if sight.snapshot is None:
        cells += ["-"] * 7 + ["none", "-"]
    else:
        totals = sight.snapshot.totals
        cells += [mib(totals["allocated_bytes"]), mib(totals["retained_bytes"]), mib(ratios(totals)["pinned_bytes"])]
        cells += [mib(rates.get("returned_bytes")), rate(rates.get("refill_count")), mib(rates.get("refault_bytes"))]
        state = name_of(totals["keeper_state"], KEEPER_STATES)
        cells += [rate(rates.get("keeper_wakeup_count")), KEEPER_WORDS.get(state, state)]
        cells.append("/".join(name_of(totals[f"{tier}_state"], POOL_STATES)[:4] for tier in TIERS))
    return [form.format(*line) for line in ([header, cells] if with_header else [cells])]
