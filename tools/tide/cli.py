"""The command line of tide: one subcommand per module."""

import argparse
import sys

from . import __version__, messages, run, sample


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a mistake in one line."""

    usage_status = 2

    def error(self, message):
        messages.error(self.prog, f"{message} (try '{self.prog} --help')")
        sys.exit(self.usage_status)


def main():
    parser = Parser(
        prog="tide",
        description="Run programs on tidemalloc and watch their memory.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tide {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (run, sample):
        command.register(subparsers)
    args, unknown = parser.parse_known_args()
    if unknown:  # reported by the subcommand's own parser, for its name and its exit status
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return args.main(args)
