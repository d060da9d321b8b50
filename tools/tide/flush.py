"""`tide flush`: have a process on tidemalloc give its free memory back now, and say what went, what did not, and why.

The process's keeper does the work, as if the program had called tide_release_all_caches(); its threads go on meanwhile.
"""

import json

from . import messages, status
from .process import Process, ProcessError
from .window import TIERS, Window

WHO = "tide flush"
ANSWER_S = 10.0  # a big heap on a busy machine; a process that is stopped or ends is noticed at once


def register(subparsers):
    parser = subparsers.add_parser(
        "flush",
        help="have a process give its free memory back now",
        usage="tide flush [-h] [--tier {tiny,mid,large}]... [--json] PID",
        description="Have process PID give its free memory back to the operating system now, and say what went.",
        epilog="example:\n  tide flush --tier mid $(pidof redis-server)\n\n"
        "Exit status: 0; 2 bad usage; 3 no such process; 4 not permitted; 5 not on tidemalloc; "
        "6 on tidemalloc, but no keeper answers.",
    )
    parser.add_argument(
        "--tier",
        choices=TIERS,
        action="append",
        help="only this one; may be repeated: tiny (up to 1 KiB), mid (up to 32 KiB), large (above, and all empty "
        "spans)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object; bytes")
    parser.add_argument("pid", metavar="PID", type=int, help="the process to flush")
    parser.set_defaults(main=main, parser=parser)


def main(args):
    tiers = tuple(tier for tier in TIERS if tier in (args.tier or TIERS))
    try:
        with Process(args.pid) as process, Window.open(process) as window:
            before = process.rollup()["rss"]
            report = window.flush(tiers, timeout_s=ANSWER_S)
            after = process.rollup()["rss"]
            tell = as_json if args.json else as_text
            print(tell(process, tiers, report, before, after))
        return status.OK
    except ProcessError as problem:
        messages.error(WHO, str(problem))
        return problem.status


def as_json(process, tiers, report, before, after):
    return json.dumps(
        {"tide_flush": 1, "pid": process.pid, "name": process.name, "tiers": tiers}
        | vars(report)
        | {"elapsed_ms": round(report.elapsed_ms, 3), "rss_before_bytes": before, "rss_after_bytes": after}
    )


def as_text(process, _tiers, report, before, after):
    def mib(size):
        return f"{size / (1 << 20):.1f} MiB"

    lines = [
        f"{process.name} ({process.pid}): {mib(report.returned_bytes)} returned in {report.elapsed_ms:.1f} ms; "
        f"resident {mib(before)} before, {mib(after)} after"
    ]
    for size, words in (
        (report.pinned_bytes, "not returned: free blocks on pages that hold a live one, too"),
        (report.kept_bytes, "not returned: locked pages (mlock), or the system did not take them"),
        (report.missed_bytes, "not reached: in the caches of threads that were at work each time; try again"),
    ):
        if size:
            lines.append(f"{mib(size):>12} {words}")
    return "\n".join(lines)
