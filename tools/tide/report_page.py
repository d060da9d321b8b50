"""A report as one HTML page that needs nothing but a browser: styles, script, plots and data are inside.

Tables and sentences are made here, so the page says all it has to say without a script, on paper, and to a screen
reader. The plots are drawn by Chart.js, which comes from Debian's libjs-chart.js and stands in the page with its
licence.

Names of programs and files may hold anything. They reach the page by `escape` as text, or by `embedded` as JSON, which
the script only ever shows as text; and the page's own policy (CSP) allows no script and no style but the three that
are in it, by their hashes, and no connection at all.
"""

import base64
import hashlib
import html
import importlib.resources
import json
import re
from dataclasses import dataclass
from pathlib import Path

from . import __version__, series
from . import report_tables as figures

CHART_PLACES = ("/usr/share/javascript/chart.js/chart.min.js", "/usr/share/nodejs/chart.js/dist/chart.min.js")
CHART_PACKAGE = "libjs-chart.js"

MOST_POINTS = 6000  # of all runs together, in a plot
LEAST_POINTS = 400  # of one run
MOST_MARKS = 60  # of one run
MOST_ROWS = 120  # of one run, in the table of the data

LIVE = ("tiny_bytes", "mid_bytes", "large_bytes")
KEPT = ("tiny_retained_bytes", "mid_retained_bytes", "large_retained_bytes")
PINNED = ("tiny_pinned_bytes", "mid_pinned_bytes")
PLOTTED = (*LIVE, *KEPT, *PINNED)


class Missing(Exception):
    """Something that the page is made of is not installed; the text is the one line for the user."""


def chart_js(places=CHART_PLACES):
    for place in places:
        path = Path(place)
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise Missing(f"needs Chart.js: apt install {CHART_PACKAGE} (or --text, which needs nothing)")


def asset(name):
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def escape(text):
    return html.escape(str(text), quote=True)


def embedded(data):
    """JSON that can stand in a <script>: nothing in it ends the element, or a line of JavaScript."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)  # ASCII only
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def inline_script(text):
    """A script from a file, as the content of a <script>: the one sequence that would end it cannot occur in code."""
    return re.sub("</(?=script)", "<\\\\/", text, flags=re.IGNORECASE).replace("<!--", "<\\!--")


def hash_source(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def render(report):
    """The page. Raises Missing."""
    chart, script, style = inline_script(chart_js()), inline_script(asset("report_page.js")), asset("report_page.css")
    policy = (
        f"default-src 'none'; script-src {hash_source(chart)} {hash_source(script)}; style-src {hash_source(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    tables = {table.key: table for table in report.tables}
    values = {
        "policy": policy,
        "style": style,
        "chart": chart,
        "script": script,
        "title": escape(report.title),
        "subtitle": escape(subtitle(report)),
        "findings": "\n".join(f"<li>{escape(sentence)}</li>" for sentence in report.findings),
        "cautions": cautions_html(report.cautions),
        "verdict": section_html("verdict-heading", "Go or no-go", tables.pop("verdict", None)),
        "medians": section_html("medians-heading", "All runs", tables.pop("medians", None)),
        "overview": overview_html(report),
        "levels": table_html(tables.pop("levels")),
        "events": "\n".join(table_html(tables.pop(key)) for key in ("events",) if key in tables),
        "event_list": details_html("All events as a table", tables.pop("event-list", None)),
        "phases": "\n".join(table_html(tables[key]) for key in list(tables) if key.startswith("phases-")),
        "tiers": section_html(
            "tiers-heading", "What could be saved, by tier", tables.pop("tiers", None), tiers_text(report)
        ),
        "ablation": section_html("ablation-heading", "What each mode does", tables.pop("ablation", None)),
        "allocators": allocators_html(report.runs),
        "data_tables": "\n".join(data_table_html(run) for run in report.runs),
        "sources": sources_html(report.runs),
        "data": embedded(page_data(report)),
        "others": "\n".join(table_html(table) for key, table in tables.items() if not key.startswith("phases-")),
        "version": escape(__version__),
    }
    return re.sub(r"\{\{([a-z_]+)\}\}", lambda found: values[found[1]], asset("report_page.html"))


def subtitle(report):
    runs = report.runs
    started = [run.series.header.get("started") for run in runs if run.series.header.get("started")]
    when = f", recorded {series.printable(min(started))[:10]}" if started else ""
    return f"{len(runs)} run{'s' if len(runs) > 1 else ''}{when}"


# ------------------------------------------------------------------------------------------------------- tables


def table_html(table):
    """A table that turns into cards where it would be too wide; the roles keep it a table for a screen reader."""
    head = "".join(f'<th scope="col" role="columnheader">{escape(name)}</th>' for name in table.columns)
    body = "\n".join(row_html(table.columns, row) for row in table.rows)
    note = f'<p class="note" id="note-{table.key}">{escape(table.note)}</p>' if table.note else ""
    described = f' aria-describedby="note-{table.key}"' if table.note else ""
    return (
        f'<table role="table" id="table-{table.key}"{described}>\n<caption>{escape(table.caption)}</caption>\n'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>\n'
        f'<tbody role="rowgroup">\n{body}\n</tbody>\n</table>\n{note}'
    )


def row_html(columns, row):
    first, *others = row
    cells = [f'<th scope="row" role="rowheader"{value_of(first)}>{shown(first)}</th>']
    for name, cell in zip(columns[1:], others):
        kind = ' class="number"' if isinstance(cell, figures.Figure) else ""
        cells.append(f'<td role="cell" data-label="{escape(name)}"{kind}{value_of(cell)}>{shown(cell)}</td>')
    return f'<tr role="row">{"".join(cells)}</tr>'


def shown(cell):
    return escape(cell.text) if isinstance(cell, figures.Figure) else f"<bdi>{escape(cell)}</bdi>"


def value_of(cell):
    return f' data-value="{cell.value}"' if isinstance(cell, figures.Figure) and cell.value is not None else ""


def section_html(identity, heading, table, text=""):
    if table is None:
        return ""
    paragraph = f"<p>{escape(text)}</p>\n" if text else ""
    return (
        f'<section aria-labelledby="{identity}">\n<h2 id="{identity}">{escape(heading)}</h2>\n'
        f"{paragraph}{table_html(table)}\n</section>"
    )


def details_html(summary, table):
    return "" if table is None else f"<details><summary>{escape(summary)}</summary>\n{table_html(table)}\n</details>"


def cautions_html(cautions):
    if not cautions:
        return ""
    items = "".join(f"<li>{escape(caution)}</li>" for caution in cautions)
    return f'<div class="cautions"><h3>Before you compare</h3><ul>{items}</ul></div>'


def tiers_text(report):
    static, best = figures.reference(report.runs, "static"), figures.target(report.runs)
    if static is not None and best is not static:
        return f"What {static.label} keeps free at rest could go back to the system; {best.label} gives it back."
    return "What an allocator keeps free at rest could go back to the system."


def data_table_html(run):
    table = data_table(run)
    return details_html(f"Data of {run.label} as a table", table)


def data_table(run):
    """So many samples of the run that a table of them can be read, the highest and lowest among them."""
    samples = run.series.samples
    rows = []
    for i in thinned(samples, MOST_ROWS):
        sample = samples[i]
        row = [figures.seconds(sample.t_ms, 2), figures.mib(sample.rss)]
        if run.summary.at_idle or run.summary.at_peak:
            row += [figures.mib(sample.figure("allocated_bytes")), figures.mib(sample.figure("retained_bytes"))]
        rows.append(row)
    columns = ["At, s", "Resident, MiB", "Live, MiB", "Kept free, MiB"]
    left_out = len(samples) - len(rows)
    note = f"{len(rows)} of {len(samples):,} samples: lowest and highest of equal spans of time." if left_out else ""
    return figures.Table(f"data-{run.number}", f"Samples of {run.label}", columns[: len(rows[0])], rows, note)


def sources_html(runs):
    items = []
    for run in runs:
        header = run.series.header
        parts = [" ".join(header["command"]) or "command unknown"]
        if header.get("interval_ms"):
            parts.append(f"every {header['interval_ms']:g} ms")
        parts.append(f"{len(run.series.samples):,} samples")
        if run.series.sampling_ms is not None and run.series.duration_ms:
            parts.append(f"sampling took {run.series.sampling_ms / run.series.duration_ms:.1%} of one processor")
        text = series.printable(", ".join(parts))
        shown_text = text if len(text) <= 300 else text[:299] + "…"
        items.append(f"<li><b><bdi>{escape(run.label)}</bdi></b>: <bdi>{escape(shown_text)}</bdi></li>")
    return "\n".join(items)


# --------------------------------------------------------------------------------------------------------- plots


@dataclass
class Plot:
    """A canvas and what it says to those who do not see it."""

    identity: str
    label: str


def canvas_html(plot, kind=""):
    label = escape(plot.label)
    return f'<div class="plot {kind}"><canvas id="{plot.identity}" role="img" aria-label="{label}"></canvas></div>'


def overview_html(report):
    return canvas_html(Plot("overview", overview_label(report.runs)))


def overview_label(runs):
    parts = []
    for run in runs:
        rest = "no rest" if run.rest is None else f"at rest {figures.in_mib(run.rest)}"
        parts.append(f"{run.label}: baseline {figures.in_mib(run.summary.baseline)}, peak "
                     f"{figures.in_mib(run.summary.peak)} at {run.summary.peak_ms / 1000:.1f} s, {rest}")  # fmt: skip
    end = max(run.series.samples[-1].t_ms for run in runs) / 1000
    return f"Line chart of resident memory in MiB over {end:.1f} seconds. {'; '.join(parts)}."


def allocators_html(runs):
    """For each run on tidemalloc: what is live, and what is kept. The first that matters is open."""
    runs = [run for run in runs if has_stats(run)]
    if not runs:
        return ""
    best = figures.target(runs) or runs[0]
    parts = []
    for run in sorted(runs, key=lambda run: (run is not best, run.number)):
        stats = run.summary.at_peak or {}
        live = sum(stats.get(name, 0) for name in LIVE)
        label = (
            f"Stacked areas of the memory of {run.label} by the allocator's own count, with resident memory as a line. "
            f"At the peak {figures.in_mib(live)} are live."
        )
        kept = run.summary.at_idle or {}
        kept_label = f"Free memory that {run.label} keeps, by tier." + (
            f" At rest {figures.in_mib(sum(kept.get(name, 0) for name in KEPT))}." if kept else ""
        )
        parts.append(
            f'<details{" open" if run is best else ""} data-run="{run.number}">'
            f"<summary><bdi>{escape(run.label)}</bdi></summary>\n"
            f'<div class="pair"><figure><figcaption>Live and kept, MiB</figcaption>'
            f'{canvas_html(Plot(f"live-{run.number}", label), "small")}</figure>\n'
            f'<figure><figcaption>Kept free and pinned, by tier, MiB</figcaption>'
            f'{canvas_html(Plot(f"kept-{run.number}", kept_label), "small")}</figure></div></details>'
        )
    return (
        '<section aria-labelledby="inside-heading">\n<h2 id="inside-heading">Inside the allocator</h2>\n'
        "<p>What tidemalloc counts itself. Memory that it keeps may be resident or not, so the areas can be above "
        "the line.</p>\n"
        + "\n".join(parts)
        + "\n</section>"
    )


def has_stats(run):
    return any(sample.figure("allocated_bytes") is not None for sample in run.series.samples)


def page_data(report):
    points = max(LEAST_POINTS, MOST_POINTS // len(report.runs))
    best = figures.target(report.runs)
    return {
        "runs": [run_data(run, points) for run in report.runs],
        "words": figures.EVENT_WORDS,
        "best": None if best is None else best.number,  # whose events are marked in the first plot
    }


def run_data(run, points):
    samples = run.series.samples
    chosen = thinned(samples, points)
    data = {
        "number": run.number,
        "style": run.style,
        "label": run.label,
        "t": [round(samples[i].t_ms / 1000, 3) for i in chosen],
        "rss": [kib(samples[i].rss) for i in chosen],
        "marks": [
            {
                "t": round(event["t_ms"] / 1000, 3),
                "kind": series.printable(event["event"])[:20],
                "text": figures.describe(event),
            }
            for event in plotted_events(run)
        ],
        "baseline": kib(run.summary.baseline),
        "rest": None if run.rest is None else kib(run.rest),
    }
    if has_stats(run):
        data["stats"] = {name: [kib(samples[i].figure(name)) for i in chosen] for name in PLOTTED}
    return data


def kib(value):
    return None if value is None else round(value / 1024)


def given_bytes(event):
    given = event.get("given", 0)
    return given if isinstance(given, (int, float)) else 0


def plotted_events(run):
    """The weightiest event of each span of time, so that the marks can be told apart, without those that did little."""
    end_ms = run.series.samples[-1].t_ms or 1.0
    best = {}
    least = max((given_bytes(event) for event in run.series.events), default=0) / 100
    for event in run.series.events:
        if event["event"] in ("started", "interval", "lost"):
            continue
        if event["event"] in ("flush", "hold", "trim") and given_bytes(event) < least:
            continue
        place = min(MOST_MARKS - 1, int(event["t_ms"] / end_ms * MOST_MARKS))
        if place not in best or figures.importance(event) > figures.importance(best[place]):
            best[place] = event
    return [best[place] for place in sorted(best)]


def thinned(samples, most):
    """Positions of at most `most` samples: of each of equal spans of time the first, the lowest and the highest level
    of resident memory, and the last. So no peak and no valley is lost, and the peak of all is there exactly."""
    if len(samples) <= most:
        return list(range(len(samples)))
    spans = most // 4
    start, length = samples[0].t_ms, (samples[-1].t_ms - samples[0].t_ms) or 1.0
    chosen = set()
    first = 0
    for span in range(spans):
        stop = first
        while stop < len(samples) and (
            span == spans - 1 or samples[stop].t_ms < start + length * (span + 1) / spans
        ):
            stop += 1
        if stop > first:
            part = range(first, stop)
            low = min(part, key=lambda i: samples[i].rss)
            high = max(part, key=lambda i: samples[i].rss)
            chosen.update((first, low, high, stop - 1))
        first = stop
    return sorted(chosen)
