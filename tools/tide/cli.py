"""The command line of tide: one subcommand per module.

Only the module of the command that was asked for is imported, so that `tide run` starts as fast as if it were alone.
The help and a mistake in the command's name need all of them.

What every command has in common is settled here, once:

    a reader that left (tide stat 1 | head -1)   the end of a pipe is no mistake: silence, status 0
    an output that cannot be written (a full disk)   one line, status 1
    Ctrl-C                                       the commands tidy up; then tide dies by SIGINT, so that a script's
                                                 loop ends with it (a shell shows 130)
"""

import argparse
import errno
import importlib
import os
import signal
import sys

from . import __version__, messages

# In the order of the help. Where the module is named otherwise, or serves two commands, its name stands behind.
COMMANDS = {
    "run": "run",
    "stat": "stat",
    "top": "top",
    "flush": "flush",
    "smaps": "smaps",
    "record": "record",
    "report": "report",
    "investigate": "investigate",
    "exporter": "exporter",
    "sample": "sample",
    "bench": "bench",
    "battle": "bench",
    "help": "cli",
}

EPILOG = """\
examples:
  tide run redis-server --port 7000          a server on tidemalloc
  tide stat $(pidof redis-server)            what its memory is doing
  tide investigate -- ./program arguments    would it give memory back, and at what price?

'tide help COMMAND' explains a command. Exit status: 0 success, 1 failure, 2 bad usage, 3 no such process,
4 not permitted, 5 not on tidemalloc, 6 no keeper that answers, 7 bad file.
"""


class Help(argparse.HelpFormatter):
    """Fills paragraphs, but prints those with an indented line as they are written: examples and tables."""

    def __init__(self, prog):
        super().__init__(prog, max_help_position=28)

    def _fill_text(self, text, width, indent):
        paragraphs = text.strip("\n").split("\n\n")
        filled = (p if "\n " in "\n" + p else super(Help, self)._fill_text(p, width, indent) for p in paragraphs)
        return "\n\n".join(filled)


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a mistake in one line."""

    usage_status = 2

    def __init__(self, **options):
        options.setdefault("formatter_class", Help)
        options.setdefault("allow_abbrev", False)
        super().__init__(**options)

    def error(self, message):
        messages.error(self.prog, f"{message} (try '{self.prog} --help')")
        sys.exit(self.usage_status)


def build_parser(commands=COMMANDS):
    """The parser of these commands; of all of them, unless the others are not needed."""
    parser = Parser(
        prog="tide",
        description="Run programs on tidemalloc, see what their memory does, and have it given back.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"tide {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command_name")
    for module in dict.fromkeys(COMMANDS[name] for name in commands):
        importlib.import_module(f".{module}", __package__).register(subparsers)
    parser.set_defaults(main=lambda args: print_help(parser), parser=parser)
    return parser


def register(subparsers):
    """`tide help [COMMAND]`, for those who do not think of --help."""
    parser = subparsers.add_parser(
        "help",
        help="explain a command",
        description="Explain COMMAND, as 'tide COMMAND --help' does; without one, list the commands.",
        epilog="example:\n  tide help investigate",
    )
    parser.add_argument("topic", metavar="COMMAND", nargs="?", choices=tuple(COMMANDS), help="the command to explain")
    parser.set_defaults(main=explain, parser=parser)


def explain(args):
    parser = build_parser()
    if args.topic:
        parser.parse_args([args.topic, "--help"])
    return print_help(parser)


def print_help(parser):
    parser.print_help()
    return 0


def open_closed_streams():
    """Where a standard stream is closed, the next file that is opened would take its place, and output go into it."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None and os.open(os.devnull, os.O_RDWR) == number:
            setattr(sys, name, open(number, mode, closefd=False))


def dispatch(arguments):
    if arguments[:1] != ["run"]:  # that hands them on as they are
        open_closed_streams()
    known = arguments[:1] and arguments[0] in COMMANDS
    parser = build_parser(arguments[:1] if known else COMMANDS)
    args, unknown = parser.parse_known_args(arguments)
    if unknown:  # reported by the subcommand's own parser, for its name and its exit status
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return args.main(args)


def main(arguments=None):
    """Run one command line; returns the exit status."""
    status = 0
    try:
        try:
            status = dispatch(sys.argv[1:] if arguments is None else arguments)
        except SystemExit as end:  # argparse ends this way, after --help too
            status = end.code
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        messages.silence(sys.stdout)
    except OSError as problem:
        if sys.stdout is not None:
            messages.silence(sys.stdout)
        full = problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        place = problem.filename or ("cannot write the output" if full else None)
        messages.error("tide", f"{place}: {problem.strerror}" if place else str(problem.strerror or problem))
        status = status or 1
    except KeyboardInterrupt:
        if sys.stdout is not None:
            messages.silence(sys.stdout)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return status
