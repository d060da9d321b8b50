"""`tide report`: what records say, as one HTML page or as text.

report_figures puts together what it says (report_tables the tables, report_sentences the words); report_page and
report_text show it.
"""

import os
import shutil
import sys
import tempfile

from . import messages, report_figures, report_page, report_text, series, status

WHO = "tide report"
DEFAULT_OUT = "report.html"


def register(subparsers):
    parser = subparsers.add_parser(
        "report",
        help="show records as one HTML page, or as text",
        description="Show records, of tide record or tide run --record, as one HTML page that needs nothing but a "
        "browser: memory over time, what would be saved, and what it means. Several records are laid upon each other: "
        "give those of one program with several allocators, or modes of tidemalloc.",
        epilog="examples:\n"
        "  tide report redis.jsonl\n"
        "  tide report static.jsonl hybrid.jsonl glibc.jsonl -o redis.html\n"
        "  tide report --text *.jsonl",
    )
    parser.add_argument("-o", "--out", metavar="FILE.html", help=f"write the page there (default: {DEFAULT_OUT})")
    parser.add_argument("--text", action="store_true", help="print it as text instead; with -o, besides")
    parser.add_argument("--title", metavar="TEXT", help="the page's title (default: from the program's name)")
    parser.add_argument("files", metavar="FILE", nargs="+", help="a record, JSON Lines or CSV")
    parser.set_defaults(main=main, parser=parser)


def main(args):
    try:
        records = [(path, series.load(path)) for path in args.files]
    except series.BadFile as problem:
        messages.error(WHO, str(problem))
        return problem.status
    except OSError as problem:
        messages.error(WHO, f"{series.printable(problem.filename)}: {problem.strerror}")
        return status.FAILED
    for path, record in records:
        if record.truncated:
            messages.warning(WHO, f"{series.printable(path)}: the last line is not whole; it is left out")
    report = report_figures.build(records, args.title)
    try:
        page = report_page.render(report) if args.out or not args.text else None
    except report_page.Missing as problem:
        messages.error(WHO, str(problem))
        return status.FAILED
    if args.text:
        print_text(report)
    return write_page(page, args.out or DEFAULT_OUT) if page else status.OK


def print_text(report):
    width = shutil.get_terminal_size((100, 24)).columns
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.write(report_text.render(report, width, messages.colours_wanted(sys.stdout), encoding))
    sys.stdout.flush()


def write_page(page, path):
    """Whole or not at all: to a name beside it, then renamed."""
    try:
        if path == "-":
            sys.stdout.write(page)
            return status.OK
        folder = os.path.dirname(os.path.abspath(path))
        descriptor, temporary = tempfile.mkstemp(prefix=".tide-", suffix=".html", dir=folder)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(page)
            os.chmod(temporary, 0o666 & ~umask())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as problem:
        messages.error(WHO, f"{series.printable(path)}: {problem.strerror}")
        return status.FAILED
    print(f"{WHO}: {series.printable(path)}: {len(page.encode()) / 1024:.0f} KiB", file=sys.stderr)
    return status.OK


def umask():
    value = os.umask(0o077)
    os.umask(value)
    return value
