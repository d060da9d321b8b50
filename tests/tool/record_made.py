"""Records that are made up, for the tests of the report: what happened in them is known."""

import os
import random
import sys
from pathlib import Path

TOOLS = os.environ.get("TIDEMALLOC_TOOLS", str(Path(__file__).resolve().parents[2] / "tools"))
if TOOLS not in sys.path:
    sys.path.insert(0, TOOLS)

from tide import series  # noqa: E402  the tool under test, by the path above

MIB = 1 << 20
COMMAND = ("redis-server", "--port", "0")
HOSTILE = (
    "</script><script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>\"'&amp;{{data}}",
    "\033[2J\u202ename\0\n",
)


def burst(path, allocator="glibc", mode=None, rest_mib=134.0, *, count=600, interval_ms=20.0, command=COMMAND,
          peak_mib=166.0, share=0.9, ends=True):  # fmt: skip
    """Writes a record: 8 MiB, growth to the peak, a pause there, everything freed, rest at `rest_mib`."""
    chance = random.Random(7)
    header = {
        "pid": 7, "command": list(command), "allocator": allocator, "mode": mode,
        "started": "2026-01-02T03:04:05+00:00", "interval_ms": interval_ms, "page_bytes": 4096,
    }  # fmt: skip
    cpu_ms = 3.0
    with series.Recorder(str(path), header) as recorder:
        for i in range(count):
            part = i / count
            if part < 0.1:
                rss, live, work = 8.0, 5.0, 0.001
            elif part < 0.4:
                grown = (part - 0.1) / 0.3
                rss, live, work = 8 + (peak_mib - 9) * grown + chance.random(), 5 + (peak_mib - 16) * grown, share
            elif part < 0.5:
                rss, live, work = (peak_mib if i == int(count * 0.45) else peak_mib - 1), peak_mib - 11, 0.001
            elif part < 0.53:
                rss, live, work = peak_mib - 1, 5.0, share
            else:
                rss, live, work = rest_mib, 5.0, 0.001
            stats = stats_of(live, rss, mode, part) if allocator == "tidemalloc" else None
            cpu_ms += work * interval_ms
            memory = {"rss": int(rss * MIB), "pss": int(rss * MIB), "private_dirty": int((rss - 2) * MIB)}
            recorder.sample(i * interval_ms, memory, cpu_ms, stats)
        end_ms = count * interval_ms
        if allocator == "tidemalloc":
            recorder.event(0.12 * end_ms, "started")
            if mode != "static":
                recorder.event(0.42 * end_ms, "flush", given=3 * MIB)
                recorder.event(0.50 * end_ms, "busy", quiet_ms=900.0)
                recorder.event(0.531 * end_ms, "hold", given=100 * MIB, hold_ms=120.0)
                recorder.event(0.56 * end_ms, "flush", given=60 * MIB)
        if ends:
            recorder.end(end_ms, {"exit_status": 0}, sampling_ms=20.5)
    return str(path)


def stats_of(live_mib, rss_mib, mode, part):
    kept = max(0.0, rss_mib - live_mib - 3)
    figures = {
        "allocated_bytes": live_mib, "tiny_bytes": live_mib * 0.5, "mid_bytes": live_mib * 0.3,
        "large_bytes": live_mib * 0.2, "retained_bytes": kept, "tiny_retained_bytes": kept * 0.25,
        "mid_retained_bytes": 0, "large_retained_bytes": kept * 0.75,
        "tiny_pinned_bytes": 1.5, "mid_pinned_bytes": 0.25, "locked_bytes": 0, "metadata_bytes": 1,
        "returned_bytes": 163 if part > 0.53 and mode != "static" else 0, "refault_bytes": 2,
    }  # fmt: skip
    return {name: int(value * MIB) for name, value in figures.items()} | {"keeper_cpu_ns": 3_000_000}


def ablation(folder):
    """glibc, static, flush and hybrid: paths of their records."""
    return [
        burst(folder / "glibc.jsonl"),
        burst(folder / "static.jsonl", "tidemalloc", "static", 140.0),
        burst(folder / "flush.jsonl", "tidemalloc", "flush", 8.4),
        burst(folder / "hybrid.jsonl", "tidemalloc", "hybrid", 8.3),
    ]
