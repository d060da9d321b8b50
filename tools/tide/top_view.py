"""What `tide top` shows, as text: pure functions from rows to lines, for the screen and for `--once`.

    PID     NAME         RSS  LIVE  RETAINED  RETURNED  POOLS  KEEPER  CPU%  | RSS over time
            ^ grows with the width first                                      ^ then this
"""

import unicodedata
from dataclasses import dataclass, field

from .window import KEEPER_STATES, POOL_STATES, TIERS, name_of

MIB = 1 << 20
BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.:-=+*#"
NAME_WIDTH, NAME_MOST = 11, 24
GRAPH_LEAST, GRAPH_MOST = 4, 60


@dataclass
class Row:
    """One process at one moment. None: it does not tell."""

    pid: int
    name: str
    rss: int
    cpu_percent: float
    totals: dict = None  # by the names of struct tide_stats
    heaps: list = field(default_factory=list)  # ThreadFigures
    heaps_left_out: int = 0
    thread_names: dict = field(default_factory=dict)  # by tid
    command: str = ""
    problem: str = ""  # why it tells nothing
    history: tuple = ()  # RSS, the newest last

    def figure(self, name):
        return None if self.totals is None else self.totals[name]

    @property
    def pools(self):
        """The states of the three pools by their first letters: Memory, Balanced, Performance."""
        if self.totals is None:
            return "-"
        return "/".join(name_of(self.totals[f"{tier}_state"], POOL_STATES)[0].upper() for tier in TIERS)

    @property
    def keeper(self):
        return "none" if self.totals is None else name_of(self.totals["keeper_state"], KEEPER_STATES)


@dataclass(frozen=True)
class Column:
    key: str  # that sorts by it, "" if none does
    heading: str
    width: int
    text: object  # Row -> str
    value: object  # Row -> what is compared
    falls: bool = True  # largest first


def size(value, width=7):
    """MiB with one decimal, GiB where that is too long; a dash for None."""
    if value is None:
        return "-"
    text = f"{value / MIB:.1f}"
    return text if len(text) <= width else f"{value / MIB / 1024:.0f}G"


def percent(value):
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def figure_column(key, heading, width, name):
    return Column(key, heading, width, lambda row: size(row.figure(name), width), lambda row: row.figure(name))


COLUMNS = (
    Column("p", "PID", 7, lambda row: str(row.pid), lambda row: row.pid, False),
    Column("n", "NAME", NAME_WIDTH, lambda row: row.name, lambda row: row.name.lower(), False),
    Column("r", "RSS", 7, lambda row: size(row.rss), lambda row: row.rss),
    figure_column("l", "LIVE", 7, "allocated_bytes"),
    figure_column("t", "RETAINED", 8, "retained_bytes"),
    figure_column("b", "RETURNED", 8, "returned_bytes"),
    Column("", "POOLS", 5, lambda row: row.pools, None),
    Column("", "KEEPER", 6, lambda row: row.keeper, None),
    Column("c", "CPU%", 5, lambda row: percent(row.cpu_percent), lambda row: row.cpu_percent),
)
CLAIMS = {"own": "active", "marked": "idle"}  # of a thread's heap, in plain words
LEFT = ("NAME", "KEEPER")  # the others stand to the right
SORTS = {column.key: column for column in COLUMNS if column.key}
DEFAULT_SORT = "r"

ACTIONS = "q quit  ? help  Enter details  f flush  F flush one tier"
SORT_KEYS = "sort: " + "  ".join(f"{column.key} {column.heading.lower()}" for column in SORTS.values())

HELP = """\
Processes on tidemalloc of this user (for root: of all). Sizes in MiB.

RSS       resident memory, as the kernel counts it; its course at the right
LIVE      blocks that the program holds
RETAINED  empty, but kept for the next allocation
RETURNED  given back to the system since the start, all in all
POOLS     state of tiny/mid/large: M memory, B balanced, P performance
KEEPER    watch: the program works; look: is it quiet?; quiet: giving back;
          still: asleep; none: nobody to ask (under 2 MiB, or switched off)

Up, Down, Home, End   select a process
Enter or Space        its tiers and threads; Page Up, Page Down scroll them
f                     give its free memory back; F: of one tier
p n r l t b c         sort by the column; once more: the other way round
q, Ctrl-C             quit; Ctrl-Z: suspend

Any key closes this."""


def display_width(letter):
    if unicodedata.combining(letter) or unicodedata.category(letter) in ("Cf", "Me", "Mn"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def fit(text, width, right=False, plain=False):
    """`text` in exactly `width` columns of the screen; cut, if need be, and then it ends with a `~`."""
    if plain:
        text = text.encode("ascii", "replace").decode("ascii")
    widths = [display_width(letter) for letter in text]
    if sum(widths) > width:
        taken, used = [], 0
        for letter, letter_width in zip(text, widths):
            if used + letter_width > width - 1:
                break
            taken.append(letter)
            used += letter_width
        text, total = "".join(taken) + "~" * min(1, width), used + min(1, width)
    else:
        total = sum(widths)
    space = " " * (width - total)
    return space + text if right else text + space


def layout(width):
    """The width of NAME, and of the graph (0: no room), on a screen of `width` columns."""
    fixed = sum(column.width + 1 for column in COLUMNS) - NAME_WIDTH
    spare = width - fixed - NAME_WIDTH - 1
    graph = min(GRAPH_MOST, max(0, spare))
    if spare > 16:  # then each gets its share
        name = min(NAME_MOST, NAME_WIDTH + (spare - 16) // 2)
        return name, min(GRAPH_MOST, spare - (name - NAME_WIDTH))
    return NAME_WIDTH, graph if graph >= GRAPH_LEAST else 0


def heading_cells(width):
    """(heading, its cell with the space behind it) in order."""
    name_width, _ = layout(width)
    for column in COLUMNS:
        cell = name_width if column.heading == "NAME" else column.width
        yield column, fit(column.heading, cell, column.heading not in LEFT) + " "


def row_line(row, width, plain):
    name_width, graph = layout(width)
    cells = []
    for column in COLUMNS:
        cell = name_width if column.heading == "NAME" else column.width
        cells.append(fit(column.text(row), cell, column.heading not in LEFT, plain))
    line = " ".join(cells)
    if graph:
        line += " " + sparkline(row.history, graph, plain)
    return fit(line, width)


def sparkline(values, width, plain):
    """The last `width` values as bars, from nothing to the largest of them; the newest at the right."""
    blocks = ASCII_BLOCKS if plain else BLOCKS
    shown = list(values)[-width:]
    most = max(shown, default=0)
    bars = (blocks[min(len(blocks) - 1, value * len(blocks) // most) if most else 0] for value in shown)
    return "".join(bars).rjust(width)


def ordered(rows, key, other_way):
    """Rows sorted by the column of `key`; those that do not tell it come last."""
    column = SORTS[key]
    rows = sorted(rows, key=lambda row: row.pid)
    telling = [row for row in rows if column.value(row) is not None]
    telling.sort(key=column.value, reverse=column.falls != other_way)
    return telling + [row for row in rows if column.value(row) is None]


def title(rows, key, other_way, interval_s):
    column = SORTS[key]
    way = ("largest first", "smallest first") if column.falls else ("rising", "falling")
    count = f"{len(rows)} process{'' if len(rows) == 1 else 'es'}"
    resident = size(sum(row.rss for row in rows), 9)
    return f"tide top: {count}, {resident} MiB; by {column.heading}, {way[other_way]}; every {interval_s:g} s"


def table(rows, width=None):
    """The lines of one plain table, with names in full unless there is a `width`."""
    cells = [[column.heading for column in COLUMNS]]
    cells += [[column.text(row) for column in COLUMNS] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    for line in cells:
        parts = [
            fit(cell, cell_width, column.heading not in LEFT)
            for cell, cell_width, column in zip(line, widths, COLUMNS)
        ]
        yield "  ".join(parts).rstrip()


def details(row):
    """The lines of the pane: tiers, keeper, threads."""
    yield f"{row.name} ({row.pid}): {row.command}"
    if row.totals is None:
        yield row.problem or "it does not tell about itself"
        return
    totals = row.totals
    yield f"{'':8}{'LIVE':>9}{'RETAINED':>10}{'PINNED':>9}{'TAKEN/100ms':>13}  STATE"
    for tier in TIERS:
        yield (
            f"{tier:8}{size(totals[tier + '_bytes'], 9):>9}{size(totals[tier + '_retained_bytes'], 9):>10}"
            f"{size(totals.get(tier + '_pinned_bytes'), 9):>9}{size(totals[tier + '_rate_bytes'], 9):>13}"
            f"  {name_of(totals[tier + '_state'], POOL_STATES)}"
        )
    yield (
        f"keeper {row.keeper}: {totals['keeper_wakeup_count']} wake-ups, "
        f"{totals['keeper_cpu_ns'] / 1e6:.1f} ms CPU; {totals['flush_count']} flushes, {totals['hold_count']} holds, "
        f"{totals['trim_count']} trims"
    )
    yield (
        f"active {size(totals['active_bytes'], 9)}, metadata {size(totals['metadata_bytes'], 9)}, "
        f"taken again after a return {size(totals['refault_bytes'], 9)}"
    )
    yield f"{'TID':>8} {'THREAD':16}{'STATE':8}{'LIVE':>9}{'RETAINED':>10}{'REFILLS':>10}"
    for heap in sorted(row.heaps, key=lambda heap: -heap.retained_bytes):
        name = row.thread_names.get(heap.tid, "") if heap.tid else "-"
        state = CLAIMS.get(heap.claim, heap.claim) if heap.tid else "ended"
        yield (
            f"{heap.tid or '-':>8} {fit(name, 15)} {state:8}"
            f"{size(heap.live_bytes, 9):>9}{size(heap.retained_bytes, 9):>10}{heap.refill_count:>10}"
        )
    if row.heaps_left_out:
        yield f"and {row.heaps_left_out} more"


def flush_message(name, pid, tiers, report, rss_before, rss_after):
    which = "all tiers" if set(tiers) == set(TIERS) else ", ".join(tiers)
    rest = [
        f"{size(value, 9)} {word}"
        for word in ("pinned", "kept", "missed")
        if (value := getattr(report, word + "_bytes"))
    ]
    tail = f"; {', '.join(rest)}" if rest else ""
    return (
        f"{name} ({pid}), {which}: {size(report.returned_bytes, 9)} MiB went back in {report.elapsed_ms:.1f} ms, "
        f"RSS {size(rss_before, 9)} to {size(rss_after, 9)}{tail}"
    )
