"""Messages on stderr: one line each, coloured only on a terminal whose user has not set NO_COLOR."""

import os
import sys

RED, YELLOW, PLAIN = "\033[31m", "\033[33m", "\033[0m"


def _print(who, colour, kind, text):
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        kind = f"{colour}{kind}{PLAIN}"
    one_line = " ".join(text.split("\n"))
    print(f"{who}: {kind}: {one_line}", file=sys.stderr)


def error(who, text):
    _print(who, RED, "error", text)


def warning(who, text):
    _print(who, YELLOW, "warning", text)
