"""Messages on stderr: one line each, coloured only on a terminal whose user has not set NO_COLOR.

A message that cannot be written (stderr is closed, or full) is dropped: there is nobody left to tell, and the exit
status still says what happened.
"""

import os
import sys

RED, YELLOW, PLAIN = "\033[31m", "\033[33m", "\033[0m"


def colours_wanted(stream):
    """Whether text for `stream` may be coloured."""
    return (
        stream is not None
        and stream.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") != "dumb"
    )


def _print(who, colour, kind, text):
    if sys.stderr is None:
        return
    try:
        if kind and colours_wanted(sys.stderr):
            kind = f"{colour}{kind}{PLAIN}"
        words = (who, kind, " ".join(text.split("\n")))
        print(": ".join(filter(None, words)), file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr)


def error(who, text):
    _print(who, RED, "error", text)


def warning(who, text):
    _print(who, YELLOW, "warning", text)


def note(who, text):
    """Not a mistake: what was done, for a person who reads stderr."""
    _print(who, PLAIN, "", text)


def silence(stream):
    """Let what is still in the buffer of `stream` go nowhere, so that nothing fails again when Python ends."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass
