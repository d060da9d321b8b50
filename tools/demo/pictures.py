"""The pictures of the demo: a chart for the terminal by gnuplot, and an SVG by matplotlib.

A run is what redis_demo.measure returns. Times are in seconds since FLUSHALL, so that the runs lie upon each other
where it matters, even if one of them loads faster.
"""

import os
import shutil
import subprocess
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # after the choice of the backend

# Each colour by its role: on a light page, on a dark page. The SVG holds the first, and a style sheet that puts the
# second in its place where the viewer prefers dark.
COLOURS = {
    "paper": ("#fdfdfe", "#14181e"),
    "ink": ("#1b2430", "#e6eaf0"),
    "faint": ("#5c6877", "#9aa6b4"),
    "grid": ("#dfe3e8", "#2b323c"),
    "band": ("#eef1f5", "#1e242d"),
    "glibc": ("#d9691e", "#f2914f"),
    "tidemalloc": ("#0a7392", "#41b9da"),
}
LIGHT = {role: pair[0] for role, pair in COLOURS.items()}
LABELS = {"glibc": "glibc", "tidemalloc": "tidemalloc"}


def rss_mib(run):
    return [moment for moment, _ in run["samples"]], [row["rss_kib"] / 1024 for _, row in run["samples"]]


def phases(runs):
    """The phases of all runs together as (name, start, end)."""
    moments = [run["moments"] for run in runs.values()]
    load = min(moment["load"] for moment in moments)
    idle = max(moment["idle"] for moment in moments)
    end = min(moment["end"] for moment in moments)
    return [("load", load, 0.0), ("delete", 0.0, idle), ("idle", idle, end)]


def write_svg(path, runs):
    plt.rcParams.update(
        {
            "svg.fonttype": "path",  # no font is needed to show it
            "svg.hashsalt": "tide",  # the same names in every file
            "font.size": 11,
            "text.color": LIGHT["ink"],
            "axes.edgecolor": LIGHT["faint"],
            "axes.labelcolor": LIGHT["ink"],
            "xtick.color": LIGHT["faint"],
            "ytick.color": LIGHT["faint"],
        }
    )
    figure, axes = plt.subplots(figsize=(9.6, 5.0), facecolor=LIGHT["paper"])
    axes.set_facecolor(LIGHT["paper"])
    figure.subplots_adjust(left=0.085, right=0.865, top=0.80, bottom=0.125)

    (_, start, _), (_, _, idle), (_, _, end) = phases(runs)
    top = 1.12 * max(max(rss_mib(run)[1]) for run in runs.values())
    axes.set_xlim(start - 0.6, end)
    axes.set_ylim(0, top)
    draw_phases(axes, runs)
    for name, run in runs.items():
        axes.plot(*rss_mib(run), color=LIGHT[name], linewidth=2.2, solid_joinstyle="round", zorder=3)
    label_ends(axes, runs, top)

    axes.grid(axis="y", color=LIGHT["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel("time since the delete began (s)", labelpad=7)
    axes.set_ylabel("resident memory (MiB)", labelpad=8)
    figure.text(0.085, 0.935, "redis-server: memory through load, delete and idle", fontsize=15, fontweight="bold")
    figure.text(0.085, 0.885, subtitle(runs), fontsize=10.5, color=LIGHT["faint"])

    figure.savefig(path, facecolor=LIGHT["paper"], metadata={"Date": None, "Title": "Resident memory of redis-server"})
    plt.close(figure)
    path.write_text(with_dark_colours(path.read_text()))


def subtitle(runs):
    names = " and ".join(LABELS[name] for name in runs)
    peak = max(run["figures"]["peak_rss_kib"] for run in runs.values()) / 1024
    used = max(run["figures"]["after_idle_used_by_redis_kib"] for run in runs.values()) / 1024
    return f"The same data on {names}: {peak:.0f} MiB at the peak; after the delete Redis itself uses {used:.1f} MiB"


def draw_phases(axes, runs):
    (_, load, _), (_, delete, idle), (_, _, end) = phases(runs)
    for start, stop in ((load, delete), (idle, end)):
        axes.axvspan(start, stop, color=LIGHT["band"], zorder=0, linewidth=0)
    axes.axvline(delete, color=LIGHT["faint"], linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    texts = (("load", (load + delete) / 2), ("delete", (delete + idle) / 2), ("idle: no requests", (idle + end) / 2))
    for text, middle in texts:
        axes.annotate(
            text, (middle, 1.015), xycoords=("data", "axes fraction"), ha="center", va="bottom",
            color=LIGHT["faint"], fontsize=10.5,
        )  # fmt: skip


def label_ends(axes, runs, top):
    """Name both lines at their right ends, with their last figures, the labels kept apart from each other."""
    ends = sorted((run["figures"]["after_idle_rss_kib"] / 1024, name) for name, run in runs.items())
    right = axes.get_xlim()[1]
    (low, _), (high, _) = ends
    spread = max(0.0, 0.12 * top - (high - low)) / 2
    lift = max(0.0, 0.04 * top - (low - spread))  # above the axis
    heights = low - spread + lift, high + spread + lift
    for (value, name), height in zip(ends, heights):
        axes.annotate(
            f"{LABELS[name]}\n{value:.1f} MiB",
            (right, height),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=LIGHT[name],
            fontweight="bold",
            fontsize=11,
            annotation_clip=False,
            linespacing=1.15,
        )


def with_dark_colours(svg):
    rules = []
    for light, dark in COLOURS.values():
        for use in ("fill", "stroke"):
            rules.append(f'[style*="{use}: {light}"] {{ {use}: {dark} !important }}')
    sheet = "\n".join(["<style>", "@media (prefers-color-scheme: dark) {", *rules, "}", "</style>", ""])
    end_of_tag = svg.index(">", svg.index("<svg")) + 1
    return svg[:end_of_tag] + "\n" + sheet + svg[end_of_tag:]


def print_chart(runs):
    """Draw the lines with characters, as wide as the terminal, in colour only if it is one that wants it."""
    size = shutil.get_terminal_size((100, 30))
    width, height = max(60, min(size.columns, 110)), 24
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    (_, start, _), (_, _, idle), (_, _, end) = phases(runs)
    top = 1.1 * max(max(rss_mib(run)[1]) for run in runs.values())
    script = [
        f"set terminal dumb size {width},{height} {'ansi' if colour else 'mono'}",
        "set title 'Resident memory of redis-server (MiB)'",
        "set xlabel 'load  < 0 = FLUSHALL <  idle (seconds)'",
        f"set xrange [{start - 0.6}:{end}]",
        f"set yrange [0:{top}]",
        "set border 3",
        "set tics nomirror",
        "set key outside center bottom horizontal",
    ]
    marks = {"glibc": "#", "tidemalloc": "o"}
    colours = {"glibc": 1, "tidemalloc": 6}
    lines = []
    for name, run in runs.items():
        script.append(f"${name} << end")
        script += [f"{moment} {value}" for moment, value in zip(*rss_mib(run))]
        script.append("end")
        style = f" lc {colours[name]}" if colour else ""
        lines.append(f"${name} with points pt '{marks[name]}'{style} title '{LABELS[name]}'")
    script.append("plot " + ", ".join(lines))
    subprocess.run(["gnuplot"], input="\n".join(script) + "\n", text=True, check=True)
