"""A report as text: sentences, a plot of resident memory, and tables, for terminals and the logs of CI.

Nothing but what every terminal has: lines of at most the given width, and colours only if they are asked for. Where the
output cannot show a sign (a log in ASCII) a plainer one takes its place.
"""

import math
import textwrap

from . import report_tables as figures

MARKS = "#o+x*%@="
COLOURS = (36, 33, 35, 32, 34, 31, 37, 90)  # of a terminal, by the number of the run
LEAST_WIDTH, MOST_WIDTH, HEIGHT = 40, 110, 16


def render(report, width=80, colour=False, encoding="utf-8"):
    """The whole report, ending with a newline."""
    width = max(LEAST_WIDTH, min(width, MOST_WIDTH))
    parts = [underlined(report.title)]
    parts += [wrapped(sentence, width) for sentence in report.findings]
    parts += [wrapped(f"Note: {caution}", width) for caution in report.cautions]
    parts.append(plot(report.runs, width, colour))
    parts += [table_text(table, width) for table in report.tables if table.key != "event-list"]
    text = "\n\n".join(part for part in parts if part) + "\n"
    return plainer(text, encoding)


def plainer(text, encoding):
    try:
        text.encode(encoding or "ascii")
        return text
    except (UnicodeEncodeError, LookupError):
        for sign, plain in (("–", "-"), ("─", "-"), ("│", "|"), ("└", "+"), ("┤", "+")):
            text = text.replace(sign, plain)
        return text.encode(encoding or "ascii", errors="replace").decode(encoding or "ascii")


def underlined(text):
    return f"{text}\n{'─' * len(text)}"


def wrapped(text, width):
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


# ---------------------------------------------------------------------------------------------------------- plot


def plot(runs, width, colour=False, height=HEIGHT):
    """Resident memory over time: one mark per run, from the lowest to the highest level of each column's time."""
    end_ms = max(run.series.samples[-1].t_ms for run in runs)
    top = nice_top(max(run.summary.peak for run in runs) / figures.MIB)
    gutter = len(f"{top:g}") + 1
    columns = width - gutter - 2
    cells = [[None] * columns for _ in range(height)]
    for run in reversed(sorted(runs, key=lambda run: run.style)):  # the first one on top
        for column, (low, high) in enumerate(extents(run.series.samples, end_ms, columns)):
            if low is None:
                continue
            first, last = (min(height - 1, int(level / figures.MIB / top * height)) for level in (low, high))
            for row in range(first, last + 1):
                cells[height - 1 - row][column] = run.style
    lines = ["Resident memory, MiB"]
    for row, marks in enumerate(cells):
        label = axis_label(row, height, top).rjust(gutter)
        lines.append(f"{label} {'┤' if label.strip() else '│'}{''.join(mark(m, colour) for m in marks).rstrip()}")
    lines.append(f"{'0'.rjust(gutter)} └{'─' * columns}")
    lines.append(time_axis(end_ms / 1000, columns, gutter))
    lines += [f"{' ' * gutter}  {mark(run.style, colour)} {run.label}" for run in runs]
    return "\n".join(lines)


def nice_top(value):
    """The next of 1, 2, 2.5, 5 times a power of ten above `value`."""
    value = max(value, 1e-3)
    power = 10 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 15) if factor * power >= value * 1.001)


def axis_label(row, height, top):
    """A label at the top and at half the height; 0 has its own line."""
    return {0: f"{top:g}", height // 2: f"{top / 2:g}"}.get(row, "")


def time_axis(end_s, columns, gutter):
    ends = f"{end_s:.1f} s"
    middle = f"{end_s / 2:.1f}"
    line = [" "] * (columns + 1)
    for at, text in ((0, "0"), (columns // 2 - len(middle) // 2, middle), (columns - len(ends) + 1, ends)):
        line[at : at + len(text)] = text
    return " " * (gutter + 1) + "".join(line).rstrip()


def extents(samples, end_ms, columns):
    """(lowest, highest) resident bytes in each column's time. A level holds from its sample until the next."""
    found = [[None, None] for _ in range(columns)]
    scale = columns / end_ms if end_ms > 0 else 0
    before = None
    for sample in samples:
        column = min(columns - 1, int(sample.t_ms * scale))
        if before is not None:
            for between in range(before[0] + 1, column):
                widen(found[between], before[1])
        widen(found[column], sample.rss)
        before = column, sample.rss
    return [tuple(pair) for pair in found]


def widen(pair, value):
    pair[0] = value if pair[0] is None else min(pair[0], value)
    pair[1] = value if pair[1] is None else max(pair[1], value)


def mark(number, colour):
    if number is None:
        return " "
    sign = MARKS[number % len(MARKS)]
    return f"\033[{COLOURS[number % len(COLOURS)]}m{sign}\033[0m" if colour else sign


# --------------------------------------------------------------------------------------------------------- tables


def table_text(table, width):
    """The table with its runs as rows; as columns where that is too wide; row by row where both are."""
    straight = [table.columns, *([text_of(cell) for cell in row] for row in table.rows)]
    turned = [list(column) for column in zip(*straight)]
    body = next((text for text in (aligned(straight), aligned(turned)) if widest(text) <= width), None)
    body = body if body is not None else listed(table)
    note = "\n" + wrapped(table.note, width) if table.note else ""
    return f"{underlined(table.caption)}\n{body}{note}"


def text_of(cell):
    return cell.text if isinstance(cell, figures.Figure) else cell


def widest(text):
    return max(map(len, text.split("\n")))


def aligned(rows):
    """Columns, the first to the left and the others to the right; the words of a heading stand below each other."""
    heads = [wrap_words(cell) for cell in rows[0]]
    widths = [
        max([len(line) for line in head] + [len(row[i]) for row in rows[1:]]) for i, head in enumerate(heads)
    ]  # fmt: skip
    depth = max(map(len, heads))
    lines = [[""] * (depth - len(head)) + head for head in heads]
    grid = [[column[i] for column in lines] for i in range(depth)] + rows[1:]
    texts = [justify(cells, widths) for cells in grid]
    return "\n".join(texts[:depth] + ["─" * widest("\n".join(texts))] + texts[depth:])


def wrap_words(text):
    """A heading in lines about as short as its longest word allows."""
    return textwrap.wrap(text, max(9, max(map(len, text.split()), default=0)), break_on_hyphens=False) or [""]


def justify(cells, widths):
    first, *others = (
        cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(cells, widths))
    )
    return "  ".join([first, *others]).rstrip()


def listed(table):
    lines = []
    for row in table.rows:
        lines.append(text_of(row[0]))
        lines += [f"  {name}: {text_of(cell)}" for name, cell in zip(table.columns[1:], row[1:])]
    return "\n".join(lines)
