"""`tide top`: the processes on tidemalloc, live, in a terminal of any size; on a pipe, one plain table.

The screen is urwid's. Whatever can end or stop the program (q, an exception, Ctrl-C, SIGTERM, SIGHUP, Ctrl-Z, ...)
comes to one place between two steps of the event loop, so that the terminal is always given back whole:

    signal -> handler: its number into a queue, a byte into a pipe -> event loop -> leave the screen -> the signal again
"""

import collections
import contextlib
import os
import signal
import sys
import termios
import time

from . import messages, run, status
from .sampler import Sampler, Watch
from .top_view import (
    ACTIONS, DEFAULT_SORT, HELP, SORT_KEYS, SORTS,
    details, flush_message, heading_cells, ordered, row_line, table, title,
)  # fmt: skip
from .window import TIERS

WHO = "tide top"
INTERVAL_S = 2.0
ONCE_S = 0.2  # over which `--once` measures the processor time

STOPPING = (signal.SIGTSTP, signal.SIGCONT)
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
TIER_KEYS = {"t": ("tiny",), "m": ("mid",), "l": ("large",), "a": TIERS}
TIER_QUESTION = "flush which tier?  t tiny  m mid  l large  a all  (any other key: none)"
MOVES = {"up": -1, "down": 1}

# name, foreground, background, without colours
PALETTE = [
    ("title", "default,bold", "default", "bold"),
    ("heading", "black", "dark green", "standout"),
    ("sorted", "black", "dark cyan", "standout,underline"),
    ("selected", "black", "dark cyan", "standout"),
    ("message", "default,bold", "default", "bold"),
    ("footer", "default", "default", "default"),
]


def interval(text):
    value = float(text)
    if not 0.1 <= value <= 3600:
        raise ValueError
    return value


def register(subparsers):
    parser = subparsers.add_parser(
        "top",
        help="watch all processes on tidemalloc, and flush them",
        usage="tide top [-i S] [--once]",
        description="Show the processes of this user that run on tidemalloc, live; for root, of all users. The keys "
        "are listed on the screen, '?' explains the columns. Where standard input or output is no terminal that can "
        "place its cursor, one plain table is printed, as with --once.",
        epilog="examples:\n"
        "  tide top -i 0.5\n"
        "  tide top --once | sort -k 3n\n\n"
        "Exit status: 0 after q; Ctrl-C and other signals end it as usual, once the terminal is restored. The screen "
        "needs urwid (python3-urwid).",
    )
    parser.add_argument(
        "-i", "--interval", metavar="S", type=interval, default=INTERVAL_S, help="between looks (default: 2)"
    )
    parser.add_argument("--once", action="store_true", help="print one table and end")
    parser.set_defaults(main=main, parser=parser)


def main(args):
    environment = run.initial_environment()
    if args.once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return print_once()
    can_place_cursor, colours = terminal(environment)
    if not can_place_cursor:
        return print_once()
    try:
        import urwid
    except ImportError:
        messages.error(WHO, "the screen needs urwid: apt install python3-urwid (or use: tide top --once)")
        return status.FAILED
    return Top(urwid, args.interval, colours >= 8 and not environment.get(b"NO_COLOR"), is_utf8(environment)).run()


def print_once():
    watch = Watch()
    try:
        watch.look()
        time.sleep(ONCE_S)
        rows = watch.look()
    finally:
        watch.close()
    print("\n".join(table(ordered(rows, DEFAULT_SORT, False))))
    if not rows:
        print(f"{WHO}: no process of yours runs on tidemalloc; 'tide run' starts one", file=sys.stderr)
    return status.OK


# --- what the terminal can do --------------------------------------------------------------------------------------


def terminal(environment):
    """(whether it can place its cursor, how many colours it has), as terminfo says; a kind that terminfo does not know
    is taken for one that can."""
    name = environment.get(b"TERM", b"").decode("ascii", "replace")
    if name in ("", "dumb", "unknown"):
        return False, 0
    try:
        import curses
    except ImportError:
        return True, 0
    try:
        curses.setupterm(name, sys.__stdout__.fileno())
    except curses.error:
        return True, 0
    return curses.tigetstr("cup") is not None, curses.tigetnum("colors")


def is_utf8(environment):
    """Whether the user's own locale is; Python may have put another into its environment."""
    locale = next((environment[name] for name in (b"LC_ALL", b"LC_CTYPE", b"LANG") if environment.get(name)), b"")
    return locale.lower().replace(b"-", b"").partition(b"@")[0].endswith(b"utf8")


# --- the screen ----------------------------------------------------------------------------------------------------


class Top:
    def __init__(self, urwid, interval_s, coloured, utf8):
        self.urwid = urwid
        self.interval_s = interval_s
        self.plain = not utf8
        urwid.set_encoding("ascii" if self.plain else "utf-8")
        self.rows, self.selected = [], None  # the selected process by its PID
        self.sort, self.other_way = DEFAULT_SORT, False
        self.message, self.mode = "", "list"  # or "tier": asked for one; "help"
        self.with_details, self.scrolled = False, 0
        self.ending = None  # the signal that ends us
        self.news = collections.deque()
        self.signals = collections.deque()
        self.problem = None

        self.screen = urwid.raw_display.Screen()
        self.screen.set_terminal_properties(colors=16 if coloured else 1)
        self.picture = picture_class(urwid)(self)
        self.loop = urwid.MainLoop(
            self.picture, PALETTE, self.screen, handle_mouse=False, unhandled_input=None, pop_ups=False
        )
        self.wake_fd = self.loop.watch_pipe(self.on_wake)
        os.set_blocking(self.wake_fd, False)
        self.sampler = Sampler(interval_s, self.deliver)

    # --- from other threads and from signals ---

    def deliver(self, kind, content):
        self.news.append((kind, content))
        self.wake()

    def on_signal(self, number, _):
        self.signals.append(number)
        self.wake()

    def wake(self):
        with contextlib.suppress(OSError):  # full: then the loop wakes anyway; or closed: then it has ended
            os.write(self.wake_fd, b"x")

    # --- running ---

    def run(self):
        settings = termios.tcgetattr(sys.stdin.fileno())
        # urwid would restart the screen in the handler of SIGCONT, that is, in the middle of anything.
        self.screen.signal_handler_setter = lambda number, handler: (
            signal.signal(number, handler) if number != signal.SIGCONT else None
        )
        handlers = {number: signal.signal(number, self.on_signal) for number in (*ENDING, *STOPPING)}
        try:
            self.loop.start()
            self.sampler.start()
            self.loop.event_loop.run()  # until somebody raises ExitMainLoop
        except (OSError, TypeError):
            # What urwid says of a terminal that is gone; the signal that tells it may come after.
            if not self.hung_up(settings):
                raise
        finally:
            self.leave(settings)
            self.sampler.stop()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self.problem is not None:
            raise self.problem
        if self.ending == signal.SIGINT:
            raise KeyboardInterrupt
        if self.ending is not None:
            signal.signal(self.ending, signal.SIG_DFL)
            signal.raise_signal(self.ending)
        return status.OK

    def hung_up(self, settings):
        try:
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, settings)
        except (OSError, termios.error):
            self.ending = signal.SIGHUP
        return self.ending is not None

    def leave(self, settings):
        """Give the terminal back. It may be gone."""
        with contextlib.suppress(OSError, termios.error):
            self.screen.stop()
        with contextlib.suppress(OSError, termios.error):
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, settings)

    def on_wake(self, _):
        while self.signals:
            self.take_signal(self.signals.popleft())
        while self.news:
            kind, content = self.news.popleft()
            getattr(self, f"on_{kind}")(content)
        self.picture.changed()

    def take_signal(self, number):
        if number in ENDING:
            self.ending = number
            raise self.urwid.ExitMainLoop
        self.screen.stop()
        if number == signal.SIGTSTP:
            ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTSTP)  # to this thread, so that it stops before it goes on
            signal.signal(signal.SIGTSTP, ours)
            with contextlib.suppress(ValueError):
                self.signals.remove(signal.SIGCONT)  # what woke us
        # Now, or on SIGCONT after a SIGSTOP: somebody else has had the terminal.
        self.screen.start()

    # --- news ---

    def on_rows(self, rows):
        self.rows = rows
        self.arrange()

    def on_flushed(self, content):
        row, tiers, report, before, after = content
        self.message = flush_message(row.name, row.pid, tiers, report, before, after)

    def on_refused(self, text):
        self.message = text

    def on_broken(self, problem):
        self.problem = problem
        raise self.urwid.ExitMainLoop

    def arrange(self):
        self.rows = ordered(self.rows, self.sort, self.other_way)
        if not any(row.pid == self.selected for row in self.rows):
            self.selected = self.rows[0].pid if self.rows else None

    def selected_index(self):
        return next((i for i, row in enumerate(self.rows) if row.pid == self.selected), 0)

    # --- keys ---

    def on_key(self, key):
        if self.mode == "help":
            self.mode = "list"
        elif self.mode == "tier":
            self.mode, self.message = "list", ""
            if key in TIER_KEYS:
                self.flush(TIER_KEYS[key])
        elif key in ("q", "Q"):
            raise self.urwid.ExitMainLoop
        elif key == "?":
            self.mode = "help"
        elif key in SORTS:
            self.other_way = key == self.sort and not self.other_way
            self.sort = key
            self.arrange()
        elif key in ("enter", " "):
            self.with_details, self.scrolled = not self.with_details, 0
        elif key in ("page up", "page down"):
            self.scrolled = max(0, self.scrolled + (5 if key == "page down" else -5))
        elif key in ("up", "down", "home", "end"):
            self.move(key)
        elif key == "f":
            self.flush(TIERS)
        elif key == "F" and self.rows:
            self.mode, self.message = "tier", TIER_QUESTION
        elif key == "ctrl l":
            self.screen.clear()
        self.picture.changed()

    def move(self, key):
        if self.rows:
            last = len(self.rows) - 1
            index = self.selected_index() + MOVES.get(key, {"home": -last, "end": last}.get(key, 0))
            self.selected, self.scrolled = self.rows[min(last, max(0, index))].pid, 0

    def flush(self, tiers):
        if self.rows:
            row = self.rows[self.selected_index()]
            self.message = f"flushing {row.name} ({row.pid}) ..."
            self.sampler.flush(row, tiers)

    # --- the picture: lines of (attribute, text) pieces, as wide and as many as the screen ---

    def lines(self, width, height):
        if self.mode == "help":
            body = [[("footer", line)] for line in HELP.splitlines()]
            return [[("title", "tide top: help")], [], *body]
        body_height = max(0, height - 5)
        pane = self.pane(body_height)
        heading = [("sorted" if column.key == self.sort else "heading", cell) for column, cell in heading_cells(width)]
        used = sum(len(cell) for _, cell in heading)
        heading.append(("heading", " " * (width - used)))
        above = [[("title", title(self.rows, self.sort, self.other_way, self.interval_s))], heading]
        rows = self.row_lines(width, body_height - len(pane))
        below = [[("message", self.message)], [("footer", ACTIONS)], [("footer", SORT_KEYS)]]
        return [*above, *rows, *pane, *below]

    def row_lines(self, width, count):
        """So many lines of the list that the selected one is among them."""
        if not self.rows:
            lines = [[("footer", "no process of yours runs on tidemalloc; 'tide run' starts one")]]
        else:
            index = self.selected_index()
            first = max(0, min(index - count // 2, len(self.rows) - count))
            lines = [
                [("selected" if row.pid == self.selected else None, row_line(row, width, self.plain))]
                for row in self.rows[first : first + count]
            ]
        return [*lines[:count], *([] for _ in range(count - len(lines)))]

    def pane(self, body_height):
        if not self.with_details or not self.rows:
            return []
        lines = [[("footer", line)] for line in details(self.rows[self.selected_index()])]
        count = min(len(lines), body_height - min(len(self.rows), max(1, body_height // 3)))
        self.scrolled = max(0, min(self.scrolled, len(lines) - count))
        return lines[self.scrolled : self.scrolled + count]


def picture_class(urwid):
    """The class of the one widget, which fills the screen with the lines of a Top; made when urwid is there."""

    class Picture(urwid.Widget):
        _sizing = frozenset(["box"])
        _selectable = True

        def __init__(self, top):
            super().__init__()
            self.top = top

        def changed(self):
            self._invalidate()

        def keypress(self, _size, key):
            self.top.on_key(key)

        def render(self, size, focus=False):
            width, height = size
            lines = self.top.lines(width, height)[:height]
            lines += [[]] * (height - len(lines))
            canvases = [urwid.Text(pieces or "", wrap="clip").render((width,)) for pieces in lines]
            return urwid.CanvasCombine([(canvas, None, False) for canvas in canvases])

    return Picture
